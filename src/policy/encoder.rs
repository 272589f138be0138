//! Codes a body, piece by piece.

use std::{
    io::{self, Write as _},
    mem,
    sync::Mutex,
};

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use zstd::stream::write::Encoder as ZstdEncoder;

use crate::policy::coding::Coding;

/// The window of Brotli, as a power of two: 256 KiB, which bounds what a stream keeps.
const BROTLI_WINDOW: u32 = 18;
/// The window of Zstandard: 512 KiB.
const ZSTD_WINDOW: u32 = 19;
/// What Brotli gathers before it writes.
const BROTLI_BUFFER: usize = 4096;

/// A coding under way. What is written lands in memory, so that only the coding itself can fail.
pub(super) enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Br(Option<Box<CompressorWriter<Vec<u8>>>>),
    /// It may not be shared; nobody does, and so nobody waits for the lock.
    Zstd(Mutex<ZstdEncoder<'static, Vec<u8>>>),
}

impl Encoder {
    /// Begins a coding.
    pub(super) fn new(coding: Coding, level: u32) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::new(level))),
            Coding::Br => {
                let writer = CompressorWriter::new(Vec::new(), BROTLI_BUFFER, level, BROTLI_WINDOW);
                Self::Br(Some(Box::new(writer)))
            }
            Coding::Zstd => {
                let level = i32::try_from(level).unwrap_or(i32::MAX);
                let mut encoder = ZstdEncoder::new(Vec::new(), level)?;
                encoder.window_log(ZSTD_WINDOW)?;
                Self::Zstd(Mutex::new(encoder))
            }
        })
    }

    /// Takes a piece, and gives what is ready of the result; with `flush`, all that the client
    /// needs to read what was taken so far.
    pub(super) fn encode(&mut self, piece: &[u8], flush: bool, is_last: bool) -> io::Result<Bytes> {
        let out = match self {
            Self::Gzip(encoder) => {
                encoder.write_all(piece)?;
                if is_last {
                    encoder.try_finish()?;
                } else if flush {
                    encoder.flush()?;
                }
                mem::take(encoder.get_mut())
            }
            Self::Br(encoder) => {
                let Some(mut writer) = encoder.take() else { return Ok(Bytes::new()) };
                writer.write_all(piece)?;
                if is_last {
                    writer.into_inner()
                } else {
                    if flush {
                        writer.flush()?;
                    }
                    let out = mem::take(writer.get_mut());
                    *encoder = Some(writer);
                    out
                }
            }
            Self::Zstd(encoder) => {
                let encoder = encoder.get_mut().map_err(|_| io::Error::other("a panic before"))?;
                encoder.write_all(piece)?;
                if is_last {
                    encoder.do_finish()?;
                } else if flush {
                    encoder.flush()?;
                }
                mem::take(encoder.get_mut())
            }
        };
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn decoded(coding: Coding, coded: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Gzip => drop(flate2::read::GzDecoder::new(coded).read_to_end(&mut out)),
            Coding::Br => drop(brotli::Decompressor::new(coded, 4096).read_to_end(&mut out)),
            Coding::Zstd => {
                drop(zstd::stream::read::Decoder::new(coded).unwrap().read_to_end(&mut out));
            }
        }
        out
    }

    #[test]
    fn every_coding_is_read_back_whole() {
        let body = b"as long as it is wide, ".repeat(10_000);
        for coding in Coding::ALL {
            let mut encoder = Encoder::new(coding, 4).unwrap();
            let mut coded = Vec::new();
            for piece in body.chunks(7_000) {
                coded.extend(encoder.encode(piece, false, false).unwrap());
            }
            coded.extend(encoder.encode(&[], false, true).unwrap());
            assert_eq!(decoded(coding, &coded), body, "{coding:?}");
            assert!(coded.len() < body.len() / 20, "{coding:?}: {}", coded.len());
        }
    }

    #[test]
    fn what_is_flushed_can_be_read() {
        for coding in Coding::ALL {
            let mut encoder = Encoder::new(coding, 4).unwrap();
            let mut coded = Vec::new();
            for event in ["one", "two", "three"] {
                coded.extend(encoder.encode(event.as_bytes(), true, false).unwrap());
                assert!(decoded(coding, &coded).ends_with(event.as_bytes()), "{coding:?}: {event}");
            }
        }
    }
}
