//! Header fields of the response that the client is sent.

use pingora::Result;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::policy::{
    contract::{Build, Hooks, Response, Written},
    fields::{self, Edits},
    template::FieldTemplate,
    variable::When,
};

/// Edits of the header fields that the client is sent, in answers of the origin and in
/// Crestline's own.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Config(pub fields::Config);

/// What runs.
#[derive(Debug)]
pub struct Policy(Edits);

impl Config {
    /// Makes the fields ready.
    pub fn build(&self, cx: &mut Build<'_>) -> Policy {
        cx.check(self.0.values().flat_map(FieldTemplate::variables), When::Answered, cx.span);
        Policy(self.0.build())
    }
}

impl Written for Config {}

impl Hooks for Policy {
    fn on_response(&self, response: &mut Response<'_>) -> Result<()> {
        let status = response.header.status.as_u16();
        self.0.edit(response.header, &response.facts, Some(status))
    }
}
