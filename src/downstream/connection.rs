//! What is known of a downstream connection, established once when it is accepted.

use std::{
    any::Any,
    net::IpAddr,
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    time::Duration,
};

use bytes::Bytes;
use http::HeaderValue;
use ipnet::IpNet;
use pingora_core::protocols::{Digest, raw_connect::ProxyDigest};
use pingora_http::ResponseHeader;
use tokio::time::Instant;

use crate::{
    clock,
    downstream::{
        clients::Counted,
        config::Bounds,
        proxy_protocol::{Told, ToldTls},
        seat::{Seat, Waiting},
    },
    drain::Drain,
    observe::access_log::line::Tls,
    tls::accept::Facts,
};

/// Facts of one connection; every request on it shares them.
#[derive(Debug)]
pub struct Connection {
    /// The address of the peer; `None` on a Unix socket.
    pub client: Option<IpAddr>,
    /// The same as a value of `X-Forwarded-For`.
    pub client_value: HeaderValue,
    /// Whether the peer may say who its own client was.
    pub is_trusted: bool,
    /// The networks whose word counts.
    pub trusted: Arc<[IpNet]>,
    /// When it was accepted.
    pub accepted: Instant,
    /// When its handshake was over; `None` in plaintext.
    pub secured: Option<Instant>,
    /// Timeouts and limits of the listener.
    pub bounds: Arc<Bounds>,
    /// What the handshake told; `None` in plaintext.
    pub tls: Option<Facts>,
    /// What a load balancer told with the PROXY protocol, beside the client.
    introduced: Option<Box<Told>>,
    /// Its seat among all connections, and its place among those of its client, where they are
    /// limited; `None` in tests.
    seat: Option<(Seat, Option<Counted>)>,
    /// Set once an upgrade (`101`) succeeded: from then on bytes pass as they come.
    tunnel: AtomicBool,
    /// How long the origin may be silent, in milliseconds; 0 is for ever.
    patience: AtomicU64,
    /// Whether the wait for the origin has begun.
    has_begun: AtomicBool,
    /// When the head of an answer must be here, in milliseconds of [`clock`]; 0 is never.
    limit: AtomicU64,
    /// Where it is counted, and whether it may be kept.
    drain: Arc<Drain>,
    /// Requests that are being answered.
    requests: AtomicU32,
    /// Whether the client takes nothing at the moment.
    is_stalled: AtomicBool,
    /// Whether pieces of an answer are sent as they come, although nobody reads in between.
    is_eager: AtomicBool,
    /// Whether the client takes little at a time, once that was looked at.
    is_narrow: OnceLock<bool>,
}

/// Who offers room for less than this when its first request is here takes little at a time: clients
/// that mean to read offer some ten thousand bytes at least, and those that attack by reading
/// slowly a few hundred.
const NARROW: u32 = 4 * 1024;

/// The value that stands for a client without an address (RFC 7239 §6.3).
const UNKNOWN: HeaderValue = HeaderValue::from_static("unknown");

impl Connection {
    /// Establishes the facts; `trusted` are the networks whose forwarded fields count. It is
    /// counted until it is dropped.
    pub fn new(
        client: Option<IpAddr>,
        trusted: Arc<[IpNet]>,
        bounds: Arc<Bounds>,
        drain: Arc<Drain>,
    ) -> Self {
        drain.connected();
        let client = client.map(|address| address.to_canonical());
        // A peer on a Unix socket is as local as it gets, and has no address to list.
        let is_trusted = client.is_none_or(|address| contains(&trusted, address));
        let client_value = client.map_or(UNKNOWN, |address| {
            let text = Bytes::from(address.to_string());
            HeaderValue::from_maybe_shared(text).unwrap_or(UNKNOWN)
        });
        Self {
            client,
            client_value,
            is_trusted,
            trusted,
            accepted: Instant::now(),
            secured: None,
            bounds,
            tls: None,
            introduced: None,
            seat: None,
            tunnel: AtomicBool::new(false),
            patience: AtomicU64::new(0),
            has_begun: AtomicBool::new(false),
            limit: AtomicU64::new(0),
            drain,
            requests: AtomicU32::new(0),
            is_stalled: AtomicBool::new(false),
            is_eager: AtomicBool::new(false),
            is_narrow: OnceLock::new(),
        }
    }

    /// The same connection, over TLS.
    #[must_use]
    pub fn over_tls(mut self, facts: Facts) -> Self {
        (self.tls, self.secured) = (Some(facts), Some(Instant::now()));
        self
    }

    /// The same connection, accepted at this time.
    #[must_use]
    pub fn accepted(mut self, at: Instant) -> Self {
        self.accepted = at;
        self
    }

    /// The same connection, on its seat, and counted for its client.
    #[must_use]
    pub fn seated(mut self, seat: Seat, counted: Option<Counted>) -> Self {
        self.seat = Some((seat, counted));
        self
    }

    /// The same connection, with what a load balancer told beside the client.
    #[must_use]
    pub fn introduced(mut self, told: Told) -> Self {
        let says_more = told.authority.is_some() || told.tls.is_some();
        self.introduced = says_more.then(|| Box::new(told));
        self
    }

    /// Whether the client speaks TLS: to this process, or to a load balancer that says so.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some() || self.told_tls().is_some()
    }

    fn told_tls(&self) -> Option<&ToldTls> {
        self.introduced.as_ref().and_then(|told| told.tls.as_ref())
    }

    /// Whether it waits for a request, and can be called; `None` in tests.
    pub fn waiting(&self) -> Option<&Arc<Waiting>> {
        self.seat.as_ref().map(|(seat, _)| seat.waiting())
    }

    /// Notes that it waits for a request from now on.
    pub fn begin_waiting(&self) {
        self.waiting().inspect(|waiting| waiting.begin());
    }

    /// Notes that a request is here.
    pub fn end_waiting(&self) {
        self.waiting().inspect(|waiting| waiting.end());
    }

    /// What the access log tells of the handshake, wherever that was made; what a load balancer
    /// tells comes second.
    pub fn tls_entry(&self) -> Tls<'_> {
        let (facts, told) = (self.tls.as_ref(), self.told_tls());
        let told_version = || told.and_then(|tls| tls.version.as_deref());
        let authority = || self.introduced.as_ref().and_then(|told| told.authority.as_deref());
        Tls {
            version: facts.map(|facts| facts.version).or_else(told_version),
            sni: facts.and_then(|facts| facts.server_name.as_deref()).or_else(authority),
            cipher: facts.map(|facts| facts.cipher),
            group: facts.and_then(|facts| facts.group),
            is_resumed: facts.is_some_and(|facts| facts.is_resumed),
            client: facts.and_then(|facts| facts.client.as_deref()).map(|client| {
                [&client.subject, &client.sans, &client.fingerprint].map(HeaderValue::as_bytes)
            }),
            told_client_cn: told.and_then(|tls| tls.client_cn.as_deref()),
        }
    }

    /// Where it is counted.
    pub fn drain(&self) -> &Arc<Drain> {
        &self.drain
    }

    /// Whether any request is being answered, or an answer waits for its client to take it.
    pub fn is_busy(&self) -> bool {
        0 < self.requests.load(Acquire) || self.is_stalled.load(Relaxed)
    }

    /// Notes whether the client takes what is written.
    pub fn set_stalled(&self, is_stalled: bool) {
        self.is_stalled.store(is_stalled, Relaxed);
    }

    /// Whether the client takes little at a time, by the room that it offers (`window`, in bytes)
    /// when this is first asked.
    pub fn is_narrow(&self, window: impl FnOnce() -> Option<u32>) -> bool {
        *self.is_narrow.get_or_init(|| window().is_some_and(|window| (1..NARROW).contains(&window)))
    }

    /// Has pieces of an answer sent as they come, or not: an answer that another request fetches is
    /// followed without a look at the client.
    pub fn set_eager(&self, is_eager: bool) {
        self.is_eager.store(is_eager, Relaxed);
    }

    /// Whether they are.
    pub fn is_eager(&self) -> bool {
        self.is_eager.load(Relaxed)
    }

    /// Ends the exchange if the origin is silent for so long from now on; `None` is for ever.
    ///
    /// Pingora has one timeout for all reads from an origin, and sets a timer for each of them.
    /// So the downstream stream, which Pingora polls while it waits, keeps the time instead.
    pub fn await_origin(&self, patience: Option<Duration>) {
        let millis = patience.map_or(0, |patience| patience.as_millis().max(1));
        self.patience.store(u64::try_from(millis).unwrap_or(u64::MAX), Relaxed);
        self.has_begun.store(false, Relaxed);
    }

    /// Ends the exchange if the head of an answer is not here by then; `None` is never. For
    /// HTTP/1 alone: streams of HTTP/2 share their connection.
    pub fn set_limit(&self, limit: Option<Instant>) {
        // Whole milliseconds are counted, and none is too early.
        let millis = limit.map_or(0, |limit| clock::millis(limit).saturating_add(1));
        if millis != self.limit.load(Relaxed) {
            self.limit.store(millis, Relaxed);
        }
    }

    /// How long it is until the head of an answer must be here.
    pub fn limit(&self) -> Option<Duration> {
        match self.limit.load(Relaxed) {
            0 => None,
            limit => {
                let now = clock::millis(Instant::now());
                Some(Duration::from_millis(limit.saturating_sub(now)))
            }
        }
    }

    /// How long the origin may be silent.
    pub fn patience(&self) -> Option<Duration> {
        match self.patience.load(Relaxed) {
            0 => None,
            millis => Some(Duration::from_millis(millis)),
        }
    }

    /// Whether the wait was asked for since the last time; true only once for each.
    ///
    /// The wait begins when Pingora next polls, and not while it still writes to a slow client.
    pub fn wait_begins(&self) -> bool {
        !self.has_begun.load(Relaxed) && !self.has_begun.swap(true, Relaxed)
    }

    /// Lets bytes pass as they come from now on.
    pub fn open_tunnel(&self) {
        self.tunnel.store(true, Relaxed);
    }

    /// Whether bytes pass as they come.
    pub fn is_tunnel(&self) -> bool {
        self.tunnel.load(Relaxed)
    }

    /// Wraps the facts so that Pingora carries them to every request of the connection, HTTP/2
    /// streams included: it has a slot for a digest that only applications fill.
    pub fn into_digest(self: Arc<Self>) -> Arc<ProxyDigest> {
        let unused = ResponseHeader::build_no_case(200, Some(0));
        let unused = unused.expect("200 is a status");
        let user_data: Box<dyn Any + Send + Sync> = Box::new(self);
        Arc::new(ProxyDigest::new(Box::new(unused), Some(user_data)))
    }

    /// Finds the facts again in a request.
    pub fn of(digest: &Digest) -> Option<&Arc<Self>> {
        digest.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.drain.disconnected();
    }
}

/// A request on its connection, counted until it is dropped.
#[derive(Debug)]
pub struct Exchange(Arc<Connection>);

impl Exchange {
    /// Counts a request that begins.
    pub fn begin(connection: Arc<Connection>) -> Self {
        if connection.requests.fetch_add(1, AcqRel) == 0 {
            connection.end_waiting();
        }
        connection.drain.begun();
        Self(connection)
    }
}

impl Deref for Exchange {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, AcqRel) == 1 {
            self.0.begin_waiting();
        }
        self.0.drain.finished();
    }
}

/// Whether an address is in one of the networks.
pub fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(client: Option<&str>) -> Connection {
        let trusted = Arc::new(["10.0.0.0/8".parse().unwrap()]);
        let client = client.map(|address| address.parse().unwrap());
        Connection::new(client, trusted, Arc::default(), Arc::default())
    }

    #[test]
    fn only_a_named_network_is_trusted() {
        assert!(connection(Some("10.1.2.3")).is_trusted);
        assert!(connection(Some("::ffff:10.1.2.3")).is_trusted, "a mapped address is the same");
        assert!(!connection(Some("192.0.2.1")).is_trusted);
        assert!(connection(None).is_trusted, "a Unix socket");
    }

    #[test]
    fn the_facts_travel_in_the_digest() {
        let facts = Arc::new(connection(Some("192.0.2.1")));
        let digest =
            Digest { proxy_digest: Some(facts.clone().into_digest()), ..Digest::default() };
        assert!(Arc::ptr_eq(Connection::of(&digest).unwrap(), &facts));
        assert_eq!(facts.client_value, "192.0.2.1");
        assert!(Connection::of(&Digest::default()).is_none());
    }

    #[test]
    fn connections_and_requests_are_counted_while_they_last() {
        let connection = Arc::new(connection(None));
        let drain = connection.drain().clone();
        let exchanges = [Exchange::begin(connection.clone()), Exchange::begin(connection.clone())];
        assert_eq!((drain.load().connections, drain.load().requests), (1, 2));
        assert!(connection.is_busy());
        drop(exchanges);
        assert!(!connection.is_busy());
        connection.set_stalled(true);
        assert!(connection.is_busy());
        drop(connection);
        assert_eq!((drain.load().connections, drain.load().requests), (0, 0));
    }
}
