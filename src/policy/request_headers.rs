//! Header fields of the request that the origin is sent.

use pingora::Result;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::policy::{
    contract::Hooks,
    fields::{self, Edits},
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
    pub fn build(&self) -> Policy {
        Policy(self.0.build())
    }
}

impl Hooks for Policy {
    fn on_upstream_request(&self, header: &mut RequestHeader) -> Result<()> {
        self.0.edit_request(header)
    }
}
