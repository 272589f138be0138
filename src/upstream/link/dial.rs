//! Makes a connection within its own time, and introduces the client on it before anything else.

use std::{net, sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora::{Error, ErrorType, OrErr, Result};
use pingora_core::{
    connectors::{L4Connect, l4::BindTo},
    protocols::l4::{ext, socket::SocketAddr, stream::Stream},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UnixStream},
};

use crate::upstream::proxy_header::Header;

/// The addresses that connections are made from; empty for any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    v4: Vec<net::SocketAddr>,
    v6: Vec<net::SocketAddr>,
}

impl Sources {
    /// Takes those of Pingora's keys, which have been checked.
    pub fn new(addresses: impl Iterator<Item = net::IpAddr>) -> Self {
        let (v4, v6) = addresses
            .map(|address| net::SocketAddr::new(address, 0))
            .partition(net::SocketAddr::is_ipv4);
        Self { v4, v6 }
    }

    /// One of the family of an address, by chance.
    fn toward(&self, address: &net::SocketAddr) -> Option<BindTo> {
        let sources = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let mut bind_to = BindTo::default();
        bind_to.addr = Some(*sources.get(fastrand::usize(..sources.len().max(1)))?);
        Some(bind_to)
    }
}

/// How a connection is made.
#[derive(Debug)]
pub struct Dial {
    pub(in crate::upstream) timeout: Duration,
    pub(in crate::upstream) sources: Arc<Sources>,
    /// What is said first.
    pub(in crate::upstream) header: Option<Header>,
}

/// A connection that was made.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// To a socket of this machine.
    Unix(UnixStream),
}

#[async_trait]
impl L4Connect for Dial {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        self.open(address).await.map(|socket| match socket {
            Socket::Tcp(socket) => socket.into(),
            Socket::Unix(socket) => socket.into(),
        })
    }
}

impl Dial {
    /// Makes a connection, on which nothing is buffered.
    ///
    /// # Errors
    /// If there is none in time.
    pub async fn open(&self, address: &SocketAddr) -> Result<Socket> {
        let connecting = pingora_timeout::timeout(self.timeout, self.reach(address));
        // The cause tells this timeout from that of the handshake, which has none.
        connecting.await.or_err(ErrorType::ConnectTimedout, "no connection in time")?
    }

    async fn reach(&self, address: &SocketAddr) -> Result<Socket> {
        match address {
            SocketAddr::Inet(address) => {
                let from = self.sources.toward(address);
                let mut socket = ext::connect(address, from.as_ref()).await?;
                self.introduce(&mut socket).await?;
                Ok(Socket::Tcp(socket))
            }
            SocketAddr::Unix(address) => {
                let Some(path) = address.as_pathname() else {
                    return Error::e_explain(ErrorType::InternalError, "a socket without a path");
                };
                let mut socket = ext::connect_uds(path).await?;
                self.introduce(&mut socket).await?;
                Ok(Socket::Unix(socket))
            }
        }
    }

    async fn introduce(&self, socket: &mut (impl AsyncWriteExt + Unpin)) -> Result<()> {
        let Some(header) = &self.header else { return Ok(()) };
        socket.write_all(header).await.or_err(ErrorType::ConnectError, "sending the PROXY header")
    }
}
