//! Who may ask, by the word of another service.

use std::{sync::Arc, time::Duration as Time};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request as Question, StatusCode, Uri,
    header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE, WWW_AUTHENTICATE},
};
use http_body_util::Full;
use pingora::Result;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::{self, Instant};

use crate::{
    client::endpoint::Files,
    field::{Lookup, Name},
    observe::request_id::X_REQUEST_ID,
    policy::{
        contract::{Build, Facts, Flow, Hooks, Page, Request, Written},
        key::{self, Key},
        twice::Twice,
        url::Url,
        variable::{Variable, Word},
        withheld::Withheld,
    },
    reason::Reason,
    reply::Reply,
    units::{self, Duration},
};

/// The largest body that is passed on from the service.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// So many verdicts are remembered; a newer one takes the place of an older.
const PLACES: usize = 4096;

/// What of an answer that refuses is passed on to the client.
static PASSED_ON: [HeaderName; 4] = [CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE, SET_COOKIE];

/// Asks another service about each request, as nginx's `auth_request` and the forward
/// authentication of Caddy and Traefik do: a `GET` with some fields of the request and
/// `X-Forwarded-Method`, `-Proto`, `-Host`, `-Uri` and `-For`. An answer of 2xx lets the request go
/// on; one of 3xx or 4xx is passed on to the client. While there is no answer in time, or another,
/// nobody is let in, and clients get `503`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ForwardAuth")]
pub struct Config {
    /// What is asked, such as `http://127.0.0.1:9000/verify`.
    pub url: Url,
    /// The fields of the request that go with the question. Default: `[authorization, cookie]`.
    #[serde(default = "send")]
    pub send: Vec<Lookup>,
    /// The fields of the answer that the origin is sent; what a client says in them is replaced, or
    /// removed where the answer does not say them. Default: `[]`.
    #[serde(default)]
    pub take: Vec<Name>,
    /// The field of the answer that names the user, for `{user}` and the access log.
    /// Default: none, nobody is named.
    #[serde(default)]
    pub user: Option<Lookup>,
    /// How long an answer may take. Default: `2s`.
    #[serde(default = "timeout", deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub timeout: Duration,
    /// How long an answer that lets go on counts for the same requests. Default: none, each is
    /// asked for.
    #[serde(default)]
    pub cache: Option<CacheConfig>,
}

/// How long an answer counts, and for which requests.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ForwardAuthCache")]
pub struct CacheConfig {
    /// What requests have in common for which one answer counts: all that the service decides by,
    /// such as `[header.authorization, method, host, path]`.
    pub by: key::Written,
    /// For how long, such as `30s`.
    #[serde(deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub life: Duration,
}

fn send() -> Vec<Lookup> {
    vec![Lookup(http::header::AUTHORIZATION), Lookup(COOKIE)]
}

fn timeout() -> Duration {
    Duration::from_secs(2)
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    url: Url,
    send: Box<[HeaderName]>,
    take: Box<[HeaderName]>,
    user: Option<HeaderName>,
    timeout: Time,
    withheld: Withheld,
    cache: Option<Cache>,
}

/// Verdicts that let go on.
#[derive(Debug)]
struct Cache {
    key: Key,
    life: Time,
    hasher: Twice,
    places: Box<[ArcSwapOption<Verdict>]>,
}

#[derive(Debug)]
struct Verdict {
    mark: u128,
    until: Instant,
    told: Told,
}

/// What an answer that lets go on says.
#[derive(Clone, Debug, Default)]
struct Told {
    taken: Vec<(HeaderName, HeaderValue)>,
    user: Option<HeaderValue>,
}

impl Told {
    fn note(self, request: &mut Request<'_>) -> Flow {
        request.facts.who.tell_user(self.user);
        request.notes.to_origin.extend(self.taken);
        Flow::Continue
    }
}

impl Config {
    /// Makes it ready; nobody is asked yet.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        let cache = match &self.cache {
            Some(cache) => Some(Cache {
                key: Key::build(&cache.by, cx)?,
                life: cache.life.0,
                hasher: Twice::new(),
                places: (0..PLACES).map(|_| ArcSwapOption::empty()).collect(),
            }),
            None => None,
        };
        Some(Policy {
            url: self.url.clone(),
            send: self.send.iter().map(|name| name.0.clone()).collect(),
            take: self.take.iter().map(Name::to_header).collect(),
            user: self.user.as_ref().map(|name| name.0.clone()),
            timeout: self.timeout.0,
            withheld: cx.withheld.clone(),
            cache,
        })
    }
}

impl Cache {
    fn place(&self, mark: u128) -> &ArcSwapOption<Verdict> {
        &self.places[mark as usize % PLACES]
    }

    fn find(&self, mark: u128, now: Instant) -> Option<Arc<Verdict>> {
        let found = self.place(mark).load_full()?;
        (found.mark == mark && now < found.until).then_some(found)
    }
}

/// What the service said.
enum Said {
    GoOn(Told),
    No(Reply),
}

impl Policy {
    fn question(&self, facts: &Facts<'_>) -> Result<Question<Full<Bytes>>, http::Error> {
        let mut question = Question::builder().method(Method::GET).uri(&self.url.path);
        // What the origin will be asked for: a spelling that only this service sees decides nothing.
        let canonical = facts.canonical.and_then(Uri::path_and_query);
        let uri = canonical.map_or(facts.header.raw_path(), |uri| uri.as_str().as_bytes());
        let uri = HeaderValue::from_bytes(uri);
        let told = [
            ("x-forwarded-method", HeaderValue::from_str(facts.header.method.as_str())),
            ("x-forwarded-proto", HeaderValue::from_str(facts.scheme())),
            ("x-forwarded-host", HeaderValue::from_str(facts.authority())),
            ("x-forwarded-uri", uri),
        ];
        for (name, value) in told {
            question = question.header(name, value?);
        }
        if let Some(client) = facts.client {
            question = question.header("x-forwarded-for", client.to_string());
        }
        question = question.header(&X_REQUEST_ID, facts.id);
        for name in &self.send {
            for value in facts.headers().get_all(name) {
                let is_cookie = name == COOKIE;
                let rest = if is_cookie { self.withheld.rest(value) } else { Some(value.clone()) };
                question =
                    rest.into_iter().fold(question, |asked, value| asked.header(name, value));
            }
        }
        question.body(Full::default())
    }

    async fn ask(&self, facts: &Facts<'_>) -> Result<Said, String> {
        let question = self.question(facts).map_err(|why| why.to_string())?;
        let answer = self.url.endpoint.ask(question, &Files::default(), self.timeout).await?;
        match answer.status {
            status if status.is_success() => Ok(Said::GoOn(self.told(&answer.headers))),
            status if status.is_redirection() || status.is_client_error() => {
                let headers = answer.headers.clone();
                let body = answer.whole(BODY_BYTES_MAX, self.timeout).await?;
                Ok(Said::No(refusal(status, &headers, body)))
            }
            status => Err(format!("it answered {status}")),
        }
    }

    fn told(&self, headers: &HeaderMap) -> Told {
        let taken = self.take.iter();
        let taken = taken.filter_map(|name| Some((name.clone(), headers.get(name)?.clone())));
        let user = self.user.as_ref().and_then(|name| headers.get(name));
        Told { taken: taken.collect(), user: user.cloned() }
    }
}

/// The answer of the service, as the client gets it.
fn refusal(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Reply {
    let mut reply = Reply::status(status.as_u16());
    let content_type = headers.get(CONTENT_TYPE).cloned();
    for name in PASSED_ON.iter().filter(|name| **name != CONTENT_TYPE) {
        reply
            .fields
            .extend(headers.get_all(name).iter().map(|value| (name.clone(), value.clone())));
    }
    if !body.is_empty() {
        reply.page = Some(Page { content_type, body });
    }
    reply
}

impl Written for Config {
    fn tells(&self, variable: &Variable) -> bool {
        self.user.is_some() && *variable == Variable::One(Word::User)
    }
}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let now = Instant::now();
        let cached = self.cache.as_ref().map(|cache| {
            let mark = cache.hasher.mark(&cache.key, &request.facts);
            (cache, mark)
        });
        if let Some(found) = cached.and_then(|(cache, mark)| cache.find(mark, now)) {
            return found.told.clone().note(request);
        }
        let said = Box::pin(time::timeout(self.timeout, self.ask(&request.facts))).await;
        match said.unwrap_or_else(|_| Err(format!("no answer within {:?}", self.timeout))) {
            Ok(Said::GoOn(told)) => {
                if let Some((cache, mark)) = cached {
                    let until = now + cache.life;
                    let verdict = Verdict { mark, until, told: told.clone() };
                    cache.place(mark).store(Some(Arc::new(verdict)));
                }
                told.note(request)
            }
            Ok(Said::No(reply)) => {
                request.notes.reason = Some(Reason::AuthDenied);
                Flow::Respond(reply)
            }
            Err(why) => {
                log::debug!(
                    "request {:?}: {} was asked in vain: {why}",
                    request.facts.id,
                    self.url.endpoint
                );
                request.notes.reason = Some(Reason::AuthAway);
                Flow::Respond(Reply::unavailable(1))
            }
        }
    }

    /// What was taken of the answer is put in after all policies; a client's own words are not.
    fn on_upstream_request(&self, header: &mut RequestHeader, _: &Facts<'_>) -> Result<()> {
        for name in &self.take {
            header.remove_header(name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_passed_on_without_what_is_the_services_own() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("location", "/login"), ("server", "x"), ("set-cookie", "a=1")] {
            headers.append(name, value.parse().unwrap());
        }
        let reply = refusal(StatusCode::FOUND, &headers, Bytes::new());
        let names: Vec<_> = reply.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((reply.status.as_u16(), names), (302, vec!["location", "set-cookie"]));
        assert!(reply.page.is_none());
    }
}
