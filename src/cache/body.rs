//! The body of an answer that is whole: pieces that are handed out without copying.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// Pieces that are smaller on average are joined to pieces of [`PIECE`]: small ones cost more than
/// they hold, and may be parts of large buffers that they keep alive.
const SMALL: usize = 32 * 1024;
pub(super) const PIECE: usize = 64 * 1024;

/// A body.
#[derive(Clone, Debug, Default)]
pub(super) struct Body {
    pub(super) pieces: Arc<[Bytes]>,
    pub(super) length: u64,
}

impl Body {
    /// A body of these pieces.
    pub(super) fn of(pieces: Vec<Bytes>) -> Self {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let pieces = if pieces.len() * SMALL <= length { pieces } else { joined(&pieces, length) };
        Self { pieces: pieces.into(), length: length as u64 }
    }
}

fn joined(pieces: &[Bytes], length: usize) -> Vec<Bytes> {
    let (mut all, mut left) = (Vec::with_capacity(length.div_ceil(PIECE)), length);
    let mut piece = BytesMut::with_capacity(left.min(PIECE));
    for mut bytes in pieces.iter().map(|bytes| &bytes[..]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(PIECE - piece.len()));
            piece.extend_from_slice(now);
            (bytes, left) = (rest, left - now.len());
            if piece.len() == PIECE {
                all.push(piece.freeze());
                piece = BytesMut::with_capacity(left.min(PIECE));
            }
        }
    }
    if !piece.is_empty() {
        all.push(piece.freeze());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_are_joined_and_no_byte_is_lost() {
        let pieces: Vec<_> =
            (0..2_000_u32).map(|n| Bytes::from(n.to_string().repeat(20))).collect();
        let whole = pieces.concat();
        let body = Body::of(pieces);
        assert_eq!(body.pieces.concat(), whole);
        assert_eq!(body.length, whole.len() as u64);
        assert_eq!(body.pieces.len(), whole.len().div_ceil(PIECE));
    }

    #[test]
    fn large_pieces_stay_as_they_came() {
        let large = Bytes::from(vec![7; PIECE]);
        let body = Body::of(vec![large.clone(), large.clone()]);
        assert_eq!(body.pieces[1].as_ptr(), large.as_ptr());
        assert_eq!(Body::of(Vec::new()).pieces.len(), 0);
    }
}
