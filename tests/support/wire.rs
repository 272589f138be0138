//! Messages of HTTP/1 on a socket, read as they arrive; both the client and the origins use it.

use std::{io, mem::MaybeUninit, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How the other side left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// In order.
    Closed,
    /// With a reset.
    Reset,
}

/// Header fields in the order of the wire.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads the lines of a head after the first.
    fn parse(head: &str) -> Self {
        let lines = head.split("\r\n").skip(1).filter(|line| !line.is_empty());
        Self(lines.map(|line| line.split_once(':').unwrap_or((line, ""))).map(owned).collect())
    }

    /// The only field of that name; panics if there are two.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} came more than once: {all:?}");
        all.first().copied()
    }

    /// All fields of that name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.0.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.trim().to_owned())
}

/// The first line and the fields of a message.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) line: String,
    pub(crate) fields: Fields,
}

/// How the end of a body is found, and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Length(usize),
    /// So much of the current chunk; `None` before a size.
    Chunked(Option<usize>),
    UntilClose,
}

impl Body {
    /// The framing that the fields tell; `otherwise` if they tell none.
    pub(crate) fn of(fields: &Fields, otherwise: Self) -> Self {
        if fields.get("transfer-encoding").is_some() {
            return Self::Chunked(None);
        }
        let length = fields.get("content-length");
        length.map_or(otherwise, |length| Self::Length(length.parse().unwrap()))
    }
}

/// A socket and what was read from it beyond what was asked for.
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: BytesMut::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// The port on this side.
    pub(crate) fn port(&self) -> u16 {
        self.stream.local_addr().unwrap().port()
    }

    /// Whether the other side has left, or has sent something out of turn.
    pub(crate) fn is_over(&self) -> bool {
        let read = self.stream.try_read(&mut [0; 1]);
        !read.is_err_and(|why| why.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether there is anything to read, be it the end.
    pub(crate) fn has_arrived(&self) -> bool {
        let peeked = SockRef::from(&self.stream).peek(&mut [MaybeUninit::uninit(); 1]);
        !peeked.is_err_and(|why| why.kind() == io::ErrorKind::WouldBlock)
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Reads what there is, at least a byte.
    async fn fill(&mut self) -> Result<(), Ending> {
        self.buffer.reserve(64 * 1024);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(1..) => Ok(()),
            Ok(0) => Err(Ending::Closed),
            Err(_) => Err(Ending::Reset),
        }
    }

    /// Reads a head.
    pub(crate) async fn head(&mut self) -> Result<Head, Ending> {
        let text = self.until(b"\r\n\r\n").await?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.split("\r\n").next().unwrap_or_default().to_owned();
        Ok(Head { line, fields: Fields::parse(&text) })
    }

    /// Reads the next piece of a body, as much as is there; `None` at its end.
    pub(crate) async fn piece(&mut self, body: &mut Body) -> Result<Option<Bytes>, Ending> {
        let left = match body {
            Body::Length(0) => return Ok(None),
            Body::Length(left) | Body::Chunked(Some(left)) => *left,
            Body::Chunked(None) => match self.chunk_size().await? {
                0 => {
                    *body = Body::Length(0);
                    self.trailer().await?;
                    return Ok(None);
                }
                size => size,
            },
            Body::UntilClose => usize::MAX,
        };
        let piece = match (self.some(left).await, &body) {
            (Err(Ending::Closed), Body::UntilClose) => return Ok(None),
            (piece, _) => piece?,
        };
        let left = left - piece.len();
        match body {
            Body::Length(length) => *length = left,
            Body::Chunked(chunk) if 0 < left => *chunk = Some(left),
            Body::Chunked(chunk) => {
                *chunk = None;
                assert_eq!(&self.exactly(2).await?[..], b"\r\n", "a chunk ends with its line");
            }
            Body::UntilClose => {}
        }
        Ok(Some(piece))
    }

    /// Reads a body to its end, or as far as it comes.
    pub(crate) async fn whole(&mut self, body: &mut Body) -> (Vec<u8>, Result<(), Ending>) {
        let mut bytes = Vec::new();
        loop {
            match self.piece(body).await {
                Ok(Some(piece)) => bytes.extend_from_slice(&piece),
                Ok(None) => return (bytes, Ok(())),
                Err(ending) => return (bytes, Err(ending)),
            }
        }
    }

    /// Reads everything until the other side leaves.
    pub(crate) async fn rest(&mut self) -> (Vec<u8>, Ending) {
        loop {
            if let Err(ending) = self.fill().await {
                return (self.buffer.split().to_vec(), ending);
            }
        }
    }

    /// Reads exactly so many bytes.
    pub(crate) async fn exactly(&mut self, count: usize) -> Result<Bytes, Ending> {
        while self.buffer.len() < count {
            self.fill().await?;
        }
        Ok(self.buffer.split_to(count).freeze())
    }

    /// Reads what there is, at least a byte and at most `most`.
    async fn some(&mut self, most: usize) -> Result<Bytes, Ending> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        Ok(self.buffer.split_to(self.buffer.len().min(most)).freeze())
    }

    async fn until(&mut self, end: &[u8]) -> Result<Bytes, Ending> {
        loop {
            let found = self.buffer.windows(end.len()).position(|window| window == end);
            if let Some(place) = found {
                return Ok(self.buffer.split_to(place + end.len()).freeze());
            }
            self.fill().await?;
        }
    }

    async fn chunk_size(&mut self) -> Result<usize, Ending> {
        let mut line = self.until(b"\r\n").await?;
        line.truncate(line.len() - 2);
        let line = String::from_utf8_lossy(&line).into_owned();
        let size = line.split(';').next().unwrap_or_default();
        Ok(usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("a chunk size: {line:?}")))
    }

    async fn trailer(&mut self) -> Result<(), Ending> {
        while !self.until(b"\r\n").await?.chunk().eq(b"\r\n") {}
        Ok(())
    }
}
