//! Lines with what some targets have to know beside them: how bad a request was, and when it
//! ended.
//!
//! A frame is a head of [`HEAD`] bytes (the length of the payload, how bad, the time), and the
//! payload.

use std::time::{Duration, SystemTime};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// Nobody will ask why.
    Info = 0,
    /// It failed, or was refused.
    Warning = 1,
    /// It ended with a status from 500 on, which blames this side.
    Error = 2,
}

impl Severity {
    /// That of what ended like this.
    pub(super) fn of(is_good: bool, status: u16) -> Self {
        match status {
            500.. => Self::Error,
            _ if is_good => Self::Info,
            _ => Self::Warning,
        }
    }

    fn read(byte: u8) -> Self {
        match byte {
            0 => Self::Info,
            1 => Self::Warning,
            _ => Self::Error,
        }
    }
}

/// A line, and what stands beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) severity: Severity,
    /// When it ended, since 1970.
    pub(super) time: Duration,
    /// The line with its end, or what its target wants instead.
    pub(super) payload: &'a [u8],
}

const HEAD: usize = 4 + 1 + 8;

impl Frame<'_> {
    /// How many bytes it takes.
    pub(super) fn size(&self) -> usize {
        HEAD + self.payload.len()
    }
}

/// Appends a frame, with the payload that `write` appends.
pub(super) fn write(severity: Severity, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    out.extend_from_slice(&[0; 4]);
    out.push(severity as u8);
    out.extend_from_slice(&nanos.to_le_bytes());
    write(out);
    let length = u32::try_from(out.len() - start - HEAD).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// The frames in some bytes, which begin with one and end with one.
pub(super) fn frames(bytes: &[u8]) -> Frames<'_> {
    Frames { rest: bytes }
}

/// Frames, one after another.
pub(super) struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        let (severity, rest) = rest.split_first()?;
        let (nanos, rest) = rest.split_first_chunk::<8>()?;
        let (payload, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.rest = rest;
        let (severity, time) =
            (Severity::read(*severity), Duration::from_nanos(u64::from_le_bytes(*nanos)));
        Some(Frame { severity, time, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_framed_is_read_back() {
        let (mut out, before) = (Vec::new(), SystemTime::now());
        for (severity, line) in
            [(Severity::Info, "a\nb\n"), (Severity::Error, ""), (Severity::Warning, "c")]
        {
            write(severity, &mut out, |out| out.extend_from_slice(line.as_bytes()));
        }
        let read: Vec<_> = frames(&out).collect();
        let lines: Vec<_> = read.iter().map(|frame| (frame.severity, frame.payload)).collect();
        let expected: [(Severity, &[u8]); 3] =
            [(Severity::Info, b"a\nb\n"), (Severity::Error, b""), (Severity::Warning, b"c")];
        assert_eq!(lines, expected);
        assert_eq!(read.iter().map(Frame::size).sum::<usize>(), out.len());
        let began = before.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert!(read.iter().all(|frame| began <= frame.time));
    }

    #[test]
    fn what_blames_this_side_is_worst() {
        for (is_good, status, severity) in [
            (true, 200, Severity::Info),
            (false, 200, Severity::Warning),
            (false, 404, Severity::Warning),
            (false, 503, Severity::Error),
        ] {
            assert_eq!(Severity::of(is_good, status), severity, "{status}");
        }
    }
}
