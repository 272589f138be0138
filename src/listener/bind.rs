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
        fd::IntoRawFd,
        unix::fs::{FileTypeExt as _, PermissionsExt as _},
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

use crate::{downstream::config::Address, systemd};

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

/// A socket that is bound and does not listen yet, unless systemd handed it in.
#[derive(Debug)]
pub struct Bound {
    /// Where it is bound; a port that was left to the system is known here.
    pub address: Address,
    pub(super) socket: Socket,
}

/// Everybody may connect to a Unix socket, as by default with Pingora; its folder says who gets
/// there. One that was handed in or taken over keeps its mode.
const UNIX_MODE: u32 = 0o666;

/// Binds an address.
///
/// # Errors
/// If the port is in use, not allowed, or not of this host.
pub fn bind(address: &Address) -> Result<Bound, BindError> {
    let bound = match address {
        Address::Socket(socket) => bind_socket(*socket),
        Address::Unix(path) => {
            bind_unix(path).map(|socket| Bound { address: address.clone(), socket })
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
    Ok(Bound { address: Address::Socket(bound), socket })
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
    fs::set_permissions(path, fs::Permissions::from_mode(UNIX_MODE))?;
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
}

impl<A: ServerApp + Send + Sync + 'static> Listening<A> {
    /// A service that accepts on `addresses` for `app`. Sockets that are not `bound` yet are
    /// expected from a predecessor, or bound when the service starts.
    pub fn new(app: A, addresses: Vec<Address>, bound: Vec<Bound>) -> Self {
        let mut service = Accepting::new("listeners".to_owned(), app);
        let buffers = L4BufferSettings::unbuffered().write(WRITE_BUFFER);
        for address in &addresses {
            let config = match address {
                Address::Socket(socket) => ListenerConfig::tcp(socket.to_string())
                    .tcp_socket_options(TcpSocketOptions::default()),
                Address::Unix(path) => {
                    ListenerConfig::uds(path.display().to_string()).permissions(mode_of(path))
                }
            };
            service.add_listener(config.l4_buffer(buffers));
        }
        Self { service, addresses, bound }
    }

    /// Puts every socket where Pingora looks for sockets of a predecessor.
    fn open(&mut self, fds: &ListenFds) -> Result<(), BindError> {
        for address in &self.addresses {
            let key = key(address);
            if fds.lock().get(&key).is_some() {
                info!("listener: {address} taken over");
                continue;
            }
            let known = self.bound.iter().position(|bound| bound.address == *address);
            let bound = match known {
                Some(index) => self.bound.swap_remove(index),
                None => bind(address)?,
            };
            bound
                .socket
                .listen(BACKLOG)
                .map_err(|error| BindError { address: address.clone(), why: in_words(&error) })?;
            fds.lock().add(key, bound.socket.into_raw_fd());
            info!("listener: {address} opened");
        }
        // What was taken over may have been handed in as well: one socket, not to be held twice.
        self.bound.clear();
        Ok(())
    }
}

/// The mode of a socket that is there already, so that Pingora leaves it as it is.
fn mode_of(path: &Path) -> fs::Permissions {
    match fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => file.permissions(),
        _ => fs::Permissions::from_mode(UNIX_MODE),
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
        systemd::serves();
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
