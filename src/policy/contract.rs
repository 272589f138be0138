//! What a policy may do to a request, and what it is given to be built.
//!
//! A policy is two types in one file: its `Config`, as the operator wrote it, and its `Policy`,
//! which runs and cannot fail for reasons that were known when the file was read.

use pingora::Result;
use pingora_http::{RequestHeader, ResponseHeader};

use crate::reply::Reply;

/// Whether a request goes on.
#[derive(Debug)]
pub enum Flow {
    /// To the next policy, and then to the origin.
    Continue,
    /// No further: this is the answer.
    Respond(Reply),
}

/// What a policy does at each step. Every step has a default: nothing.
///
/// Requests pass the policies of a route in the order written, answers in the reverse order.
pub trait Hooks {
    /// Looks at a request before a backend is chosen.
    fn on_request(&self, _request: &RequestHeader) -> Flow {
        Flow::Continue
    }

    /// Changes what the origin is sent. Runs for each attempt, on a fresh copy.
    fn on_upstream_request(&self, _header: &mut RequestHeader) -> Result<()> {
        Ok(())
    }

    /// Changes what the client is sent.
    fn on_response(&self, _header: &mut ResponseHeader) -> Result<()> {
        Ok(())
    }

    /// The largest request body in bytes, if this policy sets one.
    fn body_bytes_max(&self) -> Option<u64> {
        None
    }
}
