//! What the lines of a head mean together: one target, one host, one way to find the body's end.
//!
//! The reader splits lines and hands them over; only here are they compared with each other.

use std::ops::Range;

use crate::http1::authority::Authority;
use crate::http1::head::{Head, Version};
use crate::http1::octets::{self, TOKEN};
use crate::http1::refusal::Refusal;

/// What has been learnt so far; ranges are places in the buffer.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The answer, but for its length.
    pub(super) head: Head,
    pub(super) is_options: bool,
    pub(super) fields: usize,
    /// The authority of a target in absolute form, and the default port of its scheme.
    target: Option<(Range<usize>, u16)>,
    host: Option<Range<usize>>,
    authorization: bool,
}

impl Facts {
    /// Takes a path, `*`, or a URI of our two schemes.
    pub(super) fn take_target(&mut self, target: &[u8], start: usize) -> Result<(), Refusal> {
        if target.starts_with(b"/") {
            return Ok(());
        }
        if target == b"*" {
            return Refusal::ASTERISK_TARGET.when(!self.is_options);
        }
        let scheme = memchr::memchr(b':', target).ok_or(Refusal::BAD_TARGET_FORM)?;
        let rest = target[scheme..].strip_prefix(b"://").ok_or(Refusal::BAD_TARGET_FORM)?;
        let port = match &target[..scheme] {
            scheme if scheme.eq_ignore_ascii_case(b"http") => 80,
            scheme if scheme.eq_ignore_ascii_case(b"https") => 443,
            _ => return Err(Refusal::UNSUPPORTED_SCHEME),
        };
        let length = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
        Authority::parse(&rest[..length]).ok_or(Refusal::BAD_HOST)?;
        let host = start + target.len() - rest.len();
        self.target = Some((host..host + length, port));
        self.head.edits.absolute = Some(((start, host + length), (host, host + length)));
        self.head.edits.asterisk = self.is_options && length == rest.len();
        Ok(())
    }

    /// Looks at the fields that decide where a request goes and where it ends.
    pub(super) fn take_field(
        &mut self,
        buf: &[u8],
        name: Range<usize>,
        value: Range<usize>,
    ) -> Result<(), Refusal> {
        let (name, place) = (&buf[name], value.clone());
        let value = buf[value].trim_ascii();
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.take_host(value, place),
            6 if name.eq_ignore_ascii_case(b"expect") => {
                self.head.expect_continue |= value.eq_ignore_ascii_case(b"100-continue");
                Ok(())
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.head.upgrade = true;
                Ok(())
            }
            13 if name.eq_ignore_ascii_case(b"authorization") => {
                let is_second = std::mem::replace(&mut self.authorization, true);
                Refusal::DUPLICATE_AUTHORIZATION.when(is_second)
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let leading = buf[place.clone()].trim_ascii_start().len();
                self.take_length(value, place.end - leading)
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.take_encoding(value),
            _ => Ok(()),
        }
    }

    fn take_host(&mut self, host: &[u8], place: Range<usize>) -> Result<(), Refusal> {
        Refusal::DUPLICATE_HOST.when(self.host.is_some())?;
        Authority::parse(host).ok_or(Refusal::BAD_HOST)?;
        self.host = Some(place);
        Ok(())
    }

    fn take_length(&mut self, digits: &[u8], start: usize) -> Result<(), Refusal> {
        Refusal::LENGTH_WITH_ENCODING.when(self.head.chunked)?;
        Refusal::DUPLICATE_CONTENT_LENGTH.when(self.head.content_length.is_some())?;
        let length = octets::decimal(digits).ok_or(Refusal::BAD_CONTENT_LENGTH)?;
        self.head.content_length = Some(length);
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        let zeros = zeros.min(digits.len() - 1);
        self.head.edits.zeros = (0 < zeros).then_some((start, start + zeros));
        Ok(())
    }

    fn take_encoding(&mut self, codings: &[u8]) -> Result<(), Refusal> {
        Refusal::TRANSFER_ENCODING_IN_HTTP_10.when(self.head.version == Version::Http10)?;
        Refusal::LENGTH_WITH_ENCODING.when(self.head.content_length.is_some())?;
        Refusal::DUPLICATE_TRANSFER_ENCODING.when(self.head.chunked)?;
        if !codings.eq_ignore_ascii_case(b"chunked") {
            return Err(refuse_codings(codings));
        }
        self.head.chunked = true;
        Ok(())
    }

    /// Asks what only the whole head can answer.
    pub(super) fn finish(&self, buf: &[u8], len: usize) -> Result<Head, Refusal> {
        let authority = |place: &Range<usize>| {
            Authority::parse(buf[place.clone()].trim_ascii()).ok_or(Refusal::BAD_HOST)
        };
        match (&self.host, &self.target) {
            (None, _) if self.head.version == Version::Http11 => return Err(Refusal::MISSING_HOST),
            (Some(host), Some((target, port)))
                if !authority(host)?.is_same(&authority(target)?, *port) =>
            {
                return Err(Refusal::HOST_MISMATCH);
            }
            _ => {}
        }
        let mut head = Head { len, ..self.head };
        head.edits.needs_host = self.host.is_none();
        Ok(head)
    }
}

/// Tells a list that we do not support (501) from one that nobody should send (400).
///
/// `chunked` comes last, once, and without parameters (RFC 9112 §6.1, §7).
fn refuse_codings(codings: &[u8]) -> Refusal {
    let mut chunked = false;
    for coding in codings.split(|byte| *byte == b',') {
        let name = coding.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is_token = !name.is_empty() && octets::run(name, TOKEN) == name.len();
        let is_chunked = name.eq_ignore_ascii_case(b"chunked");
        if chunked || !is_token || (is_chunked && coding.contains(&b';')) {
            return Refusal::BAD_TRANSFER_ENCODING;
        }
        chunked = is_chunked;
    }
    Refusal::UNKNOWN_TRANSFER_CODING
}
