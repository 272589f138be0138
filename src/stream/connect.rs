//! The connection to a backend; if one fails, another, as for requests.

use std::{fmt, net};

use pingora::{ErrorType, OrErr, Result};
use pingora_core::{
    connectors::TransportConnector,
    listeners::ALPN,
    protocols::{Stream, l4::socket::SocketAddr},
    upstreams::peer::{HttpPeer, Peer, PeerOptions},
    utils::tls::CertKey,
};
use std::sync::Arc;
use tokio::time::{self, Instant};

use crate::{
    reason::Reason,
    stream::{Passage, origin::Origin},
    upstream::{
        Upstream,
        attempts::{Begun, Contact},
        backend::{InFlight, Member},
        balance::hints::Hints,
        link::dial::Socket,
        outcome::Outcome,
        proxy_header::Sender,
    },
};

/// A connection that was made.
pub(super) struct Connected {
    pub(super) origin: Origin,
    /// The place at its backend, held for as long as it is open.
    pub(super) in_flight: InFlight,
}

impl Passage {
    /// Connects to a backend, and tells the upstream how each attempt ended.
    ///
    /// # Errors
    /// If none is left, or the budget is spent: a status and a reason.
    pub(super) async fn connect(
        &mut self,
        connector: &TransportConnector,
        client: &Stream,
    ) -> Result<Connected, (u16, Reason)> {
        let upstream = self.target.upstream.clone();
        upstream.count_request();
        let sender = self.sender(client);
        let mut began = self.started;
        loop {
            let hints = Hints { client: self.client.client, ..Hints::NONE };
            let visit = |member: &Member| self.attempts.visit(member);
            let Some(in_flight) = upstream.take_turn(began, &hints, visit) else {
                return Err(self.failed().unwrap_or((503, Reason::NoBackend)));
            };
            let member = in_flight.member().clone();
            began = Instant::now();
            let opened = open(connector, &upstream, &in_flight, sender).await;
            let outcome = match &opened {
                Ok(_) => Outcome::Connected,
                Err(why) => Outcome::of_connecting(why),
            };
            let now = Instant::now();
            let took = now.saturating_duration_since(began);
            upstream.report_latency(&member, outcome, took, now);
            upstream.report(&member, outcome, now);
            let contact = Contact::Made { took: took.into(), handshake: None };
            let contact = if opened.is_ok() { contact } else { Contact::None };
            let times = Begun { contact, ..Begun::after(self.attempts.len(), began) }
                .times(self.started, now);
            self.attempts.record(member, outcome, times);
            let why = match opened {
                Ok(origin) => return Ok(Connected { origin, in_flight }),
                Err(why) => why,
            };
            drop(in_flight);
            log::debug!("relay of {}: {outcome}: {why}", self.listener);
            let retries = self.attempts.retries();
            let policy = upstream.retry_policy();
            let is_over = self.attempts.is_full() || policy.max < retries;
            if is_over || !policy.on.meets(outcome) || !upstream.may_retry(now) {
                return Err(self.failed().unwrap_or((500, Reason::Internal)));
            }
            time::sleep(policy.backoff.pause(retries)).await;
            began = Instant::now();
        }
    }

    /// What the last attempt failed with.
    fn failed(&self) -> Option<(u16, Reason)> {
        self.attempts.last().and_then(Outcome::no_connection)
    }

    /// Whom the origin is told of by the PROXY protocol.
    fn sender(&self, client: &Stream) -> Sender {
        let digest = client.get_socket_digest();
        let inet = |address: Option<&SocketAddr>| -> Option<net::SocketAddr> {
            address?.as_inet().copied()
        };
        let peer = digest.as_ref().and_then(|digest| inet(digest.peer_addr()));
        let local = digest.as_ref().and_then(|digest| inet(digest.local_addr()));
        Sender::of(self.client.client, peer, local)
    }
}

/// Makes one connection. In plaintext Pingora is not asked, since its streams hold buffers.
async fn open(
    connector: &TransportConnector,
    upstream: &Upstream,
    in_flight: &InFlight,
    sender: Sender,
) -> Result<Origin> {
    let member = in_flight.member();
    if upstream.link().is_tls() {
        let peer = RawPeer(upstream.peer_for(member, || sender, None));
        return connector.new_stream(&peer).await.map(Origin::Tls);
    }
    let socket = upstream.dial(sender).open(member.state.address()).await?;
    if let Socket::Tcp(socket) = &socket {
        socket.set_nodelay(true).or_err(ErrorType::SocketError, "setting TCP_NODELAY")?;
    }
    Ok(socket.into())
}

/// A peer to which no HTTP is spoken: none is offered in the handshake.
#[derive(Clone)]
struct RawPeer(Box<HttpPeer>);

impl fmt::Display for RawPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Peer for RawPeer {
    fn address(&self) -> &SocketAddr {
        self.0.address()
    }

    fn tls(&self) -> bool {
        self.0.tls()
    }

    fn sni(&self) -> &str {
        self.0.sni()
    }

    fn reuse_hash(&self) -> u64 {
        self.0.reuse_hash()
    }

    fn get_peer_options(&self) -> Option<&PeerOptions> {
        self.0.get_peer_options()
    }

    fn get_mut_peer_options(&mut self) -> Option<&mut PeerOptions> {
        self.0.get_mut_peer_options()
    }

    fn get_client_cert_key(&self) -> Option<&Arc<CertKey>> {
        self.0.get_client_cert_key()
    }

    fn get_alpn(&self) -> Option<&ALPN> {
        None
    }
}
