//! Requests that change something must come from the site's own pages.
//!
//! A browser tells where a request comes from (`Origin`, and `Sec-Fetch-Site` since 2023). Who
//! says neither is no browser, and carries nobody's cookies.

use http::{HeaderName, HeaderValue, Method, header::ORIGIN};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    policy::{
        contract::{Build, Facts, Flow, Hooks, Request, Written},
        origin::{Origin, Origins},
    },
    reason::Reason,
    reply::Reply,
    yaml::Spanned,
};

/// Refuses requests that change something (all but `GET`, `HEAD` and `OPTIONS`) if a browser sends
/// them for a page of another site; they get `403`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Csrf")]
pub struct Config {
    /// Other origins whose pages may, such as `https://app.example.com`. Default: `[]`.
    #[serde(default)]
    pub origins: Spanned<Vec<Origin>>,
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    origins: Origins,
}

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

impl Config {
    /// Makes the list ready.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        let origins = Origins::of(&self.origins.value);
        if origins.is_anybody() {
            let help = "name the origins that may";
            cx.problem_at(self.origins.span, "this `csrf` lets everybody's pages", help);
            return None;
        }
        Some(Policy { origins })
    }
}

impl Policy {
    fn is_own(&self, facts: &Facts<'_>) -> bool {
        let headers = facts.headers();
        match (headers.get(ORIGIN), headers.get(&SEC_FETCH_SITE)) {
            (_, Some(site)) if site == "same-origin" || site == "none" => true,
            (Some(origin), _) => is_of(origin, facts) || self.origins.allow(origin),
            (None, Some(_)) => false,
            (None, None) => true,
        }
    }
}

/// Whether an origin is the one that is asked.
fn is_of(origin: &HeaderValue, facts: &Facts<'_>) -> bool {
    let host = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.strip_prefix(facts.scheme())?.strip_prefix("://"));
    host.is_some_and(|host| host.eq_ignore_ascii_case(facts.authority()))
}

impl Written for Config {}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let method = &request.facts.header.method;
        let changes_nothing = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
        if changes_nothing || self.is_own(&request.facts) {
            return Flow::Continue;
        }
        request.notes.reason = Some(Reason::CrossSite);
        Flow::Respond(Reply::status(403))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{Given, build};

    #[test]
    fn only_pages_of_the_site_change_something() {
        let config = "{ origins: [https://app.test] }";
        let policy = build(config, |config: &Config, cx| config.build(cx));
        let post = |fields: &[(&'static str, &str)]| {
            let given = Given::request("POST", "/").field("host", "shop.test");
            let given = fields.iter().fold(given, |given, (name, value)| given.field(name, value));
            given.refused(&policy)
        };
        assert_eq!(post(&[]), None, "no browser");
        assert_eq!(post(&[("origin", "http://shop.test")]), None);
        assert_eq!(post(&[("origin", "https://app.test"), ("sec-fetch-site", "cross-site")]), None);
        assert_eq!(post(&[("sec-fetch-site", "same-origin")]), None);
        assert_eq!(post(&[("sec-fetch-site", "none")]), None, "typed by its reader");
        for fields in [
            &[("origin", "http://evil.test")][..],
            &[("origin", "http://shop.test.evil.test")],
            &[("origin", "https://shop.test")],
            &[("origin", "null")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
        ] {
            assert_eq!(post(fields), Some(403), "{fields:?}");
        }
        let get = Given::request("GET", "/").field("origin", "http://evil.test");
        assert_eq!(get.refused(&policy), None);
    }
}
