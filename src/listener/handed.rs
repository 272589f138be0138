//! Sockets that systemd hands in: each is for the listener that has its address.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use rustix::process::geteuid;
use socket2::SockAddr;

use crate::{
    downstream::config::{Address, socket::Config as Options},
    listener::bind::{self, BindError, Bound, Provenance},
    systemd::sockets::{self, Given, GivenError},
};

/// Why a socket that was handed in is of no use: its unit and the file disagree.
#[derive(Debug, thiserror::Error)]
pub enum HandedError {
    /// It is no listening socket.
    #[error(transparent)]
    Given(#[from] GivenError),
    /// No listener is there.
    #[error(
        "systemd handed in `{name}` at {address}, and no listener has that address\nhelp: {help}"
    )]
    Unwanted {
        /// What its unit calls it.
        name: String,
        /// Where it is bound.
        address: Address,
        /// The next step.
        help: String,
    },
    /// It has no address that a listener could have.
    #[error(
        "systemd handed in `{0}`, which has neither an IP address nor a path\n\
         help: in its unit, write `ListenStream=0.0.0.0:80` or `ListenStream=/path`"
    )]
    NoAddress(String),
    /// Pingora could not set the mode of its file.
    #[error(
        "systemd handed in `{name}` at {address}, which belongs to another user\n\
         help: in its unit, set `SocketUser=` to the user of the service"
    )]
    Foreign {
        /// What its unit calls it.
        name: String,
        /// Where it is bound.
        address: Address,
    },
}

/// The sockets that were handed in, until listeners take them.
#[derive(Debug, Default)]
pub struct Handed(Vec<Bound>);

impl Handed {
    /// Takes what was handed in to this process, for these listeners. Call it once, before any
    /// thread is started.
    ///
    /// # Errors
    /// If one of the sockets is nothing that a listener could use, or none of these has its
    /// address: nobody would ever answer its clients.
    pub fn take<'a>(
        listeners: &(impl Iterator<Item = &'a Address> + Clone),
    ) -> Result<Self, HandedError> {
        let sockets = sockets::take()?.into_iter().map(|given| {
            let (name, bound) = bound(given)?;
            if listeners.clone().any(|address| *address == bound.address) {
                return Ok(bound);
            }
            Err(unwanted(name, bound.address, listeners.clone()))
        });
        sockets.collect::<Result<_, _>>().map(Self)
    }

    /// The socket of an address.
    pub fn find(&mut self, address: &Address) -> Option<Bound> {
        let found = self.0.iter().position(|bound| bound.address == *address);
        found.map(|index| self.0.swap_remove(index))
    }

    /// The socket of an address, or a new one.
    ///
    /// # Errors
    /// If a new one cannot be bound.
    pub fn find_or_bind(
        &mut self,
        address: &Address,
        options: &Options,
    ) -> Result<Bound, BindError> {
        self.find(address).map_or_else(|| bind::bind(address, options), Ok)
    }
}

fn unwanted<'a>(
    name: String,
    address: Address,
    mut listeners: impl Iterator<Item = &'a Address>,
) -> HandedError {
    let here = format!("`{{ address: \"{address}\" }}`");
    let near = listeners.find(|near| port(near).is_some() && port(near) == port(&address));
    let help = match near {
        Some(near) => format!("write {here} for {near}, or `ListenStream={near}` in its unit"),
        None => format!("add {here} under `listeners`, or take it out of its unit"),
    };
    HandedError::Unwanted { name, address, help }
}

fn bound(Given { name, socket }: Given) -> Result<(String, Bound), HandedError> {
    let local = socket.local_addr().ok();
    let ip = local.as_ref().and_then(SockAddr::as_socket).map(Address::Socket);
    let path = local.as_ref().and_then(|local| Some(Address::Unix(local.as_pathname()?.into())));
    let Some(address) = ip.or(path) else { return Err(HandedError::NoAddress(name)) };
    match &address {
        Address::Unix(path) if is_foreign(path) => Err(HandedError::Foreign { name, address }),
        _ => Ok((name, Bound::new(address, socket, Provenance::HandedIn))),
    }
}

fn is_foreign(path: &Path) -> bool {
    let user = geteuid();
    !user.is_root() && fs::symlink_metadata(path).is_ok_and(|file| file.uid() != user.as_raw())
}

fn port(address: &Address) -> Option<u16> {
    match address {
        Address::Socket(socket) => Some(socket.port()),
        Address::Unix(_) => None,
    }
}
