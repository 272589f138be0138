//! An answer of the operator's own, without asking an origin.

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    field::Name,
    policy::{
        contract::{Build, Flow, Hooks, Page, Request, Written},
        page::{self, Body},
        template::{FieldTemplate, FieldValue},
        variable::When,
    },
    reason::Reason,
    reply::Reply,
    units,
};

/// An answer without asking an origin.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Respond")]
pub struct Config {
    /// The status. Default: `200`.
    #[serde(deserialize_with = "status")]
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// Header fields; values may have variables, such as `{client}`. Default: `{}`.
    pub headers: BTreeMap<Name, FieldTemplate>,
    /// The body. Default: none.
    pub content: Option<page::Config>,
}

impl Default for Config {
    fn default() -> Self {
        Self { status: 200, headers: BTreeMap::new(), content: None }
    }
}

fn status<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    units::in_range(deserializer, 200..=599)
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    status: u16,
    fields: Box<[(http::HeaderName, FieldValue)]>,
    body: Option<Body>,
}

impl Config {
    /// Makes the answer ready.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        let body = match &self.content {
            Some(content) if content.body.is_none() && content.file.is_none() => {
                cx.problem(
                    "`content` has neither `body` nor `file`",
                    "add one, or remove `content`",
                );
                return None;
            }
            Some(_) if matches!(self.status, 204 | 304) => {
                let message = format!("an answer with the status {} has no body", self.status);
                cx.problem(message, "remove `content`");
                return None;
            }
            Some(content) => Some(content.build(When::Asked, cx)?),
            None => None,
        };
        let variables = self.headers.values().flat_map(FieldTemplate::variables);
        cx.check(variables, When::Asked, cx.span);
        let fields = self.headers.iter();
        let fields = fields.map(|(name, value)| (name.to_header(), value.build())).collect();
        Some(Policy { status: self.status, fields, body })
    }
}

impl Written for Config {
    fn files(&self) -> Vec<&Path> {
        self.content.iter().flat_map(page::Config::files).collect()
    }
}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let facts = &request.facts;
        let empty = || Page { content_type: None, body: Bytes::new() };
        let page = self.body.as_ref().map_or_else(empty, |body| body.page(facts, self.status));
        let mut reply = Reply::status(self.status).showing(page);
        let fields = self.fields.iter();
        let fields = fields.map(|(name, value)| (name.clone(), value.of(facts, Some(self.status))));
        reply.fields.extend(fields);
        request.notes.reason = Some(Reason::AnsweredHere);
        Flow::Respond(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{Given, build, problems};

    #[test]
    fn it_answers_what_is_written() {
        let config =
            "{ status: 418, headers: { x-who: '{client}' }, content: { body: 'for {path}' } }";
        let policy = build(config, |config: &Config, cx| config.build(cx));
        let Flow::Respond(reply) = Given::request("GET", "/tea").ask(&policy).0 else {
            panic!("it answers")
        };
        assert_eq!(reply.status, 418);
        assert_eq!(reply.fields[0].1, "192.0.2.7");
        assert_eq!(reply.page.unwrap().body, "for /tea");
    }

    #[test]
    fn a_body_that_cannot_be_is_told() {
        let told = |config| problems(config, |config: &Config, cx| config.build(cx));
        let none = "{ content: { content_type: text/html } }";
        assert_eq!(told(none), ["`content` has neither `body` nor `file`"]);
        let none = "{ status: 204, content: { body: x } }";
        assert_eq!(told(none), ["an answer with the status 204 has no body"]);
    }
}
