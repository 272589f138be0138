//! Makes a connection within its own time, and introduces the client on it before anything else.

use std::{net, sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora::{Error, ErrorType, OrErr, Result};
use pingora_core::{
    connectors::{L4Connect, l4::BindTo},
    protocols::l4::{ext, socket::SocketAddr, stream::Stream},
};
use tokio::io::AsyncWriteExt;

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
    pub(super) timeout: Duration,
    pub(super) sources: Arc<Sources>,
    /// What is said first.
    pub(super) header: Option<Header>,
}

#[async_trait]
impl L4Connect for Dial {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let connecting = pingora_timeout::timeout(self.timeout, self.reach(address));
        // The cause tells this timeout from that of the handshake, which has none.
        connecting.await.or_err(ErrorType::ConnectTimedout, "no connection in time")?
    }
}

impl Dial {
    async fn reach(&self, address: &SocketAddr) -> Result<Stream> {
        match address {
            SocketAddr::Inet(address) => {
                let from = self.sources.toward(address);
                let mut socket = ext::connect(address, from.as_ref()).await?;
                self.introduce(&mut socket).await?;
                Ok(socket.into())
            }
            SocketAddr::Unix(address) => {
                let Some(path) = address.as_pathname() else {
                    return Error::e_explain(ErrorType::InternalError, "a socket without a path");
                };
                let mut socket = ext::connect_uds(path).await?;
                self.introduce(&mut socket).await?;
                Ok(socket.into())
            }
        }
    }

    async fn introduce(&self, socket: &mut (impl AsyncWriteExt + Unpin)) -> Result<()> {
        let Some(header) = &self.header else { return Ok(()) };
        socket.write_all(header).await.or_err(ErrorType::ConnectError, "sending the PROXY header")
    }
}
