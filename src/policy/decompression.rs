//! Bodies in plain for clients that cannot read how the origin has coded them.

use std::{
    io::{self, Write},
    mem,
    sync::Mutex,
    time::Duration,
};

use brotli::DecompressorWriter;
use bytes::Bytes;
use flate2::write::GzDecoder;
use http::{
    HeaderValue, Method, Version,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, TRANSFER_ENCODING},
};
use pingora::{Error, ErrorType, OrErr as _, Result};
use pingora_http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;
use zstd::{
    stream::raw::{self, Operation as _},
    zstd_safe::DParameter,
};

use crate::policy::{
    body::BodyFilter,
    coding::{self, Coding},
    contract::{Build, Hooks, Response, Written},
};

/// What one piece may become: an origin's mistake, or a bomb, takes no more memory than this.
const PIECE_MAX: usize = 16 * 1024 * 1024;
/// The largest window of Zstandard, as a power of two: 8 MiB, which every decoder for the web must
/// have room for (RFC 8878 §3.1.1.1.2), and nobody may ask more of.
const ZSTD_WINDOW_MAX: u32 = 23;
/// What Zstandard writes at a time.
const ZSTD_BUFFER: usize = 32 * 1024;
/// What Brotli gathers before it writes.
const BROTLI_BUFFER: usize = 4096;

/// Decodes bodies that origins have coded with gzip, Brotli or Zstandard, for clients that do not
/// accept that coding; ranges stay as they are. A piece that would become larger than 16 MiB ends
/// the answer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Decompression")]
pub struct Config {}

/// What runs.
#[derive(Debug)]
pub struct Policy;

impl Config {
    /// There is nothing that could be wrong.
    #[expect(clippy::unused_self, reason = "policies are built of what is written")]
    pub fn build(&self, _: &mut Build<'_>) -> Policy {
        Policy
    }
}

impl Written for Config {}

impl Hooks for Policy {
    fn on_response(&self, response: &mut Response<'_>) -> Result<()> {
        let headers = &response.header.headers;
        let status = response.header.status;
        let has_body = status.is_success() && !matches!(status.as_u16(), 204 | 206);
        if response.is_own || !has_body || headers.contains_key(CONTENT_RANGE) {
            return Ok(());
        }
        let mut written = headers.get_all(CONTENT_ENCODING).iter();
        // Of two codings, one upon the other, neither is taken off.
        let (Some(value), None) = (written.next(), written.next()) else { return Ok(()) };
        let coding = value.to_str().ok().and_then(Coding::named);
        let Some(coding) = coding else { return Ok(()) };
        coding::vary(response.header)?;
        let request = response.facts.header;
        let is_old = request.version <= Version::HTTP_10;
        let is_read = coding::best(&[coding], &request.headers).is_some();
        if is_read || is_old || request.method == Method::HEAD {
            return Ok(());
        }
        plain(response.header)?;
        let decoder = Decoder::new(coding).or_err(ErrorType::InternalError, "a coding")?;
        response.body.push(decoder);
        Ok(())
    }
}

/// Tells of no coding any more.
fn plain(header: &mut ResponseHeader) -> Result<()> {
    header.remove_header(&CONTENT_ENCODING);
    header.remove_header(&CONTENT_LENGTH);
    header.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    coding::other_bytes(header)
}

/// Takes so much, and no more.
#[derive(Default)]
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if PIECE_MAX < self.0.len() + piece.len() {
            return Err(io::Error::other("a piece becomes larger than 16 MiB"));
        }
        self.0.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decodes the body of one answer.
enum Decoder {
    Gzip(GzDecoder<Bounded>),
    Br(Box<DecompressorWriter<Bounded>>),
    /// It may not be shared; nobody does, and so nobody waits for the lock.
    Zstd(Mutex<Zstd>),
}

/// A decoder of Zstandard that knows whether a body ended where a frame does.
struct Zstd {
    raw: raw::Decoder<'static>,
    buffer: Box<[u8]>,
    out: Bounded,
    is_whole: bool,
}

impl Zstd {
    fn new() -> io::Result<Self> {
        let mut raw = raw::Decoder::new()?;
        raw.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_MAX))?;
        let buffer = vec![0; ZSTD_BUFFER].into();
        Ok(Self { raw, buffer, out: Bounded::default(), is_whole: true })
    }

    fn write_all(&mut self, mut piece: &[u8]) -> io::Result<()> {
        let mut is_full = false;
        while !piece.is_empty() || is_full {
            let status = self.raw.run_on_buffers(piece, &mut self.buffer)?;
            if status.bytes_read + status.bytes_written == 0 {
                break;
            }
            piece = &piece[status.bytes_read..];
            self.out.write_all(&self.buffer[..status.bytes_written])?;
            self.is_whole = status.remaining == 0;
            // Only then may there be more of it inside.
            is_full = status.bytes_written == self.buffer.len() && !self.is_whole;
        }
        Ok(())
    }
}

impl Decoder {
    fn new(coding: Coding) -> io::Result<Self> {
        let out = Bounded::default();
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzDecoder::new(out)),
            Coding::Br => Self::Br(Box::new(DecompressorWriter::new(out, BROTLI_BUFFER))),
            Coding::Zstd => Self::Zstd(Mutex::new(Zstd::new()?)),
        })
    }

    fn decode(&mut self, piece: &[u8], is_last: bool) -> io::Result<Vec<u8>> {
        let out = match self {
            Self::Gzip(decoder) => {
                decoder.write_all(piece)?;
                // At the end, what was cut off is an error.
                if is_last {
                    decoder.try_finish()?;
                } else {
                    decoder.flush()?;
                }
                decoder.get_mut()
            }
            Self::Br(decoder) => {
                decoder.write_all(piece)?;
                if is_last {
                    decoder.close()?;
                } else {
                    decoder.flush()?;
                }
                decoder.get_mut()
            }
            Self::Zstd(decoder) => {
                let decoder = decoder.get_mut().map_err(|_| io::Error::other("a panic before"))?;
                decoder.write_all(piece)?;
                if is_last && !decoder.is_whole {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                &mut decoder.out
            }
        };
        Ok(mem::take(&mut out.0))
    }
}

impl BodyFilter for Decoder {
    fn pass(&mut self, body: &mut Option<Bytes>, is_last: bool) -> Result<Duration> {
        let piece = body.take().unwrap_or_default();
        let decoded = self.decode(&piece, is_last).map_err(|why| {
            Error::because(ErrorType::InvalidHTTPHeader, "a body that is not coded as it says", why)
                .into_up()
        })?;
        *body = Some(Bytes::from(decoded)).filter(|decoded| !decoded.is_empty());
        Ok(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{encoder::Encoder, tests::Given};

    fn coded(coding: Coding, body: &[u8]) -> Vec<u8> {
        Encoder::new(coding, 4).unwrap().encode(body, false, true).unwrap().to_vec()
    }

    #[test]
    fn every_coding_is_taken_off() {
        let body = b"as long as it is wide, ".repeat(10_000);
        for coding in Coding::ALL {
            let (mut decoder, mut out) = (Decoder::new(coding).unwrap(), Vec::new());
            for piece in coded(coding, &body).chunks(50) {
                out.extend(decoder.decode(piece, false).unwrap());
            }
            out.extend(decoder.decode(&[], true).unwrap());
            assert_eq!(out, body, "{coding:?}");
        }
    }

    #[test]
    fn what_was_cut_off_is_no_body() {
        for coding in Coding::ALL {
            let body = coded(coding, &b"as long as it is wide, ".repeat(1_000));
            let mut decoder = Decoder::new(coding).unwrap();
            decoder.decode(&body[..body.len() - 1], false).unwrap();
            assert!(decoder.decode(&[], true).is_err(), "{coding:?}");
        }
    }

    #[test]
    fn a_bomb_takes_no_more_memory_than_the_bound() {
        let bomb = coded(Coding::Gzip, &vec![0; PIECE_MAX + 1]);
        assert!(Decoder::new(Coding::Gzip).unwrap().decode(&bomb, true).is_err());
        let bomb = coded(Coding::Zstd, &vec![0; PIECE_MAX + 1]);
        assert!(Decoder::new(Coding::Zstd).unwrap().decode(&bomb, true).is_err());
    }

    #[test]
    fn only_clients_that_cannot_read_it_get_it_in_plain() {
        let after = |accept: &str| {
            let mut header = ResponseHeader::build(200, None).unwrap();
            header.insert_header("content-encoding", "gzip").unwrap();
            header.insert_header("content-length", "20").unwrap();
            header.insert_header("etag", "\"a\"").unwrap();
            Given::request("GET", "/")
                .field("accept-encoding", accept)
                .answered(&Policy, &mut header);
            header.headers.clone()
        };
        let read = after("gzip");
        assert_eq!(
            (&read["content-encoding"], &read["vary"]),
            (&"gzip".parse().unwrap(), &"Accept-Encoding".parse().unwrap())
        );
        let plain = after("br");
        assert!(!plain.contains_key("content-encoding") && !plain.contains_key("content-length"));
        assert_eq!(plain["etag"], "W/\"a\"");
    }
}
