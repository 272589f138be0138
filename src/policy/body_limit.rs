//! A bound on the body of a request: `413` beyond it.
//!
//! A body that tells its length is refused before a backend is chosen; one that does not is cut
//! off where it passes the bound.

use http::header::CONTENT_LENGTH;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    policy::contract::{Build, Flow, Hooks, Request, Written},
    reply::Reply,
    units::ByteSize,
};

/// The largest request body that is taken; `413` beyond.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Config(pub ByteSize);

/// What runs.
#[derive(Debug)]
pub struct Policy {
    bytes_max: u64,
}

impl Config {
    /// Makes the bound ready.
    pub fn build(&self, _: &mut Build<'_>) -> Policy {
        Policy { bytes_max: self.0.0 }
    }
}

impl Written for Config {}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let length = request.facts.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        match length {
            Some(length) if self.bytes_max < length => Flow::Respond(Reply::status(413)),
            _ => Flow::Continue,
        }
    }

    fn body_bytes_max(&self) -> Option<u64> {
        Some(self.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::Given;

    #[test]
    fn a_body_that_tells_its_length_is_refused_at_once() {
        let policy = Policy { bytes_max: 10 };
        let refused =
            |length| Given::request("POST", "/").field("content-length", length).refused(&policy);
        assert_eq!(Given::request("POST", "/").refused(&policy), None);
        assert_eq!(refused("10"), None);
        assert_eq!(refused("11"), Some(413));
    }
}
