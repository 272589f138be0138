//! Where connections arrive: an accepted socket becomes a connection with facts and bounds, and
//! is served until it closes.

mod accept;
pub mod bind;
pub mod handed;
mod refuse;
mod secure;
mod serve;
pub mod sockets;

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use log::error;
use pingora_core::{
    apps::{HttpServerApp, ServerApp},
    protocols::{Stream, l4::socket},
    server::ShutdownWatch,
};

use crate::{
    downstream::{config::Address, connection::Connection, stream::Downstream},
    drain::Drain,
    listener::{refuse::Refuser, serve::Speaks},
    panics,
    snapshot::{Listener, Live},
};

/// The application that Pingora's accept loops call: it stands before `app`, which answers.
pub struct Edge<A> {
    app: Arc<A>,
    live: Live,
    drain: Arc<Drain>,
    refuser: Refuser,
}

impl<A> Edge<A> {
    /// Puts an edge before `app`. A connection is bound by the configuration that is in force
    /// when it arrives.
    pub fn new(app: Arc<A>, live: Live, drain: Arc<Drain>) -> Self {
        Self { app, refuser: Refuser::new(live.clone()), live, drain }
    }

    /// Establishes the facts of a connection, and how it begins.
    fn arrive(
        &self,
        local: Option<&socket::SocketAddr>,
        client: Option<IpAddr>,
    ) -> Option<(Connection, Beginning)> {
        let snapshot = self.live.load();
        let listener = find(&snapshot.listeners, local)?;
        let (trusted, bounds) = (snapshot.trusted.clone(), listener.bounds.clone());
        let connection = Connection::new(client, trusted, bounds, self.drain.clone());
        let beginning = match (&listener.tls, listener.h2c) {
            (Some(_), _) => Beginning::Handshake(Box::new(listener.clone())),
            (None, true) => Beginning::Plaintext(Speaks::Either),
            (None, false) => Beginning::Plaintext(Speaks::Http1),
        };
        Some((connection, beginning))
    }
}

impl<A: HttpServerApp + Send + Sync + 'static> Edge<A> {
    /// Serves a connection from its handshake, if it begins with one, to its end.
    async fn serve(
        &self,
        stream: Stream,
        connection: Connection,
        beginning: Beginning,
        shutdown: &ShutdownWatch,
    ) {
        let (stream, speaks) = match beginning {
            Beginning::Plaintext(speaks) => {
                (Box::new(Downstream::new(stream, Arc::new(connection))), speaks)
            }
            Beginning::Handshake(listener) => {
                let handshake = secure::handshake(stream, connection, *listener, &self.refuser);
                // In a box, so that an idle connection does not hold the room that it takes.
                let Some(secured) = Box::pin(handshake).await else { return };
                secured
            }
        };
        serve::serve(&self.app, stream, speaks, &self.refuser, shutdown).await;
    }
}

/// How a connection begins.
enum Beginning {
    /// By a handshake, as this listener makes it.
    Handshake(Box<Listener>),
    /// With a request.
    Plaintext(Speaks),
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
        let digest = stream.get_socket_digest();
        let local = digest.as_ref().and_then(|digest| digest.local_addr());
        let peer = digest.as_ref().and_then(|digest| digest.peer_addr());
        let client = peer.and_then(socket::SocketAddr::as_inet).map(SocketAddr::ip);
        let (connection, beginning) = self.arrive(local, client)?;
        // A panic in a phase is answered there; any other ends this connection alone.
        let served = self.serve(stream, connection, beginning, shutdown);
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
