//! `crestline purge URL`: removes answers that the running process keeps.

use std::{path::PathBuf, process::ExitCode};

use http::Method;
use serde_json::json;
use structopt::StructOpt;

use crate::{
    admin::client,
    cache::{self, Purged},
    cli::remote::{finish, socket_of, tell},
};

/// The options of `crestline purge`.
#[derive(Debug, StructOpt)]
pub(super) struct Purge {
    /// The answers to this URL, in all variants; it has a scheme and a host
    #[structopt(value_name = "URL")]
    url: Option<String>,
    /// Those to URLs that begin so
    #[structopt(long, value_name = "URL")]
    prefix: Option<String>,
    /// Those with this tag (Cache-Tag, Surrogate-Key)
    #[structopt(long, value_name = "TAG")]
    tag: Option<String>,
    /// Those of this route
    #[structopt(long, value_name = "ROUTE")]
    route: Option<String>,
    /// All of them
    #[structopt(long)]
    all: bool,
    /// Prints JSON to standard output
    #[structopt(long)]
    json: bool,
}

impl Purge {
    /// Removes what meets all that is named.
    pub(super) fn run(self, conf: Option<PathBuf>) -> ExitCode {
        let Self { url, prefix, tag, route, all, json } = self;
        let order = json!(cache::Purge { url, prefix, tag, route, all });
        finish(socket_of(conf).and_then(|socket| {
            let answer = client::ask(&socket, &Method::POST, "/v1/cache/purge", Some(&order));
            let purged: Purged = answer?;
            let s = if purged.purged == 1 { "" } else { "s" };
            tell(&purged, json, &format!("{} answer{s} removed\n", purged.purged));
            Ok(ExitCode::SUCCESS)
        }))
    }
}
