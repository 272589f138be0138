//! Levels of the process log: one for all, and others for modules.

use std::{fmt, str::FromStr};

use log::LevelFilter;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{diagnostic::suggest_among, yaml};

/// The modules of Crestline, which a name is held against.
const MODULES: &[&str] = &[
    "acme",
    "admin",
    "cache",
    "cli",
    "client",
    "clock",
    "config",
    "control",
    "counter",
    "demo",
    "diagnostic",
    "downstream",
    "drain",
    "explain",
    "field",
    "folder",
    "handover",
    "http1",
    "http2",
    "listener",
    "metrics",
    "observe",
    "otlp",
    "overload",
    "panics",
    "policy",
    "proxy",
    "reason",
    "reply",
    "routing",
    "server",
    "snapshot",
    "stream",
    "systemd",
    "tls",
    "traces",
    "units",
    "upstream",
    "yaml",
];

/// Levels, written one after another: `info,crestline::proxy=debug`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "LogLevels", example = &"info,crestline::proxy=debug")]
#[schemars(extend("pattern" = PATTERN))]
pub struct Levels(Vec<(Option<String>, LevelFilter)>);

/// What they look like; for schemas.
const PATTERN: &str = "^ *([A-Za-z0-9_:]+=)?(off|error|warn|info|debug) *(, *([A-Za-z0-9_:]+=)?(off|error|warn|info|debug) *)*$";

impl Default for Levels {
    fn default() -> Self {
        Self(vec![(None, LevelFilter::Info)])
    }
}

/// Why they are none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLevels {
    /// There is no such level.
    #[error("`{0}` is no level\nhelp: write `error`, `warn`, `info`, `debug` or `off`")]
    Level(String),
    /// Something else than a module has a level.
    #[error(
        "`{0}` is no module\nhelp: write a module and its level, such as `crestline::proxy=debug`"
    )]
    Module(String),
    /// Crestline has no such module.
    #[error("Crestline has no module `{0}`\nhelp: {1}")]
    Unknown(String, String),
}

impl Levels {
    /// Each module with its level; no module stands for all.
    pub(super) fn directives(&self) -> impl Iterator<Item = (Option<&str>, LevelFilter)> {
        self.0.iter().map(|(module, level)| (module.as_deref(), *level))
    }
}

impl FromStr for Levels {
    type Err = NoLevels;

    fn from_str(text: &str) -> Result<Self, NoLevels> {
        let directive = |text: &str| match text.trim().split_once('=') {
            Some((module, level)) => Ok((Some(known(module)?), self::level(level)?)),
            None => Ok((None, level(text.trim())?)),
        };
        text.split(',').map(directive).collect::<Result<_, _>>().map(Self)
    }
}

/// `trace` is left out of the release build, and would tell nothing.
fn level(text: &str) -> Result<LevelFilter, NoLevels> {
    match text {
        "off" => Ok(LevelFilter::Off),
        "error" => Ok(LevelFilter::Error),
        "warn" => Ok(LevelFilter::Warn),
        "info" => Ok(LevelFilter::Info),
        "debug" => Ok(LevelFilter::Debug),
        other => Err(NoLevels::Level(other.to_owned())),
    }
}

fn known(name: &str) -> Result<String, NoLevels> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_:".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_plain) {
        return Err(NoLevels::Module(name.to_owned()));
    }
    let mut parts = name.split("::");
    if let (Some("crestline"), Some(module)) = (parts.next(), parts.next())
        && !MODULES.contains(&module)
    {
        let help = suggest_among("Known here", module, MODULES.iter().copied());
        return Err(NoLevels::Unknown(module.to_owned(), help));
    }
    Ok(name.to_owned())
}

impl<'de> Deserialize<'de> for Levels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "levels such as `info,crestline::proxy=debug`")
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (module, level)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let level = level.as_str().to_ascii_lowercase();
            match module {
                Some(module) => write!(f, "{comma}{module}={level}")?,
                None => write!(f, "{comma}{level}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_printed_as_they_are_written() {
        for text in ["info", "off", "warn,crestline::proxy=debug", "pingora_core=error"] {
            assert_eq!(text.parse::<Levels>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_would_tell_nothing_is_refused() {
        for (text, why) in [
            ("verbose", "`verbose` is no level"),
            ("trace", "`trace` is no level"),
            ("", "`` is no level"),
            ("crestline::proxy=loud", "`loud` is no level"),
            ("crestline::prxy=debug", "Crestline has no module `prxy`"),
            ("a b=debug", "`a b` is no module"),
            ("=debug", "`` is no module"),
        ] {
            let told = text.parse::<Levels>().unwrap_err().to_string();
            assert!(told.starts_with(why), "{told}");
        }
    }

    #[test]
    fn all_modules_are_known() {
        let library = include_str!("../../lib.rs").lines();
        let declared = library.filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
        assert_eq!(declared.collect::<Vec<_>>(), MODULES);
    }
}
