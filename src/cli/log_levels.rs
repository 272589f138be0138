//! `crestline log-levels`: what the process log of the running process tells.

use std::{path::PathBuf, process::ExitCode};

use http::Method;
use serde_json::json;
use structopt::StructOpt;

use crate::{
    admin::{client, order::InForce},
    cli::remote::{finish, socket_of, tell},
    observe::process_log::Levels,
};

/// The options of `crestline log-levels`.
#[derive(Clone, Debug, StructOpt)]
pub(super) struct LogLevels {
    /// Levels to follow until the next reload, such as `info,crestline::proxy=debug`; without
    /// them, those in force are shown
    #[structopt(value_name = "LEVELS", conflicts_with = "reset")]
    levels: Option<Levels>,
    /// Goes back to those of the file and of the environment
    #[structopt(long)]
    reset: bool,
    /// Prints JSON to standard output
    #[structopt(long)]
    json: bool,
}

impl LogLevels {
    /// Shows or changes them.
    pub(super) fn run(self, conf: Option<PathBuf>) -> ExitCode {
        let order = self.levels.map(|levels| json!({ "levels": levels.to_string() }));
        let order = order.or(self.reset.then(|| json!({})));
        let method = if order.is_some() { Method::POST } else { Method::GET };
        finish(socket_of(conf).and_then(|socket| {
            let now: InForce = client::ask(&socket, &method, "/v1/log-levels", order.as_ref())?;
            tell(&now, self.json, &format!("{}\n", now.levels));
            Ok(ExitCode::SUCCESS)
        }))
    }
}
