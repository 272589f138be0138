//! What messages are sent on: a socket, made within a time.

use std::{
    io::{self, ErrorKind, Read},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket},
    os::unix::net::UnixDatagram,
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::time::Instant;

use crate::observe::access_log::syslog::config::Address;

/// How long one call to send may take: then it is looked whether the log finishes.
pub(super) const SLICE: Duration = Duration::from_millis(250);
/// A receiver that vanished is noticed after so long, also while nothing is sent.
const VANISHED: Duration = Duration::from_secs(10);

/// A socket that is connected.
pub(super) enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Unix(UnixDatagram),
}

impl Link {
    /// Connects, within a time for all addresses of a name together.
    pub(super) fn to(address: &Address, within: Duration) -> io::Result<Self> {
        match address {
            Address::Udp(host, port) => udp(host, *port).map(Self::Udp),
            Address::Tcp(host, port) => tcp(host, *port, within).map(Self::Tcp),
            Address::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_write_timeout(Some(SLICE))?;
                socket.connect(path)?;
                Ok(Self::Unix(socket))
            }
        }
    }
}

fn udp(host: &str, port: u16) -> io::Result<UdpSocket> {
    let mut last = none_found();
    for address in (host, port).to_socket_addrs()? {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_write_timeout(Some(SLICE))?;
        match socket.connect(address) {
            Ok(()) => return Ok(socket),
            Err(why) => last = why,
        }
    }
    Err(last)
}

fn tcp(host: &str, port: u16, within: Duration) -> io::Result<TcpStream> {
    let (mut last, end) = (none_found(), Instant::now() + within);
    for address in (host, port).to_socket_addrs()? {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => {
                let keepalive = TcpKeepalive::new().with_time(VANISHED).with_interval(VANISHED);
                let socket = SockRef::from(&stream);
                socket.set_tcp_keepalive(&keepalive)?;
                socket.set_tcp_user_timeout(Some(VANISHED))?;
                stream.set_write_timeout(Some(SLICE))?;
                return Ok(stream);
            }
            Err(why) => last = why,
        }
    }
    Err(last)
}

fn none_found() -> io::Error {
    io::Error::other("its name has no address")
}

/// Whether a receiver has closed its connection. The first bytes that are written to such a one
/// would be lost, and nobody would be told.
pub(super) fn has_ended(stream: &mut TcpStream) -> bool {
    let mut said = [0; 512];
    if stream.set_nonblocking(true).is_err() {
        return true;
    }
    let has_ended = loop {
        match stream.read(&mut said) {
            Ok(0) => break true,
            Ok(_) => {} // nothing that syslog knows
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            Err(why) => break why.kind() != ErrorKind::WouldBlock,
        }
    };
    stream.set_nonblocking(false).is_err() || has_ended
}
