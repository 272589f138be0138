//! Header fields of the request that the origin is sent.

use pingora::Result;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::policy::{
    contract::{Build, Facts, Hooks, Written},
    fields::{self, Edits},
    template::FieldTemplate,
    variable::{Variable, When},
};

/// Edits of the header fields that the origin is sent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Config(pub fields::Config);

/// What runs.
#[derive(Debug)]
pub struct Policy(Edits);

impl Config {
    /// Makes the fields ready.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        if self.0.values().flat_map(FieldTemplate::variables).any(Variable::needs_answer) {
            cx.problem(
                "there is no `{status}` before the origin is asked",
                "remove it: it is for `response_headers`",
            );
            return None;
        }
        cx.check(self.0.values().flat_map(FieldTemplate::variables), When::Answered, cx.span);
        Some(Policy(self.0.build()))
    }
}

impl Written for Config {}

impl Hooks for Policy {
    fn on_upstream_request(&self, header: &mut RequestHeader, facts: &Facts<'_>) -> Result<()> {
        self.0.edit(header, facts, None)
    }
}
