//! Watches the raw bytes of a chunked request body on their way to Pingora.
//!
//! Pingora's reader skips chunk extensions and trailers unread, a bare LF in them included, and
//! takes blanks behind a size. Another reader may see a chunk's end there, so they are refused.
//! Nothing is stored: a chunk's data is counted, not looked at.

use crate::http1::octets::{self, TOKEN};
use crate::http1::refusal::Refusal;

/// Digits of a chunk's size: all that a `u64` holds, so there is no overflow.
const SIZE_DIGITS_MAX: u8 = 16;
/// Bytes of all extensions of a body: nobody uses them, but each chunk may carry some.
const EXTENSIONS_MAX: usize = 4 * 1024;
/// Bytes of a trailer section, as many as of a head.
const TRAILERS_MAX: usize = 64 * 1024;

/// Fields that may not stand in a trailer section (RFC 9110 §6.5.1): framing, routing,
/// conditions, credentials, and how the content is to be read.
const FORBIDDEN: [&[u8]; 25] = [
    b"authorization",
    b"cache-control",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"host",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"keep-alive",
    b"max-forwards",
    b"pragma",
    b"proxy-authorization",
    b"range",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"www-authenticate",
];

/// Follows one chunked body to its end, however its bytes arrive.
///
/// Use a new one for each body. A refusal is repeated by every later call.
#[derive(Debug)]
pub struct ChunkGuard {
    state: State,
    /// Bytes of extensions so far, their semicolons included.
    extensions: usize,
    /// Bytes of trailer fields so far, their line ends included.
    trailers: usize,
    forbidden_trailers: u32,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug)]
enum State {
    Size { size: u64, digits: u8 },
    Extension { size: u64 },
    SizeLineFeed { size: u64 },
    Data { left: u64 },
    DataReturn,
    DataLineFeed,
    TrailerName(Name),
    TrailerValue,
    TrailerLineFeed,
    LastLineFeed,
    Done,
    Refused(Refusal),
}

/// The name of a trailer field in lower case, as much of it as tells whether it is forbidden.
#[derive(Clone, Copy, Debug, Default)]
struct Name {
    start: [u8; 20],
    length: usize,
}

impl Default for ChunkGuard {
    fn default() -> Self {
        Self { state: State::SIZE, extensions: 0, trailers: 0, forbidden_trailers: 0 }
    }
}

impl ChunkGuard {
    /// Begins before the first chunk's size.
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows the next bytes and answers how many of them belong to this body.
    ///
    /// These are all of them until the end is reached; what is left begins the next request.
    pub fn advance(&mut self, buf: &[u8]) -> Result<usize, Refusal> {
        let mut at = 0;
        loop {
            match self.state {
                State::Refused(refusal) => return Err(refusal),
                State::Done => return Ok(at),
                _ if at == buf.len() => return Ok(at),
                _ => at += self.step(&buf[at..]),
            }
        }
    }

    /// Tells whether the blank line behind the trailer section has been seen.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Counts the trailer fields that have no business there; Pingora drops all trailers.
    pub fn forbidden_trailers(&self) -> u32 {
        self.forbidden_trailers
    }

    /// Changes the state and answers how many bytes that took.
    fn step(&mut self, rest: &[u8]) -> usize {
        match self.next(rest) {
            Ok((state, taken)) => {
                self.state = state;
                taken
            }
            Err(refusal) => {
                self.state = State::Refused(refusal);
                0
            }
        }
    }

    /// Judges the longest run of bytes that mean the same, or else the one byte that ends it.
    ///
    /// INVARIANT: there is a byte; each step takes one or changes the state.
    fn next(&mut self, rest: &[u8]) -> Result<(State, usize), Refusal> {
        let state = match (self.state, rest[0]) {
            // The semicolon is counted there.
            (State::Size { size, digits: 1.. }, b';') => return Ok((State::Extension { size }, 0)),
            (State::Size { size, digits }, byte) => read_size(size, digits, byte)?,
            (State::Extension { size }, b'\r') => State::SizeLineFeed { size },
            (State::Extension { .. }, _) => return self.read_extension(rest),
            (State::SizeLineFeed { size: 0 } | State::TrailerLineFeed, b'\n') => State::NAME,
            (State::SizeLineFeed { size }, b'\n') => State::Data { left: size },
            (State::Data { left }, _) => return Ok(skip_data(left, rest)),
            (State::DataReturn, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => State::SIZE,
            (State::DataReturn | State::DataLineFeed, _) => return Err(Refusal::BAD_CHUNK_END),
            (State::TrailerName(name), _) => return self.read_name(name, rest),
            (State::TrailerValue, _) => return self.read_value(rest),
            (State::LastLineFeed, b'\n') => State::Done,
            _ => return Err(Refusal::BARE_CARRIAGE_RETURN),
        };
        Ok((state, 1))
    }

    /// Takes what stands between a semicolon and the end of the line, whatever it means.
    fn read_extension(&mut self, rest: &[u8]) -> Result<(State, usize), Refusal> {
        let taken = octets::value_run(rest);
        self.extensions += taken;
        Refusal::CHUNK_EXTENSIONS_TOO_LARGE.when(EXTENSIONS_MAX < self.extensions)?;
        match rest[0] {
            _ if 0 < taken => Ok((self.state, taken)),
            b'\n' => Err(Refusal::BARE_LINE_FEED),
            _ => Err(Refusal::BAD_CHUNK_EXTENSION),
        }
    }

    /// Reads a trailer field's name, or the blank line in the place of one.
    fn read_name(&mut self, mut name: Name, rest: &[u8]) -> Result<(State, usize), Refusal> {
        let taken = octets::run(rest, TOKEN);
        if 0 < taken {
            name.extend(&rest[..taken]);
            return self.count_trailer(State::TrailerName(name), taken);
        }
        match rest[0] {
            b'\r' if name.length == 0 => Ok((State::LastLineFeed, 1)),
            b'\r' => Err(Refusal::MISSING_COLON),
            b'\n' => Err(Refusal::BARE_LINE_FEED),
            b' ' | b'\t' if name.length == 0 => Err(Refusal::OBS_FOLD),
            b' ' | b'\t' => Err(Refusal::SPACE_BEFORE_COLON),
            b':' if name.length == 0 => Err(Refusal::EMPTY_FIELD_NAME),
            b':' => {
                self.forbidden_trailers += u32::from(name.is_forbidden());
                self.count_trailer(State::TrailerValue, 1)
            }
            _ => Err(Refusal::BAD_FIELD_NAME),
        }
    }

    fn read_value(&mut self, rest: &[u8]) -> Result<(State, usize), Refusal> {
        let taken = octets::value_run(rest);
        match rest[0] {
            _ if 0 < taken => self.count_trailer(State::TrailerValue, taken),
            // Its LF is counted with it.
            b'\r' => self.count_trailer(State::TrailerLineFeed, 2).map(|(state, _)| (state, 1)),
            b'\n' => Err(Refusal::BARE_LINE_FEED),
            0 => Err(Refusal::NUL_BYTE),
            _ => Err(Refusal::CONTROL_BYTE),
        }
    }

    fn count_trailer(&mut self, state: State, taken: usize) -> Result<(State, usize), Refusal> {
        self.trailers += taken;
        Refusal::TRAILERS_TOO_LARGE.when(TRAILERS_MAX < self.trailers)?;
        Ok((state, taken))
    }
}

impl State {
    const SIZE: Self = Self::Size { size: 0, digits: 0 };
    const NAME: Self = Self::TrailerName(Name { start: [0; 20], length: 0 });
}

impl Name {
    fn extend(&mut self, bytes: &[u8]) {
        let room = self.start.iter_mut().skip(self.length);
        for (to, byte) in room.zip(bytes) {
            *to = byte.to_ascii_lowercase();
        }
        self.length += bytes.len();
    }

    fn is_forbidden(&self) -> bool {
        self.start.get(..self.length).is_some_and(|name| FORBIDDEN.contains(&name))
    }
}

/// Takes a digit of a chunk's size, or the byte that ends it.
fn read_size(size: u64, digits: u8, byte: u8) -> Result<State, Refusal> {
    let digit = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        b'\r' if 0 < digits => return Ok(State::SizeLineFeed { size }),
        b'\n' if 0 < digits => return Err(Refusal::BARE_LINE_FEED),
        _ => return Err(Refusal::BAD_CHUNK_SIZE),
    };
    Refusal::BAD_CHUNK_SIZE.when(digits == SIZE_DIGITS_MAX)?;
    Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
}

/// Passes over data without looking at it.
fn skip_data(left: u64, rest: &[u8]) -> (State, usize) {
    // A size beyond the address space saturates; `rest` is shorter in any case.
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
    match left - taken as u64 {
        0 => (State::DataReturn, taken),
        left => (State::Data { left }, taken),
    }
}

#[cfg(test)]
mod tests;
