//! The heads of frames (RFC 9113 §4.1), found in a stream of bytes however it is cut.

/// `END_STREAM`, in frames of data and of fields.
pub(super) const END_STREAM: u8 = 0x01;
/// `ACK`, in frames of settings and in pings.
pub(super) const ACK: u8 = 0x01;
/// `END_HEADERS`, in frames of fields.
pub(super) const END_HEADERS: u8 = 0x04;

/// The types of frames that matter here (RFC 9113 §6).
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const SETTINGS: u8 = 4;
    pub(in super::super) const PING: u8 = 6;
    pub(in super::super) const GOAWAY: u8 = 7;
    pub(in super::super) const CONTINUATION: u8 = 9;
}

/// The length of a head.
const HEAD: usize = 9;

/// What stands before the payload of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// Of its payload.
    pub(super) length: u32,
    /// The stream, or 0 for the connection.
    pub(super) stream: u32,
}

impl Frame {
    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn parse(head: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        Self { kind, flags, length, stream: u32::from_be_bytes(stream) & 0x7fff_ffff }
    }

    /// The head as it is sent.
    pub(super) fn to_bytes(self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..3].copy_from_slice(&self.length.to_be_bytes()[1..]);
        (head[3], head[4]) = (self.kind, self.flags);
        head[5..].copy_from_slice(&self.stream.to_be_bytes());
        head
    }
}

/// Reads the bytes of one direction.
#[derive(Debug)]
pub(super) struct Frames {
    /// The head that is not complete yet.
    head: [u8; HEAD],
    filled: usize,
    /// How much of no interest comes before the next head.
    skip: usize,
}

impl Frames {
    /// Begins after a preface of so many bytes.
    pub(super) const fn after(preface: usize) -> Self {
        Self { head: [0; HEAD], filled: 0, skip: preface }
    }

    /// Whether the last frame is complete.
    pub(super) const fn is_between(&self) -> bool {
        self.skip == 0 && self.filled == 0
    }

    /// Finds the next head, and takes what was read off the bytes.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        *bytes = &bytes[skipped..];
        let taken = (HEAD - self.filled).min(bytes.len());
        self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
        self.filled += taken;
        *bytes = &bytes[taken..];
        if self.filled < HEAD {
            return None;
        }
        let frame = Frame::parse(self.head);
        self.filled = 0;
        self.skip = usize::try_from(frame.length).unwrap_or(usize::MAX);
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: u32, stream: u32) -> Frame {
        Frame { kind, flags: 0, length, stream }
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let expected = [frame(kind::SETTINGS, 0, 0), frame(kind::DATA, 20, 3), frame(9, 300, 5)];
        let mut bytes = b"a preface".to_vec();
        for one in expected {
            bytes.extend(one.to_bytes());
            bytes.extend(vec![0xff; one.length as usize]);
        }
        for size in 1..=bytes.len() {
            let (mut frames, mut found) = (Frames::after(9), Vec::new());
            for mut piece in bytes.chunks(size) {
                while let Some(frame) = frames.next(&mut piece) {
                    found.push(frame);
                }
            }
            assert_eq!(found, expected, "in pieces of {size}");
            assert!(frames.is_between());
        }
    }

    #[test]
    fn the_middle_of_a_frame_is_known() {
        let mut frames = Frames::after(0);
        let head = frame(kind::DATA, 2, 1).to_bytes();
        for bytes in [&head[..4], &head[4..], b"x"] {
            let mut bytes = bytes;
            while frames.next(&mut bytes).is_some() {}
            assert!(!frames.is_between());
        }
        assert_eq!(frames.next(&mut &b"y"[..]), None);
        assert!(frames.is_between());
    }

    #[test]
    fn the_reserved_bit_is_no_part_of_the_stream() {
        let head = [0, 0, 0, 0, 0, 0x80, 0, 0, 7];
        assert_eq!(Frame::parse(head), frame(kind::DATA, 0, 7));
    }
}
