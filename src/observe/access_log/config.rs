//! The access log as the operator writes it.

use std::{path::PathBuf, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::{
    diagnostic::{Problem, Problems},
    observe::access_log::{self, Target, line::Format},
    yaml::{self, Spanned, Word},
};

/// Where the access log goes, and in which form.
///
/// What the operator writes under `access_log:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AccessLog")]
pub struct Config {
    /// `stdout`, or the path of a file. Default: `stdout`.
    pub path: Spanned<String>,
    /// The form of a line. Default: `json`.
    pub format: Format,
    #[serde(skip)]
    is_off: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { path: Spanned::new("stdout".to_owned()), format: Format::default(), is_off: false }
    }
}

impl FromStr for Config {
    type Err = NotOff;

    fn from_str(text: &str) -> Result<Self, NotOff> {
        match text {
            "off" => Ok(Self { is_off: true, ..Self::default() }),
            _ => Err(NotOff(text.to_owned())),
        }
    }
}

impl Word for Config {
    fn word(_: &mut SchemaGenerator) -> Schema {
        yaml::words(&[("off", "Writes no access log.")])
    }
}

/// The only word that the access log knows.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no access log\nhelp: write `off`, or a mapping such as `{{ path: stdout, format: json }}`"
)]
pub struct NotOff(String);

impl Config {
    /// Where the lines go, and in which form; `None` if there is no log. Whether a file
    /// can be opened is tried.
    pub fn build(&self, problems: &mut Problems) -> Option<(Format, Target)> {
        if self.is_off {
            return None;
        }
        let target = match self.path.as_str() {
            "stdout" => Target::Stdout,
            path => Target::File(PathBuf::from(path)),
        };
        if let Err(why) = access_log::probe(&target) {
            let message = format!("access log `{}` cannot be opened: {why}", self.path.value);
            problems.push(Problem::error(message).at(self.path.span));
        }
        Some((self.format, target))
    }
}
