//! Where connections arrive: an accepted socket becomes a connection with facts and bounds, and
//! is served until it closes.

pub mod bind;
mod refuse;
mod serve;

use std::{net::SocketAddr, path::Path, sync::Arc};

use async_trait::async_trait;
use ipnet::IpNet;
use pingora_core::{
    apps::{HttpServerApp, ServerApp},
    protocols::{Stream, l4::socket},
    server::ShutdownWatch,
};

use crate::{
    downstream::{config::Address, connection::Connection, stream::Downstream},
    listener::refuse::Refuser,
    observe::access_log::AccessLog,
    snapshot::Listener,
};

/// The application that Pingora's accept loops call: it stands before `app`, which answers.
pub struct Edge<A> {
    app: Arc<A>,
    listeners: Box<[Listener]>,
    trusted: Arc<[IpNet]>,
    refuser: Refuser,
}

impl<A> Edge<A> {
    /// Puts an edge before `app`.
    pub fn new(
        app: Arc<A>,
        listeners: Vec<Listener>,
        trusted: Vec<IpNet>,
        access_log: Option<Arc<AccessLog>>,
    ) -> Self {
        let refuser = Refuser::new(access_log);
        Self { app, listeners: listeners.into(), trusted: trusted.into(), refuser }
    }

    /// The listener that a connection came in by: the one of its address, or of its port.
    fn listener(&self, local: Option<&socket::SocketAddr>) -> Option<&Listener> {
        let Some(local) = local.and_then(socket::SocketAddr::as_inet) else {
            let path = local.and_then(|local| local.as_unix()?.as_pathname());
            return self.listeners.iter().find(|listener| is_path(&listener.address, path));
        };
        let exact = self.listeners.iter().find(|listener| is_at(&listener.address, local));
        exact.or_else(|| self.listeners.iter().find(|listener| is_any(&listener.address, local)))
    }
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
        let listener = self.listener(local)?;
        let client = peer.and_then(socket::SocketAddr::as_inet).map(SocketAddr::ip);
        let trusted = self.trusted.clone();
        let connection = Arc::new(Connection::new(client, trusted, listener.bounds.clone()));
        let stream = Box::new(Downstream::new(stream, connection));
        serve::serve(&self.app, stream, listener.h2c, &self.refuser, shutdown).await;
        None
    }

    async fn cleanup(&self) {
        self.app.http_cleanup().await;
    }
}
