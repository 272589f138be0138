//! Which pages of other sites may read what this one answers (Fetch standard, §3.2).
//!
//! Preflights of allowed origins are answered here; answers to other requests are told whom they
//! are for, and always vary by `Origin`, so that a cache gives nobody the answer for another.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
        ORIGIN, VARY,
    },
};
use pingora::Result;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    field::Lookup,
    policy::{
        contract::{Build, Flow, Hooks, Page, Request, Response, Written},
        origin::{Origin, Origins},
    },
    reason::Reason,
    reply::Reply,
    routing::method::{MethodName, Methods},
    units::Duration,
    yaml::Spanned,
};

/// Which pages of other sites may read answers of this route.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Cors")]
pub struct Config {
    /// Whose pages may: `https://app.example.com`, `https://*.example.com`, or `"*"` for anybody's.
    pub origins: Spanned<Vec<Origin>>,
    /// Methods that they may use. Default: `[GET, POST]`; `GET` takes `HEAD` as well.
    #[serde(default = "methods")]
    pub methods: Vec<MethodName>,
    /// Header fields that they may send, beside those that every page may. Default: `[]`.
    #[serde(default)]
    pub headers: Vec<Lookup>,
    /// Header fields that they may read, beside those that every page may. Default: `[]`.
    #[serde(default)]
    pub expose: Vec<Lookup>,
    /// Whether they may ask in the name of their reader, with cookies. Default: `false`.
    #[serde(default)]
    pub credentials: bool,
    /// How long a browser may remember the answer to a preflight. Default: `10m`.
    #[serde(default = "max_age")]
    pub max_age: Duration,
}

fn methods() -> Vec<MethodName> {
    vec![MethodName(Method::GET), MethodName(Method::POST)]
}

fn max_age() -> Duration {
    Duration::from_secs(600)
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    origins: Origins,
    methods: Methods,
    headers: Box<[HeaderName]>,
    allow_methods: HeaderValue,
    allow_headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    with_credentials: bool,
    max_age: u64,
}

impl Config {
    /// Makes the answers ready.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        if self.origins.is_empty() {
            let help = "name at least one: `[https://app.example.com]`";
            cx.problem_at(self.origins.span, "no origin is allowed", help);
            return None;
        }
        let origins = Origins::of(&self.origins.value);
        if origins.is_anybody() && self.credentials {
            let help = "name the origins that may, or leave `credentials` out";
            let message = "anybody's pages could read what their reader alone may see";
            cx.problem_at(self.origins.span, message, help);
            return None;
        }
        let methods: Methods = self.methods.iter().map(|name| name.0.clone()).collect();
        Some(Policy {
            origins,
            allow_methods: methods.to_allow(),
            methods,
            allow_headers: list(&self.headers),
            headers: self.headers.iter().map(|name| name.0.clone()).collect(),
            expose: list(&self.expose),
            with_credentials: self.credentials,
            max_age: self.max_age.0.as_secs(),
        })
    }
}

fn list(names: &[Lookup]) -> Option<HeaderValue> {
    let names: Vec<&str> = names.iter().map(|name| name.0.as_str()).collect();
    if names.is_empty() { None } else { HeaderValue::from_str(&names.join(", ")).ok() }
}

const TRUE: HeaderValue = HeaderValue::from_static("true");
const ANYBODY: HeaderValue = HeaderValue::from_static("*");

impl Policy {
    /// What an allowed origin is told, here and in answers; `None` if it is not allowed.
    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        match self.origins.allow(origin) {
            false => None,
            true if self.origins.is_anybody() => Some(ANYBODY),
            true => Some(origin.clone()),
        }
    }

    /// Whether a preflight asks for no more than is allowed.
    fn may_go_on(&self, headers: &HeaderMap, method: &HeaderValue) -> bool {
        let is_simple = [&b"GET"[..], b"HEAD", b"POST"].contains(&method.as_bytes());
        let mut methods = self.methods.iter();
        let may_method =
            is_simple || methods.any(|own| own.as_str().as_bytes() == method.as_bytes());
        let asked = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
        let mut asked = asked.flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
        let is_known = |name: &[u8]| {
            let name = name.trim_ascii();
            name.is_empty()
                || self.headers.iter().any(|own| name.eq_ignore_ascii_case(own.as_str().as_bytes()))
        };
        may_method && asked.all(is_known)
    }

    fn preflight(&self, headers: &HeaderMap, method: &HeaderValue) -> Reply {
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        let page = Page { content_type: None, body: bytes::Bytes::new() };
        let reply = Reply::status(204).showing(page).with(VARY, HeaderValue::from_static(vary));
        if !self.may_go_on(headers, method) {
            return reply; // the browser tells its page
        }
        let mut reply = reply
            .with(ACCESS_CONTROL_ALLOW_METHODS, self.allow_methods.clone())
            .with(ACCESS_CONTROL_MAX_AGE, self.max_age.into());
        let headers = self.allow_headers.clone();
        reply.fields.extend(headers.map(|names| (ACCESS_CONTROL_ALLOW_HEADERS, names)));
        reply
    }
}

impl Written for Config {}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let facts = &request.facts;
        let headers = facts.headers();
        let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD);
        let (true, Some(method), true) =
            (facts.header.method == Method::OPTIONS, asked, headers.contains_key(ORIGIN))
        else {
            return Flow::Continue;
        };
        request.notes.reason = Some(Reason::Preflight);
        Flow::Respond(self.preflight(headers, method))
    }

    fn on_response(&self, response: &mut Response<'_>) -> Result<()> {
        let header = &mut *response.header;
        // What the origin says of it would contradict this, and a browser refuses both together.
        for name in [
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_EXPOSE_HEADERS,
        ] {
            header.remove_header(&name);
        }
        if let Some(origin) = self.allowed(response.facts.headers()) {
            header.insert_header(ACCESS_CONTROL_ALLOW_ORIGIN, origin)?;
            if self.with_credentials {
                header.insert_header(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE)?;
            }
            if let Some(names) = &self.expose {
                header.insert_header(ACCESS_CONTROL_EXPOSE_HEADERS, names)?;
            }
        }
        let mut fields = header.headers.get_all(VARY).iter();
        let is_said = |name: &[u8]| {
            let name = name.trim_ascii();
            name == b"*" || name.eq_ignore_ascii_case(b"origin")
        };
        if self.origins.is_anybody()
            || fields.any(|field| field.as_bytes().split(|byte| *byte == b',').any(is_said))
        {
            return Ok(());
        }
        header.append_header(VARY, "Origin").map(drop)
    }
}

#[cfg(test)]
mod tests {
    use pingora_http::ResponseHeader;

    use super::*;
    use crate::policy::tests::{Given, build, problems};

    const CONFIG: &str = "{ origins: [https://app.test, 'https://*.b.test'], methods: [GET, PUT],
        headers: [x-token], expose: [x-total], credentials: true, max_age: 1h }";

    fn policy() -> Policy {
        build(CONFIG, |config: &Config, cx| config.build(cx))
    }

    fn preflight(origin: &str, method: &str, headers: &str) -> Reply {
        let given = Given::request("OPTIONS", "/")
            .field("origin", origin)
            .field("access-control-request-method", method)
            .field("access-control-request-headers", headers);
        let Flow::Respond(reply) = given.ask(&policy()).0 else { panic!("it is answered here") };
        reply
    }

    fn get(reply: &Reply, name: &HeaderName) -> Option<String> {
        let field = reply.fields.iter().find(|(own, _)| own == name);
        field.map(|(_, value)| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_preflight_is_told_what_is_allowed() {
        let reply = preflight("https://app.test", "PUT", "X-Token");
        assert_eq!(reply.status, 204);
        assert_eq!(get(&reply, &ACCESS_CONTROL_ALLOW_METHODS).as_deref(), Some("GET, HEAD, PUT"));
        assert_eq!(get(&reply, &ACCESS_CONTROL_ALLOW_HEADERS).as_deref(), Some("x-token"));
        assert_eq!(get(&reply, &ACCESS_CONTROL_MAX_AGE).as_deref(), Some("3600"));
        assert!(get(&reply, &VARY).unwrap().contains("Origin"));
        for refused in [
            preflight("https://app.test", "DELETE", ""),
            preflight("https://app.test", "PUT", "x-token, x-other"),
        ] {
            assert_eq!(get(&refused, &ACCESS_CONTROL_ALLOW_METHODS), None);
        }
    }

    #[test]
    fn answers_tell_whom_they_are_for_and_always_vary() {
        let told = |origin: Option<&str>| {
            let mut answer = ResponseHeader::build(200, None).unwrap();
            answer.insert_header(ACCESS_CONTROL_ALLOW_ORIGIN, "*").unwrap();
            answer.insert_header(VARY, "Accept").unwrap();
            let given = Given::request("GET", "/");
            let given = match origin {
                Some(origin) => given.field("origin", origin),
                None => given,
            };
            given.answered(&policy(), &mut answer);
            let vary: Vec<_> = answer.headers.get_all(VARY).iter().cloned().collect();
            assert_eq!(vary, ["Accept", "Origin"], "{origin:?}");
            let allowed = answer.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN);
            allowed.map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(told(Some("https://app.test")).as_deref(), Some("https://app.test"));
        assert_eq!(told(Some("https://x.b.test")).as_deref(), Some("https://x.b.test"));
        for stranger in
            ["https://evil.test", "http://app.test", "https://app.test.evil.test", "null"]
        {
            assert_eq!(told(Some(stranger)), None, "{stranger}");
        }
        assert_eq!(told(None), None);
    }

    #[test]
    fn options_without_an_origin_goes_on() {
        assert_eq!(Given::request("OPTIONS", "/").refused(&policy()), None);
    }

    #[test]
    fn what_would_open_the_door_to_everybody_is_refused() {
        let config = "{ origins: ['*'], credentials: true }";
        let told = problems(config, |config: &Config, cx| config.build(cx));
        assert_eq!(told, ["anybody's pages could read what their reader alone may see"]);
    }
}
