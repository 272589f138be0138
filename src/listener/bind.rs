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
    sync::Arc,
};

use async_trait::async_trait;
use log::{error, info};
use pingora_core::{
    apps::ServerApp,
    server::{ListenFds, ShutdownWatch},
    services::{ServiceReadyNotifier, ServiceWithDependents},
};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{
    downstream::{config::Address, stream::duplicate},
    drain::Drain,
    listener::accept::{self, UNIX_MODE, Watched},
    systemd,
};

/// As large as the kernel allows.
const BACKLOG: i32 = 65_535;
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

impl Bound {
    /// Where it is bound, and the socket.
    #[cfg(test)]
    pub(super) fn into_parts(self) -> (Address, Socket) {
        (self.address, self.socket)
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

/// The service that listens, with our sockets.
pub struct Listening<A> {
    app: Arc<A>,
    addresses: Vec<Address>,
    bound: Vec<Bound>,
    drain: Arc<Drain>,
}

impl<A: ServerApp + Send + Sync + 'static> Listening<A> {
    /// A service that accepts on `addresses` for `app`. Sockets that are not `bound` yet are
    /// expected from a predecessor, or bound when the service starts.
    pub fn new(app: A, addresses: Vec<Address>, bound: Vec<Bound>, drain: Arc<Drain>) -> Self {
        Self { app: Arc::new(app), addresses, bound, drain }
    }

    /// Puts every socket where Pingora looks for sockets of a predecessor.
    fn open(&mut self, fds: &ListenFds) -> Result<Vec<Watched>, BindError> {
        let addresses = self.addresses.clone();
        let opened = addresses.into_iter().map(|address| self.open_one(address, fds)).collect();
        // What was taken over may have been handed in as well: one socket, not to be held twice.
        self.bound.clear();
        opened
    }

    fn open_one(&mut self, address: Address, fds: &ListenFds) -> Result<Watched, BindError> {
        let failed =
            |error: &io::Error| BindError { address: address.clone(), why: in_words(error) };
        let key = key(&address);
        let inherited = fds.lock().get(&key).copied();
        if let Some(fd) = inherited {
            let socket = duplicate(fd).map_err(|error| failed(&error))?;
            info!("listener: {address} taken over");
            return Ok(Watched::new(address, socket, false));
        }
        let known = self.bound.iter().position(|bound| bound.address == address);
        let bound = match known {
            Some(index) => self.bound.swap_remove(index),
            None => bind(&address)?,
        };
        let opened = bound.socket.listen(BACKLOG).and_then(|()| bound.socket.try_clone());
        let socket = opened.map_err(|error| failed(&error))?;
        fds.lock().add(key, bound.socket.into_raw_fd());
        info!("listener: {address} opened");
        Ok(Watched::new(address, socket, true))
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
        let sockets = match self.open(&fds) {
            Ok(sockets) => sockets,
            Err(error) => {
                error!("{error}");
                std::process::exit(EXIT_UNAVAILABLE);
            }
        };
        ready.notify_ready();
        systemd::serves();
        accept::accept(&self.app, sockets, fds, shutdown, listeners_per_fd, &self.drain).await;
    }

    fn name(&self) -> &'static str {
        "listeners"
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(self.addresses.iter().map(key).collect())
    }
}
