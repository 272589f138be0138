//! `crestline upgrade`: lets the running process be succeeded, and tells each step as it happens.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use serde_json::json;
use structopt::StructOpt;

use crate::{
    admin::client::{self, ClientError},
    cli::{
        remote::{EXIT_FAILURE, Failure, finish, socket_of},
        say,
    },
    handover::step::{Event, Step},
    units::Duration,
};

/// The options of `crestline upgrade`.
#[derive(Debug, StructOpt)]
pub(super) struct Upgrade {
    /// The new program [default: what lies where the running one was started]
    #[structopt(long, value_name = "PATH", parse(from_os_str))]
    binary: Option<PathBuf>,
    /// How long the new process may take until it serves [default: 60s]
    #[structopt(long, value_name = "TIME")]
    timeout: Option<Duration>,
    /// Prints JSON to standard output, a line for each step
    #[structopt(long)]
    json: bool,
}

impl Upgrade {
    /// Upgrades.
    pub(super) fn run(self, conf: Option<PathBuf>) -> ExitCode {
        finish(self.upgrade(conf))
    }

    fn upgrade(self, conf: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let socket = socket_of(conf)?;
        let mut order = json!({});
        if let Some(binary) = self.binary {
            // The running process has another working directory.
            order["binary"] = json!(std::path::absolute(&binary).unwrap_or(binary));
        }
        if let Some(timeout) = self.timeout {
            order["timeout"] = json!(timeout.to_string());
        }
        let mut last = None;
        let followed = client::follow(&socket, "/v1/upgrade", &order, |step: Step| {
            tell(&step, self.json);
            last = Some(step.event);
        });
        followed?;
        match last {
            Some(Event::Drains) => Ok(ExitCode::SUCCESS),
            Some(Event::Refused { .. }) => Ok(ExitCode::from(EXIT_FAILURE)),
            _ => {
                let why = "it ended before it told the outcome".to_owned();
                Err(ClientError::Broken(why).into())
            }
        }
    }
}

/// Tells a step the moment that it happens.
fn tell(step: &Step, json: bool) {
    if json {
        let mut stdout = io::stdout();
        let step = serde_json::to_string(step).unwrap_or_default();
        let _ = writeln!(stdout, "{step}").and_then(|()| stdout.flush());
        return;
    }
    match &step.event {
        Event::Refused { why } => say(&format!("error: {why}; the running process serves on\n")),
        _ => say(&format!("{step}\n")),
    }
}
