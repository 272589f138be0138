//! The name that a client asks for, read from its first message and from nothing else.
//!
//! For connections that are passed through: their TLS is between the client and its origin, so
//! nothing is judged here, and a client that rustls would refuse finds its origin all the same.
//! The message may be cut into any number of records and packets. Pure.
//!
//! INVARIANT: no more than [`BYTES_MAX`] bytes are ever kept, and each is looked at once.

/// The longest first message, with the heads of its records; those of browsers take 2 KiB.
pub const BYTES_MAX: usize = 16 * 1024;

/// The type of a record that carries a handshake (RFC 8446 §5.1), and the length of its head.
const HANDSHAKE: u8 = 22;
const RECORD_HEAD: usize = 5;
/// The type of a client's first message (RFC 8446 §4), and the length of its head.
const CLIENT_HELLO: u8 = 1;
const MESSAGE_HEAD: usize = 4;
/// The extension that names the server, and the only type of name (RFC 6066 §3).
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// The longest name (RFC 1035 §2.3.4).
const NAME_MAX: usize = 255;

/// What is known after some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// More bytes are needed to tell.
    NeedsMore,
    /// A first message; the name that it asks for, in lower case and without a last dot.
    Hello(Option<Box<str>>),
    /// These bytes are no TLS.
    NoTls,
    /// It is longer than [`BYTES_MAX`].
    TooLong,
}

/// A first message while it arrives.
#[derive(Debug, Default)]
pub struct Hello {
    bytes: Vec<u8>,
    /// Where the next record begins in them.
    record: usize,
    /// What the records before carried.
    message: Vec<u8>,
}

impl Hello {
    /// Everything that was read.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads on.
    pub fn read(&mut self, more: &[u8]) -> Seen {
        self.bytes.extend_from_slice(more);
        if self.bytes.first().is_some_and(|first| *first != HANDSHAKE) {
            return Seen::NoTls;
        }
        while let Some((head, rest)) = self.bytes[self.record..].split_first_chunk::<RECORD_HEAD>()
        {
            let [kind, major, _, length @ ..] = *head;
            let length = usize::from(u16::from_be_bytes(length));
            if kind != HANDSHAKE || major != 3 || length == 0 {
                return Seen::NoTls;
            }
            let Some(carried) = rest.get(..length) else { break };
            self.message.extend_from_slice(carried);
            self.record += RECORD_HEAD + length;
            match self.whole() {
                Seen::NeedsMore => {}
                seen => return seen,
            }
        }
        if self.bytes.len() < BYTES_MAX { Seen::NeedsMore } else { Seen::TooLong }
    }

    /// Looks whether the message is whole.
    fn whole(&self) -> Seen {
        let Some((head, rest)) = self.message.split_first_chunk::<MESSAGE_HEAD>() else {
            return Seen::NeedsMore;
        };
        let [kind, length @ ..] = *head;
        let [high, middle, low] = length.map(usize::from);
        let length = high << 16 | middle << 8 | low;
        match rest.get(..length) {
            _ if kind != CLIENT_HELLO => Seen::NoTls,
            None if BYTES_MAX < length => Seen::TooLong,
            None => Seen::NeedsMore,
            Some(message) => name(message).unwrap_or(Seen::NoTls),
        }
    }
}

/// The name in a message; `None` if it is malformed (RFC 8446 §4.1.2).
fn name(message: &[u8]) -> Option<Seen> {
    const VERSION_AND_RANDOM: usize = 2 + 32;
    let mut rest = Fields(message);
    rest.take(VERSION_AND_RANDOM)?;
    rest.short()?; // the session
    rest.long()?; // the cipher suites
    rest.short()?; // the compression methods
    if rest.0.is_empty() {
        return Some(Seen::Hello(None)); // before TLS 1.2, there may be no extensions
    }
    let mut extensions = Fields(rest.long()?);
    while !extensions.0.is_empty() {
        let (kind, body) = (extensions.number()?, extensions.long()?);
        if kind == SERVER_NAME {
            return first_name(Fields(Fields(body).long()?));
        }
    }
    Some(Seen::Hello(None))
}

fn first_name(mut names: Fields<'_>) -> Option<Seen> {
    while !names.0.is_empty() {
        let (kind, name) = (names.take(1)?[0], names.long()?);
        if kind == HOST_NAME {
            let name = str::from_utf8(name)
                .ok()
                .filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic()));
            let name = name.map(|name| name.strip_suffix('.').unwrap_or(name))?;
            let fits = (1..=NAME_MAX).contains(&name.len());
            return fits.then(|| Seen::Hello(Some(name.to_ascii_lowercase().into())));
        }
    }
    Some(Seen::Hello(None))
}

/// Fields with their lengths before them.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let number = self.take(2)?;
        Some(u16::from_be_bytes([number[0], number[1]]))
    }

    /// A field of up to 255 bytes.
    fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(usize::from(length))
    }

    /// A field of up to 65,535 bytes.
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests;
