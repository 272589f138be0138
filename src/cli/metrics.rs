//! `crestline metrics`: the page of the running process, or the reference of all metrics.

use std::{path::PathBuf, process::ExitCode};

use structopt::StructOpt;

use crate::{
    admin::{client, metrics},
    cli::{
        EXIT_USAGE, print,
        remote::{finish, socket_of},
        say,
    },
};

/// The options of `crestline metrics`.
#[derive(Clone, Copy, Debug, StructOpt)]
pub(super) struct Metrics {
    /// Prints the reference of all metrics instead
    #[structopt(long)]
    markdown: bool,
}

impl Metrics {
    /// Prints what was asked for; the reference is the same whatever the file says.
    pub(super) fn run(self, conf: Option<PathBuf>) -> ExitCode {
        if self.markdown && conf.is_some() {
            say("error: `crestline metrics --markdown` takes no other flag\n");
            return ExitCode::from(EXIT_USAGE);
        }
        if self.markdown {
            return print(&metrics::manual());
        }
        finish(socket_of(conf).and_then(|socket| Ok(print(&client::text(&socket, "/metrics")?))))
    }
}
