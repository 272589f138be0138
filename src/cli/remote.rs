//! Commands that talk to the running process, which they find through its file.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::json;
use structopt::StructOpt;

use crate::{
    admin::{
        client::{self, ClientError},
        socket,
        status::Status,
    },
    cli::{CONF, EXIT_CONFIG, EXIT_UNAVAILABLE, EXIT_USAGE, say, show},
    config,
    control::{probation::Standing, receipt::Receipt},
    diagnostic::Problems,
    explain::{Explanation, Question},
    units::{Duration, Percent},
};

/// What was asked for did not happen.
pub(super) const EXIT_FAILURE: u8 = 1;

/// The options of `crestline reload`.
#[derive(Clone, Copy, Debug, StructOpt)]
pub(super) struct Reload {
    /// Goes back to this version instead of reading the file
    #[structopt(long, value_name = "VERSION")]
    to: Option<u64>,
    /// Takes the change back if too many requests fail within this time, such as 30s
    #[structopt(long, value_name = "TIME")]
    probation: Option<Duration>,
    /// By how much the share of 5xx may rise on probation [default: 5%]
    #[structopt(long, value_name = "SHARE", requires = "probation")]
    tolerate: Option<Percent>,
    /// Prints JSON to standard output
    #[structopt(long)]
    json: bool,
}

/// The options of `crestline status`.
#[derive(Clone, Copy, Debug, StructOpt)]
pub(super) struct Show {
    /// Prints JSON to standard output
    #[structopt(long)]
    json: bool,
}

impl Reload {
    /// Reloads, and on probation waits for its outcome.
    pub(super) fn run(self, conf: Option<PathBuf>) -> ExitCode {
        finish(self.reload(conf))
    }

    fn reload(self, conf: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let socket = socket_of(conf)?;
        let mut order = json!({});
        let words = [
            ("to", self.to.map(|version| json!(version))),
            ("probation", self.probation.map(|time| json!(time.to_string()))),
            ("tolerate", self.tolerate.map(|share| json!(share.to_string()))),
        ];
        for (word, value) in words {
            if let Some(value) = value {
                order[word] = value;
            }
        }
        let receipt: Receipt = client::ask(&socket, &Method::POST, "/v1/reload", Some(&order))?;
        say(&receipt.warnings);
        tell(&receipt, self.json, &format!("{receipt}\n"));
        let Some(time) = self.probation.filter(|_| receipt.from != receipt.to) else {
            return Ok(ExitCode::SUCCESS);
        };
        say(&format!("v{} is on probation for {time}\n", receipt.to));
        let mut standing: Standing = client::ask(&socket, &Method::GET, "/v1/probation", None)?;
        if standing.version() != receipt.to {
            standing = Standing::Overtaken { version: receipt.to };
        }
        tell(&standing, self.json, &format!("{standing}\n"));
        Ok(match standing {
            Standing::Passed { .. } => ExitCode::SUCCESS,
            _ => ExitCode::from(EXIT_FAILURE),
        })
    }
}

impl Show {
    /// Shows what runs.
    pub(super) fn status(self, conf: Option<PathBuf>) -> ExitCode {
        finish(socket_of(conf).and_then(|socket| {
            let status: Status = client::ask(&socket, &Method::GET, "/v1/status", None)?;
            tell(&status, self.json, &status.to_string());
            Ok(ExitCode::SUCCESS)
        }))
    }
}

/// Asks the running process what becomes of a request.
pub(super) fn explain(conf: Option<PathBuf>, question: &Question, json: bool) -> ExitCode {
    finish(socket_of(conf).and_then(|socket| {
        let question = json!(question);
        let answer = client::ask(&socket, &Method::POST, "/v1/explain", Some(&question));
        let explanation: Explanation = answer?;
        tell(&explanation, json, &explanation.to_string());
        Ok(ExitCode::SUCCESS)
    }))
}

/// Why a command did nothing.
pub(super) enum Failure {
    /// The file that names the process cannot be read; told already.
    Told(ExitCode),
    /// The process did not do it.
    Client(ClientError),
}

impl From<ClientError> for Failure {
    fn from(why: ClientError) -> Self {
        Self::Client(why)
    }
}

pub(super) fn finish(result: Result<ExitCode, Failure>) -> ExitCode {
    let why = match result {
        Ok(code) | Err(Failure::Told(code)) => return code,
        Err(Failure::Client(why)) => why,
    };
    match why {
        ClientError::Refused(StatusCode::UNPROCESSABLE_ENTITY, problems) => {
            say(&format!("{problems}\nnothing was changed\n"));
            ExitCode::from(EXIT_CONFIG)
        }
        ClientError::Unreachable(..) => {
            say(&format!("error: {why}\n"));
            ExitCode::from(EXIT_UNAVAILABLE)
        }
        ClientError::Refused(StatusCode::BAD_REQUEST, _) => {
            say(&format!("error: {why}\n"));
            ExitCode::from(EXIT_USAGE)
        }
        ClientError::Broken(_) | ClientError::Refused(..) => {
            say(&format!("error: {why}\n"));
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

/// The admin socket of the process that runs with a file. All that is needed of the file is its
/// `pid_file`: whatever else is wrong with it is for the process to tell.
pub(super) fn socket_of(conf: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let path = conf.unwrap_or_else(|| CONF.into());
    let mut problems = Problems::default();
    let loaded = config::load(&path, &mut problems);
    let Some(pid_file) = config::pid_file(&loaded) else {
        show(&problems, &loaded.sources);
        return Err(Failure::Told(ExitCode::from(EXIT_CONFIG)));
    };
    Ok(socket::path(&pid_file))
}

/// Tells a person on standard error, or a program on standard output.
pub(super) fn tell(answer: &impl Serialize, json: bool, words: &str) {
    if json {
        let answer = serde_json::to_string(answer).unwrap_or_default();
        let _ = writeln!(io::stdout(), "{answer}");
    } else {
        say(words);
    }
}
