//! `Cache-Control`, of requests and of answers (RFC 9111, section 5.2).
//!
//! Where a directive stands twice, the first counts; a number that is none counts as zero, which
//! trusts the least.

use std::time::Duration;

use http::{HeaderMap, HeaderName, header::CACHE_CONTROL};

/// Longer times than this mean for ever (RFC 9111, section 1.2.2).
const FOREVER: u64 = 2_147_483_648;

/// No name of a directive that counts is longer than this: `stale-while-revalidate`.
const NAME_MAX: usize = 22;

/// What stands there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each directive stands there or not")]
pub struct Directives {
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`, for the whole answer.
    pub no_cache: bool,
    /// `private`, for the whole answer.
    pub private: bool,
    /// Fields that `private` or `no-cache` name.
    pub withheld: Vec<HeaderName>,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
    /// `max-age`.
    pub max_age: Option<Duration>,
    /// `s-maxage`.
    pub s_maxage: Option<Duration>,
    /// `stale-while-revalidate`.
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error`.
    pub stale_if_error: Option<Duration>,
    /// `min-fresh`.
    pub min_fresh: Option<Duration>,
    /// `max-stale`; without a time, for ever.
    pub max_stale: Option<Duration>,
    /// Whether anything stands there.
    pub is_there: bool,
    /// Whether it is said for caches like this one alone (`CDN-Cache-Control`).
    pub is_for_caches: bool,
}

/// What is said for caches in front of an origin goes before all else (RFC 9213).
static FOR_CACHES: HeaderName = HeaderName::from_static("cdn-cache-control");

impl Directives {
    /// Reads the fields of an answer.
    pub fn of_answer(headers: &HeaderMap) -> Self {
        if headers.contains_key(&FOR_CACHES) {
            return Self { is_for_caches: true, ..Self::read(headers, &FOR_CACHES) };
        }
        Self::of(headers)
    }

    /// Reads the fields of a request.
    pub fn of(headers: &HeaderMap) -> Self {
        Self::read(headers, &CACHE_CONTROL)
    }

    fn read(headers: &HeaderMap, name: &HeaderName) -> Self {
        let mut all = Self::default();
        for value in headers.get_all(name) {
            all.is_there = true;
            let mut rest = value.as_bytes();
            while !rest.is_empty() {
                let (directive, after) = cut(rest);
                rest = after;
                all.add(directive.trim_ascii());
            }
        }
        all
    }

    fn add(&mut self, directive: &[u8]) {
        let mut parts = directive.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default().trim_ascii();
        let mut lower = [0; NAME_MAX];
        let Some(lower) = lower.get_mut(..name.len()) else { return };
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        let value = parts.next().map(|value| unquoted(value.trim_ascii()));
        let time = |place: &mut Option<Duration>| {
            place.get_or_insert(value.map_or(Duration::ZERO, seconds));
        };
        match &*lower {
            b"no-store" => self.no_store = true,
            b"no-cache" => match value {
                Some(names) => self.withhold(names),
                None => self.no_cache = true,
            },
            b"private" => match value {
                Some(names) => self.withhold(names),
                None => self.private = true,
            },
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => time(&mut self.max_age),
            b"s-maxage" => time(&mut self.s_maxage),
            b"stale-while-revalidate" => time(&mut self.stale_while_revalidate),
            b"stale-if-error" => time(&mut self.stale_if_error),
            b"min-fresh" => time(&mut self.min_fresh),
            b"max-stale" => {
                let stale = value.map_or(Duration::from_secs(FOREVER), seconds);
                self.max_stale.get_or_insert(stale);
            }
            _ => {}
        }
    }

    fn withhold(&mut self, names: &[u8]) {
        let names = names.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        self.withheld.extend(names.filter_map(|name| HeaderName::from_bytes(name).ok()));
    }
}

/// Cuts after the first comma that stands outside of quotes.
fn cut(list: &[u8]) -> (&[u8], &[u8]) {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in list.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => return (&list[..at], &list[at + 1..]),
            _ => {}
        }
    }
    (list, &[])
}

fn unquoted(value: &[u8]) -> &[u8] {
    let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    inner.unwrap_or(value)
}

/// A number of seconds; what is none is zero.
fn seconds(value: &[u8]) -> Duration {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = str::from_utf8(value).unwrap_or_default();
    let seconds = match (is_number, text.parse::<u64>()) {
        (true, Ok(seconds)) => seconds.min(FOREVER),
        (true, Err(_)) => FOREVER,
        (false, _) => 0,
    };
    Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> Directives {
        let value = |value: &&'static str| (CACHE_CONTROL, value.parse().unwrap());
        Directives::of(&values.iter().map(value).collect())
    }

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn directives_are_read_however_they_are_written() {
        let read = of(&["Max-Age=60, PUBLIC", " s-maxage=\"120\" ,, must-revalidate"]);
        assert_eq!((read.max_age, read.s_maxage), (Some(secs(60)), Some(secs(120))));
        assert!(read.public && read.must_revalidate && !read.private && read.is_there);
        assert_eq!(of(&[]), Directives::default());
    }

    #[test]
    fn the_first_counts_and_nonsense_trusts_the_least() {
        assert_eq!(of(&["max-age=1, max-age=3600"]).max_age, Some(secs(1)));
        for nonsense in
            ["max-age=", "max-age", "max-age=-1", "max-age=1.5", "max-age=a", "max-age=+1"]
        {
            assert_eq!(of(&[nonsense]).max_age, Some(secs(0)), "{nonsense}");
        }
        assert_eq!(of(&["max-age=99999999999999999999999"]).max_age, Some(secs(FOREVER)));
    }

    #[test]
    fn what_stands_in_quotes_is_one_value() {
        let read = of(&["private=\"set-cookie, x-a\", foo=\"no-store, max-age=9\", max-stale"]);
        let names = [http::header::SET_COOKIE, HeaderName::from_static("x-a")];
        assert_eq!(read.withheld, names);
        assert!(!read.private && !read.no_store);
        assert_eq!((read.max_age, read.max_stale), (None, Some(secs(FOREVER))));
    }
}
