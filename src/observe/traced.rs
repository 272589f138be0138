//! The ids of traces and of spans (W3C Trace Context): numbers that are never zero, written in
//! hexadecimal digits of lower case.

use std::{
    fmt,
    num::{NonZeroU64, NonZeroU128},
};

/// What all spans of a trace have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

/// What tells the spans of a trace apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

/// A request that is traced: its trace, and its own span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traced {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
}

impl TraceId {
    /// A new one, by chance.
    pub fn random() -> Self {
        Self(NonZeroU128::new(fastrand::u128(..)).unwrap_or(NonZeroU128::MIN))
    }

    /// The id of some digits; `None` if they are none, or all zero.
    pub fn read(digits: &[u8]) -> Option<Self> {
        number(digits).and_then(NonZeroU128::new).map(Self)
    }

    /// As a number.
    pub fn get(self) -> u128 {
        self.0.get()
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; 16] {
        self.get().to_be_bytes()
    }

    /// Its digits.
    pub fn hex(self) -> [u8; 32] {
        let mut digits = [0; 32];
        write_hex(&self.bytes(), &mut digits);
        digits
    }
}

impl SpanId {
    /// A new one, by chance.
    pub fn random() -> Self {
        Self::of(fastrand::u64(..))
    }

    /// The id of a number, or the next one.
    fn of(number: u64) -> Self {
        Self(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }

    /// The id of some digits; `None` if they are none, or all zero.
    pub fn read(digits: &[u8]) -> Option<Self> {
        let number = number(digits).and_then(|number| u64::try_from(number).ok());
        number.and_then(NonZeroU64::new).map(Self)
    }

    /// The id of a span below this one, by its place among those below: always the same, other for
    /// each place, and as if by chance (`SplitMix64`).
    #[must_use]
    pub fn below(self, place: u8) -> Self {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.0.get().wrapping_add(STEP.wrapping_mul(u64::from(place) + 1));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self::of(mixed ^ (mixed >> 31))
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }

    /// Its digits.
    pub fn hex(self) -> [u8; 16] {
        let mut digits = [0; 16];
        write_hex(&self.bytes(), &mut digits);
        digits
    }
}

/// The number of some hexadecimal digits in lower case, at most 32; `None` if they are none.
pub fn number(digits: &[u8]) -> Option<u128> {
    if digits.is_empty() || 32 < digits.len() {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((number << 4) | u128::from(digit))
    })
}

/// Writes bytes as digits, two for each.
pub fn write_hex(bytes: &[u8], digits: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(digits.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written() {
        for _ in 0..100 {
            let (trace, span) = (TraceId::random(), SpanId::random());
            assert_eq!(TraceId::read(&trace.hex()), Some(trace));
            assert_eq!(SpanId::read(&span.hex()), Some(span));
            assert_eq!(str::from_utf8(&trace.hex()).unwrap(), trace.to_string());
            assert_eq!(str::from_utf8(&span.hex()).unwrap(), span.to_string());
        }
        for wrong in ["", "0000000000000000", "00f067aa0ba902bG", "00F067AA0BA902B7", "+1"] {
            assert_eq!(SpanId::read(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(SpanId::read(b"00f067aa0ba902b7").unwrap().bytes()[1], 0xf0);
    }

    #[test]
    fn spans_below_one_have_ids_of_their_own_that_stay() {
        let span = SpanId::random();
        let below: BTreeSet<_> = (0..=255).map(|place| span.below(place).hex()).collect();
        assert_eq!(below.len(), 256);
        assert!(!below.contains(&span.hex()));
        assert_eq!(span.below(7), span.below(7));
    }
}
