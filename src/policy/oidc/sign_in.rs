//! Signing in: a browser is sent to the provider, and comes back with a code.
//!
//! INVARIANT: a code is turned in only for the browser that was sent for it: the state that comes
//! back must be the one that its cookie holds, and counts once; and the browser is then sent
//! to the page that it had asked for, on the host that it had asked.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use form_urlencoded::{Serializer, parse};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{ACCEPT, CACHE_CONTROL, LOCATION, REFERRER_POLICY, SET_COOKIE, WWW_AUTHENTICATE},
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::{
    policy::{
        contract::{Facts, Flow, Request},
        location,
        oidc::{
            Policy,
            party::Failure,
            seal::Purpose,
            session::{Standing, now},
            words::{challenge, random},
        },
    },
    reason::Reason,
    reply::{Form, Reply},
};

/// How long somebody may take to sign in, in seconds.
const LIFE: u64 = 10 * 60;
/// A longer address is not gone back to.
const TARGET_BYTES_MAX: usize = 2048;
/// Bytes that browsers send in a query as they are, and that no URI holds (RFC 3986 §2).
const ODD: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
/// A longer code is none.
const CODE_BYTES_MAX: usize = 4096;

static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
static X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// A sign-in that is under way, as the browser keeps it.
#[derive(Debug, Serialize, Deserialize)]
struct SignIn {
    #[serde(rename = "s")]
    state: String,
    #[serde(rename = "n")]
    nonce: String,
    #[serde(rename = "v")]
    verifier: String,
    /// The path and query that were asked for.
    #[serde(rename = "t")]
    target: String,
    #[serde(rename = "u")]
    until: u64,
}

/// Sends a browser to sign in; who is none gets `401`.
pub(super) async fn begin(policy: &Policy, request: &mut Request<'_>) -> Flow {
    let facts = &request.facts;
    if !is_page(&facts.header.method, facts.headers()) {
        request.notes.reason = Some(Reason::SignInNeeded);
        let challenge = HeaderValue::from_static("Session");
        let reply = Reply::status(401).with(WWW_AUTHENTICATE, challenge);
        return Flow::Respond(never_kept(reply));
    }
    let Some(known) = policy.party.provider.known().await else {
        request.notes.reason = Some(Reason::AuthAway);
        return Flow::Respond(Reply::unavailable(1));
    };
    let Some(reply) = sent(policy, &request.facts, &known.authorization) else {
        request.notes.reason = Some(Reason::AuthAway);
        return Flow::Respond(Reply::unavailable(1));
    };
    request.notes.reason = Some(Reason::SignIn);
    Flow::Respond(reply)
}

/// Whether a browser asks for a page, for which it can be sent elsewhere and back.
fn is_page(method: &Method, headers: &HeaderMap) -> bool {
    let mode = headers.get(&SEC_FETCH_MODE);
    let is_shown = mode.is_none_or(|mode| mode == "navigate");
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let is_script = headers.contains_key(&X_REQUESTED_WITH);
    let wants_html = headers.contains_key(ACCEPT) && Form::asked_for(headers) == Form::Html;
    is_shown && is_read && !is_script && wants_html
}

fn sent(policy: &Policy, facts: &Facts<'_>, authorization: &str) -> Option<Reply> {
    // What no URI holds is escaped, or there would be no way back.
    let target = utf8_percent_encode(&location::target(facts), ODD).to_string();
    let target = Some(target).filter(|target| target.len() <= TARGET_BYTES_MAX);
    let sign_in = SignIn {
        state: random::<16>()?,
        nonce: random::<16>()?,
        verifier: random::<32>()?,
        target: target.unwrap_or_else(|| "/".to_owned()),
        until: now() + LIFE,
    };
    let mut query = Serializer::new(String::new());
    query
        .append_pair("response_type", "code")
        .append_pair("client_id", &policy.party.id)
        .append_pair("redirect_uri", &policy.callback_url(facts))
        .append_pair("scope", &policy.scopes)
        .append_pair("state", &sign_in.state)
        .append_pair("nonce", &sign_in.nonce)
        .append_pair("code_challenge", &challenge(&sign_in.verifier))
        .append_pair("code_challenge_method", "S256");
    let separator = if authorization.contains('?') { '&' } else { '?' };
    let place = format!("{authorization}{separator}{}", query.finish());
    let sealed = policy.seal.seal(Purpose::SignIn, &serde_json::to_vec(&sign_in).ok()?)?;
    let cookie = policy.cookies.keep_sign_in(&sign_in.state, &sealed, LIFE)?;
    let reply = Reply::status(302).with(LOCATION, HeaderValue::try_from(place).ok()?);
    Some(never_kept(reply.with(SET_COOKIE, cookie)))
}

/// What a provider says when it sends a browser back (RFC 6749 §4.1.2).
#[derive(Default)]
struct Back {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
    issuer: Option<String>,
    /// Whether something is said twice, and may be meant in two ways.
    is_odd: bool,
}

impl Back {
    fn read(query: &str) -> Self {
        let mut back = Self::default();
        for (name, value) in parse(query.as_bytes()) {
            let place = match &*name {
                "code" => &mut back.code,
                "state" => &mut back.state,
                "error" => &mut back.error,
                "iss" => &mut back.issuer,
                _ => continue,
            };
            back.is_odd |= place.replace(value.into_owned()).is_some();
        }
        back
    }
}

/// Takes a browser that comes back.
pub(super) async fn end(policy: &Policy, request: &mut Request<'_>) -> Flow {
    let (reason, reply) = match try_end(policy, &request.facts).await {
        Ok(reply) => (Reason::SignIn, reply),
        Err(Failure::Denied(why)) => {
            log::debug!("request {:?}: a sign-in failed: {why}", request.facts.id);
            (Reason::SignInDenied, Reply::status(403))
        }
        Err(Failure::Away(why)) => {
            log::debug!("request {:?}: a sign-in could not be ended: {why}", request.facts.id);
            (Reason::AuthAway, Reply::unavailable(1))
        }
    };
    request.notes.reason = Some(reason);
    Flow::Respond(never_kept(reply))
}

async fn try_end(policy: &Policy, facts: &Facts<'_>) -> Result<Reply, Failure> {
    let denied = |why: &str| Failure::Denied(why.to_owned());
    if facts.header.method != Method::GET {
        return Err(denied("no browser comes back so"));
    }
    let back = Back::read(facts.query().unwrap_or_default());
    let state = back.state.as_deref().filter(|_| !back.is_odd);
    let state = state.ok_or_else(|| denied("there is no state"))?;
    let Some(sign_in) = kept(policy, state, facts) else {
        return signed_in(policy, facts).ok_or_else(|| denied("this browser has no such state"));
    };
    let turn = policy.party.provider.turn_in();
    let _turn = turn.ok_or_else(|| Failure::Away("too many sign in at once".to_owned()))?;
    if !USED.is_first(state) {
        return signed_in(policy, facts).ok_or_else(|| denied("the state was used already"));
    }
    let known = policy.party.provider.known().await;
    let says_issuer = known.is_some_and(|known| known.says_issuer);
    match &back.issuer {
        Some(issuer) if *issuer != policy.issuer => return Err(denied("of another provider")),
        None if says_issuer => return Err(denied("the provider does not say its name")),
        _ => {}
    }
    if let Some(error) = back.error {
        return Err(Failure::Denied(error));
    }
    let code = back.code.filter(|code| code.len() <= CODE_BYTES_MAX);
    let code = code.ok_or_else(|| denied("there is no code"))?;
    let redirect = policy.callback_url(facts);
    let began = policy.party.begin(&code, &sign_in.verifier, &redirect, &sign_in.nonce);
    let session = began.await?;
    let fields = policy.keep(&session, facts).ok_or_else(|| {
        log::error!("a session is too long for cookies: let `claims` name fewer");
        denied("its session is too long")
    })?;
    let place = policy.absolute(facts, back_to(&sign_in.target));
    let place = location::value(&place, facts).ok_or_else(|| denied("no way back"))?;
    let mut reply = Reply::status(303).with(LOCATION, place);
    let done = policy.cookies.keep_sign_in(state, "", 0);
    reply.fields.extend(fields.into_iter().chain(done).map(|field| (SET_COOKIE, field)));
    Ok(reply)
}

/// What a browser is told whose way back does not count, and which has signed in all the same, as
/// by another tab: it is sent to the site.
fn signed_in(policy: &Policy, facts: &Facts<'_>) -> Option<Reply> {
    policy.session(facts).filter(|session| session.standing(now()) == Standing::Good)?;
    let place = location::value(&policy.absolute(facts, "/"), facts)?;
    Some(Reply::status(303).with(LOCATION, place))
}

/// The sign-in of this state that the browser has kept.
fn kept(policy: &Policy, state: &str, facts: &Facts<'_>) -> Option<SignIn> {
    let text = policy.cookies.sign_in(state, facts)?;
    let plain = policy.seal.open(Purpose::SignIn, text)?;
    let sign_in: SignIn = serde_json::from_slice(&plain).ok()?;
    let is_same = verify_slices_are_equal(sign_in.state.as_bytes(), state.as_bytes()).is_ok();
    (is_same && now() < sign_in.until).then_some(sign_in)
}

/// The page that was asked for: a path, which no browser takes for another host.
fn back_to(target: &str) -> &str {
    let mut rest = target.chars();
    let is_path = rest.next() == Some('/');
    let leads_out = matches!(rest.next(), Some('/' | '\\'));
    if is_path && !leads_out { target } else { "/" }
}

/// The same answer for nobody else, and not again.
pub(super) fn never_kept(reply: Reply) -> Reply {
    reply
        .with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .with(REFERRER_POLICY, HeaderValue::from_static("no-referrer"))
}

/// States that were used, by what stands for them: as many as somebody could use within their life
/// on a busy site. Where there are more, the provider, which takes a code once, is left to notice.
struct Used(Box<[AtomicU64]>);

static USED: LazyLock<Used> =
    LazyLock::new(|| Used((0..16_384).map(|_| AtomicU64::new(0)).collect()));

impl Used {
    fn is_first(&self, state: &str) -> bool {
        let mut mark = [0; 8];
        for (byte, letter) in mark.iter_mut().zip(challenge(state).bytes()) {
            *byte = letter;
        }
        let mark = u64::from_le_bytes(mark);
        let place = usize::try_from(mark % self.0.len() as u64).unwrap_or_default();
        self.0[place].swap(mark, Relaxed) != mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::Given;

    #[test]
    fn nobody_is_sent_to_another_host() {
        for target in ["//evil.test/", "/\\evil.test/", "https://evil.test/", "evil.test", ""] {
            assert_eq!(back_to(target), "/", "{target}");
        }
        for target in ["/", "/a?b=//c", "/%2f%2fevil.test/", "/a//b"] {
            assert_eq!(back_to(target), target);
        }
    }

    #[test]
    fn only_who_asks_for_a_page_is_sent_to_sign_in() {
        let is_page = |method: &str, fields: &[(&'static str, &str)]| {
            let given = Given::request(method, "/");
            let given = fields.iter().fold(given, |given, (name, value)| given.field(name, value));
            let facts = given.facts();
            is_page(&facts.header.method, facts.headers())
        };
        let html = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        assert!(is_page("GET", &[html]));
        assert!(is_page("GET", &[html, ("sec-fetch-mode", "navigate")]));
        for fields in [
            &[][..],
            &[("accept", "*/*")],
            &[("accept", "application/json, text/html;q=0.1")],
            &[html, ("x-requested-with", "XMLHttpRequest")],
            &[html, ("sec-fetch-mode", "cors")],
        ] {
            assert!(!is_page("GET", fields), "{fields:?}");
        }
        assert!(!is_page("POST", &[html]), "its body would be lost");
    }

    #[test]
    fn a_state_counts_once() {
        let used = Used((0..8).map(|_| AtomicU64::new(0)).collect());
        assert!(used.is_first("a") && !used.is_first("a"));
        assert!(used.is_first("b"));
    }

    #[test]
    fn what_is_said_twice_is_odd() {
        assert!(Back::read("code=a&state=b&code=c").is_odd);
        let back = Back::read("code=a%20b&state=c&x=1&x=2&iss=https%3A%2F%2Fa.test");
        assert_eq!((back.code.as_deref(), back.is_odd), (Some("a b"), false));
        assert_eq!(back.issuer.as_deref(), Some("https://a.test"));
    }
}
