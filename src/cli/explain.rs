//! `crestline explain`: what becomes of a request, from the file or from the running process.

use std::{path::PathBuf, process::ExitCode};

use structopt::StructOpt;

use crate::{
    cli::{EXIT_USAGE, Good, remote, say, with_file},
    explain::{Oracle, Question, Standing},
};

/// The options of `crestline explain`.
#[derive(Debug, StructOpt)]
pub(super) struct Explain {
    /// Asks the running process, and shows which of its backends would be next
    #[structopt(long)]
    live: bool,
    /// Prints JSON to standard output
    #[structopt(long)]
    json: bool,
    /// A header field of the request
    #[structopt(short = "H", long = "header", value_name = "NAME: VALUE", number_of_values = 1)]
    headers: Vec<String>,
    /// The method of the request, such as GET
    method: String,
    /// Its URL, with scheme and host
    url: String,
}

impl Explain {
    /// Explains.
    pub(super) fn run(self, conf: Option<PathBuf>) -> ExitCode {
        let Self { live, json, headers, method, url } = self;
        let question = Question { method, url, headers };
        if live {
            return remote::explain(conf, &question, json);
        }
        let Good { snapshot, provenance } = match with_file(conf) {
            Ok(good) => good,
            Err(code) => return code,
        };
        let texts = &provenance.texts;
        let oracle = Oracle { snapshot: &snapshot, texts, standing: Standing::OnFile };
        match oracle.explain(&question) {
            Ok(explanation) => {
                remote::tell(&explanation, json, &explanation.to_string());
                ExitCode::SUCCESS
            }
            Err(why) => {
                say(&format!("error: {why}\n"));
                ExitCode::from(EXIT_USAGE)
            }
        }
    }
}
