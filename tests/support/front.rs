//! What stands before an origin: reads a PROXY header, ends TLS, and hands on what is within.

use std::{
    fmt::{self, Display},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use super::Pair;

/// Stands before an origin until it is dropped.
pub(crate) struct Front {
    address: SocketAddr,
    accepted: Arc<Mutex<Vec<Accepted>>>,
    task: JoinHandle<()>,
}

/// A connection that was handed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// The PROXY header, without the part that all of version 2 share.
    pub(crate) header: Vec<u8>,
    /// The name that was asked for.
    pub(crate) sni: Option<String>,
    /// What was chosen.
    pub(crate) alpn: Option<String>,
    /// Whether a client certificate was shown.
    pub(crate) has_client_certificate: bool,
}

/// What it asks for.
#[derive(Default)]
pub(crate) struct Asks {
    tls: Option<ServerConfig>,
    header: bool,
}

impl Asks {
    /// Plain bytes.
    pub(crate) fn nothing() -> Self {
        Self::default()
    }

    /// TLS, with what it speaks within.
    pub(crate) fn tls(pair: &Pair, alpn: &[&str]) -> Self {
        Self { tls: Some(config(pair, None, alpn)), header: false }
    }

    /// The same, and a certificate of the client, which must be this one.
    pub(crate) fn client(pair: &Pair, client: &Pair, alpn: &[&str]) -> Self {
        Self { tls: Some(config(pair, Some(client), alpn)), header: false }
    }

    /// A PROXY header before all else.
    pub(crate) fn header(self) -> Self {
        Self { header: true, ..self }
    }
}

fn config(pair: &Pair, client: Option<&Pair>, alpn: &[&str]) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let cert = |pair: &Pair| CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let mut roots = RootCertStore::empty();
            roots.add(cert(client)).unwrap();
            let roots = Arc::new(roots);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(vec![cert(pair)], key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

impl Front {
    /// Stands before whatever listens at an address.
    pub(crate) async fn before(origin: &impl Display, asks: Asks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(Mutex::default());
        let task = tokio::spawn(serve(listener, origin.to_string(), asks, accepted.clone()));
        Self { address, accepted, task }
    }

    /// The connections that were handed on.
    pub(crate) fn accepted(&self) -> Vec<Accepted> {
        self.accepted.lock().unwrap().clone()
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

async fn serve(
    listener: TcpListener,
    origin: String,
    asks: Asks,
    accepted: Arc<Mutex<Vec<Accepted>>>,
) {
    let tls = asks.tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (origin, tls, accepted) = (origin.clone(), tls.clone(), accepted.clone());
        let asks_for_header = asks.header;
        connections.spawn(async move {
            // Whoever is refused learns it by the end of the connection.
            let _ = hand_on(socket, &origin, tls, asks_for_header, &accepted).await;
        });
    }
}

async fn hand_on(
    mut socket: TcpStream,
    origin: &str,
    tls: Option<TlsAcceptor>,
    asks_for_header: bool,
    accepted: &Mutex<Vec<Accepted>>,
) -> io::Result<()> {
    let mut facts = Accepted::default();
    if asks_for_header {
        facts.header = header(&mut socket).await?;
    }
    let Some(tls) = tls else { return relay(socket, origin, accepted, facts).await };
    let stream = tls.accept(socket).await?;
    let connection = stream.get_ref().1;
    facts.sni = connection.server_name().map(str::to_owned);
    facts.alpn = connection.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap());
    facts.has_client_certificate = connection.peer_certificates().is_some();
    relay(stream, origin, accepted, facts).await
}

async fn relay(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    origin: &str,
    accepted: &Mutex<Vec<Accepted>>,
    facts: Accepted,
) -> io::Result<()> {
    accepted.lock().unwrap().push(facts);
    let mut origin = TcpStream::connect(origin).await?;
    copy_bidirectional(&mut stream, &mut origin).await.map(drop)
}

/// Reads a header of either version.
async fn header(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut start = [0; 12];
    socket.read_exact(&mut start).await?;
    if &start == b"\r\n\r\n\0\r\nQUIT\n" {
        let mut header = vec![0; 4];
        socket.read_exact(&mut header).await?;
        let mut addresses = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]]))];
        socket.read_exact(&mut addresses).await?;
        header.extend(addresses);
        return Ok(header);
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        line.push(socket.read_u8().await?);
    }
    Ok(line)
}
