//! One question to a backend: does it take connections, does it answer as it should?
//!
//! Both kinds implement Pingora's `HealthCheck`. Pingora's own do not know the PROXY protocol, and
//! its HTTP check sends one fixed `Host` to all backends and takes one status.

use std::{ops::RangeInclusive, sync::LazyLock};

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, StatusCode, Uri, header::HOST};
use pingora::{Error, ErrorType, OrErr, Result};
use pingora_core::{
    connectors::{ConnectorOptions, L4Connect, http::Connector},
    protocols::{http::client::HttpSession, l4::socket::SocketAddr},
    upstreams::peer::HttpPeer,
};
use pingora_http::RequestHeader;
use pingora_load_balancing::{Backend, health_check::HealthCheck};

use crate::{
    tls::origin,
    upstream::{
        link::{self, dial::Dial, send},
        outcome,
        target::Target,
    },
};

/// A status that is not among those expected.
pub const UNEXPECTED_STATUS: &str = "unexpected status";

/// What makes the connections of all checks; none is kept.
static CONNECTOR: LazyLock<Connector> = LazyLock::new(|| {
    let mut options = ConnectorOptions::new(1);
    options.ca_file = origin::roots_for_pingora();
    Connector::new(Some(options))
});

/// Asks whether a connection can be made; nothing is spoken on it but the PROXY protocol.
pub struct TcpCheck(pub Dial);

#[async_trait]
impl HealthCheck for TcpCheck {
    async fn check(&self, backend: &Backend) -> Result<()> {
        self.0.connect(&backend.addr).await.map(drop)
    }

    fn health_threshold(&self, _success: bool) -> usize {
        1 // `Health` counts, for both kinds of check
    }
}

/// Asks with `GET` for a page, as requests are sent.
pub struct HttpCheck {
    /// All of a peer but its address and name.
    template: HttpPeer,
    request: RequestHeader,
    port: Option<u16>,
    expect: Vec<RangeInclusive<u16>>,
}

impl HttpCheck {
    /// Prepares the request; without a `host`, each backend is asked for its own name or address.
    pub fn new(
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        port: Option<u16>,
        expect: Vec<RangeInclusive<u16>>,
        template: HttpPeer,
    ) -> Result<Self> {
        let mut request = RequestHeader::build("GET", path.as_bytes(), Some(headers.len() + 1))?;
        for (name, value) in headers {
            request.append_header(name, value)?;
        }
        Ok(Self { template, request, port, expect })
    }

    fn peer(&self, backend: &Backend) -> HttpPeer {
        let mut address = backend.addr.clone();
        if let Some(port) = self.port {
            address.set_port(port);
        }
        let name = backend.ext.get::<Target>().and_then(|target| target.name.as_deref());
        let mut peer = link::peer_of(&self.template, address, name);
        peer.options.max_h2_streams = 1; // so that the connection ends with its check
        peer
    }

    /// The request as it is sent: over TLS without `host`, the name that a certificate must have
    /// is asked for, since servers compare the two.
    fn request(&self, backend: &Backend, peer: &HttpPeer) -> Result<RequestHeader> {
        let mut request = self.request.clone();
        if request.headers.contains_key(HOST) {
            return Ok(request);
        }
        let host = match &backend.addr {
            SocketAddr::Inet(_) if peer.is_tls() => peer.sni.clone(),
            SocketAddr::Inet(address) => address.to_string(),
            SocketAddr::Unix(_) => "localhost".to_owned(),
        };
        request.insert_header(HOST, host)?;
        Ok(request)
    }
}

#[async_trait]
impl HealthCheck for HttpCheck {
    async fn check(&self, backend: &Backend) -> Result<()> {
        let peer = self.peer(backend);
        let mut request = self.request(backend, &peer)?;
        let (mut session, _) = CONNECTOR.get_http_session(&peer).await?;
        if let HttpSession::H2(_) = session {
            request = over_http2(request, peer.is_tls())?;
        } else if peer.options.alpn.get_min_http_version() == 2 {
            return Error::e_explain(ErrorType::Custom(outcome::NO_HTTP2), "a check over HTTP/2");
        }
        session.set_write_timeout(peer.options.write_timeout);
        session.set_read_timeout(peer.options.write_timeout);
        send(&mut session, request).await?;
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

/// Pingora would say `https` in any case.
fn over_http2(mut request: RequestHeader, is_tls: bool) -> Result<RequestHeader> {
    let host = request.remove_header(&HOST);
    let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri = Uri::builder()
        .scheme(if is_tls { "https" } else { "http" })
        .authority(host.as_ref().map_or(&b"localhost"[..], HeaderValue::as_bytes))
        .path_and_query(path)
        .build();
    request.set_uri(uri.or_err(ErrorType::InvalidHTTPHeader, "the target of a check")?);
    Ok(request)
}

fn unexpected(status: StatusCode) -> ErrorType {
    ErrorType::CustomCode(UNEXPECTED_STATUS, status.as_u16())
}
