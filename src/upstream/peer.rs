//! What Pingora connects to, made ready once for each backend.

use pingora_core::{
    protocols::l4::socket::SocketAddr,
    upstreams::peer::{HttpPeer, PeerOptions},
};

/// A peer at an address, without looking anything up.
pub fn at(address: SocketAddr, tls: bool) -> HttpPeer {
    // `HttpPeer::new` resolves and panics; given a socket address it does neither.
    const ANY: std::net::SocketAddr =
        std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 1);
    let mut peer = HttpPeer::new(ANY, tls, String::new());
    peer._address = address;
    peer.options = PeerOptions::new();
    peer
}
