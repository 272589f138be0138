//! The harness: the real program, origins that behave and misbehave, and a client that shows
//! what came over the wire.
//!
//! Waiting is always for a condition, and always bounded.

mod ca;
pub(crate) mod chromium;
mod client;
mod crestline;
mod daemon;
mod dns;
mod etcd;
pub(crate) mod frames;
mod front;
pub(crate) mod http2;
mod load;
mod origin;
pub(crate) mod otlp;
mod provider;
mod redis;
pub(crate) mod rsyslog;
mod signer;
mod tls;
mod wire;

use std::time::Duration;

use tokio::time::{self, Instant};

pub(crate) use self::{
    ca::{Ca, Habits},
    client::{Answer, Client, curl, get, post, request},
    crestline::{Crestline, Finished},
    dns::Dns,
    etcd::Etcd,
    front::{Accepted, Asks, Front},
    http2::{H2Answer, H2Client, H2Origin},
    load::{Load, UntilRefused},
    origin::{After, Exchange, Origin, bound},
    provider::{Browser, Provider},
    redis::Redis,
    signer::Signer,
    tls::{
        Authority, Pair, Session, TlsClient, TlsEnding, connect_http2, curl_with_certificate,
        s_client,
    },
    wire::Ending,
};

/// Nothing that a test waits for takes this long, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(50);

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let result = time::timeout(PATIENCE, future).await;
    result.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// So many bytes that repeat late and at no power of two, so that a byte at a wrong place shows.
pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    const PERIOD: usize = 65_521;

    pub(crate) fn new() -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let once: Vec<u8> = (0..Self::PERIOD).map(|_| random.u8(..)).collect();
        Self(once.repeat(2))
    }

    /// At most a period of bytes from a place on.
    pub(crate) fn at(&self, place: usize, length: usize) -> &[u8] {
        let start = place % Self::PERIOD;
        &self.0[start..start + length.min(Self::PERIOD)]
    }

    /// Whether these bytes are the ones from `place` on.
    pub(crate) fn matches(&self, mut place: usize, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(Self::PERIOD));
            if now != self.at(place, now.len()) {
                return false;
            }
            place += now.len();
            bytes = rest;
        }
        true
    }
}
