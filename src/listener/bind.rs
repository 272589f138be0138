//! Listening sockets: bound before the server starts, opened when it is ready, adopted by Pingora.
//!
//! Pingora binds inside its services, retries for half a minute, and lives on without a listener
//! if that fails. So every socket is bound here first, where a busy port is an ordinary error; it
//! listens only once the service starts, which is when every upstream had its first round of
//! checks. A successor that was handed sockets uses those instead.

use std::{
    fmt, fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{IntoRawFd, OwnedFd},
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
    downstream::config::{Address, socket::Config as Options},
    drain::Drain,
    listener::{
        accept::{self, Doors, UNIX_MODE, Watched},
        admission::Admission,
        options,
        sockets::{Open, Sockets},
    },
    overload, systemd,
};

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

/// A socket that is bound and does not listen yet, unless systemd handed it in or a predecessor
/// listens on it.
#[derive(Debug)]
pub struct Bound {
    /// Where it is bound; a port that was left to the system is known here.
    pub address: Address,
    pub(super) socket: Socket,
    pub(super) provenance: Provenance,
    /// What it is told when it listens.
    pub(super) options: Options,
}

/// Where a socket comes from, which decides who may close it for good.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Provenance {
    /// This process bound it, and leaves nothing of it behind.
    Bound,
    /// A predecessor listens on it; unless it `is_ours`, systemd keeps it for the next process.
    TakenOver { is_ours: bool },
    /// systemd bound it, and keeps it for the next process.
    HandedIn,
}

impl Provenance {
    /// Whether it ends with the last process that was handed it.
    fn is_ours(self) -> bool {
        matches!(self, Self::Bound | Self::TakenOver { is_ours: true })
    }
}

impl Bound {
    /// A socket that a predecessor listens on; it `is_ours` unless systemd has it, too.
    pub fn taken_over(address: Address, socket: OwnedFd, is_ours: bool) -> Self {
        Self::new(address, socket.into(), Provenance::TakenOver { is_ours })
    }

    /// Listens, unless somebody does already, without Pingora.
    ///
    /// # Errors
    /// If the port was taken in the meantime.
    pub fn listen(self) -> io::Result<TcpListener> {
        if !self.is_taken_over() {
            self.socket.listen(options::backlog(&self.options))?;
        }
        Ok(self.socket.into())
    }

    /// The same socket by another descriptor, to be handed to a successor.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn copy(&self) -> Result<Open, BindError> {
        let copied = self.socket.try_clone();
        let (address, is_ours) = (self.address.clone(), self.provenance.is_ours());
        match copied {
            Ok(socket) => Ok(Open { address, socket: socket.into(), is_ours }),
            Err(why) => Err(BindError { address, why: in_words(&why) }),
        }
    }

    /// Whether a predecessor listens on it.
    pub fn is_taken_over(&self) -> bool {
        matches!(self.provenance, Provenance::TakenOver { .. })
    }

    pub(super) fn new(address: Address, socket: Socket, provenance: Provenance) -> Self {
        Self { address, socket, provenance, options: Options::default() }
    }

    /// The same socket, to be told this when it listens.
    ///
    /// # Errors
    /// If it was bound elsewhere, and cannot be told all of it any more.
    pub fn with(self, options: &Options) -> Result<Self, BindError> {
        let fixed = options::fixed(options, &self.address, &self.socket);
        let Some(key) = fixed.filter(|_| self.provenance != Provenance::Bound) else {
            return Ok(Self { options: options.clone(), ..self });
        };
        let why = match self.provenance {
            Provenance::HandedIn => format!(
                "systemd bound its socket with another `{key}`; set it in the unit as well \
                 (`BindIPv6Only=`, `ReusePort=`)"
            ),
            _ => format!(
                "an open socket cannot change its `{key}`; this takes effect with a restart"
            ),
        };
        Err(BindError { address: self.address, why })
    }

    /// Where it is bound, and the socket.
    #[cfg(test)]
    pub(super) fn into_parts(self) -> (Address, Socket) {
        (self.address, self.socket)
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bound | Self::HandedIn => "opened",
            Self::TakenOver { .. } => "taken over",
        })
    }
}

/// Binds an address.
///
/// # Errors
/// If the port is in use, not allowed, or not of this host.
pub fn bind(address: &Address, options: &Options) -> Result<Bound, BindError> {
    let bound = match address {
        Address::Socket(socket) => bind_socket(*socket, options),
        Address::Unix(path) => {
            let fresh = |socket| Bound::new(address.clone(), socket, Provenance::Bound);
            bind_unix(path).map(fresh)
        }
    };
    bound.map_err(|error| BindError { address: address.clone(), why: in_words(&error) })
}

fn bind_socket(address: SocketAddr, options: &Options) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    options::before_binding(options, &address, &socket)?;
    socket.bind(&address.into())?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Bound::new(Address::Socket(bound), socket, Provenance::Bound))
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
    beside: Vec<Open>,
    drain: Arc<Drain>,
    sockets: Sockets,
    admission: Arc<Admission>,
}

impl<A: ServerApp + Send + Sync + 'static> Listening<A> {
    /// A service that accepts on what is `bound` for `app`, and keeps it in `sockets` for a
    /// successor, with those `beside` that others accept on.
    pub fn new(
        app: A,
        bound: Vec<Bound>,
        beside: Vec<Open>,
        sockets: Sockets,
        drain: Arc<Drain>,
        admission: Arc<Admission>,
    ) -> Self {
        let addresses = bound.iter().map(|bound| bound.address.clone()).collect();
        Self { app: Arc::new(app), addresses, bound, beside, drain, sockets, admission }
    }

    /// Puts every socket where Pingora looks for sockets of a predecessor.
    fn open(&mut self, fds: &ListenFds) -> Result<Vec<Watched>, BindError> {
        let (mut open, mut watched) = (Vec::new(), Vec::new());
        for bound in self.bound.drain(..) {
            let is_taken_over = bound.is_taken_over();
            let Bound { address, socket, provenance, options } = bound;
            let failed = |error| BindError { address: address.clone(), why: in_words(&error) };
            options::set(&options, &address, &socket).map_err(failed)?;
            let backlog = options::backlog(&options);
            if !is_taken_over {
                socket.listen(backlog).map_err(failed)?;
            }
            let copies = (socket.try_clone().map_err(failed)?, socket.try_clone().map_err(failed)?);
            fds.lock().add(key(&address), socket.into_raw_fd());
            info!("listener: {address} {provenance}");
            let is_ours = provenance.is_ours();
            watched.push(Watched::new(address.clone(), copies.0, backlog, is_ours));
            open.push(Open { address, socket: copies.1.into(), is_ours });
        }
        open.append(&mut self.beside);
        self.sockets.open(open);
        Ok(watched)
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
        let watched = match self.open(&fds) {
            Ok(watched) => watched,
            Err(error) => {
                error!("{error}");
                std::process::exit(EXIT_UNAVAILABLE);
            }
        };
        ready.notify_ready();
        systemd::serves();
        tokio::spawn(overload::pulse::beat());
        let (sockets, mut stopping) = (self.sockets.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
            sockets.let_go();
        });
        let Self { app, sockets: others, drain, admission, .. } = self;
        let doors = Doors { sockets: watched, others, drain, admission };
        accept::accept(app, doors, fds, shutdown, listeners_per_fd).await;
    }

    fn name(&self) -> &'static str {
        "listeners"
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(self.addresses.iter().map(key).collect())
    }
}
