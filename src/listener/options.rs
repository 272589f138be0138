//! What the kernel is told of a listening socket. Connections that come by it inherit all of it.

use std::{io, net::SocketAddr, os::fd::AsRawFd as _, time::Duration};

use pingora_core::protocols::l4::ext::set_tcp_fastopen_backlog;
use socket2::{Socket, TcpKeepalive};

use crate::downstream::config::{
    Address,
    socket::{Config, KeepaliveConfig},
};

/// What the kernel takes of an answer before the client's window lets it go, in bytes. A client
/// that reads fast leaves less than this behind; one that does not read costs no more than this,
/// where the kernel would else take hundreds of kilobytes of each answer before it lets us see that
/// nobody wants them.
const NOT_SENT: u32 = 64 * 1024;

/// Tells what must be known before the socket is bound.
pub(super) fn before_binding(
    options: &Config,
    address: &SocketAddr,
    socket: &Socket,
) -> io::Result<()> {
    if is_any_v6(address) {
        socket.set_only_v6(options.ipv6_only.value)?;
    }
    socket.set_reuse_port(options.reuse_port.value)
}

/// What a socket that was bound elsewhere cannot be told any more, if it differs.
pub(super) fn fixed(options: &Config, address: &Address, socket: &Socket) -> Option<&'static str> {
    let Address::Socket(address) = address else { return None };
    let is_other = |known: io::Result<bool>, wanted| known.is_ok_and(|known| known != wanted);
    // At any other address than `[::]` the kernel says yes, whatever it was told.
    if is_any_v6(address) && is_other(socket.only_v6(), options.ipv6_only.value) {
        return Some("ipv6_only");
    }
    is_other(socket.reuse_port(), options.reuse_port.value).then_some("reuse_port")
}

/// Tells the rest; what is not asked for has the kernel's defaults again.
pub(super) fn set(options: &Config, address: &Address, socket: &Socket) -> io::Result<()> {
    let Address::Socket(address) = address else { return Ok(()) };
    match &options.tcp_keepalive {
        Some(keepalive) => {
            let KeepaliveConfig { idle, every, count } = &keepalive.value;
            let probes = TcpKeepalive::new().with_time(idle.value.0).with_interval(every.value.0);
            socket.set_tcp_keepalive(&probes.with_retries(count.value))?;
        }
        None => socket.set_keepalive(false)?,
    }
    let user_timeout = options.user_timeout.as_ref().map_or(Duration::ZERO, |set| set.value.0);
    socket.set_tcp_user_timeout(Some(user_timeout))?;
    // The upper six bits of a byte; the kernel keeps the lower two, for congestion.
    let class = options.dscp.as_ref().map_or(0, |set| u32::from(set.value) << 2);
    socket.set_tcp_notsent_lowat(NOT_SENT)?;
    socket.set_tos_v4(class)?; // IPv4 clients of `[::]` as well
    if address.is_ipv6() {
        socket.set_tclass_v6(class)?;
    }
    if let Some(fast_open) = &options.fast_open {
        let most = usize::try_from(fast_open.value).unwrap_or(usize::MAX);
        let told = set_tcp_fastopen_backlog(socket.as_raw_fd(), most);
        told.map_err(|why| io::Error::other(why.to_string()))?;
    }
    Ok(())
}

fn is_any_v6(address: &SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

/// How many connections may wait to be accepted.
pub(super) fn backlog(options: &Config) -> i32 {
    i32::try_from(options.backlog.value).unwrap_or(i32::MAX)
}
