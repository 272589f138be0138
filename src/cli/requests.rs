//! `crestline requests`: what the running process recorded of requests that failed, were refused,
//! or were slow.

use std::{path::PathBuf, process::ExitCode};

use http::Method;
use structopt::StructOpt;

use crate::{
    admin::{client, requests::Requests as Answer},
    cli::remote::{Failure, finish, socket_of, tell},
    observe::recorder::Record,
    units::Duration,
};

/// The options of `crestline requests`.
#[derive(Clone, Debug, StructOpt)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Requests {
    /// Tells the story of the request with this id, as an error page shows it
    #[structopt(value_name = "ID", conflicts_with_all = &["failed", "refused", "slow", "since"])]
    id: Option<String>,
    /// Shows only those that failed
    #[structopt(long, conflicts_with_all = &["refused", "slow"])]
    failed: bool,
    /// Shows only those that were refused by a rule
    #[structopt(long, conflicts_with = "slow")]
    refused: bool,
    /// Shows only the slowest of the last minutes
    #[structopt(long)]
    slow: bool,
    /// Shows only what ended within this time, such as 5m
    #[structopt(long, value_name = "TIME")]
    since: Option<Duration>,
    /// Prints JSON to standard output
    #[structopt(long)]
    json: bool,
}

impl Requests {
    /// Shows them.
    pub(super) fn run(self, conf: Option<PathBuf>) -> ExitCode {
        finish(match &self.id {
            Some(id) => self.one(conf, id),
            None => self.list(conf),
        })
    }

    fn one(&self, conf: Option<PathBuf>, id: &str) -> Result<ExitCode, Failure> {
        let path = format!("/v1/requests/{id}");
        let record: Record = client::ask(&socket_of(conf)?, &Method::GET, &path, None)?;
        tell(&record, self.json, &record.story().to_string());
        Ok(ExitCode::SUCCESS)
    }

    fn list(&self, conf: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let kinds = [(self.failed, "failed"), (self.refused, "refused"), (self.slow, "slow")];
        let kind = kinds.iter().find(|(wanted, _)| *wanted).map(|(_, kind)| format!("kind={kind}"));
        let since = self.since.map(|since| format!("since={since}"));
        let query: Vec<String> = kind.into_iter().chain(since).collect();
        let path = format!("/v1/requests?{}", query.join("&"));
        let answer: Answer = client::ask(&socket_of(conf)?, &Method::GET, &path, None)?;
        tell(&answer, self.json, &answer.to_string());
        Ok(ExitCode::SUCCESS)
    }
}
