//! A service by its URL: `http://`, `https://`, or a Unix socket.

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Uri, header::HOST, uri::Authority};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task, time,
};
use tokio_rustls::TlsConnector;

use crate::client::{
    answer::{Answer, Connection},
    roots::Roots,
    words::words,
};

/// Bytes both ways, whatever carries them.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// How long a connection may take, its handshake included.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A peer that vanished is noticed after `KEEPALIVE + 3 * PROBE_EVERY`, however long an answer lasts.
const KEEPALIVE: Duration = Duration::from_secs(15);
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    text: String,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Tcp { host: String, port: u16, is_tls: bool },
    Unix(PathBuf),
}

/// What is no URL of a service.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no URL of an API\nhelp: write `http://HOST:PORT`, `https://HOST` or `unix:/path`, without more of a path"
)]
pub struct NoEndpoint(String);

/// Files that a handshake needs; none of them in plaintext.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Who vouches for the service; `None` for those whom the system trusts.
    pub ca: Option<PathBuf>,
    /// Who asks: a certificate and its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl FromStr for Endpoint {
    type Err = NoEndpoint;

    fn from_str(text: &str) -> Result<Self, NoEndpoint> {
        let wrong = || NoEndpoint(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(wrong());
            }
            return Ok(Self { text: text.to_owned(), place: Place::Unix(path.into()) });
        }
        let url: Uri = text.parse().map_err(|_| wrong())?;
        let (scheme, authority) =
            url.scheme_str().zip(url.authority().map(Authority::as_str)).ok_or_else(wrong)?;
        let is_tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(wrong()),
        };
        let host = url.host().unwrap_or_default();
        let port = match authority.strip_prefix(host) {
            Some("") => Some(if is_tls { 443 } else { 80 }),
            Some(port) => url.port_u16().filter(|it| *it != 0 && port == format!(":{it}")),
            None => None,
        };
        let port = port.filter(|_| !host.is_empty()).ok_or_else(wrong)?;
        let whole = format!("{scheme}://{authority}");
        let text = text.strip_suffix('/').unwrap_or(text).to_owned();
        if text != whole {
            return Err(wrong());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { text, place: Place::Tcp { host, port, is_tls } })
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.text.fmt(f)
    }
}

impl Endpoint {
    /// Whether it is asked over TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.place, Place::Tcp { is_tls: true, .. })
    }

    /// Asks on a connection of its own; the head of the answer must come in time.
    pub async fn ask(
        &self,
        mut question: Request<Full<Bytes>>,
        files: &Files,
        within: Duration,
    ) -> Result<Answer, String> {
        let host = self.authority();
        let host = host.parse().map_err(|_| format!("`{host}` is no host"))?;
        question.headers_mut().insert(HOST, host);
        let (mut sender, connection) = speak(self.connect(files, &[]).await?).await?;
        let answer = time::timeout(within, sender.send_request(question)).await;
        let answer = answer.map_err(|_| format!("no answer within {within:?}"))?;
        Ok(Answer::new(answer.map_err(|why| words(&why))?, connection))
    }

    /// The host that questions name, with its port where there is one.
    pub(super) fn authority(&self) -> &str {
        match &self.place {
            Place::Tcp { .. } => self.text.split_once("://").map_or("localhost", |(_, host)| host),
            Place::Unix(_) => "localhost",
        }
    }

    /// Connects, within a time; over TLS, some protocols are asked for.
    pub(super) async fn connect(
        &self,
        files: &Files,
        protocols: &[&[u8]],
    ) -> Result<Box<dyn Stream>, String> {
        let connected = time::timeout(CONNECT_MAX, self.connect_untimed(files, protocols)).await;
        connected.map_err(|_| format!("no connection within {CONNECT_MAX:?}"))?
    }

    async fn connect_untimed(
        &self,
        files: &Files,
        protocols: &[&[u8]],
    ) -> Result<Box<dyn Stream>, String> {
        let (host, port, is_tls) = match &self.place {
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|why| words(&why))?;
                return Ok(Box::new(stream));
            }
            Place::Tcp { host, port, is_tls } => (host.as_str(), *port, *is_tls),
        };
        let stream = TcpStream::connect((host, port)).await.map_err(|why| words(&why))?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
        let keepalive = keepalive.with_interval(PROBE_EVERY).with_retries(3);
        let told = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        told.and_then(|()| stream.set_nodelay(true)).map_err(|why| words(&why))?;
        if !is_tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|why| words(&why))?;
        let files = files.clone();
        let config = task::spawn_blocking(move || files.config()).await;
        let mut config = config.map_err(|why| words(&why))??;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Box::new(connector.connect(name, stream).await.map_err(|why| words(&why))?))
    }
}

type Sender = http1::SendRequest<Full<Bytes>>;

async fn speak(stream: Box<dyn Stream>) -> Result<(Sender, Connection), String> {
    let made = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = made.map_err(|why| words(&why))?;
    // How it ends is told by what is read from it.
    let task = tokio::spawn(async move { drop(connection.await) });
    Ok((sender, Connection(task.abort_handle())))
}

impl Files {
    /// Reads them, and makes what a handshake needs.
    pub fn config(&self) -> Result<rustls::ClientConfig, String> {
        let roots = match &self.ca {
            None => Roots::System,
            Some(path) => {
                let none = || format!("`{}` holds no certificates of a CA in PEM", path.display());
                Roots::of_text(&read(path)?).ok_or_else(none)?
            }
        };
        let verifier = roots.verifier()?;
        let Some((cert, key)) = &self.own else { return Ok(verifier.with_no_client_auth()) };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(cert)?).collect();
        let chain = chain.map_err(|why| format!("`{}`: {why}", cert.display()))?;
        let read_key = PrivateKeyDer::from_pem_slice(&read(key)?);
        let read_key = read_key.map_err(|why| format!("`{}`: {why}", key.display()))?;
        let own = verifier.with_client_auth_cert(chain, read_key);
        own.map_err(|why| format!("`{}`: {why}", cert.display()))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|why| format!("cannot read `{}`: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_scheme_a_host_and_a_port() {
        for (text, host, port, is_tls) in [
            ("http://127.0.0.1:2379", "127.0.0.1", 2379, false),
            ("https://kubernetes.default.svc/", "kubernetes.default.svc", 443, true),
            ("https://[fd00::1]:6443", "fd00::1", 6443, true),
        ] {
            let host = host.to_owned();
            assert_eq!(text.parse::<Endpoint>().unwrap().place, Place::Tcp { host, port, is_tls });
        }
        let unix: Endpoint = "unix:/run/docker.sock".parse().unwrap();
        assert_eq!(unix.place, Place::Unix("/run/docker.sock".into()));
        for text in [
            "127.0.0.1:2379",
            "ftp://a.test",
            "http://a.test/v1",
            "unix:run",
            "http://",
            "http://a:b@c.test",
            "http://a.test:",
            "http://a.test:0",
            "http://a.test:65536",
            "http://a.test:080",
            "http://a.test?b",
            "http://a.test/#b",
            "http://a.test//",
            "http://:80",
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(NoEndpoint(text.to_owned())), "{text}");
        }
    }
}
