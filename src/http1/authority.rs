//! The syntax of `Host`: a name or an address, and a port.
//!
//! Stricter than RFC 3986: a registered name is made of unreserved characters only.
//! Percent-encoding would give one site many names, and the sub-delimiters (the comma first of all)
//! end up in lists, logs and pages of origins that do not expect them. No host in use has either.

use std::net::Ipv6Addr;

use crate::http1::octets;

/// The longest name of DNS, with its final dot and a byte to spare.
const HOST_LENGTH_MAX: usize = 255;

/// A host and its port, as they stand in `Host` or in a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The name or the address; an IPv6 address keeps its brackets.
    pub host: &'a [u8],
    /// The port, if there is one.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads a host and an optional port; there is no userinfo, and neither part may be empty.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let end = match bytes {
            [b'[', ..] => memchr::memchr(b']', bytes)? + 1,
            _ => memchr::memchr(b':', bytes).unwrap_or(bytes.len()),
        };
        let (host, port) = bytes.split_at(end);
        let host_is_valid = match host {
            [b'[', address @ .., b']'] => is_ipv6(address),
            _ => is_name(host),
        };
        let port = match port {
            [] => None,
            [b':', digits @ ..] => Some(parse_port(digits)?),
            _ => return None,
        };
        host_is_valid.then_some(Self { host, port })
    }

    /// Tells whether both name the same host and port, where `port_default` stands for none.
    pub fn is_same(&self, other: &Authority<'_>, port_default: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(port_default) == other.port.unwrap_or(port_default)
    }
}

/// Tells whether this is a registered name or an IPv4 address.
///
/// No empty labels, but for the one after a final dot: `..` as a host has opened directories.
fn is_name(name: &[u8]) -> bool {
    let mut before = b'.';
    let valid = name.iter().all(|&byte| match (std::mem::replace(&mut before, byte), byte) {
        (b'.', b'.') => false,
        (_, byte) => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'),
    });
    valid && (1..=HOST_LENGTH_MAX).contains(&name.len())
}

fn is_ipv6(address: &[u8]) -> bool {
    std::str::from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// Reads one to five digits up to 65535.
fn parse_port(digits: &[u8]) -> Option<u16> {
    let port = octets::decimal(digits).filter(|_| digits.len() <= 5)?;
    u16::try_from(port).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_with_and_without_a_port_are_read() {
        for (text, host, port) in [
            ("a.test", "a.test", None),
            ("A.Test.", "A.Test.", None),
            ("under_score.xn--bcher-kva.test:8080", "under_score.xn--bcher-kva.test", Some(8080)),
            ("127.0.0.1:0", "127.0.0.1", Some(0)),
            ("localhost:65535", "localhost", Some(65535)),
            ("[::1]", "[::1]", None),
            ("[2001:db8::192.0.2.1]:443", "[2001:db8::192.0.2.1]", Some(443)),
        ] {
            let host = host.as_bytes();
            assert_eq!(Authority::parse(text.as_bytes()), Some(Authority { host, port }), "{text}");
        }
    }

    #[test]
    fn anything_else_is_not_a_host() {
        let long = "a".repeat(256);
        for text in [
            "",
            ".",
            "..",
            ".a",
            "a..b",
            ":80",
            "a:",
            "a:+1",
            "a:65536",
            "a:000080",
            "a:80:80",
            "a:99999x",
            "u@a.test",
            "a.test,b.test",
            "a b",
            "a/b",
            "a%41",
            "a\\b",
            "a?b",
            "a#b",
            "a;b",
            "ä.test",
            "[]",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[1.2.3.4]",
            "[::1%25eth0]",
            "[v1.a]",
            "::1",
            "a]",
            "a[",
            &long,
        ] {
            assert_eq!(Authority::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn authorities_are_compared_without_case_and_with_the_default_port() {
        for (one, other, same) in [
            ("a.test", "A.TEST:80", true),
            ("a.test:80", "a.test", true),
            ("a.test:443", "a.test", false),
            ("a.test", "b.test", false),
        ] {
            let [one, other] = [one, other].map(|a| Authority::parse(a.as_bytes()).unwrap());
            assert_eq!(one.is_same(&other, 80), same, "{one:?} {other:?}");
        }
    }
}
