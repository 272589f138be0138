//! W3C Trace Context: `traceparent`, and `tracestate` beside it.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::observe::{
    request_id,
    traced::{SpanId, TraceId, number, write_hex},
};

/// `00-<trace>-<span>-<flags>`.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What vendors note of a trace; it belongs to one `traceparent`.
pub static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The flag of a trace that is recorded.
pub const SAMPLED: u8 = 1;
/// The flag of one whose id is by chance (level 2), which goes on as it came.
const RANDOM: u8 = 2;

/// The length of a `traceparent` of version 00.
const LENGTH: usize = 55;

/// The span that a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// What is said of the trace.
    pub flags: u8,
}

/// The span that the fields of a request name. Two are none (section 4.3).
pub fn read(headers: &HeaderMap) -> Option<Parent> {
    let mut values = headers.get_all(&TRACEPARENT).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => parse(value.as_bytes()),
        _ => None,
    }
}

/// A later version may go on behind the flags, and means the same up to there (section 4).
fn parse(value: &[u8]) -> Option<Parent> {
    let (head, rest) = value.split_first_chunk::<LENGTH>()?;
    let is_cut = [2, 35, 52].iter().all(|at| head[*at] == b'-');
    let version = number(&head[..2]).filter(|version| *version != 0xff && is_cut)?;
    let is_over = rest.is_empty() || version != 0 && rest[0] == b'-';
    let flags = number(&head[53..]).filter(|_| is_over)?;
    Some(Parent {
        trace: TraceId::read(&head[3..35])?,
        span: SpanId::read(&head[36..52])?,
        flags: u8::try_from(flags).ok()?,
    })
}

/// The value that names a span.
pub fn value(trace: TraceId, span: SpanId, flags: u8) -> HeaderValue {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    text[3..35].copy_from_slice(&trace.hex());
    text[36..52].copy_from_slice(&span.hex());
    write_hex(&[flags], &mut text[53..]);
    request_id::value(&text)
}

/// The flags of a trace that goes on.
pub(super) fn flags(given: u8, is_sampled: bool) -> u8 {
    (given & RANDOM) | if is_sampled { SAMPLED } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_is_continued_if_it_is_one() {
        let rest = &TRACE[2..];
        for valid in [TRACE.to_owned(), format!("01{rest}"), format!("cc{rest}-more-to-come")] {
            let Parent { trace, span, flags } = parse(valid.as_bytes()).expect("a trace");
            assert_eq!(value(trace, span, flags), TRACE, "{valid}");
        }
        for wrong in [
            format!("ff{rest}"),
            format!("0{rest}"),
            format!("000{rest}"),
            format!("cc{rest}more"),
            format!("{TRACE}-more"),
            format!("{TRACE}-"),
            TRACE.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            TRACE.replace("b7ad6b7169203331", &"0".repeat(16)),
            TRACE.replace("0af7", "0AF7"),
            TRACE.replace("0af7", "0ag7"),
            TRACE.replace("0af7", "af7"),
            TRACE.replace("-01", "-1"),
            TRACE.replace("-01", "-0x"),
            TRACE.replace("-01", ""),
            TRACE.replace("-01", "-0A"),
            TRACE.replace('-', "_"),
            format!("FF{rest}"),
            format!("0A{rest}"),
            String::new(),
        ] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn flags_go_on_that_say_nothing_of_sampling() {
        for (given, is_sampled, sent) in
            [(0, true, 1), (3, false, 2), (0xff, true, 3), (1, false, 0)]
        {
            assert_eq!(flags(given, is_sampled), sent, "{given}");
        }
    }
}
