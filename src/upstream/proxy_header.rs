//! The PROXY protocol toward origins: the client's address, before anything else on a connection
//! (`HAProxy`'s specification, versions 1 and 2).

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
};

use arrayvec::ArrayVec;
use schemars::JsonSchema;
use serde::Deserialize;

/// The longest header of version 1, its line break included; those of version 2 are shorter.
const BYTES_MAX: usize = 107;

/// How every header of version 2 begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ProxyProtocol")]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl Version {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// A header, ready to be sent.
pub type Header = ArrayVec<u8, BYTES_MAX>;

/// Whom a connection is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// This process itself, as for a check.
    Ourselves,
    /// A client that has no address, on a Unix socket.
    Nameless,
    /// A client, and the address that it connected to.
    Client(SocketAddr, SocketAddr),
}

impl Sender {
    /// A client; `peer` and `local` are the ends of its connection, of which `peer` is the
    /// client's own unless a load balancer stands between.
    pub fn of(client: Option<IpAddr>, peer: Option<SocketAddr>, local: Option<SocketAddr>) -> Self {
        let (Some(client), Some(local)) = (client, local) else { return Self::Nameless };
        let peer = peer.filter(|peer| peer.ip().to_canonical() == client);
        Self::Client(SocketAddr::new(client, peer.map_or(0, |peer| peer.port())), local)
    }
}

/// Writes the header for a connection.
pub fn header(version: Version, sender: Sender) -> Header {
    let mut header = Header::new();
    match version {
        Version::V1 => text(sender, &mut header),
        Version::V2 => binary(sender, &mut header),
    }
    header
}

fn text(sender: Sender, header: &mut Header) {
    let Some((from, to)) = of_one_family(sender) else {
        put(header, b"PROXY UNKNOWN\r\n");
        return;
    };
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from_ip, to_ip) = (from.ip(), to.ip());
    let written =
        write!(header, "PROXY {family} {from_ip} {to_ip} {} {}\r\n", from.port(), to.port());
    written.expect("no line is longer than the longest");
}

fn binary(sender: Sender, header: &mut Header) {
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    const UNSPECIFIED: u8 = 0x00;
    const TCP4: u8 = 0x11;
    const TCP6: u8 = 0x21;
    put(header, &SIGNATURE);
    let command = if sender == Sender::Ourselves { LOCAL } else { PROXY };
    let Some((from, to)) = of_one_family(sender) else {
        put(header, &[command, UNSPECIFIED, 0, 0]);
        return;
    };
    let (family, length) = if from.is_ipv4() { (TCP4, 12) } else { (TCP6, 36) };
    put(header, &[command, family, 0, length]);
    for address in [from, to] {
        match address.ip() {
            IpAddr::V4(ip) => put(header, &ip.octets()),
            IpAddr::V6(ip) => put(header, &ip.octets()),
        }
    }
    put(header, &from.port().to_be_bytes());
    put(header, &to.port().to_be_bytes());
}

/// The two addresses of a client's connection; if only one is of version 4, as version 6.
fn of_one_family(sender: Sender) -> Option<(SocketAddr, SocketAddr)> {
    let Sender::Client(from, to) = sender else { return None };
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (from, to) = (plain(from), plain(to));
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    Some(if from.is_ipv4() == to.is_ipv4() { (from, to) } else { (mapped(from), mapped(to)) })
}

fn put(header: &mut Header, bytes: &[u8]) {
    header.try_extend_from_slice(bytes).expect("no header is longer than the longest of version 1");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(from: &str, to: &str) -> Sender {
        Sender::Client(from.parse().unwrap(), to.parse().unwrap())
    }

    #[test]
    fn version_1_is_a_line() {
        let line = |sender| String::from_utf8(header(Version::V1, sender).to_vec()).unwrap();
        let v4 = client("192.0.2.1:4711", "198.51.100.7:443");
        assert_eq!(line(v4), "PROXY TCP4 192.0.2.1 198.51.100.7 4711 443\r\n");
        let v6 = client("[2001:db8::1]:4711", "[::1]:443");
        assert_eq!(line(v6), "PROXY TCP6 2001:db8::1 ::1 4711 443\r\n");
        let dual = client("[::ffff:192.0.2.1]:4711", "198.51.100.7:443");
        assert_eq!(line(dual), line(v4));
        let mixed = client("192.0.2.1:4711", "[::1]:443");
        assert_eq!(line(mixed), "PROXY TCP6 ::ffff:192.0.2.1 ::1 4711 443\r\n");
        for sender in [Sender::Ourselves, Sender::Nameless] {
            assert_eq!(line(sender), "PROXY UNKNOWN\r\n");
        }
    }

    #[test]
    fn version_2_is_binary() {
        let rest = |sender| {
            let header = header(Version::V2, sender);
            header.strip_prefix(&SIGNATURE).expect("the signature").to_vec()
        };
        let v4 = rest(client("192.0.2.1:258", "198.51.100.7:443"));
        let addresses = [192, 0, 2, 1, 198, 51, 100, 7, 1, 2, 1, 187];
        assert_eq!(v4, [&[0x21, 0x11, 0, 12][..], &addresses].concat());
        let v6 = rest(client("[::1]:1", "[::2]:2"));
        assert_eq!((&v6[..4], v6.len()), (&[0x21, 0x21, 0, 36][..], 4 + 36));
        assert_eq!((v6[4 + 15], v6[4 + 31], &v6[36..]), (1, 2, &[0, 1, 0, 2][..]));
        assert_eq!(rest(Sender::Ourselves), [0x20, 0, 0, 0]);
        assert_eq!(rest(Sender::Nameless), [0x21, 0, 0, 0]);
    }

    #[test]
    fn the_longest_header_fits() {
        let longest = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        for version in [Version::V1, Version::V2] {
            assert!(header(version, client(longest, longest)).len() <= BYTES_MAX);
        }
    }
}
