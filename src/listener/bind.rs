//! Listening sockets: bound before the server starts, opened when it is ready, adopted by Pingora.
//!
//! Pingora binds inside its services, retries for half a minute, and lives on without a listener
//! if that fails. So every socket is bound here first, where a busy port is an ordinary error; it
//! listens only once the service starts, which is when every upstream had its first round of
//! checks. A successor that was handed sockets uses those instead.

use std::{
    fs, io,
    net::SocketAddr,
    os::{
        fd::{IntoRawFd, OwnedFd},
        unix::fs::FileTypeExt as _,
    },
    path::Path,
};

use async_trait::async_trait;
use log::{error, info};
use pingora_core::{
    apps::ServerApp,
    listeners::{L4BufferSettings, ListenerConfig, TcpSocketOptions},
    server::{ListenFds, RuntimeOpts, ShutdownWatch},
    services::{
        Service, ServiceReadyNotifier, ServiceWithDependents, listening::Service as Accepting,
    },
};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{
    downstream::config::Address,
    listener::sockets::{Open, Sockets},
};

/// As large as the kernel allows.
const BACKLOG: i32 = 65_535;
/// Reads go past Pingora's buffer; small answers leave in one piece.
const WRITE_BUFFER: usize = 1_460;
/// The status of a process that cannot listen (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: i32 = 69;

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {why}")]
pub struct BindError {
    /// Where.
    pub address: Address,
    /// Why, in words with a next step.
    pub why: String,
}

/// A socket that is bound and does not listen yet, or that a predecessor listens on.
#[derive(Debug)]
pub struct Bound {
    /// Where it is bound; a port that was left to the system is known here.
    pub address: Address,
    socket: Socket,
    is_taken_over: bool,
}

impl Bound {
    /// A socket that a predecessor listens on.
    pub fn taken_over(address: Address, socket: OwnedFd) -> Self {
        Self { address, socket: socket.into(), is_taken_over: true }
    }
}

/// Binds an address.
///
/// # Errors
/// If the port is in use, not allowed, or not of this host.
pub fn bind(address: &Address) -> Result<Bound, BindError> {
    let bound = match address {
        Address::Socket(socket) => bind_socket(*socket),
        Address::Unix(path) => {
            let fresh = |socket| Bound { address: address.clone(), socket, is_taken_over: false };
            bind_unix(path).map(fresh)
        }
    };
    bound.map_err(|error| BindError { address: address.clone(), why: in_words(&error) })
}

fn bind_socket(address: SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Bound { address: Address::Socket(bound), socket, is_taken_over: false })
}

fn bind_unix(path: &Path) -> io::Result<Socket> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_over(path, &address)? => {
            fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        other => other?,
    }
    Ok(socket)
}

/// Whether nobody answers on a path: its process died without removing it.
fn is_left_over(path: &Path, address: &SockAddr) -> io::Result<bool> {
    // A file that is no socket refuses connections, too, and is none of ours to remove.
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Ok(false);
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    Ok(probe.connect(address).is_err_and(|why| why.kind() == io::ErrorKind::ConnectionRefused))
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "not permitted; ports below 1024 need CAP_NET_BIND_SERVICE".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this host does not have that address".to_owned(),
        _ => error.to_string(),
    }
}

/// Pingora's listening service, with our sockets.
pub struct Listening<A> {
    service: Accepting<A>,
    addresses: Vec<Address>,
    bound: Vec<Bound>,
    sockets: Sockets,
}

impl<A: ServerApp + Send + Sync + 'static> Listening<A> {
    /// A service that accepts on what is `bound` for `app`, and keeps it in `sockets` for a
    /// successor.
    pub fn new(app: A, bound: Vec<Bound>, sockets: Sockets) -> Self {
        let addresses: Vec<Address> = bound.iter().map(|bound| bound.address.clone()).collect();
        let mut service = Accepting::new("listeners".to_owned(), app);
        let buffers = L4BufferSettings::unbuffered().write(WRITE_BUFFER);
        for address in &addresses {
            let config = match address {
                Address::Socket(socket) => ListenerConfig::tcp(socket.to_string())
                    .tcp_socket_options(TcpSocketOptions::default()),
                Address::Unix(path) => ListenerConfig::uds(path.display().to_string()),
            };
            service.add_listener(config.l4_buffer(buffers));
        }
        Self { service, addresses, bound, sockets }
    }

    /// Puts every socket where Pingora looks for sockets of a predecessor.
    fn open(&mut self, fds: &ListenFds) -> Result<(), BindError> {
        let mut open = Vec::new();
        for Bound { address, socket, is_taken_over } in self.bound.drain(..) {
            let failed = |error| BindError { address: address.clone(), why: in_words(&error) };
            if !is_taken_over {
                socket.listen(BACKLOG).map_err(failed)?;
            }
            let kept = socket.try_clone().map_err(failed)?.into();
            fds.lock().add(key(&address), socket.into_raw_fd());
            info!("listener: {address} {}", if is_taken_over { "taken over" } else { "opened" });
            open.push(Open { address, socket: kept });
        }
        self.sockets.open(open);
        Ok(())
    }
}

/// The name under which Pingora passes a socket on.
fn key(address: &Address) -> String {
    match address {
        Address::Socket(socket) => socket.to_string(),
        Address::Unix(path) => path.display().to_string(),
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServiceWithDependents for Listening<A> {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        shutdown: ShutdownWatch,
        listeners_per_fd: usize,
        ready: ServiceReadyNotifier,
    ) {
        let Some(fds) = fds else {
            unreachable!("Pingora gives every service its table of sockets on Unix")
        };
        if let Err(error) = self.open(&fds) {
            error!("{error}");
            std::process::exit(EXIT_UNAVAILABLE);
        }
        ready.notify_ready();
        let (sockets, mut stopping) = (self.sockets.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
            sockets.let_go();
        });
        let service = &mut self.service;
        Service::start_service(service, Some(fds), shutdown, listeners_per_fd).await;
    }

    fn name(&self) -> &'static str {
        "listeners"
    }

    fn threads(&self) -> Option<usize> {
        self.service.threads
    }

    fn runtime_opts_override(&self, global: &RuntimeOpts) -> Option<RuntimeOpts> {
        ServiceWithDependents::runtime_opts_override(&self.service, global)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(self.addresses.iter().map(key).collect())
    }
}
