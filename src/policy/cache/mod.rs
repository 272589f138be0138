//! Answers that are kept and given again, so that the origin need not be asked (RFC 9111).
//!
//! What is here decides: whether a request may be answered so, and whether an answer may be kept,
//! for how long. The store is `crate::cache`; `proxy` asks both when the policies of a route have
//! let a request pass, so that an answer that is kept is given to nobody whom they refuse.

mod directives;
mod judgement;
mod request;

use std::{
    collections::BTreeMap,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::StatusCode;
use pingora_cache::CacheMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

pub use directives::Directives;
pub use judgement::{Asked, renew};
pub use request::{Ask, Use, told_by_proxies};

use crate::{
    cache::TAGS,
    counter::Counter,
    policy::contract::{Build, Hooks, Response, Written},
    units::{self, ByteSize},
    yaml::{self, Spanned},
};

/// Answers to `GET` and `HEAD` are kept as long as the origin says (`CDN-Cache-Control`,
/// `Cache-Control`, `Expires`), and given again (RFC 9111). All policies of the route, wherever they
/// stand, are asked before an answer that is kept is given; what they do to answers is done to it
/// each time. What is kept of a route is its own, outlives reloads, and shares the memory of
/// `cache:` at the top.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Cache")]
pub struct Config {
    /// How long answers are kept that do not say so themselves, by status, such as
    /// `{ 200: 1m, 404: 10s }`. Default: `{}`, they are not.
    pub ttl: BTreeMap<Status, units::Duration>,
    /// How much longer an answer is given that has just become stale, while it is renewed beside;
    /// the origin's `stale-while-revalidate` goes before. Default: `0s`.
    pub stale_while_revalidate: units::Duration,
    /// How much longer it is given where the origin fails: with 5xx, too late, or not at all; the
    /// origin's `stale-if-error` goes before. Default: `0s`.
    pub stale_if_error: units::Duration,
    /// How long a request waits for another that is fetching the same answer; then it goes to the
    /// origin itself. Default: `5s`.
    #[serde(deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub wait: units::Duration,
    /// The longest body that is kept. Default: `16MiB`.
    pub object_max: Spanned<ByteSize>,
    /// Whether clients may ask for a newer answer, or one that is not kept, by `Cache-Control`
    /// (`no-cache`, `no-store`, `max-age`, `min-fresh`, `max-stale`) and `Pragma`. With it, anybody
    /// can have the origin asked each time. `only-if-cached` is always heeded. Default: `false`.
    pub honour_client: bool,
    /// Cookies whose requests go to the origin, such as that of a session. Default: `[]`.
    pub bypass_cookies: Vec<String>,
    /// Whether `Cache-Tag` and `Surrogate-Key` are kept from clients. Default: `false`.
    pub hide_tags: bool,
    /// Whether answers say in `Cache-Status` (RFC 9211) what became of them here.
    /// Default: `true`.
    pub tell: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ttl: BTreeMap::new(),
            stale_while_revalidate: units::Duration::ZERO,
            stale_if_error: units::Duration::ZERO,
            wait: units::Duration::from_secs(5),
            object_max: Spanned::new(ByteSize::from_mib(16)),
            honour_client: false,
            bypass_cookies: Vec::new(),
            hide_tags: false,
            tell: true,
        }
    }
}

/// A status whose answers may be kept: 200 to 599, but for 206 and 304, which are parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String", rename = "CacheStatus", example = &"200")]
#[schemars(extend("pattern" = "^(20[0-57-9]|2[1-9][0-9]|30[0-35-9]|3[1-9][0-9]|[45][0-9][0-9])$"))]
pub struct Status(u16);

/// What is no such status.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no status of an answer that can be kept\nhelp: write one such as `200` or `404`")]
pub struct NoStatus(String);

impl FromStr for Status {
    type Err = NoStatus;

    fn from_str(text: &str) -> Result<Self, NoStatus> {
        let status = text.parse::<u16>().ok().filter(|_| text.len() == 3);
        let status = status.filter(|status| (200..=599).contains(status));
        let status = status.filter(|status| !matches!(status, 206 | 304));
        status.map(Self).ok_or_else(|| NoStatus(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a status such as `200` or `404`")
    }
}

/// What runs.
#[derive(Debug)]
pub struct Policy(Rules);

/// What may be kept on a route, and how long.
#[derive(Debug)]
pub struct Rules {
    ttl: BTreeMap<u16, Duration>,
    stale_while_revalidate: u32,
    stale_if_error: u32,
    /// How long a request waits for another.
    pub wait: Duration,
    /// The longest body that is kept, in bytes.
    pub object_max: u64,
    honour_client: bool,
    bypass_cookies: Box<[String]>,
    hide_tags: bool,
    /// Whether answers say what became of them.
    pub tell: bool,
    /// What became of requests, over all configurations.
    pub verdicts: Arc<Verdicts>,
}

/// What became of a request on a route that keeps answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was given an answer that is kept, and fresh.
    Hit,
    /// It was given one that is stale, as it may be.
    Stale,
    /// It was given one of which the origin said that it is still good.
    Revalidated,
    /// The origin answered.
    Miss,
    /// The origin answered, since the request is none that may be answered otherwise.
    Bypass,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Hit, Self::Stale, Self::Revalidated, Self::Miss, Self::Bypass];

    /// In a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }
}

/// Counts what became of requests.
#[derive(Debug, Default)]
pub struct Verdicts([Counter; Verdict::ALL.len()]);

impl Verdicts {
    /// Counts one.
    pub fn count(&self, verdict: Verdict) {
        self.0[verdict as usize].increment();
    }

    /// How many there were.
    pub fn get(&self, verdict: Verdict) -> u64 {
        self.0[verdict as usize].get()
    }
}

impl Config {
    /// Makes the rules ready.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        if 0 < cx.turn() {
            cx.problem("a route has two `cache` policies", "write all of it in one");
            return None;
        }
        if self.object_max.0 == 0 || u64::from(u32::MAX) < self.object_max.0 {
            let help = "write one such as `16MiB`, of less than 4 GiB";
            cx.problem_at(self.object_max.span, "no such body can be kept", help);
            return None;
        }
        let seconds = |time: units::Duration| u32::try_from(time.0.as_secs()).unwrap_or(u32::MAX);
        Some(Policy(Rules {
            ttl: self.ttl.iter().map(|(status, time)| (status.0, time.0)).collect(),
            stale_while_revalidate: seconds(self.stale_while_revalidate),
            stale_if_error: seconds(self.stale_if_error),
            wait: self.wait.0,
            object_max: self.object_max.0,
            honour_client: self.honour_client,
            bypass_cookies: self.bypass_cookies.clone().into(),
            hide_tags: self.hide_tags,
            tell: self.tell,
            verdicts: cx.state(|_| true, Verdicts::default),
        }))
    }
}

impl Written for Config {}

impl Hooks for Policy {
    fn on_response(&self, response: &mut Response<'_>) -> pingora::Result<()> {
        if self.0.hide_tags {
            for name in &TAGS {
                response.header.remove_header(name);
            }
        }
        Ok(())
    }
}

impl Policy {
    /// What may be kept.
    pub fn rules(&self) -> &Rules {
        &self.0
    }
}

impl Rules {
    /// How long an answer of this status is kept that does not say.
    fn ttl(&self, status: StatusCode) -> Option<Duration> {
        self.ttl.get(&status.as_u16()).copied()
    }

    /// Whether an answer that is kept may be given to this request.
    pub fn suits(&self, ask: &Use, meta: &CacheMeta, now: SystemTime) -> bool {
        let Some(wanted) = &ask.wanted else { return true };
        let (age, left) = (meta.age(), meta.fresh_until().duration_since(now));
        !wanted.no_cache
            && wanted.max_age.is_none_or(|max| age <= max)
            && wanted.min_fresh.is_none_or(|min| left.is_ok_and(|left| min <= left))
    }

    /// Whether the client takes an answer that is stale.
    pub fn suits_stale(&self, ask: &Use, meta: &CacheMeta, now: SystemTime) -> bool {
        let Some(max) = ask.wanted.as_ref().and_then(|wanted| wanted.max_stale) else {
            return false;
        };
        let is_forbidden = !judgement::may_be_stale(&Directives::of_answer(meta.headers()));
        let since = now.duration_since(meta.fresh_until()).unwrap_or_default();
        !is_forbidden && since <= max
    }
}

#[cfg(test)]
mod tests;
