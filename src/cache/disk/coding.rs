//! An answer as bytes: what it is an answer to, its head as Pingora writes it, and its body.
//!
//! Each part but the body stands behind its length, and numbers are little-endian.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use bytes::Bytes;
use foyer::{Code, Error, ErrorKind, Result};
use pingora_cache::CacheMeta;

use crate::cache::{
    body::{Body, PIECE},
    entry::{Entry, Head, Subject},
};

/// The longest part but a body: a head has bounds of its own, which are narrower.
const PART_MAX: u32 = 8 * 1024 * 1024;

/// An answer that is on a disk, or on its way there.
#[derive(Clone, Debug)]
pub(super) struct Kept(pub(super) Arc<Entry>);

impl Code for Kept {
    fn encode(&self, writer: &mut impl Write) -> Result<()> {
        let Self(entry) = self;
        let Subject { route, url, length_max, wants_all: _, asked } = &*entry.subject;
        let (meta, header) = entry.head.meta().serialize().map_err(|why| wrong(&why))?;
        let mut write = |bytes: &[u8]| writer.write_all(bytes).map_err(Error::io_error);
        for number in [*asked, *length_max, entry.body.length] {
            write(&number.to_le_bytes())?;
        }
        for part in [route.as_bytes(), url.as_bytes(), &meta, &header] {
            let length = u32::try_from(part.len()).ok().filter(|length| *length <= PART_MAX);
            let length = length.ok_or_else(|| wrong(&"a part that is too long"))?;
            write(&length.to_le_bytes())?;
            write(part)?;
        }
        entry.body.pieces.iter().try_for_each(|piece| write(piece))
    }

    fn decode(reader: &mut impl Read) -> Result<Self> {
        let [asked, length_max, length] = [number(reader)?, number(reader)?, number(reader)?];
        let route = text(reader)?;
        let url = text(reader)?;
        let (meta, header) = (part(reader)?, part(reader)?);
        let meta = CacheMeta::deserialize(&meta, &header).map_err(|why| wrong(&why))?;
        let mut pieces = Vec::new();
        let mut left = length;
        while 0 < left {
            let now = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let piece = bytes(reader, now)?;
            left -= piece.len() as u64;
            pieces.push(Bytes::from(piece));
        }
        let subject = Subject { route, url, length_max, wants_all: true, asked };
        let entry = Entry::new(Head::of(&meta, true), Arc::new(subject), Body::of(pieces));
        Ok(Self(Arc::new(entry)))
    }

    fn estimated_size(&self) -> usize {
        self.0.weight() as usize
    }
}

fn wrong(why: &dyn ToString) -> Error {
    Error::new(ErrorKind::Parse, why.to_string())
}

fn bytes(reader: &mut impl Read, length: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    let read = reader.take(length as u64).read_to_end(&mut bytes).map_err(Error::io_error)?;
    let is_all = read == length;
    is_all.then_some(bytes).ok_or_else(|| Error::io_error(io::ErrorKind::UnexpectedEof.into()))
}

fn number(reader: &mut impl Read) -> Result<u64> {
    let mut bytes = [0; 8];
    reader.read_exact(&mut bytes).map_err(Error::io_error)?;
    Ok(u64::from_le_bytes(bytes))
}

fn part(reader: &mut impl Read) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    reader.read_exact(&mut length).map_err(Error::io_error)?;
    match u32::from_le_bytes(length) {
        length if length <= PART_MAX => bytes(reader, length as usize),
        _ => Err(wrong(&"a part that is too long")),
    }
}

fn text(reader: &mut impl Read) -> Result<Box<str>> {
    let text = String::from_utf8(part(reader)?).map_err(|why| wrong(&why))?;
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use pingora_http::ResponseHeader;

    use super::*;

    fn kept() -> Kept {
        let mut header = ResponseHeader::build(200, None).unwrap();
        header.append_header("Cache-Tag", "x").unwrap();
        header.append_header("set-cookie", "a=1").unwrap();
        header.append_header("set-cookie", "b=2").unwrap();
        let now = SystemTime::now();
        let mut meta = CacheMeta::new(now + Duration::from_secs(60), now, 7, 9, header);
        meta.set_variance([3; 16]);
        meta.set_epoch_override(now - Duration::from_secs(5));
        let subject = Subject {
            route: "shop".into(),
            url: "http://a/".into(),
            length_max: 5,
            wants_all: true,
            asked: 6,
        };
        let body = Body::of((0..100).map(|n| Bytes::from(vec![n; 3_000])).collect());
        Kept(Arc::new(Entry::new(Head::of(&meta, true), Arc::new(subject), body)))
    }

    fn encoded(kept: &Kept) -> Vec<u8> {
        let mut bytes = Vec::new();
        kept.encode(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn an_answer_comes_back_as_it_was() {
        let kept = kept();
        let Kept(new) = Kept::decode(&mut &encoded(&kept)[..]).unwrap();
        let Kept(old) = kept;
        assert_eq!(new.subject, old.subject);
        assert_eq!(new.body.pieces.concat(), old.body.pieces.concat());
        assert_eq!(new.variance(), Some([3; 16]));
        let (new, old) = (new.head.meta(), old.head.meta());
        assert_eq!(new.headers(), old.headers());
        let lives = |meta: &CacheMeta| {
            let stale = (meta.stale_while_revalidate_sec(), meta.stale_if_error_sec());
            (meta.epoch(), stale, meta.headers().get_all("set-cookie").iter().count())
        };
        assert_eq!(lives(&new), lives(&old));
    }

    #[test]
    fn what_was_cut_short_or_spoilt_is_refused() {
        let bytes = encoded(&kept());
        for length in [0, 7, 30, 60, 200, bytes.len() - 1] {
            assert!(Kept::decode(&mut &bytes[..length]).is_err(), "{length}");
        }
        let mut spoilt = bytes;
        spoilt[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Kept::decode(&mut &spoilt[..]).is_err());
    }
}
