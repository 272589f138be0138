//! Vets the raw head of an HTTP/1 request before Pingora parses it.
//!
//! Pingora is tolerant where an edge must not be: it accepts a bare LF, drops `Content-Length`
//! beside `Transfer-Encoding`, escapes illegal bytes of a target, and cuts `#` off. What two
//! parsers may read in two ways is refused here; what passes goes on byte for byte.
//!
//! INVARIANT: bytes are judged in the order in which they came, each as soon as its meaning is
//! known, so the verdict does not depend on how the network has cut them.

mod facts;

use self::facts::Facts;
use crate::http1::normalize::Edits;
use crate::http1::octets::{self, PATH, QUERY, TOKEN};
pub use crate::http1::refusal::Refusal;

/// The longest method that we forward; registered ones have at most 17 characters.
const METHOD_LENGTH_MAX: usize = 32;

/// How much a head may hold; each limit is itself still allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole head, blank line included. Default: 64 KiB.
    pub header_size: usize,
    /// Field lines. Default: 128, half of what Pingora takes.
    pub header_fields: usize,
    /// Bytes of the request target. Default: 16 KiB.
    pub target_size: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { header_size: 64 * 1024, header_fields: 128, target_size: 16 * 1024 }
    }
}

/// The versions that share this syntax.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no `Host` needed, no chunked coding.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

/// What a complete head says about itself and about the bytes that follow it.
///
/// The body has no bytes unless it is `chunked` or has a `content_length`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Where the request line begins: 0, or 2 after a blank line that older clients send behind
    /// a body. Pingora skips that line, too; drop the bytes before `start` if you need none.
    pub start: usize,
    /// Bytes up to and including the blank line, counted from the beginning of the buffer.
    pub len: usize,
    /// The version of the request line.
    pub version: Version,
    /// The body is chunked.
    pub chunked: bool,
    /// The body's length, if it is given.
    pub content_length: Option<u64>,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// There is an `Upgrade` field: after a `101` the bytes are no longer HTTP.
    pub upgrade: bool,
    /// What must be written anew before Pingora reads the head.
    pub edits: Edits,
}

/// Reads one head, however its bytes arrive.
///
/// Use a new one for each head, and none after a refusal.
#[derive(Debug, Default)]
pub struct HeadReader {
    stage: Stage,
    /// How many bytes need no second look.
    scanned: usize,
    /// Where the method, the target, the version or the field line under way begins.
    mark: usize,
    /// Where the colon of the field line under way is.
    colon: usize,
    facts: Facts,
}

#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    #[default]
    Start,
    Method,
    Path,
    Query,
    Version,
    FieldName,
    FieldValue,
    Complete,
}

/// What is known after a step.
enum Step {
    /// The next stage can begin.
    Next,
    /// More bytes are needed.
    More,
}

impl HeadReader {
    /// Begins before the first byte of a request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads on in `buf`, which begins with all the bytes of the calls before this one.
    ///
    /// Answers `None` while the head is incomplete and nothing in it is to be refused. Does not
    /// look beyond the head, nor twice at a byte, but for the last few.
    pub fn advance(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<Head>, Refusal> {
        let window = &buf[..buf.len().min(limits.header_size)];
        // A reload may have lowered the limit under what has been read.
        Refusal::HEAD_TOO_LARGE.when(window.len() < self.scanned)?;
        loop {
            let step = match self.stage {
                Stage::Start => self.skip_blank_line(window),
                Stage::Method => self.read_method(window),
                Stage::Path => self.read_target(window, PATH, limits.target_size),
                Stage::Query => self.read_target(window, QUERY, limits.target_size),
                Stage::Version => self.read_version(window),
                Stage::FieldName => self.read_name(window, limits.header_fields),
                Stage::FieldValue => self.read_value(window),
                Stage::Complete => return self.facts.finish(window, self.scanned).map(Some),
            }?;
            match step {
                Step::Next => {}
                Step::More if window.len() < limits.header_size => return Ok(None),
                Step::More => return Err(Refusal::HEAD_TOO_LARGE),
            }
        }
    }

    fn enter(&mut self, stage: Stage, mark: usize) -> Step {
        self.stage = stage;
        self.scanned = mark;
        self.mark = mark;
        Step::Next
    }

    fn skip_blank_line(&mut self, window: &[u8]) -> Result<Step, Refusal> {
        let start = match window {
            [] | [b'\r'] | [b'\r', b'\n'] => return Ok(Step::More),
            [b'\n', ..] => return Err(Refusal::BARE_LINE_FEED),
            [b'\r', b'\n', b'\r' | b'\n', ..] => return Err(Refusal::LEADING_BLANK_LINES),
            [b'\r', b'\n', ..] => 2,
            [b'\r', ..] => return Err(Refusal::BARE_CARRIAGE_RETURN),
            _ => 0,
        };
        self.facts.head.start = start;
        Ok(self.enter(Stage::Method, start))
    }

    fn read_method(&mut self, window: &[u8]) -> Result<Step, Refusal> {
        let rest = &window[self.mark..];
        let length = octets::run(&rest[..rest.len().min(METHOD_LENGTH_MAX + 1)], TOKEN);
        if METHOD_LENGTH_MAX < length {
            return Err(Refusal::METHOD_TOO_LONG);
        }
        match (&rest[..length], rest.get(length)) {
            (_, None) => return Ok(Step::More),
            (b"CONNECT", Some(b' ')) => return Err(Refusal::CONNECT_METHOD),
            (b"TRACE", Some(b' ')) => return Err(Refusal::TRACE_METHOD),
            (b"OPTIONS", Some(b' ')) => self.facts.is_options = true,
            ([_, ..], Some(b' ')) => {}
            (_, Some(_)) => return Err(Refusal::BAD_METHOD),
        }
        Ok(self.enter(Stage::Path, self.mark + length + 1))
    }

    /// Reads the target up to the byte that ends its path or its query.
    fn read_target(&mut self, window: &[u8], class: u8, max: usize) -> Result<Step, Refusal> {
        // One byte beyond the limit, where the space stands behind a target of just that length.
        let end = self.mark.saturating_add(max).saturating_add(1);
        let end = end.clamp(self.scanned, window.len());
        self.scanned += octets::run(&window[self.scanned..end], class);
        let target = &window[self.mark..self.scanned];
        let Some(&byte) = window[..end].get(self.scanned) else {
            Refusal::TARGET_TOO_LONG.when(max < target.len())?;
            return Ok(Step::More);
        };
        match byte {
            b'?' => {
                self.stage = Stage::Query;
                Ok(Step::Next)
            }
            b' ' | b'\t' | b'\r' | b'\n' if target.is_empty() => Err(Refusal::BAD_REQUEST_LINE),
            b' ' => {
                self.facts.take_target(target, self.mark)?;
                Ok(self.enter(Stage::Version, self.scanned + 1))
            }
            b'\r' | b'\n' => Err(Refusal::MISSING_VERSION),
            b'\\' => Err(Refusal::TARGET_BACKSLASH),
            b'#' => Err(Refusal::TARGET_FRAGMENT),
            _ => Err(Refusal::BAD_TARGET),
        }
    }

    /// Reads the version and the end of its line, ten bytes in all.
    ///
    /// A version such as 1.2 is answered as 1.1 (RFC 9110 §2.5); httparse knows only 1.0 and 1.1.
    fn read_version(&mut self, window: &[u8]) -> Result<Step, Refusal> {
        let rest = &window[self.mark..];
        let rest = &rest[..rest.len().min(b"HTTP/1.1\r\n".len())];
        let Some(end) = memchr::memchr(b'\n', rest) else {
            Refusal::BAD_VERSION.when(rest.len() == b"HTTP/1.1\r\n".len())?;
            return Ok(Step::More);
        };
        let line = rest[..end].strip_suffix(b"\r").ok_or(Refusal::BARE_LINE_FEED)?;
        match line.strip_prefix(b"HTTP/") {
            Some(b"1.1") => {}
            Some(b"1.0") => self.facts.head.version = Version::Http10,
            Some([b'1', b'.', b'2'..=b'9']) => {
                self.facts.head.edits.minor = Some(self.mark + b"HTTP/1.".len());
            }
            Some([b'0'..=b'9', b'.', b'0'..=b'9']) => return Err(Refusal::UNSUPPORTED_VERSION),
            _ => return Err(Refusal::BAD_VERSION),
        }
        Ok(self.enter(Stage::FieldName, self.mark + end + 1))
    }

    fn read_name(&mut self, window: &[u8], fields_max: usize) -> Result<Step, Refusal> {
        self.scanned += octets::run(&window[self.scanned..], TOKEN);
        let is_empty = self.scanned == self.mark;
        match window[self.scanned..] {
            [] | [b'\r'] => return Ok(Step::More),
            [b'\r', b'\n', ..] if is_empty => {
                return Ok(self.enter(Stage::Complete, self.scanned + 2));
            }
            [b'\r', b'\n', ..] => return Err(Refusal::MISSING_COLON),
            [b'\r', ..] => return Err(Refusal::BARE_CARRIAGE_RETURN),
            [b'\n', ..] => return Err(Refusal::BARE_LINE_FEED),
            [b' ' | b'\t', ..] if is_empty => return Err(Refusal::OBS_FOLD),
            [b' ' | b'\t', ..] => return Err(Refusal::SPACE_BEFORE_COLON),
            [b':', ..] if is_empty => return Err(Refusal::EMPTY_FIELD_NAME),
            [b':', ..] if self.facts.fields < fields_max => self.facts.fields += 1,
            [b':', ..] => return Err(Refusal::TOO_MANY_FIELDS),
            _ => return Err(Refusal::BAD_FIELD_NAME),
        }
        self.stage = Stage::FieldValue;
        self.colon = self.scanned;
        self.scanned += 1;
        Ok(Step::Next)
    }

    fn read_value(&mut self, window: &[u8]) -> Result<Step, Refusal> {
        self.scanned += octets::value_run(&window[self.scanned..]);
        match window[self.scanned..] {
            [] | [b'\r'] => return Ok(Step::More),
            [b'\r', b'\n', ..] => {}
            [b'\r', ..] => return Err(Refusal::BARE_CARRIAGE_RETURN),
            [b'\n', ..] => return Err(Refusal::BARE_LINE_FEED),
            [0, ..] => return Err(Refusal::NUL_BYTE),
            _ => return Err(Refusal::CONTROL_BYTE),
        }
        self.facts.take_field(window, self.mark..self.colon, self.colon + 1..self.scanned)?;
        Ok(self.enter(Stage::FieldName, self.scanned + 2))
    }
}

#[cfg(test)]
mod tests;
