//! Socket activation: sockets that systemd bound and hands in, so that a port below 1024 needs no
//! capability, and connections wait through a restart instead of being refused.

use std::{env, io};

use listenfd::ListenFd;
use socket2::Socket;

/// A listening socket that was handed in.
#[derive(Debug)]
pub struct Given {
    /// What its unit calls it (`FileDescriptorName=`), for messages.
    pub name: String,
    /// The socket; it listens already.
    pub socket: Socket,
}

/// Why a socket that was handed in cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum GivenError {
    /// It is of another kind: a datagram socket, or no socket.
    #[error(
        "systemd handed in `{0}`, which is no stream socket\n\
         help: in the socket unit, sockets for this service stand as `ListenStream=`"
    )]
    NoStream(String),
    /// It is a connection.
    #[error(
        "systemd handed in `{0}`, which does not listen\n\
         help: the socket unit must say `Accept=no`, which is the default"
    )]
    NoListener(String),
    /// It could not be looked at.
    #[error("systemd handed in `{0}`, which cannot be used: {1}")]
    Unusable(String, io::Error),
}

/// Takes the sockets that were handed in to this process; none if they are for another one.
///
/// Call it once, and before any thread is started: it takes the variables out of the environment.
///
/// # Errors
/// If one of them is no listening stream socket.
pub fn take() -> Result<Vec<Given>, GivenError> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').filter(|name| !name.is_empty());
    let mut given = ListenFd::from_env();
    let sockets = (0..given.len()).map(|index| {
        let name = names.next().map_or_else(|| format!("socket {}", index + 1), str::to_owned);
        take_one(&mut given, index, name)
    });
    sockets.collect()
}

fn take_one(given: &mut ListenFd, index: usize, name: String) -> Result<Given, GivenError> {
    // What is no TCP socket stays where it is, and may be a Unix one.
    let tcp = given.take_tcp_listener(index).ok().flatten().map(Socket::from);
    let unix = || given.take_unix_listener(index).ok().flatten().map(Socket::from);
    let Some(socket) = tcp.or_else(unix) else { return Err(GivenError::NoStream(name)) };
    match socket.is_listener().and_then(|listens| socket.set_nonblocking(true).map(|()| listens)) {
        Ok(true) => Ok(Given { name, socket }),
        Ok(false) => Err(GivenError::NoListener(name)),
        Err(why) => Err(GivenError::Unusable(name, why)),
    }
}
