//! `503` for everybody but those who are let in, while something is mended.

use std::path::Path;

use http::header::RETRY_AFTER;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    downstream::{config::Network, connection::contains},
    policy::{
        contract::{Build, Flow, Hooks, Request, Written},
        page::{self, Body},
        variable::When,
    },
    reason::Reason,
    reply::Reply,
    units::{self, Duration},
};

/// `503` for everybody but those who are let in.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Maintenance")]
pub struct Config {
    /// When clients are told to come back (`Retry-After`). Default: `5m`.
    #[serde(deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub retry_after: Duration,
    /// Networks of those who are let in. Default: `[]`.
    pub allow: Vec<Network>,
    /// What the others are shown. Default: the page for `503`.
    pub page: Option<page::Config>,
}

impl Default for Config {
    fn default() -> Self {
        Self { retry_after: Duration::from_secs(300), allow: Vec::new(), page: None }
    }
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    retry_after: u64,
    allow: Box<[IpNet]>,
    body: Option<Body>,
}

impl Config {
    /// Makes the answer ready.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        let body = match &self.page {
            Some(page) if page.body.is_none() && page.file.is_none() => {
                cx.problem("`page` has neither `body` nor `file`", "add one, or remove `page`");
                return None;
            }
            Some(page) => Some(page.build(When::Asked, cx)?),
            None => None,
        };
        let allow = self.allow.iter().map(|network| network.0).collect();
        // Never 0, which would ask them to come back at once.
        let retry_after = self.retry_after.0.as_secs().max(1);
        Some(Policy { retry_after, allow, body })
    }
}

impl Written for Config {
    fn files(&self) -> Vec<&Path> {
        self.page.iter().flat_map(page::Config::files).collect()
    }
}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let facts = &request.facts;
        if facts.client.is_some_and(|client| contains(&self.allow, client)) {
            return Flow::Continue;
        }
        let mut reply = Reply::status(503);
        reply.fields = vec![(RETRY_AFTER, self.retry_after.into())];
        reply.page = self.body.as_ref().map(|body| body.page(facts, 503));
        request.notes.reason = Some(Reason::Maintenance);
        Flow::Respond(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{Given, build};

    #[test]
    fn everybody_is_told_to_come_back_but_those_who_are_let_in() {
        let config = "{ retry_after: 90s, allow: [10.0.0.0/8], page: { body: later } }";
        let policy = build(config, |config: &Config, cx| config.build(cx));
        assert_eq!(Given::request("GET", "/").from("10.1.2.3").refused(&policy), None);
        let Flow::Respond(reply) = Given::request("GET", "/").ask(&policy).0 else {
            panic!("it is closed")
        };
        assert_eq!(reply.status, 503);
        assert_eq!(reply.fields, [(RETRY_AFTER, 90.into())]);
        assert_eq!(reply.page.unwrap().body, "later");
    }
}
