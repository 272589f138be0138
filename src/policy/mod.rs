//! What may happen to a request on its route: one file per policy.
//!
//! The registry below is the only place that names them all. It makes one enum of what the
//! operator writes and one of what runs, so that a hook is a `match` and no other file knows
//! which policies there are.

mod body_limit;
pub mod contract;
mod fields;
mod request_headers;
mod response_headers;

use pingora::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::policy::contract::{Flow, Hooks};

macro_rules! policies {
    ($($(#[$doc:meta])* $Name:ident = $module:ident,)*) => {
        /// What may happen to a request: one key, the name of the policy.
        #[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[schemars(rename = "Policy")]
        pub enum PolicyConfig { $($(#[$doc])* $Name($module::Config),)* }

        /// A policy that runs.
        #[derive(Debug)]
        enum Policy { $($Name($module::Policy),)* }

        impl PolicyConfig {
            /// The name of the policy, as the operator writes it.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$Name(_) => stringify!($module),)* }
            }

            fn build(&self) -> Policy {
                match self { $(Self::$Name(config) => Policy::$Name(config.build()),)* }
            }
        }

        impl Hooks for Policy {
            fn on_request(&self, request: &RequestHeader) -> Flow {
                match self { $(Self::$Name(policy) => policy.on_request(request),)* }
            }

            fn on_upstream_request(&self, header: &mut RequestHeader) -> Result<()> {
                match self { $(Self::$Name(policy) => policy.on_upstream_request(header),)* }
            }

            fn on_response(&self, header: &mut ResponseHeader) -> Result<()> {
                match self { $(Self::$Name(policy) => policy.on_response(header),)* }
            }

            fn body_bytes_max(&self) -> Option<u64> {
                match self { $(Self::$Name(policy) => policy.body_bytes_max(),)* }
            }
        }
    };
}

policies! {
    /// Header fields that the origin is sent.
    RequestHeaders = request_headers,
    /// Header fields that the client is sent.
    ResponseHeaders = response_headers,
    /// The largest request body.
    BodyLimit = body_limit,
}

/// The policies of a route, in the order written.
#[derive(Debug, Default)]
pub struct Policies {
    list: Box<[Policy]>,
    body_bytes_max: Option<u64>,
}

impl Policies {
    /// Builds what was written.
    pub fn build<'a>(configs: impl IntoIterator<Item = &'a PolicyConfig>) -> Self {
        let list: Box<[Policy]> = configs.into_iter().map(PolicyConfig::build).collect();
        let body_bytes_max = list.iter().filter_map(Hooks::body_bytes_max).min();
        Self { list, body_bytes_max }
    }

    /// Asks every policy about a request, until one answers it.
    pub fn on_request(&self, request: &RequestHeader) -> Flow {
        for policy in &self.list {
            if let Flow::Respond(reply) = policy.on_request(request) {
                return Flow::Respond(reply);
            }
        }
        Flow::Continue
    }

    /// Lets every policy change what the origin is sent.
    pub fn on_upstream_request(&self, header: &mut RequestHeader) -> Result<()> {
        self.list.iter().try_for_each(|policy| policy.on_upstream_request(header))
    }

    /// Lets every policy change what the client is sent, the last one first.
    pub fn on_response(&self, header: &mut ResponseHeader) -> Result<()> {
        self.list.iter().rev().try_for_each(|policy| policy.on_response(header))
    }

    /// The largest request body that all policies allow, in bytes.
    pub fn body_bytes_max(&self) -> Option<u64> {
        self.body_bytes_max
    }
}
