//! How connections to the backends of an upstream are made: over TLS or not, by which HTTP, and
//! with or without the client's address in front (PROXY protocol).
//!
//! Pingora makes them, and keeps them in its pool. Its rustls has one deadline for the connection
//! and for the handshake, and it knows no PROXY protocol; so where an upstream has one of the two,
//! [`dial::Dial`] makes the connection that Pingora goes on with.
//!
//! INVARIANT: a connection in the pool is used again only for what it was made for. Pingora's key
//! to the pool knows nothing of authorities, nor of headers; so each [`Link`] has a number of its
//! own in that key, and with the PROXY protocol each client has.

pub mod config;
pub mod dial;
mod send;

use std::{
    hash::{BuildHasher, RandomState},
    net,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use pingora_core::{
    protocols::l4::socket::SocketAddr,
    upstreams::peer::HttpPeer,
    utils::tls::{CertKey, WrappedX509, parse_x509},
};

pub use send::send;

use crate::{
    tls::origin::{Authorities, Client},
    upstream::{
        Timeouts,
        link::{config::Http, dial::Dial},
        peer,
        proxy_header::{self, Sender, Version},
    },
};

pub use dial::Sources;

/// Streams of one connection over HTTP/2, at most; what most origins allow.
pub const STREAMS_MAX: u32 = 100;
/// What an origin may send on a stream before somebody takes it: the bound on what a slow client
/// keeps in memory.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for a connection: as much as all its streams may have, so that a slow client holds up
/// nobody else.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX;

/// How connections are made.
#[derive(PartialEq)]
pub struct Link {
    /// `None` in plaintext.
    pub(super) tls: Option<Tls>,
    pub(super) http: Http,
    pub(super) proxy_protocol: Option<Version>,
}

/// With whom a handshake is made, and as whom. Files are read already.
#[derive(PartialEq)]
pub(super) struct Tls {
    /// Whom all backends are asked for; `None` asks each for the name that it is configured by.
    pub(super) name: Option<String>,
    pub(super) verifies: bool,
    /// In DER; `None` trusts those whom the system trusts.
    pub(super) authorities: Option<Vec<Vec<u8>>>,
    pub(super) client: Option<Client>,
}

/// What clients are mixed with in the key to the pool: they choose their ports, so it must not be
/// known to them.
static MIXED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Link {
    /// A number for connections that are shared with no other link.
    pub fn pool() -> u64 {
        static POOLS: AtomicU64 = AtomicU64::new(1);
        POOLS.fetch_add(1, Relaxed)
    }

    /// Whether connections are made over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Which HTTP is spoken.
    pub fn http(&self) -> Http {
        self.http
    }

    /// The peer of every backend, but for the address and the name; as for a check of ours.
    pub fn template(&self, timeouts: &Timeouts, sources: &Arc<Sources>) -> HttpPeer {
        const NOWHERE: net::SocketAddr =
            net::SocketAddr::new(net::IpAddr::V4(net::Ipv4Addr::UNSPECIFIED), 1);
        let mut peer = peer::at(NOWHERE.into(), self.is_tls());
        let options = &mut peer.options;
        options.connection_timeout = Some(timeouts.connect);
        options.total_connection_timeout = Some(timeouts.connect);
        options.write_timeout = Some(timeouts.between_bytes);
        options.idle_timeout = Some(timeouts.idle);
        options.h2_ping_interval = timeouts.ping;
        options.max_h2_streams = STREAMS_MAX as usize;
        options.h2_stream_window_size = Some(STREAM_WINDOW);
        options.h2_connection_window_size = Some(CONNECTION_WINDOW);
        let (newest, oldest) = match self.http {
            Http::One => (1, 1),
            Http::Two => (2, 2),
            Http::Auto => (2, 1),
        };
        options.set_http_version(newest, oldest);
        if self.is_tls() || self.proxy_protocol.is_some() {
            // The connection's own time is kept by `Dial`, and Pingora keeps the handshake's.
            options.connection_timeout = Some(timeouts.handshake);
            options.total_connection_timeout = None;
            options.custom_l4 = Some(Arc::new(self.dial(timeouts, sources, Sender::Ourselves)));
        }
        if let Some(tls) = &self.tls {
            options.verify_cert = tls.verifies;
            options.ca = tls.authorities.as_deref().map(parsed);
            peer.sni = tls.name.clone().unwrap_or_default();
            let client = tls.client.as_ref();
            peer.client_cert_key = client
                .map(|client| Arc::new(CertKey::new(client.chain.clone(), client.key.clone())));
        }
        peer
    }

    /// Makes of a peer the one for a client, if backends are told of clients: a connection that
    /// was made for one client is of no use to another.
    pub fn introduce(
        &self,
        peer: &mut HttpPeer,
        client: impl FnOnce() -> Sender,
        timeouts: &Timeouts,
        sources: &Arc<Sources>,
    ) {
        if self.proxy_protocol.is_none() {
            return;
        }
        let client = client();
        peer.group_key = MIXED.hash_one((peer.group_key, client));
        peer.options.custom_l4 = Some(Arc::new(self.dial(timeouts, sources, client)));
    }

    /// Bounds the time in which the connection of a peer is made, its handshake included.
    pub fn hasten(peer: &mut HttpPeer, limit: Duration) {
        let sooner = |time: Option<Duration>| Some(time.map_or(limit, |time| time.min(limit)));
        let options = &mut peer.options;
        options.connection_timeout = sooner(options.connection_timeout);
        options.total_connection_timeout = sooner(options.total_connection_timeout);
    }

    /// Makes connections as for a check of ours, within a time.
    pub fn dial(&self, timeouts: &Timeouts, sources: &Arc<Sources>, sender: Sender) -> Dial {
        let header = self.proxy_protocol.map(|version| proxy_header::header(version, sender));
        Dial { timeout: timeouts.connect, sources: sources.clone(), header }
    }
}

/// The peer of a backend, which may have a name beside its address.
pub fn peer_of(template: &HttpPeer, address: SocketAddr, name: Option<&str>) -> HttpPeer {
    let mut peer = HttpPeer { _address: address, ..template.clone() };
    if peer.is_tls() && peer.sni.is_empty() {
        peer.sni = match (name, &peer._address) {
            (Some(name), _) => name.trim_end_matches('.').to_owned(),
            // An address is never sent, and without a name nothing is verified.
            (None, SocketAddr::Inet(address)) => address.ip().to_string(),
            (None, SocketAddr::Unix(_)) => net::Ipv4Addr::LOCALHOST.to_string(),
        };
    }
    peer
}

fn parsed(authorities: &[Vec<u8>]) -> Authorities {
    let authorities = authorities.iter().map(|der| WrappedX509::new(der.clone(), parse_x509));
    authorities.collect::<Vec<_>>().into()
}
