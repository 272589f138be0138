//! Clients that make a handshake of TLS 1.3, wait for a ticket, and leave.
//!
//! No request is made, so that the figure is that of the handshake alone, with the connection
//! that it is made on. The ticket shows that the proxy has finished its side.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, version};
use tokio::time::Instant;

use crate::Result;
use crate::certificate::{Certificate, NAME};
use crate::load::Load;
use crate::scenario::Handshake;

/// Clients that connect at the same time, each in a thread of its own.
const CLIENTS: usize = 16;

/// One handshake has this long.
const LIMIT: Duration = Duration::from_secs(5);

/// What one client saw.
#[derive(Debug, Default)]
struct Seen {
    /// How long each handshake took, in microseconds.
    micros: Vec<f64>,
    groups: BTreeSet<&'static str>,
    errors: f64,
    /// The last error, in words.
    why: Option<String>,
}

/// Lets clients connect to one address for some seconds.
pub(crate) fn run(
    handshake: Handshake,
    address: SocketAddr,
    seconds: u64,
    certificate: &Certificate,
) -> Result<Load> {
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let config = Arc::new(config(handshake, certificate)?);
            Ok(thread::spawn(move || client(handshake, address, &config, end)))
        })
        .collect::<Result<_>>()?;
    let mut all = Seen::default();
    for client in clients {
        let seen = client.join().map_err(|_| "a client panicked")?;
        all.micros.extend(seen.micros);
        all.groups.extend(seen.groups);
        all.errors += seen.errors;
        all.why = all.why.or(seen.why);
    }
    let requests = all.micros.len() as f64;
    if all.micros.is_empty() {
        return Err(format!("no handshake succeeded: {}", all.why.unwrap_or_default()).into());
    }
    all.micros.sort_by(f64::total_cmp);
    let percentile = |percent: usize| all.micros[(all.micros.len() - 1) * percent / 100];
    Ok(Load {
        requests,
        seconds: start.elapsed().as_secs_f64(),
        latency_p50: percentile(50),
        latency_p99: percentile(99),
        errors: all.errors,
        groups: all.groups,
    })
}

/// What one client knows; the sessions of another are not its own.
fn config(handshake: Handshake, certificate: &Certificate) -> Result<ClientConfig> {
    let mut provider = default_provider();
    if handshake != Handshake::Hybrid {
        provider.kx_groups = vec![kx_group::X25519];
    }
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der.clone())?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if handshake != Handshake::Resumed {
        config.resumption = Resumption::disabled();
    }
    Ok(config)
}

/// Connects again and again. The first handshake of a client that resumes does not count.
fn client(
    handshake: Handshake,
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    end: Instant,
) -> Seen {
    let mut seen = Seen::default();
    let mut wanted = HandshakeKind::Full;
    while Instant::now() < end {
        let start = Instant::now();
        match once(address, config) {
            Ok((kind, group)) if kind == wanted => {
                seen.micros.push(start.elapsed().as_secs_f64() * 1e6);
                seen.groups.insert(group);
            }
            Ok((kind, _)) => {
                seen.errors += 1.0;
                seen.why = Some(format!("a handshake of another kind: {kind:?}"));
            }
            Err(why) => {
                seen.errors += 1.0;
                seen.why = Some(why.to_string());
            }
        }
        if handshake == Handshake::Resumed {
            wanted = HandshakeKind::Resumed;
        }
    }
    seen
}

/// Makes one handshake, and leaves in order. Answers with its kind and the group of its keys.
fn once(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<(HandshakeKind, &'static str)> {
    let mut socket = TcpStream::connect_timeout(&address, LIMIT)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    let mut tls = ClientConnection::new(config.clone(), ServerName::try_from(NAME)?)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    while tls.wants_write() {
        tls.write_tls(&mut socket)?;
    }
    while tls.tls13_tickets_received() == 0 {
        if tls.read_tls(&mut socket)? == 0 {
            return Err("closed before there was a ticket".into());
        }
        tls.process_new_packets()?;
    }
    tls.send_close_notify();
    tls.write_tls(&mut socket)?;
    wait_for_end(&mut socket)?;
    let group = tls.negotiated_key_exchange_group().and_then(|group| group.name().as_str());
    Ok((tls.handshake_kind().ok_or("no handshake")?, group.unwrap_or("unknown")))
}

/// The proxy closes first: ports of clients would run out otherwise.
fn wait_for_end(socket: &mut TcpStream) -> Result<()> {
    let mut rest = [0; 1024];
    loop {
        match socket.read(&mut rest) {
            Ok(0) => return Ok(()),
            Err(why) if why.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Ok(_) => {}
            Err(why) => return Err(why.into()),
        }
    }
}
