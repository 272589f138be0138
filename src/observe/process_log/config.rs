//! The process log as the operator writes it.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::observe::process_log::{Levels, form::Form};

/// What the process tells of itself on standard error.
///
/// What the operator writes under `process_log:`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ProcessLog")]
pub struct Config {
    /// The form of a line. Run by systemd, lines have a priority for the journal, and no time of
    /// their own in `text`. Default: `text`.
    pub format: Form,
    /// What is told of which module: levels, one for all and some for modules, such as
    /// `info,crestline::proxy=debug`. The environment variable `CRESTLINE_LOG`, written in the
    /// same way, goes before it, and `crestline log-levels` before both. Default: `info`.
    pub levels: Levels,
}
