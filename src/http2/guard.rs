//! Keeps count of the frames of a connection that ask for nothing, and says when it is enough.
//!
//! All of them are allowed, each costs the server something, and none costs the client an answer
//! to wait for: requests that are reset at once (CVE-2023-44487), pings, settings, empty frames.
//! What is useful earns them: answers earn resets, frames that carry something earn the others. So
//! a client that does work may do them as often as it likes, and one that does nothing else may
//! not. Bounds of `h2` itself hold beside these: for `CONTINUATION` frames, for resets that a
//! client provokes by its mistakes (CVE-2025-8671), for streams that are reset before anybody
//! looked at them.

use std::time::Duration;

use arrayvec::ArrayVec;
use tokio::time::Instant;

use crate::{
    http2::frames::{ACK, END_HEADERS, END_STREAM, Frame, Frames, kind},
    reason::Reason,
};

/// Streams at a time on one connection.
pub const STREAMS_MAX: u32 = 128;
/// Requests that a client may take back before they were answered.
const RESETS_MAX: u32 = 100;
/// Empty frames of data or of fields.
const EMPTY_MAX: u32 = 100;
/// Frames that are for the connection and not for a request.
const IDLE_MAX: u32 = 1_000;
/// What a frame that carries something earns of those: windows are updated, and the network is
/// measured with pings, all the more often the more there is to carry.
const EARNED: u32 = 10;
/// Time earns as well: one reset and one empty frame, and so many idle ones, each second.
const EARNED_IDLE_EACH_SECOND: u32 = 50;

/// `ENHANCE_YOUR_CALM` (RFC 9113 §7).
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// What a client does too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Abuse {
    /// It takes requests back before they are answered.
    #[error("too many requests were reset")]
    Resets,
    /// It sends frames of data or of fields with nothing in them.
    #[error("too many empty frames")]
    Empty,
    /// It sends frames that ask for nothing.
    #[error("too many frames that ask for nothing")]
    Idle,
    /// It began with fields and does not end.
    #[error("the fields of a request did not come to their end in time")]
    Fields,
}

impl Abuse {
    /// The reason under which it is counted.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Resets => Reason::H2Resets,
            Self::Empty => Reason::H2EmptyFrames,
            Self::Idle => Reason::H2IdleFrames,
            Self::Fields => Reason::HeaderTimeout,
        }
    }
}

/// Looks on at one connection, in both directions.
#[derive(Debug)]
pub struct Guard {
    received: Frames,
    sent: Frames,
    /// Streams that are open: neither answered to the end nor reset.
    open: ArrayVec<u32, { STREAMS_MAX as usize }>,
    /// The last stream that the client opened.
    last: u32,
    /// The stream whose fields have begun and not ended.
    in_fields: bool,
    resets: u32,
    empty: u32,
    idle: u32,
    /// Up to when time has earned what it does.
    earned: Instant,
}

impl Guard {
    /// Looks on from the start of a connection; the client sends a preface of so many bytes first.
    pub fn new(preface: usize) -> Self {
        Self {
            received: Frames::after(preface),
            sent: Frames::after(0),
            open: ArrayVec::new(),
            last: 0,
            in_fields: false,
            resets: 0,
            empty: 0,
            idle: 0,
            earned: Instant::now(),
        }
    }

    /// Whether the fields of a request have begun and not ended.
    pub const fn is_in_fields(&self) -> bool {
        self.in_fields
    }

    /// Looks at what came from the client.
    ///
    /// # Errors
    /// If it is enough.
    pub fn receive(&mut self, mut bytes: &[u8]) -> Result<(), Abuse> {
        while let Some(frame) = self.received.next(&mut bytes) {
            self.judge(frame)?;
        }
        Ok(())
    }

    /// Looks at what is sent to the client.
    pub fn send(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.sent.next(&mut bytes) {
            match frame.kind {
                kind::DATA | kind::HEADERS if frame.has(END_STREAM) => {
                    self.close(frame.stream);
                    self.resets = self.resets.saturating_sub(1);
                    self.earn();
                }
                kind::DATA | kind::HEADERS => self.earn(),
                kind::RST_STREAM => {
                    self.close(frame.stream);
                }
                _ => {}
            }
        }
    }

    /// The last word to a client that went too far, unless it would stand within another frame.
    pub fn goaway(&self) -> Option<[u8; 17]> {
        if !self.sent.is_between() {
            return None;
        }
        let frame = Frame { kind: kind::GOAWAY, flags: 0, length: 8, stream: 0 };
        let mut bytes = [0; 17];
        bytes[..9].copy_from_slice(&frame.to_bytes());
        bytes[9..13].copy_from_slice(&self.last.to_be_bytes());
        bytes[13..].copy_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
        Some(bytes)
    }

    fn judge(&mut self, frame: Frame) -> Result<(), Abuse> {
        let is_empty = frame.length == 0;
        match frame.kind {
            kind::DATA if is_empty && !frame.has(END_STREAM) => return self.count_empty(),
            kind::HEADERS | kind::CONTINUATION => {
                self.in_fields = !frame.has(END_HEADERS);
                if self.last < frame.stream {
                    self.last = frame.stream;
                    // A stream beyond the bound is refused by `h2`.
                    let _ = self.open.try_push(frame.stream);
                }
                if is_empty {
                    return self.count_empty();
                }
            }
            kind::RST_STREAM if self.close(frame.stream) => {
                return self.count(|guard| &mut guard.resets, RESETS_MAX, Abuse::Resets);
            }
            kind::PING | kind::SETTINGS if frame.has(ACK) => return Ok(()), // it was asked for
            kind::DATA => {}
            _ => return self.count(|guard| &mut guard.idle, IDLE_MAX, Abuse::Idle),
        }
        self.earn();
        Ok(())
    }

    fn count_empty(&mut self) -> Result<(), Abuse> {
        self.count(|guard| &mut guard.empty, EMPTY_MAX, Abuse::Empty)
    }

    /// Counts one more, and looks at the clock before it says that it is enough.
    fn count(
        &mut self,
        counted: impl Fn(&mut Self) -> &mut u32,
        most: u32,
        abuse: Abuse,
    ) -> Result<(), Abuse> {
        *counted(self) += 1;
        if *counted(self) <= most {
            return Ok(());
        }
        self.earn_by_time(self.earned.elapsed());
        if *counted(self) <= most { Ok(()) } else { Err(abuse) }
    }

    fn earn(&mut self) {
        self.empty = self.empty.saturating_sub(1);
        self.idle = self.idle.saturating_sub(EARNED);
    }

    fn earn_by_time(&mut self, passed: Duration) {
        let seconds = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX);
        self.earned += Duration::from_secs(seconds.into());
        self.resets = self.resets.saturating_sub(seconds);
        self.empty = self.empty.saturating_sub(seconds);
        self.idle = self.idle.saturating_sub(seconds.saturating_mul(EARNED_IDLE_EACH_SECOND));
    }

    /// Notes that a stream is over; whether it was open.
    fn close(&mut self, stream: u32) -> bool {
        let found = self.open.iter().position(|open| *open == stream);
        found.map(|place| self.open.swap_remove(place)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RST: u8 = kind::RST_STREAM;

    fn frame(kind: u8, flags: u8, length: u32, stream: u32) -> Vec<u8> {
        let mut bytes = Frame { kind, flags, length, stream }.to_bytes().to_vec();
        bytes.resize(9 + length as usize, 0);
        bytes
    }

    fn request(stream: u32) -> Vec<u8> {
        frame(kind::HEADERS, END_HEADERS | END_STREAM, 30, stream)
    }

    fn answer(stream: u32) -> Vec<u8> {
        [frame(kind::HEADERS, END_HEADERS, 20, stream), frame(kind::DATA, END_STREAM, 5, stream)]
            .concat()
    }

    /// How many rounds a client gets before it is told off.
    fn rounds(mut round: impl FnMut(&mut Guard, u32) -> Result<(), Abuse>) -> (u32, Option<Abuse>) {
        let mut guard = Guard::new(0);
        for nth in 0..10_000 {
            if let Err(abuse) = round(&mut guard, 2 * nth + 1) {
                return (nth, Some(abuse));
            }
        }
        (10_000, None)
    }

    #[test]
    fn requests_that_are_reset_at_once_are_bounded() {
        let (most, abuse) = rounds(|guard, stream| {
            guard.receive(&[request(stream), frame(RST, 0, 4, stream)].concat())
        });
        assert_eq!((most, abuse), (RESETS_MAX, Some(Abuse::Resets)));
    }

    #[test]
    fn answers_earn_resets() {
        let (_, abuse) = rounds(|guard, stream| {
            let (first, second) = (2 * stream - 1, 2 * stream + 1);
            guard.receive(&[request(first), request(second)].concat())?;
            guard.send(&answer(first));
            guard.receive(&frame(RST, 0, 4, second))
        });
        assert_eq!(abuse, None);
    }

    /// It may come while the end of the answer is on its way.
    #[test]
    fn a_reset_after_the_answer_is_not_held_against_anybody() {
        let (_, abuse) = rounds(|guard, stream| {
            guard.receive(&request(stream))?;
            guard.send(&answer(stream));
            guard.receive(&frame(RST, 0, 4, stream))
        });
        assert_eq!(abuse, None);
    }

    #[test]
    fn frames_that_ask_for_nothing_are_bounded() {
        for (kind, length) in [(kind::PING, 8), (kind::SETTINGS, 0), (2, 5), (8, 4), (0xfa, 0)] {
            let (most, abuse) = rounds(|guard, _| guard.receive(&frame(kind, 0, length, 0)));
            assert_eq!((most, abuse), (IDLE_MAX, Some(Abuse::Idle)), "{kind}");
        }
        let (_, abuse) = rounds(|guard, _| guard.receive(&frame(kind::PING, ACK, 8, 0)));
        assert_eq!(abuse, None, "an answer");
    }

    #[test]
    fn empty_frames_are_bounded() {
        for kind in [kind::DATA, kind::HEADERS, kind::CONTINUATION] {
            let (most, abuse) = rounds(|guard, _| guard.receive(&frame(kind, 0, 0, 1)));
            assert_eq!((most, abuse), (EMPTY_MAX, Some(Abuse::Empty)), "{kind}");
        }
        let (_, abuse) =
            rounds(|guard, stream| guard.receive(&frame(kind::DATA, END_STREAM, 0, stream)));
        assert_eq!(abuse, None, "the end of a body");
    }

    /// A client that downloads updates its windows, and some measure the network all the time.
    #[test]
    fn what_is_carried_earns_what_is_needed_for_it() {
        let (_, abuse) = rounds(|guard, _| {
            guard.send(&frame(kind::DATA, 0, 1_000, 1));
            guard.receive(&frame(8, 0, 4, 0))?;
            guard.receive(&frame(8, 0, 4, 1))?;
            guard.receive(&frame(kind::PING, 0, 8, 0))
        });
        assert_eq!(abuse, None);
    }

    #[test]
    fn time_earns_some_as_well() {
        let mut guard = Guard::new(0);
        for nth in 0..RESETS_MAX {
            let stream = 2 * nth + 1;
            guard.receive(&[request(stream), frame(RST, 0, 4, stream)].concat()).unwrap();
        }
        guard.earned -= Duration::from_secs(2);
        let again = |guard: &mut Guard, stream| {
            guard.receive(&[request(stream), frame(RST, 0, 4, stream)].concat())
        };
        assert_eq!(again(&mut guard, 1_001), Ok(()));
        assert_eq!(again(&mut guard, 1_003), Ok(()));
        assert_eq!(again(&mut guard, 1_005), Err(Abuse::Resets));
    }

    #[test]
    fn fields_that_do_not_end_are_noticed() {
        let mut guard = Guard::new(0);
        guard.receive(&frame(kind::HEADERS, END_STREAM, 10, 1)).unwrap();
        assert!(guard.is_in_fields());
        guard.receive(&frame(kind::CONTINUATION, END_HEADERS, 10, 1)).unwrap();
        assert!(!guard.is_in_fields());
    }

    #[test]
    fn the_last_word_names_the_last_stream_and_stands_between_frames() {
        let mut guard = Guard::new(0);
        guard.receive(&[request(1), request(7)].concat()).unwrap();
        let goaway = guard.goaway().unwrap();
        assert_eq!(goaway, [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0xb]);
        guard.send(&answer(1)[..12]);
        assert_eq!(guard.goaway(), None);
    }
}
