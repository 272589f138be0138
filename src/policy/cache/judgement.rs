//! Answers that may be kept, and for how long (RFC 9111, sections 3 and 4.2).

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, Version, header};
use pingora_cache::{CacheMeta, NoCacheReason};
use pingora_http::ResponseHeader;

use crate::policy::cache::{Directives, Rules};

/// Statuses whose meaning is known here, so that `must-understand` is met.
const UNDERSTOOD: [u16; 17] =
    [200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 418, 451, 501, 503];

/// Fields that belong to the exchange with the origin, and are not kept.
const PASSING: [HeaderName; 5] = [
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::UPGRADE,
    header::TRAILER,
];

/// Fields that a `304` does not change: they tell of the body that is kept.
const OF_THE_BODY: [HeaderName; 5] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::CONTENT_RANGE,
    header::VARY,
];

/// What is known of the exchange that an answer came by.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Whether the origin may know who asks.
    pub is_known: bool,
    /// From the request to the head of the answer.
    pub took: Duration,
}

/// Whether it may be given to others than those who asked for it by name (RFC 9111, section 3.5).
fn is_shared(said: &Directives) -> bool {
    said.public || said.s_maxage.is_some() || said.must_revalidate
}

/// Whether it may be given once it is stale.
pub(super) fn may_be_stale(said: &Directives) -> bool {
    !said.must_revalidate && !said.proxy_revalidate && !said.no_cache
}

impl Rules {
    /// Judges an answer.
    ///
    /// # Errors
    /// With the reason for which it is not kept.
    pub fn judge(
        &self,
        answer: &ResponseHeader,
        asked: Asked,
        now: SystemTime,
    ) -> Result<CacheMeta, NoCacheReason> {
        self.judge_now(answer, asked, now).map_err(|why| match why {
            // The next answer may be another.
            NoCacheReason::OriginNotCache if answer.status.is_server_error() => {
                NoCacheReason::Custom("status")
            }
            why => why,
        })
    }

    fn judge_now(
        &self,
        answer: &ResponseHeader,
        asked: Asked,
        now: SystemTime,
    ) -> Result<CacheMeta, NoCacheReason> {
        let said = Directives::of_answer(&answer.headers);
        check(answer, &said, asked)?;
        let length = answer.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| self.object_max < length) {
            return Err(NoCacheReason::ResponseTooLarge);
        }
        let lifetime = self.lifetime(answer, &said).ok_or(NoCacheReason::OriginNotCache)?;
        let epoch = now.checked_sub(age(answer, asked, now)).unwrap_or(now);
        let fresh_until = match lifetime {
            // One that is as old as it may be is stale, at this moment already.
            Duration::ZERO => now.checked_sub(Duration::from_secs(1)),
            lifetime => epoch.checked_add(lifetime),
        };
        let fresh_until = fresh_until.ok_or(NoCacheReason::OriginNotCache)?;
        let [revalidating, failing] = self.stale(&said);
        let has_validator = [header::ETAG, header::LAST_MODIFIED]
            .iter()
            .any(|name| answer.headers.contains_key(name));
        if fresh_until <= now && !has_validator && revalidating == 0 && failing == 0 {
            return Err(NoCacheReason::OriginNotCache); // it could never be given
        }
        let mut header = answer.clone();
        for name in PASSING.iter().chain(&said.withheld).chain(&named_by_connection(answer)) {
            header.remove_header(name);
        }
        let mut meta = CacheMeta::new(fresh_until, now, revalidating, failing, header);
        meta.set_epoch_override(epoch);
        Ok(meta)
    }

    /// How long it is good for from when it was made; `None` if nobody says.
    fn lifetime(&self, answer: &ResponseHeader, said: &Directives) -> Option<Duration> {
        if said.no_cache {
            return Some(Duration::ZERO);
        }
        said.s_maxage
            .or(said.max_age)
            .or_else(|| expires(answer).filter(|_| !said.is_for_caches))
            .or_else(|| self.ttl(answer.status))
    }

    /// How many seconds longer it may be given: while it is renewed, and where the origin fails.
    fn stale(&self, said: &Directives) -> [u32; 2] {
        if !may_be_stale(said) {
            return [0, 0];
        }
        // `s-maxage` forbids it as `proxy-revalidate` does, unless the origin says itself for how
        // long it may be.
        let or = |otherwise| if said.s_maxage.is_some() { 0 } else { otherwise };
        let seconds = |time: Option<Duration>, otherwise| match time {
            Some(time) => u32::try_from(time.as_secs()).unwrap_or(u32::MAX),
            None => or(otherwise),
        };
        [
            seconds(said.stale_while_revalidate, self.stale_while_revalidate),
            seconds(said.stale_if_error, self.stale_if_error),
        ]
    }
}

/// The fields that belong to the connection because `Connection` names them.
fn named_by_connection(answer: &ResponseHeader) -> Vec<HeaderName> {
    let values = answer.headers.get_all(header::CONNECTION).iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()
}

/// Whether an answer may be kept at all.
fn check(answer: &ResponseHeader, said: &Directives, asked: Asked) -> Result<(), NoCacheReason> {
    let (status, headers) = (answer.status.as_u16(), &answer.headers);
    let has = |name: HeaderName| headers.contains_key(name);
    if status < 200 || matches!(status, 206 | 304 | 416) {
        return Err(NoCacheReason::Custom("status"));
    }
    let is_understood = UNDERSTOOD.contains(&status);
    let refuses = if said.must_understand { !is_understood } else { said.no_store };
    let varies = headers.get_all(header::VARY).iter();
    let varies_by_all = varies
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|name| name.trim_ascii() == b"*");
    let has_cookie = has(header::SET_COOKIE) && !said.withheld.contains(&header::SET_COOKIE);
    let is_ones_own = has_cookie && !said.public && said.s_maxage.is_none();
    if refuses || said.private || varies_by_all || is_ones_own {
        return Err(NoCacheReason::OriginNotCache);
    }
    if asked.is_known && !is_shared(said) {
        return Err(NoCacheReason::OriginNotCache);
    }
    // What only ends with its connection may have been cut short.
    let has_end = has(header::CONTENT_LENGTH) || has(header::TRANSFER_ENCODING);
    if !has_end && answer.version < Version::HTTP_2 && status != 204 {
        return Err(NoCacheReason::Custom("length"));
    }
    Ok(())
}

/// How old it is already (RFC 9111, section 4.2.3).
fn age(answer: &ResponseHeader, asked: Asked, now: SystemTime) -> Duration {
    let date = date(&answer.headers, &header::DATE);
    let since = date.and_then(|date| now.duration_since(date).ok()).unwrap_or_default();
    let told = answer.headers.get(header::AGE).and_then(|age| age.to_str().ok());
    let told = told.and_then(|age| age.split(',').next()?.trim().parse::<u32>().ok());
    let told = Duration::from_secs(told.unwrap_or(0).into()) + asked.took;
    Duration::from_secs(since.as_secs()).max(told) // dates are whole seconds
}

/// How long `Expires` allows; nonsense there means that it is stale.
fn expires(answer: &ResponseHeader) -> Option<Duration> {
    let headers = &answer.headers;
    headers.get(header::EXPIRES)?;
    let made = date(headers, &header::DATE).unwrap_or_else(SystemTime::now);
    let until = date(headers, &header::EXPIRES);
    Some(until.and_then(|until| until.duration_since(made).ok()).unwrap_or_default())
}

/// The time of a field that stands once.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next()?, values.next());
    httpdate::parse_http_date(first.to_str().ok()?).ok().filter(|_| second.is_none())
}

/// Brings an answer that is kept up to date with the fields of a `304` (RFC 9111, section 3.2).
pub fn renew(kept: &mut ResponseHeader, news: &HeaderMap) -> pingora::Result<()> {
    kept.remove_header(&header::AGE);
    for name in news.keys().filter(|name| !OF_THE_BODY.contains(name) && !PASSING.contains(name)) {
        kept.remove_header(name);
        for value in news.get_all(name) {
            kept.append_header(name, value)?;
        }
    }
    Ok(())
}
