//! The socket below a stream of Pingora's.

use std::{io, os::fd::RawFd};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use socket2::Socket;

/// Another handle of a socket that Pingora owns and shows only the number of.
///
/// # Errors
/// If the kernel does not let this process duplicate its own socket.
pub fn duplicate(fd: RawFd) -> io::Result<Socket> {
    let process = pidfd_open(getpid(), PidfdFlags::empty())?;
    let socket = pidfd_getfd(&process, fd, PidfdGetfdFlags::empty())?;
    Ok(Socket::from(socket))
}
