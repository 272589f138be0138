//! What a service answers: whole and bounded, or line by line for as long as it goes on.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::{task::AbortHandle, time};

use crate::client::words::words;

/// An answer whose head has come.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    body: Incoming,
    lines: Lines,
    _connection: Connection,
}

/// The task that moves the bytes of a connection. It ends when this is dropped.
pub(super) struct Connection(pub(super) AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Answer {
    pub(super) fn new(answer: http::Response<Incoming>, connection: Connection) -> Self {
        let (parts, body) = answer.into_parts();
        let (status, headers, lines) = (parts.status, parts.headers, Lines::default());
        Self { status, headers, body, lines, _connection: connection }
    }

    /// Reads the body to its end; more bytes than this are an error, and so is more time.
    pub async fn whole(self, bytes_max: usize, within: Duration) -> Result<Bytes, String> {
        let body = time::timeout(within, Limited::new(self.body, bytes_max).collect()).await;
        let body = body.map_err(|_| format!("the answer did not end within {within:?}"))?;
        Ok(body.map_err(|why| words(&*why))?.to_bytes())
    }

    /// Waits for the next line that is not empty, without its end; `None` when the body is over.
    /// A line that was cut off is an error, and so is one of more bytes than this.
    ///
    /// Dropping it before that loses nothing.
    pub async fn line(&mut self, bytes_max: usize) -> Result<Option<Bytes>, String> {
        loop {
            if let Some(line) = self.lines.next() {
                return Ok(Some(line));
            }
            if bytes_max < self.lines.len() {
                return Err(format!("a line of more than {bytes_max} bytes"));
            }
            match self.body.frame().await {
                Some(frame) => {
                    let frame = frame.map_err(|why| words(&why))?;
                    self.lines.push(&frame.into_data().unwrap_or_default());
                }
                None if self.lines.len() == 0 => return Ok(None),
                None => return Err("the answer ended in the middle of a line".to_owned()),
            }
        }
    }
}

/// What came of a body and was not handed out.
#[derive(Default)]
struct Lines {
    rest: BytesMut,
    /// So far there is no end of a line in it.
    searched: usize,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    fn len(&self) -> usize {
        self.rest.len()
    }

    /// The next whole line that is not empty.
    fn next(&mut self) -> Option<Bytes> {
        while let Some(end) = memchr::memchr(b'\n', &self.rest[self.searched..]) {
            let mut line = self.rest.split_to(self.searched + end).freeze();
            self.rest.advance(1);
            self.searched = 0;
            if line.ends_with(b"\r") {
                line.truncate(line.len() - 1);
            }
            if !line.is_empty() {
                return Some(line);
            }
        }
        self.searched = self.rest.len();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the network cuts the bytes.
    #[test]
    fn lines_come_whole_and_without_their_ends() {
        let text = b"{\"a\":1}\n\r\n{\"b\":2}\r\n\n{\"c\"";
        for size in 1..=text.len() {
            let (mut lines, mut told) = (Lines::default(), Vec::new());
            for piece in text.chunks(size) {
                lines.push(piece);
                while let Some(line) = lines.next() {
                    told.push(String::from_utf8(line.to_vec()).unwrap());
                }
            }
            assert_eq!(told, [r#"{"a":1}"#, r#"{"b":2}"#], "in pieces of {size}");
            assert_eq!(lines.len(), r#"{"c""#.len(), "which is not a line yet");
        }
    }
}
