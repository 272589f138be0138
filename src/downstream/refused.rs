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

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    http1::refusal::Refusal,
    http2::guard::Abuse,
    metrics::{Family, Page},
    reason::Reason,
};

const REFUSED: Family<1> = Family::counter(
    "crestline_refused_total",
    "Connections and malformed requests that were refused before any route was asked, by reason",
    ["reason"],
);

/// The reasons beside those for malformed requests.
const OTHERS: [Reason; 23] = [
    Reason::Connections,
    Reason::ConnectionsPerClient,
    Reason::AcceptsPerClient,
    Reason::GaveWay,
    Reason::Silent,
    Reason::ProxyProtocolUntrusted,
    Reason::ProxyProtocolMissing,
    Reason::ProxyProtocolMalformed,
    Reason::ProxyProtocolTimeout,
    Reason::HeaderTimeout,
    Reason::PlainHttpOnTls,
    Reason::UnknownName,
    Reason::NoTls,
    Reason::HelloTooLong,
    Reason::HelloTimeout,
    Reason::ClientTimeout,
    Reason::BodyTooSlow,
    Reason::WriteTimeout,
    Reason::NoSource,
    Reason::Overloaded,
    Abuse::Resets.reason(),
    Abuse::Empty.reason(),
    Abuse::Idle.reason(),
];

/// One line for all threads: whoever is refused may wait for it.
static COUNTS: LazyLock<Vec<(Reason, AtomicU64)>> = LazyLock::new(|| {
    let malformed = Refusal::ALL.iter().map(|refusal| refusal.reason);
    malformed.chain(OTHERS).map(|reason| (reason, AtomicU64::new(0))).collect()
});

/// Counts a refusal; reasons of others, such as origins that fail, are none.
pub fn count(reason: Reason) {
    if let Some((_, count)) = COUNTS.iter().find(|(known, _)| *known == reason) {
        count.fetch_add(1, Relaxed);
    }
}

/// Writes how much was refused, by reason.
pub fn collect(page: &mut Page) {
    let mut refused = page.family(&REFUSED);
    for (reason, count) in COUNTS.iter() {
        refused.add([reason.as_str()], count.load(Relaxed));
    }
}

/// How much was refused since the process began, by reason; what never happened is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(rename = "RefusedByReason")]
pub struct Refused(pub BTreeMap<String, u64>);

impl Refused {
    /// Looks at the counts now.
    pub fn get() -> Self {
        let counts = COUNTS.iter().map(|(reason, count)| (reason.to_string(), count.load(Relaxed)));
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
        let words: BTreeSet<_> = COUNTS.iter().map(|(reason, _)| reason.as_str()).collect();
        assert_eq!(words.len(), COUNTS.len());
        let before = Refused::get().0.get("silent").copied().unwrap_or(0);
        count(Reason::Silent);
        count(Reason::ConnectRefused);
        assert!(before < Refused::get().0["silent"]);
        assert!(!Refused::get().0.contains_key("connect_refused"));
    }

    #[test]
    fn the_most_frequent_is_told_first() {
        let counts = [("bad_host", 3), ("header_timeout", 12), ("silent", 3)];
        let refused = Refused(counts.map(|(word, count)| (word.to_owned(), count)).into());
        assert_eq!(refused.to_string(), "header_timeout 12, bad_host 3, silent 3");
    }
}
