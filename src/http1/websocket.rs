//! Where the frames of a WebSocket begin and end (RFC 6455 §5.2), seen from the side.
//!
//! Only the borders are found, so that a frame of our own can be put between two of the origin's.
//! Nothing is refused: whether frames are well formed is for the two ends to judge.

/// Ends the head of the answer that opens the tunnel.
const HEAD_END: &[u8; 4] = b"\r\n\r\n";
/// The opcode of a close frame.
const CLOSE: u8 = 0x8;

/// A close frame that says "going away" (1001).
pub const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];

/// Follows what an origin sends through a tunnel: the head of its `101`, then frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Borders {
    place: Place,
    has_closed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// In the head of the answer, so many bytes of whose end have come.
    Answer(usize),
    /// In the header of a frame.
    Header { bytes: [u8; 14], known: usize },
    /// In a payload, so many bytes of which are to come.
    Payload(u64),
}

const BORDER: Place = Place::Header { bytes: [0; 14], known: 0 };

impl Default for Borders {
    fn default() -> Self {
        Self { place: Place::Answer(0), has_closed: false }
    }
}

impl Borders {
    /// Whether what has come so far ends with a whole frame, or with the head of the answer.
    pub fn at_border(&self) -> bool {
        matches!(self.place, Place::Header { known: 0, .. })
    }

    /// Whether a close frame has begun, after which no frame may follow.
    pub fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// Takes note of bytes.
    pub fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.step(bytes)..];
        }
    }

    /// How many of these bytes lead to the next border; all of them if it is not among them.
    pub fn to_border(&self, bytes: &[u8]) -> usize {
        let (mut ahead, mut taken) = (self.clone(), 0);
        while taken < bytes.len() && !ahead.at_border() {
            taken += ahead.step(&bytes[taken..]);
        }
        taken
    }

    /// Takes note of some of the bytes, up to a border at most; returns how many.
    fn step(&mut self, bytes: &[u8]) -> usize {
        match &mut self.place {
            Place::Answer(matched) => {
                let byte = bytes[0];
                *matched = match byte {
                    _ if byte == HEAD_END[*matched] => *matched + 1,
                    b'\r' => 1,
                    _ => 0,
                };
                if *matched == HEAD_END.len() {
                    self.place = BORDER;
                }
                1
            }
            Place::Header { bytes: header, known } => {
                header[*known] = bytes[0];
                *known += 1;
                self.has_closed |= *known == 1 && header[0] & 0x0f == CLOSE;
                if *known == header_length(&header[..*known]) {
                    let payload = payload_length(header);
                    self.place = if payload == 0 { BORDER } else { Place::Payload(payload) };
                }
                1
            }
            Place::Payload(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.place = BORDER;
                }
                taken
            }
        }
    }
}

/// How long a header is of which so much is known; more than that while it cannot be told.
fn header_length(known: &[u8]) -> usize {
    let Some(second) = known.get(1) else { return 2 };
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    2 + length + mask
}

fn payload_length(header: &[u8; 14]) -> u64 {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    match header[1] & 0x7f {
        126 => number(&header[2..4]),
        127 => number(&header[2..10]),
        short => u64::from(short),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\r\n\r\n";

    fn frame(opcode: u8, payload: usize, is_masked: bool) -> Vec<u8> {
        let mask = if is_masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match payload {
            0..126 => bytes.push(mask | u8::try_from(payload).unwrap()),
            126..0x1_0000 => {
                bytes.push(mask | 0x7e);
                bytes.extend(u16::try_from(payload).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(mask | 0x7f);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        bytes.extend([7; 4].iter().take(if is_masked { 4 } else { 0 }));
        bytes.resize(bytes.len() + payload, b'\n');
        bytes
    }

    proptest! {
        /// However the bytes are cut.
        #[test]
        fn a_border_is_found_after_the_head_and_after_each_frame(
            frames in prop::collection::vec((1u8..3, prop_oneof![
                0usize..4, 124usize..128, 65_534usize..65_538
            ], any::<bool>()), 0..6),
            cut in 1usize..300,
        ) {
            let mut bytes = ANSWER.to_vec();
            let mut borders = vec![bytes.len()];
            for (opcode, payload, is_masked) in frames {
                bytes.extend(frame(opcode, payload, is_masked));
                borders.push(bytes.len());
            }
            let mut parser = Borders::default();
            let mut place = 0;
            for piece in bytes.chunks(cut) {
                let next = borders.iter().find(|border| place <= **border).unwrap();
                let expected = (next - place).min(piece.len());
                prop_assert_eq!(parser.to_border(piece), expected);
                parser.advance(piece);
                place += piece.len();
                prop_assert_eq!(parser.at_border(), borders.contains(&place));
            }
            prop_assert!(!parser.has_closed());
        }
    }

    #[test]
    fn nothing_may_follow_a_close_frame() {
        let mut parser = Borders::default();
        parser.advance(ANSWER);
        assert!(parser.at_border() && !parser.has_closed());
        let close = frame(CLOSE, 2, false);
        parser.advance(&close[..1]);
        assert!(!parser.at_border() && parser.has_closed());
        parser.advance(&close[1..]);
        assert!(parser.at_border() && parser.has_closed());
    }

    #[test]
    fn our_close_frame_is_one_frame() {
        let mut parser = Borders { place: BORDER, has_closed: false };
        parser.advance(&GOING_AWAY);
        assert!(parser.at_border() && parser.has_closed());
    }
}
