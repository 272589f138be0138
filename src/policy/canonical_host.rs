//! One host for a site: requests for any other are sent there.

use http::header::LOCATION;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    policy::{
        contract::{Build, Flow, Hooks, Page, Request, Written},
        location,
    },
    reason::Reason,
    reply::Reply,
    routing::host::HostPattern,
};

/// The host of the site: requests for others are sent there with `308`, to the same path.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Config(pub HostPattern);

/// What runs.
#[derive(Debug)]
pub struct Policy {
    host: String,
}

impl Config {
    /// Makes it ready.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        match &self.0 {
            HostPattern::Exact(host) => Some(Policy { host: host.clone() }),
            HostPattern::Below(_) => {
                cx.problem("nobody can be sent to a wildcard", "write one host: `www.example.com`");
                None
            }
        }
    }
}

impl Written for Config {}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let facts = &request.facts;
        if facts.host().eq_ignore_ascii_case(&self.host) {
            return Flow::Continue;
        }
        let to = format!("{}://{}{}", facts.scheme(), self.host, location::target(facts));
        let Some(location) = location::value(&to, facts) else {
            request.notes.reason = Some(Reason::BadRedirect);
            return Flow::Respond(Reply::status(400));
        };
        request.notes.reason = Some(Reason::Redirected);
        let page = Page { content_type: None, body: bytes::Bytes::new() };
        Flow::Respond(Reply::status(308).with(LOCATION, location).showing(page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{Given, build, problems};

    #[test]
    fn other_hosts_are_sent_to_the_one() {
        let policy = build("www.shop.test", |config: &Config, cx| config.build(cx));
        let asked = |host| Given::request("GET", "/a?b=1").field("host", host);
        assert_eq!(asked("WWW.shop.test:8080").refused(&policy), None);
        let Flow::Respond(reply) = asked("shop.test").ask(&policy).0 else { panic!("sent on") };
        assert_eq!(reply.status, 308);
        assert_eq!(reply.fields[0].1, "http://www.shop.test/a?b=1");
    }

    #[test]
    fn a_wildcard_is_refused() {
        let told = problems("'*.shop.test'", |config: &Config, cx| config.build(cx));
        assert_eq!(told, ["nobody can be sent to a wildcard"]);
    }
}
