//! One question to a backend: does it take connections, does it answer as it should?
//!
//! Both kinds implement Pingora's `HealthCheck`; TCP is Pingora's own. Pingora's HTTP check sends
//! one fixed `Host` to all backends and takes one status, so ours stands beside it.

use std::{ops::RangeInclusive, time::Duration};

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, StatusCode, header::HOST};
use pingora::{Error, ErrorType, Result};
use pingora_core::{
    connectors::http::Connector, protocols::l4::socket::SocketAddr, upstreams::peer::HttpPeer,
};
use pingora_http::RequestHeader;
use pingora_load_balancing::{
    Backend,
    health_check::{HealthCheck, TcpHealthCheck},
};

use crate::upstream::peer;

/// A status that is not among those expected.
pub const UNEXPECTED_STATUS: &str = "unexpected status";

/// Asks whether a connection can be made within `timeout`.
pub fn tcp(timeout: Duration) -> Box<dyn HealthCheck + Send + Sync> {
    let mut check = TcpHealthCheck::new();
    check.peer_template.options.connection_timeout = Some(timeout);
    check
}

/// Asks with `GET` for a page.
pub struct HttpCheck {
    connector: Connector,
    request: RequestHeader,
    port: Option<u16>,
    expect: Vec<RangeInclusive<u16>>,
    timeout: Duration,
}

impl HttpCheck {
    /// Prepares the request; without a `host`, each backend is asked for its own address.
    pub fn new(
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        port: Option<u16>,
        expect: Vec<RangeInclusive<u16>>,
        timeout: Duration,
    ) -> Result<Self> {
        let mut request = RequestHeader::build("GET", path.as_bytes(), Some(headers.len() + 1))?;
        for (name, value) in headers {
            request.append_header(name, value)?;
        }
        Ok(Self { connector: Connector::new(None), request, port, expect, timeout })
    }

    fn peer(&self, backend: &SocketAddr) -> HttpPeer {
        let mut address = backend.clone();
        if let Some(port) = self.port {
            address.set_port(port);
        }
        let mut peer = peer::plain(address);
        peer.options.connection_timeout = Some(self.timeout);
        peer.options.read_timeout = Some(self.timeout);
        peer.options.write_timeout = Some(self.timeout);
        peer
    }
}

#[async_trait]
impl HealthCheck for HttpCheck {
    async fn check(&self, backend: &Backend) -> Result<()> {
        let peer = self.peer(&backend.addr);
        let mut request = self.request.clone();
        if !request.headers.contains_key(HOST) {
            let host = match &backend.addr {
                SocketAddr::Inet(address) => address.to_string(),
                SocketAddr::Unix(_) => "localhost".to_owned(),
            };
            request.insert_header(HOST, host)?;
        }
        let (mut session, _) = self.connector.get_http_session(&peer).await?;
        session.set_write_timeout(peer.options.write_timeout);
        session.set_read_timeout(peer.options.read_timeout);
        session.write_request_header(Box::new(request)).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        let answer = session
            .response_header()
            .ok_or_else(|| Error::explain(ErrorType::InternalError, "no header was read"))?;
        let status = answer.status;
        if !self.expect.iter().any(|range| range.contains(&status.as_u16())) {
            return Error::e_explain(unexpected(status), format!("status {}", status.as_u16()));
        }
        // The rest of the answer is not read: the connection is closed.
        session.shutdown().await;
        Ok(())
    }

    fn health_threshold(&self, _success: bool) -> usize {
        1 // `Health` counts, for both kinds of check
    }
}

fn unexpected(status: StatusCode) -> ErrorType {
    ErrorType::CustomCode(UNEXPECTED_STATUS, status.as_u16())
}
