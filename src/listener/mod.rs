//! Where connections arrive: an accepted socket becomes a connection with facts and bounds, and
//! is served until it closes.

mod accept;
pub mod admission;
pub mod bind;
pub mod handed;
mod introduction;
mod options;
mod peek;
mod refuse;
mod secure;
mod serve;
pub mod sockets;
mod streams;

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use ipnet::IpNet;
use log::{debug, error};
use pingora_core::{
    apps::{HttpServerApp, ServerApp},
    protocols::{Stream, l4::socket},
    server::ShutdownWatch,
};
use tokio::time::Instant;

use crate::{
    downstream::{
        config::{Address, process::Limits, proxy_protocol::Rules},
        connection::Connection,
        proxy_protocol::Told,
        refused,
        relayed::Relayed,
        seat::Seat,
        stream::Downstream,
    },
    drain::Drain,
    listener::{
        admission::Admission,
        introduction::{Failure, Introduction},
        peek::Begins,
        refuse::Refuser,
        serve::Speaks,
        streams::Streams,
    },
    panics,
    reason::Reason,
    snapshot::{Listener, Live, RelayTarget},
    tls::accept::refuse_name,
};

/// Passes the bytes of a connection on as they come, until it is over.
pub type Relay = Arc<dyn Fn(Relayed, RelayTarget) -> BoxFuture<'static, ()> + Send + Sync>;

/// The application that Pingora's accept loops call: it stands before `app`, which answers, and
/// before `relay`, which passes on.
pub struct Edge<A> {
    app: Arc<A>,
    /// The same, for HTTP/2.
    streams: Arc<Streams<A>>,
    relay: Relay,
    live: Live,
    drain: Arc<Drain>,
    admission: Arc<Admission>,
    refuser: Refuser,
}

/// A connection of which it is known what becomes of it.
enum Begun {
    Http(Box<Downstream>, Speaks),
    Relay(Box<Relayed>, RelayTarget),
}

/// A connection that was accepted, of which nothing was read.
struct Arrival {
    started: Instant,
    listener: Listener,
    /// The address of the other side; `None` on a Unix socket.
    peer: Option<IpAddr>,
    seat: Seat,
    trusted: Arc<[IpNet]>,
    limits: Limits,
}

impl<A> Edge<A> {
    /// Puts an edge before `app`. A connection is bound by the configuration that is in force
    /// when it arrives.
    pub fn new(
        app: Arc<A>,
        relay: Relay,
        live: Live,
        drain: Arc<Drain>,
        admission: Arc<Admission>,
    ) -> Self {
        let (streams, refuser) = (Arc::new(Streams(app.clone())), Refuser::new(live.clone()));
        Self { app, streams, relay, live, drain, admission, refuser }
    }

    /// Gives an accepted connection a seat; `None` if there is none, and it is closed.
    fn arrive(&self, stream: &Stream) -> Option<Arrival> {
        let digest = stream.get_socket_digest();
        let local = digest.as_ref().and_then(|digest| digest.local_addr());
        let peer = digest.as_ref().and_then(|digest| digest.peer_addr());
        let peer = peer.and_then(socket::SocketAddr::as_inet).map(SocketAddr::ip);
        let snapshot = self.live.load();
        let listener = find(&snapshot.listeners, local)?;
        let limits = &snapshot.file.limits;
        let seat = self.admission.seat(limits, stream.id());
        let seat = seat.map_err(|reason| refuse(listener, peer, reason)).ok()?;
        Some(Arrival {
            started: Instant::now(),
            listener: listener.clone(),
            peer,
            seat,
            trusted: snapshot.trusted.clone(),
            limits: limits.clone(),
        })
    }

    /// Learns who the client is, and counts it: `None` if it is refused.
    async fn introduce(
        &self,
        mut stream: Stream,
        arrival: Arrival,
        shutdown: &ShutdownWatch,
    ) -> Option<(Stream, Connection, Listener)> {
        let Arrival { started, listener, peer, seat, trusted, limits } = arrival;
        let mut introduction = Introduction::OfTheClient;
        if let Some(rules) = &listener.bounds.proxy_protocol {
            (stream, introduction) =
                read_told(stream, rules, &listener, peer, &seat, shutdown).await?;
        }
        let (client, told, is_client) = match introduction {
            Introduction::Told(told) => (told.client, told, true),
            Introduction::OfTheProxy => (peer, Told::default(), false),
            Introduction::OfTheClient => (peer, Told::default(), true),
        };
        // A load balancer that speaks for itself is nobody's client.
        let counted = self.admission.count(client.filter(|_| is_client), &limits);
        let counted = counted.map_err(|reason| refuse(&listener, client, reason)).ok()?;
        let (bounds, drain) = (listener.bounds.clone(), self.drain.clone());
        let connection = Connection::new(client, trusted, bounds, drain).accepted(started);
        Some((stream, connection.seated(seat, counted).introduced(told), listener))
    }
}

async fn read_told(
    stream: Stream,
    rules: &Rules,
    listener: &Listener,
    peer: Option<IpAddr>,
    seat: &Seat,
    shutdown: &ShutdownWatch,
) -> Option<(Stream, Introduction)> {
    let within = listener.bounds.header_timeout;
    match introduction::read(stream, rules, peer, within, seat.waiting(), shutdown).await {
        Ok(told) => Some(told),
        Err(Failure::Gone) => None,
        Err(Failure::Refused(reason, why)) => {
            if let Some(why) = why {
                debug!("PROXY protocol on {}: {why}", listener.address);
            }
            refuse(listener, peer, reason);
            None
        }
    }
}

/// Counts a connection that is closed without a word.
fn refuse(listener: &Listener, client: Option<IpAddr>, reason: Reason) {
    refused::count(reason);
    let client = client.map_or("unix".to_owned(), |client| client.to_canonical().to_string());
    debug!("connection of {client} on {} refused: {reason}", listener.address);
}

impl<A: HttpServerApp + Send + Sync + 'static> Edge<A> {
    /// Serves a connection from its first byte to its end.
    async fn serve(&self, stream: Stream, arrival: Arrival, shutdown: &ShutdownWatch) {
        // In a box, so that an idle connection does not hold the room that its beginning takes.
        let begun = Box::pin(self.begin(stream, arrival, shutdown)).await;
        match begun {
            None => {}
            Some(Begun::Http(stream, speaks)) => {
                let apps = (&self.app, &self.streams);
                serve::serve(apps, stream, speaks, &self.refuser, shutdown).await;
            }
            Some(Begun::Relay(relayed, target)) => (self.relay)(*relayed, target).await,
        }
    }

    /// Brings a connection to its first request, or to where it is relayed: introduced, looked
    /// at, and encrypted where it has to be.
    async fn begin(
        &self,
        stream: Stream,
        arrival: Arrival,
        shutdown: &ShutdownWatch,
    ) -> Option<Begun> {
        let started = arrival.started;
        let (mut stream, connection, listener) = self.introduce(stream, arrival, shutdown).await?;
        let address = listener.address.to_string();
        let relayed = |stream, connection, sni| {
            Box::new(Relayed { stream, connection, listener: address, sni, started })
        };
        let mut sni = None;
        if let Some(names) = &listener.relays.names {
            let begins;
            (stream, begins) = self.look(stream, &connection, &listener, shutdown).await?;
            let target = begins.name().and_then(|name| names.find(name)).cloned();
            if let Some(target) = target {
                return Some(Begun::Relay(relayed(stream, connection, begins.into_name()), target));
            }
            if listener.relays.is_closed() {
                self.turn_away(stream, &connection, &listener, &begins).await;
                return None;
            }
            sni = begins.into_name();
        }
        let mut speaks = if listener.h2c { Speaks::Either } else { Speaks::Http1 };
        let mut connection = connection;
        if listener.tls.is_some() {
            let waiting = connection.waiting().cloned()?;
            (stream, connection, speaks) = tokio::select! {
                secured = secure::handshake(stream, connection, &listener, &self.refuser) => secured?,
                () = waiting.called() => return None,
            };
        }
        Some(match listener.relays.rest {
            Some(target) => Begun::Relay(relayed(stream, connection, sni), target),
            None => Begun::Http(Box::new(Downstream::new(stream, Arc::new(connection))), speaks),
        })
    }

    /// Looks at what a client begins with; `None` if it is refused or gone.
    async fn look(
        &self,
        stream: Stream,
        connection: &Connection,
        listener: &Listener,
        shutdown: &ShutdownWatch,
    ) -> Option<(Stream, Begins)> {
        match peek::look(stream, connection, shutdown).await {
            Ok(looked) => Some(looked),
            Err(None) => None,
            Err(Some(reason)) => {
                let status = if reason == Reason::HelloTooLong { 400 } else { 408 };
                self.refuser.relay(listener, connection, None, (status, reason));
                None
            }
        }
    }

    /// Closes a connection that nothing is relayed for.
    async fn turn_away(
        &self,
        mut stream: Stream,
        connection: &Connection,
        listener: &Listener,
        begins: &Begins,
    ) {
        let why = match begins {
            Begins::Tls(_) => (404, Reason::UnknownName),
            Begins::Otherwise => (400, Reason::NoTls),
        };
        self.refuser.relay(listener, connection, begins.name(), why);
        if let Begins::Tls(_) = begins {
            refuse_name(&mut stream).await;
        }
    }
}

/// The listener that a connection came in by: the one of its address, or of its port.
fn find<'a>(listeners: &'a [Listener], local: Option<&socket::SocketAddr>) -> Option<&'a Listener> {
    let Some(local) = local.and_then(socket::SocketAddr::as_inet) else {
        let path = local.and_then(|local| local.as_unix()?.as_pathname());
        return listeners.iter().find(|listener| is_path(&listener.address, path));
    };
    let exact = listeners.iter().find(|listener| is_at(&listener.address, local));
    exact.or_else(|| listeners.iter().find(|listener| is_any(&listener.address, local)))
}

fn is_path(address: &Address, path: Option<&Path>) -> bool {
    matches!(address, Address::Unix(bound) if Some(bound.as_path()) == path)
}

fn is_at(address: &Address, local: &SocketAddr) -> bool {
    matches!(address, Address::Socket(socket) if socket == local)
}

fn is_any(address: &Address, local: &SocketAddr) -> bool {
    matches!(address, Address::Socket(socket)
        if socket.port() == local.port() && socket.ip().is_unspecified())
}

#[async_trait]
impl<A> ServerApp for Edge<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let arrival = self.arrive(&stream)?;
        // In a box, since what is caught is moved, and takes its room as often.
        let served = Box::pin(self.serve(stream, arrival, shutdown));
        // A panic in a phase is answered there; any other ends this connection alone.
        if let Err(panic) = panics::catch(served).await {
            panic.count_request();
            error!("a connection: panicked: {panic}");
        }
        None
    }

    async fn cleanup(&self) {
        self.app.http_cleanup().await;
    }
}
