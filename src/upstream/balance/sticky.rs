//! Sticky: a client stays with the backend that it came to, by a cookie that Crestline issues.
//!
//! The cookie is a signature, and nothing else: the HMAC of the upstream and the address under a
//! key that clients do not have. Crestline makes those of all its backends when their set changes
//! and looks a client's up among them. So a forged one, or one of a backend that is gone, is no
//! cookie at all, nothing is signed or allocated for a request, and a client learns no address.

use std::{
    collections::BTreeSet,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::{hmac, rand};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::HeaderValue;
use pingora_load_balancing::{
    Backend, LoadBalancer,
    selection::{BackendIter, BackendSelection},
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    units::{self, Duration},
    upstream::{
        backend::Member,
        balance::{fixed, hints::Hints, pool::Pool, select, token::Token},
    },
    yaml,
};

/// The length of a key that is made here.
const KEY_BYTES: usize = 32;
/// The shortest that is taken from a file.
const KEY_BYTES_MIN: usize = 32;
/// What is taken of a signature: nobody guesses 128 bits.
const MARK_BYTES: usize = 16;
/// A mark in base64url.
const TEXT_BYTES: usize = 22;
/// The name of the cookie, if nothing else is said.
const COOKIE: &str = "crestline_backend";

/// How clients stay with their backends. Those that come without a cookie are shared out by round
/// robin.
///
/// What the operator writes under `sticky:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Sticky")]
pub struct Config {
    /// The name of the cookie. Default: `crestline_backend`.
    pub cookie: Token,
    /// How long a browser keeps it. Default: until it is closed.
    #[serde(deserialize_with = "units::lasting")]
    #[schemars(with = "Duration", extend("pattern" = units::POSITIVE))]
    pub lasts: Option<Duration>,
    /// What cookies are signed with, 32 bytes at least, the same for all proxies that share their
    /// clients; better kept in a file: `${file:/run/secrets/sticky}`.
    /// Default: made at the start, and handed over at an upgrade.
    #[schemars(with = "GivenKey")]
    pub key: Option<GivenKey>,
}

impl Default for Config {
    fn default() -> Self {
        Self { cookie: Token::of(COOKIE), lasts: None, key: None }
    }
}

/// A key that is kept to itself.
#[derive(Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "StickyKey", extend("pattern" = "^.{32}"))]
pub struct GivenKey(Zeroizing<String>);

/// What is too short for a key. It is not told.
#[derive(Debug, thiserror::Error)]
#[error(
    "this key is too short: it must have 32 bytes at least\nhelp: make one by `openssl rand -hex 32`"
)]
pub struct TooShort;

impl FromStr for GivenKey {
    type Err = TooShort;

    fn from_str(text: &str) -> Result<Self, TooShort> {
        if text.len() < KEY_BYTES_MIN {
            return Err(TooShort);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl<'de> Deserialize<'de> for GivenKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a key of 32 bytes at least")
    }
}

impl fmt::Debug for GivenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GivenKey")
    }
}

/// The key of a process, for upstreams that are given none; the same over all its versions.
pub struct OwnKey(Mutex<Zeroizing<[u8; KEY_BYTES]>>);

impl Default for OwnKey {
    /// A new one.
    fn default() -> Self {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        // aws-lc ends the process where the system has no random numbers, before it would say so.
        rand::fill(&mut *key).expect("the system has random numbers");
        Self(Mutex::new(key))
    }
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnKey")
    }
}

/// A key on its way to a successor. It is wiped when it is dropped, and never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}

impl OwnKey {
    /// The key as one process tells it to the next.
    pub fn told(&self) -> Told {
        let key = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Told(BASE64_URL_SAFE_NO_PAD.encode(**key))
    }

    /// Takes over the key of a predecessor; what is no key changes nothing.
    pub fn recall(&self, told: &Told) {
        let read = BASE64_URL_SAFE_NO_PAD.decode(&told.0).map(Zeroizing::new);
        if let Ok(Ok(key)) = read.map(|read| <[u8; KEY_BYTES]>::try_from(read.as_slice())) {
            let key = Zeroizing::new(key);
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = key;
        }
    }

    fn signing(&self) -> hmac::Key {
        let key = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hmac::Key::new(hmac::HMAC_SHA256, &**key)
    }
}

/// What a cookie says.
type Mark = [u8; MARK_BYTES];

/// The marks of one set of backends; as an algorithm, it offers the one backend of a mark.
pub struct Marks {
    backends: Box<[Backend]>,
    /// In order, each with the place of its backend.
    sorted: Box<[(Mark, usize)]>,
    /// By the place of the backend: over TLS, and in plaintext.
    cookies: Box<[[HeaderValue; 2]]>,
    name: Token,
}

/// Of what marks are made.
pub struct Making<'a> {
    /// The upstream.
    pub upstream: &'a str,
    /// What is written.
    pub config: &'a Config,
    /// The key where none is written.
    pub own: &'a OwnKey,
}

impl Marks {
    /// Makes the marks of a pool.
    pub fn new(making: &Making<'_>, pool: &Pool) -> Self {
        let Making { upstream, config, own } = making;
        let key = config.key.as_ref().map_or_else(
            || own.signing(),
            |given| hmac::Key::new(hmac::HMAC_SHA256, given.0.as_bytes()),
        );
        let marks: Vec<Mark> =
            pool.iter().map(|member| mark(&key, upstream, member.state.name())).collect();
        let cookies =
            marks.iter().map(|mark| [config.cookie(mark, true), config.cookie(mark, false)]);
        let cookies = cookies.collect();
        let mut sorted: Vec<_> = marks.into_iter().zip(0..).collect();
        sorted.sort_unstable();
        Self {
            backends: pool.backends(1),
            sorted: sorted.into(),
            cookies,
            name: config.cookie.clone(),
        }
    }

    /// The place of the backend that a request's cookie names.
    pub fn place(&self, hints: &Hints<'_>) -> Option<usize> {
        let text = hints.cookie(self.name.as_str()).filter(|text| text.len() == TEXT_BYTES)?;
        // A little more, since the decoder asks for room in whole groups.
        let mut decoded = [0; MARK_BYTES + 2];
        let length = BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut decoded).ok()?;
        let mark = decoded.get(..length)?;
        let found = self.sorted.binary_search_by(|(known, _)| known.as_slice().cmp(mark));
        found.ok().map(|index| self.sorted[index].1)
    }

    /// The cookie for a backend at a place.
    pub fn cookie(&self, place: usize, is_secure: bool) -> Option<&HeaderValue> {
        self.cookies.get(place).map(|cookies| &cookies[usize::from(!is_secure)])
    }
}

fn mark(key: &hmac::Key, upstream: &str, address: &str) -> Mark {
    let mut signing = hmac::Context::with_key(key);
    signing.update(upstream.as_bytes());
    signing.update(&[0]); // in no name
    signing.update(address.as_bytes());
    let mut mark = Mark::default();
    mark.copy_from_slice(&signing.sign().as_ref()[..MARK_BYTES]);
    mark
}

impl Config {
    fn cookie(&self, mark: &Mark, is_secure: bool) -> HeaderValue {
        let mut text = format!(
            "{}={}; Path=/; HttpOnly; SameSite=Lax",
            self.cookie.as_str(),
            BASE64_URL_SAFE_NO_PAD.encode(mark)
        );
        if let Some(lasts) = self.lasts {
            text += "; Max-Age=";
            text += &lasts.0.as_secs().max(1).to_string();
        }
        if is_secure {
            text += "; Secure";
        }
        HeaderValue::try_from(text).expect("a token and base64")
    }
}

/// The way to a backend through Pingora's balancer: the key is the place.
pub struct Pins(Arc<Marks>);

impl BackendSelection for Pins {
    type Iter = Pinned;
    type Config = Arc<Marks>;

    fn build(_: &BTreeSet<Backend>) -> Self {
        let (config, own) = (Config::default(), OwnKey::default());
        let making = Making { upstream: "", config: &config, own: &own };
        Self(Arc::new(Marks::new(&making, &Pool::default())))
    }

    fn build_with_config(_: &BTreeSet<Backend>, marks: &Arc<Marks>) -> Self {
        Self(marks.clone())
    }

    fn iter(self: &Arc<Self>, key: &[u8]) -> Pinned {
        let place = key.try_into().ok().map(usize::from_ne_bytes);
        Pinned { pins: self.clone(), place }
    }
}

/// One backend, once.
pub struct Pinned {
    pins: Arc<Pins>,
    place: Option<usize>,
}

impl BackendIter for Pinned {
    fn next(&mut self) -> Option<&Backend> {
        self.pins.0.backends.get(self.place.take()?)
    }
}

/// What keeps the clients of one set of backends where they are.
pub struct Sticky {
    pool: Pool,
    marks: Arc<Marks>,
    balancer: LoadBalancer<Pins>,
}

impl Sticky {
    /// Makes the marks of a pool, and the way by them.
    pub fn new(making: &Making<'_>, pool: Pool) -> Self {
        let marks = Arc::new(Marks::new(making, &pool));
        let balancer = fixed(pool.backends(1).into_iter().collect(), Some(marks.clone()));
        Self { pool, marks, balancer }
    }

    /// Offers the backend that a request's cookie names.
    pub fn offer(&self, hints: &Hints<'_>, accept: impl Fn(&Arc<Member>)) {
        if let Some(place) = self.marks.place(hints) {
            select(&self.balancer, &place.to_ne_bytes(), 1, |backend| {
                self.pool.find(&backend.addr).into_iter().for_each(&accept);
                true
            });
        }
    }

    /// The cookie for a client that was served by a backend; `None` if it has it.
    pub fn cookie(
        &self,
        hints: &Hints<'_>,
        member: &Member,
        is_secure: bool,
    ) -> Option<&HeaderValue> {
        let place = self.pool.place(member.state.address())?;
        if self.marks.place(hints) == Some(place) {
            return None;
        }
        self.marks.cookie(place, is_secure)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::upstream::balance::tests::pool;

    fn marks(upstream: &str, own: &OwnKey) -> Marks {
        Marks::new(&Making { upstream, config: &Config::default(), own }, &pool(&[1, 1, 1]))
    }

    /// The place that a cookie leads to, as a client sends it back.
    fn place(marks: &Marks, cookie: &str) -> Option<usize> {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", HeaderValue::try_from(format!("a=b; {cookie}")).unwrap());
        marks.place(&Hints { headers: Some(&headers), ..Hints::NONE })
    }

    fn issued(marks: &Marks, place: usize) -> String {
        let cookie = marks.cookie(place, false).expect("a cookie").to_str().unwrap();
        cookie.split(';').next().unwrap().to_owned()
    }

    #[test]
    fn a_cookie_leads_back_and_a_forged_one_nowhere() {
        let own = OwnKey::default();
        let ours = marks("app", &own);
        for wanted in 0..3 {
            let cookie = issued(&ours, wanted);
            assert_eq!(place(&ours, &cookie), Some(wanted));
            for at in COOKIE.len() + 1..cookie.len() - 1 {
                let mut forged = cookie.clone().into_bytes();
                forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
                assert_eq!(place(&ours, &String::from_utf8(forged).unwrap()), None, "{at}");
            }
            assert_eq!(place(&marks("other", &own), &cookie), None, "of another upstream");
            assert_eq!(place(&marks("app", &OwnKey::default()), &cookie), None, "another key");
        }
        for bad in ["", "crestline_backend=", "crestline_backend=127.0.0.1:1"] {
            assert_eq!(place(&ours, bad), None);
        }
    }

    #[test]
    fn a_successor_signs_with_the_key_that_it_is_told() {
        let (old, new) = (OwnKey::default(), OwnKey::default());
        let cookie = issued(&marks("app", &old), 1);
        let words = serde_json::to_string(&old.told()).unwrap();
        new.recall(&serde_json::from_str(&words).unwrap());
        assert_eq!(place(&marks("app", &new), &cookie), Some(1));
        new.recall(&Told("nonsense".to_owned()));
        assert_eq!(place(&marks("app", &new), &cookie), Some(1), "what is no key is none");
        assert_eq!(format!("{:?}", old.told()), "Told");
    }

    #[test]
    fn cookies_are_kept_from_scripts_and_from_plaintext() {
        let marks = marks("app", &OwnKey::default());
        let text = |is_secure| marks.cookie(0, is_secure).unwrap().to_str().unwrap().to_owned();
        assert!(text(false).ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{}", text(false));
        assert!(text(true).ends_with("; HttpOnly; SameSite=Lax; Secure"), "{}", text(true));
        assert!(!text(true).contains("127.0.0.1"), "no address is told");
    }
}
