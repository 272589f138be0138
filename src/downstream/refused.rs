//! What was refused before any route was asked, and why: counted for as long as the process runs.
//!
//! Malformed requests never reach a hook, and refused connections leave no line in the access log;
//! here both are seen. One word each, the same as in the log.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde::{Deserialize, Serialize};

use crate::{
    http1::refusal::Refusal,
    http2::guard::Abuse,
    metrics::{Family, Page},
};

const REFUSED: Family<1> = Family::counter(
    "crestline_refused_total",
    "Connections and malformed requests that were refused before any route was asked, by reason",
    ["reason"],
);

/// The connections of all clients are at their bound, and none of them is idle.
pub const CONNECTIONS: &str = "connections";
/// The connections of this client are at their bound.
pub const CONNECTIONS_PER_CLIENT: &str = "connections_per_client";
/// This client connects too often.
pub const ACCEPTS_PER_CLIENT: &str = "accepts_per_client";
/// An idle connection was closed so that another client gets in.
pub const GAVE_WAY: &str = "gave_way";
/// Not one byte came in the time for the first head.
pub const SILENT: &str = "silent";
/// A stranger sent a header of the PROXY protocol.
pub const PROXY_PROTOCOL_UNTRUSTED: &str = "proxy_protocol_untrusted";
/// A trusted proxy sent none where it must.
pub const PROXY_PROTOCOL_MISSING: &str = "proxy_protocol_missing";
/// A trusted proxy sent one that is none.
pub const PROXY_PROTOCOL_MALFORMED: &str = "proxy_protocol_malformed";
/// One was not complete in the time for a head.
pub const PROXY_PROTOCOL_TIMEOUT: &str = "proxy_protocol_timeout";
/// A request head was not complete in its time.
pub const HEADER_TIMEOUT: &str = "header_timeout";
/// A request without TLS where TLS is spoken.
pub const PLAIN_HTTP_ON_TLS: &str = "plain_http_on_tls";
/// A connection asked in its handshake for a name that nothing is relayed for.
pub const UNKNOWN_NAME: &str = "unknown_name";
/// A connection that is relayed by its name spoke no TLS.
pub const NO_TLS: &str = "no_tls";
/// The first message of a handshake that is looked at was too long.
pub const HELLO_TOO_LONG: &str = "hello_too_long";
/// One was not complete in the time for a handshake.
pub const HELLO_TIMEOUT: &str = "hello_timeout";
/// A request's body stopped.
pub const CLIENT_TIMEOUT: &str = "client_timeout";
/// A request's body came too slowly.
pub const BODY_TOO_SLOW: &str = "body_too_slow";
/// A client took nothing of its answer.
pub const WRITE_TIMEOUT: &str = "write_timeout";

/// No address and port were left to connect to an origin from.
pub const NO_SOURCE: &str = "no_source";
/// The process has too much to do, or too little memory, for another request.
pub const OVERLOADED: &str = "overloaded";

/// The words beside those for malformed requests.
const WORDS: [&str; 23] = [
    CONNECTIONS,
    CONNECTIONS_PER_CLIENT,
    ACCEPTS_PER_CLIENT,
    GAVE_WAY,
    SILENT,
    PROXY_PROTOCOL_UNTRUSTED,
    PROXY_PROTOCOL_MISSING,
    PROXY_PROTOCOL_MALFORMED,
    PROXY_PROTOCOL_TIMEOUT,
    HEADER_TIMEOUT,
    PLAIN_HTTP_ON_TLS,
    UNKNOWN_NAME,
    NO_TLS,
    HELLO_TOO_LONG,
    HELLO_TIMEOUT,
    CLIENT_TIMEOUT,
    BODY_TOO_SLOW,
    WRITE_TIMEOUT,
    NO_SOURCE,
    OVERLOADED,
    Abuse::Resets.reason(),
    Abuse::Empty.reason(),
    Abuse::Idle.reason(),
];

/// One line for all threads: whoever is refused may wait for it.
static COUNTS: LazyLock<Vec<(&'static str, AtomicU64)>> = LazyLock::new(|| {
    let malformed = Refusal::ALL.iter().map(|refusal| refusal.reason);
    malformed.chain(WORDS).map(|word| (word, AtomicU64::new(0))).collect()
});

/// Counts a refusal; reasons of others, such as origins that fail, are none.
pub fn count(reason: &str) {
    if let Some((_, count)) = COUNTS.iter().find(|(word, _)| *word == reason) {
        count.fetch_add(1, Relaxed);
    }
}

/// Writes how much was refused, by reason.
pub fn collect(page: &mut Page) {
    let mut refused = page.family(&REFUSED);
    COUNTS.iter().for_each(|(word, count)| refused.add([word], count.load(Relaxed)));
}

/// How much was refused since the process began, by reason; what never happened is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Refused(pub BTreeMap<String, u64>);

impl Refused {
    /// Looks at the counts now.
    pub fn get() -> Self {
        let counts = COUNTS.iter().map(|(word, count)| ((*word).to_owned(), count.load(Relaxed)));
        Self(counts.filter(|(_, count)| 0 < *count).collect())
    }
}

impl fmt::Display for Refused {
    /// `header_timeout 12, bad_host 3`: the most frequent first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: Vec<_> = self.0.iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (index, (word, count)) in counts.into_iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{word} {count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_word_is_counted_once_and_others_not_at_all() {
        let words: BTreeSet<_> = COUNTS.iter().map(|(word, _)| word).collect();
        assert_eq!(words.len(), COUNTS.len());
        let before = Refused::get().0.get(SILENT).copied().unwrap_or(0);
        count(SILENT);
        count("connect_refused");
        assert!(before < Refused::get().0[SILENT]);
        assert!(!Refused::get().0.contains_key("connect_refused"));
    }

    #[test]
    fn the_most_frequent_is_told_first() {
        let counts = [("bad_host", 3), ("header_timeout", 12), ("silent", 3)];
        let refused = Refused(counts.map(|(word, count)| (word.to_owned(), count)).into());
        assert_eq!(refused.to_string(), "header_timeout 12, bad_host 3, silent 3");
    }
}
