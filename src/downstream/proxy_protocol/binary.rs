//! Version 2: a signature, a command, addresses, and values of several types (TLV).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::downstream::proxy_protocol::{Malformed, Parsed, Told, ToldTls, V2_MAX};

pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, the command, the family, and the length of what follows.
pub(super) const HEAD: usize = 16;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// The lengths of the addresses of a family: its upper four bits.
const IPV4: usize = 12;
const IPV6: usize = 36;
const UNIX: usize = 216;

const TYPE_AUTHORITY: u8 = 0x02;
const TYPE_CRC32C: u8 = 0x03;
const TYPE_SSL: u8 = 0x20;
const TYPE_SSL_VERSION: u8 = 0x21;
const TYPE_SSL_CN: u8 = 0x22;

/// The client spoke TLS.
const CLIENT_SSL: u8 = 0x01;
/// Longer words are nobody's: a host has at most 253 bytes.
const WORD_MAX: usize = 255;

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let Some(head) = bytes.get(..HEAD) else {
        // What is wrong already is told already.
        return match bytes.get(SIGNATURE.len()) {
            Some(command) if !matches!(*command, LOCAL | PROXY) => Err(Malformed::Command),
            _ => Ok(Parsed::NeedsMore),
        };
    };
    let (command, family) = (head[12], head[13]);
    if !matches!(command, LOCAL | PROXY) {
        return Err(Malformed::Command);
    }
    let length = HEAD + usize::from(u16::from_be_bytes([head[14], head[15]]));
    if V2_MAX < length {
        return Err(Malformed::Long);
    }
    let Some(whole) = bytes.get(..length) else { return Ok(Parsed::NeedsMore) };
    // What a load balancer says of its own connections is to be skipped.
    let told = if command == LOCAL { Told::default() } else { told(whole, family)? };
    Ok(Parsed::Header { length, told })
}

fn told(whole: &[u8], family: u8) -> Result<Told, Malformed> {
    let said = &whole[HEAD..];
    let size = match family >> 4 {
        1 => IPV4,
        2 => IPV6,
        3 => UNIX,
        _ => 0,
    };
    let (addresses, values) = said.split_at_checked(size).ok_or(Malformed::Addresses)?;
    // Addresses of any other family are to be ignored: the load balancer's own counts.
    let client = match family {
        TCP_OVER_IPV4 => addresses.first_chunk().map(|ip| IpAddr::V4(Ipv4Addr::from(*ip))),
        TCP_OVER_IPV6 => addresses.first_chunk().map(|ip| IpAddr::V6(Ipv6Addr::from(*ip))),
        _ => None,
    };
    let mut told = Told { client: client.map(|client| client.to_canonical()), ..Told::default() };
    let mut values = Values { rest: values };
    while let Some((kind, value)) = values.next()? {
        match kind {
            TYPE_AUTHORITY => told.authority = Some(word(value)?),
            TYPE_CRC32C => check(whole, value)?,
            TYPE_SSL => told.tls = tls(value)?,
            _ => {}
        }
    }
    Ok(told)
}

/// `PP2_TYPE_SSL`: what the client spoke, whether its certificate was found good, and values.
fn tls(value: &[u8]) -> Result<Option<ToldTls>, Malformed> {
    let (head, values) = value.split_at_checked(5).ok_or(Malformed::Value)?;
    let is_verified = head[1..] == [0; 4];
    let mut tls = ToldTls::default();
    let mut values = Values { rest: values };
    while let Some((kind, value)) = values.next()? {
        match kind {
            TYPE_SSL_VERSION => tls.version = Some(word(value)?),
            TYPE_SSL_CN if is_verified => tls.client_cn = Some(word(value)?),
            _ => {}
        }
    }
    Ok((head[0] & CLIENT_SSL != 0).then_some(tls))
}

fn word(value: &[u8]) -> Result<Box<str>, Malformed> {
    let word = str::from_utf8(value).ok().filter(|word| (1..=WORD_MAX).contains(&word.len()));
    word.map(Into::into).ok_or(Malformed::Value)
}

/// Values one after another, each with its type and its length.
struct Values<'a> {
    rest: &'a [u8],
}

impl<'a> Values<'a> {
    fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (head, rest) = self.rest.split_first_chunk::<3>().ok_or(Malformed::Value)?;
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        let (value, rest) = rest.split_at_checked(length).ok_or(Malformed::Value)?;
        self.rest = rest;
        Ok(Some((head[0], value)))
    }
}

/// Holds the checksum against the header, in which it counts as zeros.
fn check(whole: &[u8], value: &[u8]) -> Result<(), Malformed> {
    let said: &[u8; 4] = value.try_into().map_err(|_| Malformed::Value)?;
    let start = value.as_ptr() as usize - whole.as_ptr() as usize;
    let mut crc = Crc32c::default();
    crc.add(&whole[..start]);
    crc.add(&[0; 4]);
    crc.add(&whole[start + 4..]);
    if crc.sum() == u32::from_be_bytes(*said) { Ok(()) } else { Err(Malformed::Checksum) }
}

/// CRC-32C (RFC 9260, appendix A), bit by bit: a header is short, and comes once a connection.
pub(super) struct Crc32c(u32);

impl Default for Crc32c {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Crc32c {
    const POLYNOMIAL: u32 = 0x82f6_3b78;

    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u32::from(*byte);
            for _ in 0..8 {
                let is_odd = self.0 & 1 == 1;
                self.0 = (self.0 >> 1) ^ if is_odd { Self::POLYNOMIAL } else { 0 };
            }
        }
    }

    pub(super) fn sum(&self) -> u32 {
        !self.0
    }
}
