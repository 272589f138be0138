//! The few heads that are right and yet not as Pingora reads them: they are written anew.
//!
//! Pingora knows HTTP/1.0 and 1.1 only, compares a URI's host with `Host` byte for byte, and sends
//! a length on as it was written. What is equal by RFC 9110 is made equal in bytes.

use bytes::BytesMut;

/// A stretch of the head, counted from the beginning of the buffer.
pub type Place = (usize, usize);

/// What must be written anew; nothing, for nearly every request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// The minor version, where it is beyond 1: the request is one of HTTP/1.1 (RFC 9110 §2.5).
    pub minor: Option<usize>,
    /// A URI's scheme and authority, and the authority alone: the path is what is asked for.
    pub absolute: Option<(Place, Place)>,
    /// The URI's path is empty, and the method is `OPTIONS`: `*` is meant (RFC 9112 §3.2.4).
    pub asterisk: bool,
    /// There is no `Host`, so that the URI's authority must become one.
    pub needs_host: bool,
    /// Zeros at the beginning of `Content-Length`.
    pub zeros: Option<Place>,
}

impl Edits {
    /// Whether nothing is to be done.
    pub fn is_none(&self) -> bool {
        self.minor.is_none() && self.absolute.is_none() && self.zeros.is_none()
    }

    /// Writes a head anew. `start` is where it began in the buffer that places count from.
    pub fn apply(&self, head: BytesMut, start: usize) -> BytesMut {
        if self.is_none() {
            return head;
        }
        let end = head.len();
        let mut written = BytesMut::with_capacity(end + 8);
        let mut kept = 0;
        let mut replace = |from: usize, to: usize, with: &[u8]| {
            written.extend_from_slice(&head[kept..from - start]);
            written.extend_from_slice(with);
            kept = to - start;
        };
        if let Some(((from, to), _)) = self.absolute {
            let path: &[u8] = match head.get(to - start) {
                Some(b'/') => b"",
                _ if self.asterisk => b"*",
                _ => b"/",
            };
            replace(from, to, path);
        }
        if let Some(minor) = self.minor {
            replace(minor, minor + 1, b"1");
        }
        if let Some((from, to)) = self.zeros {
            replace(from, to, b"");
        }
        if let (Some((_, (from, to))), true) = (self.absolute, self.needs_host) {
            let blank_line = start + end - 2;
            let host = [b"Host: ", &head[from - start..to - start], b"\r\n"].concat();
            replace(blank_line, blank_line, &host);
        }
        written.extend_from_slice(&head[kept..]);
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::{HeadReader, Limits};

    fn normalized(text: &str) -> String {
        let head = HeadReader::new().advance(text.as_bytes(), &Limits::default());
        let head = head.expect("a good head").expect("a whole one");
        let bytes = BytesMut::from(&text.as_bytes()[head.start..head.len]);
        String::from_utf8(head.edits.apply(bytes, head.start).to_vec()).unwrap()
    }

    #[test]
    fn what_is_equal_is_made_equal_in_bytes() {
        for (text, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("GET / HTTP/1.7\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            (
                "\r\nGET HTTP://A:80/x?y HTTP/1.2\r\nHost: a\r\nContent-Length: 0005\r\n\r\n",
                "GET /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
            ),
            ("GET http://a?y HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?y HTTP/1.1\r\nHost: a\r\n\r\n"),
            (
                "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
                "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            ("GET http://a/ HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\nHost: a\r\n\r\n"),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 000\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            ),
        ] {
            assert_eq!(normalized(text), expected, "{text}");
        }
    }
}
