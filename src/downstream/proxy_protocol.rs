//! The PROXY protocol: what a load balancer says of its client before the client's first byte.
//!
//! Versions 1 (a line of text) and 2 (binary), as in `proxy-protocol.txt` of `HAProxy`. Pure, and
//! strict: what a trusted proxy does not write by the book is refused, because everything after
//! it depends on where it ends. The verdict does not depend on how the network cut the bytes.
//!
//! INVARIANT: [`parse`] never asks for more than [`V1_MAX`] or [`V2_MAX`] bytes.

mod binary;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest line of version 1, with its end.
pub const V1_MAX: usize = 107;
/// The longest header of version 2: its head, and 4 KiB of what it says.
pub const V2_MAX: usize = binary::HEAD + 4 * 1024;

const V1_SIGNATURE: &[u8] = b"PROXY ";

/// What is known after some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed to tell.
    NeedsMore,
    /// These bytes are no header, and no header begins with them.
    Nothing,
    /// A header of so many bytes.
    Header {
        /// How long it is; the client's own bytes follow.
        length: usize,
        /// What it tells.
        told: Told,
    },
}

/// What a load balancer tells of a connection. Nothing, if it speaks for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The address of its client.
    pub client: Option<IpAddr>,
    /// The host that the client asked for: the SNI of its handshake (`PP2_TYPE_AUTHORITY`).
    pub authority: Option<Box<str>>,
    /// The handshake that the client made (`PP2_TYPE_SSL`); `None` in plaintext.
    pub tls: Option<ToldTls>,
}

/// What a load balancer tells of its client's TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToldTls {
    /// The version, such as `TLSv1.3`.
    pub version: Option<Box<str>>,
    /// The common name in the client's certificate, if the load balancer verified it.
    pub client_cn: Option<Box<str>>,
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A line of version 1 that has no end.
    #[error("the line is longer than {V1_MAX} bytes")]
    LongLine,
    /// A line of version 1 that is not by the book.
    #[error("the line is malformed")]
    Line,
    /// A version other than 2, or a command that it does not have.
    #[error("the version or the command is unknown")]
    Command,
    /// It says too much.
    #[error("it is longer than {V2_MAX} bytes")]
    Long,
    /// The addresses do not fit into its length.
    #[error("the addresses are cut off")]
    Addresses,
    /// A value that does not fit, or is none of its type.
    #[error("a value (TLV) is malformed")]
    Value,
    /// Its checksum says that it was damaged.
    #[error("the checksum does not fit")]
    Checksum,
}

/// Reads a header at the beginning of `bytes`.
///
/// # Errors
/// If it begins as a header and is none.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    if begins(bytes, V1_SIGNATURE) {
        return text(bytes);
    }
    if begins(bytes, &binary::SIGNATURE) {
        return binary::parse(bytes);
    }
    Ok(Parsed::Nothing)
}

/// Whether more bytes are needed to tell that this is a header, or it is one.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    let known = bytes.len().min(signature.len());
    bytes[..known] == signature[..known]
}

/// Whether these bytes are enough to call it a header, good or bad.
pub fn is_header(bytes: &[u8]) -> bool {
    [V1_SIGNATURE, &binary::SIGNATURE].into_iter().any(|signature| bytes.starts_with(signature))
}

fn text(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let most = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = most.windows(2).position(|two| two == b"\r\n") else {
        let is_full = most.len() == V1_MAX;
        return if is_full { Err(Malformed::LongLine) } else { Ok(Parsed::NeedsMore) };
    };
    let line = str::from_utf8(&bytes[..end]).map_err(|_| Malformed::Line)?;
    let told = line_of(line).ok_or(Malformed::Line)?;
    Ok(Parsed::Header { length: end + 2, told })
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443`
fn line_of(line: &str) -> Option<Told> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(Told::default()); // whatever follows is to be ignored
    }
    let rest: Vec<&str> = words.collect();
    let [source, destination, source_port, destination_port] = rest[..] else { return None };
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    };
    let client = address(source)?;
    address(destination)?;
    let is_port = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_digit())
            && (text.len() == 1 || !text.starts_with('0'))
            && text.parse::<u16>().is_ok()
    };
    let are_ports = is_port(source_port) && is_port(destination_port);
    are_ports.then(|| Told { client: Some(client.to_canonical()), ..Told::default() })
}

#[cfg(test)]
mod tests;
