//! B3, the fields of Zipkin: in one, `b3`, or in several, `x-b3-…`.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    observe::{
        request_id,
        traced::{SpanId, TraceId},
    },
    traces::propagation::Given,
};

static B3: HeaderName = HeaderName::from_static("b3");
static TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
static SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
static PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
static SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
static FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// So many fields there are at most.
pub(super) const FIELDS: usize = 5;

/// What the fields of a request say, in either form; where both are there, `b3` counts.
pub(super) fn read(headers: &HeaderMap) -> Given {
    let mut values = headers.get_all(&B3).iter();
    if let (Some(value), None) = (values.next(), values.next()) {
        return single(value.as_bytes());
    }
    let value = |name| headers.get(name).map(HeaderValue::as_bytes);
    let parent = value(&TRACE).zip(value(&SPAN)).and_then(|(trace, span)| ids(trace, span));
    let is_debug = value(&FLAGS) == Some(b"1");
    let is_sampled = if is_debug { Some(true) } else { value(&SAMPLED).and_then(state) };
    Given { parent, is_sampled, ..Given::default() }
}

/// `<trace>-<span>-<state>-<parent>`, of which the last two may be missing; or a state alone.
fn single(value: &[u8]) -> Given {
    let mut parts = value.split(|byte| *byte == b'-');
    let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let Some(span) = second else {
        return Given { is_sampled: state(first), ..Given::default() };
    };
    Given { parent: ids(first, span), is_sampled: third.and_then(state), ..Given::default() }
}

/// An id of a trace may have half the digits.
fn ids(trace: &[u8], span: &[u8]) -> Option<(TraceId, SpanId)> {
    let trace = TraceId::read(trace).filter(|_| [16, 32].contains(&trace.len()))?;
    Some((trace, SpanId::read(span).filter(|_| span.len() == 16)?))
}

fn state(word: &[u8]) -> Option<bool> {
    match word {
        b"1" | b"d" | b"true" => Some(true),
        b"0" | b"false" => Some(false),
        _ => None,
    }
}

/// Removes all of them, in either form.
pub(super) fn clear(headers: &mut HeaderMap) {
    for name in [&B3, &TRACE, &SPAN, &PARENT, &SAMPLED, &FLAGS] {
        headers.remove(name);
    }
}

/// Names a span, and the one above it, in one field.
pub(super) fn tell(
    headers: &mut HeaderMap,
    trace: TraceId,
    span: SpanId,
    parent: SpanId,
    is_sampled: bool,
) {
    let mut text = *b"00000000000000000000000000000000-0000000000000000-0-0000000000000000";
    text[..32].copy_from_slice(&trace.hex());
    text[33..49].copy_from_slice(&span.hex());
    text[50] += u8::from(is_sampled);
    text[52..].copy_from_slice(&parent.hex());
    headers.insert(&B3, request_id::value(&text));
}

/// The same in several fields.
pub(super) fn tell_apart(
    headers: &mut HeaderMap,
    trace: TraceId,
    span: SpanId,
    parent: SpanId,
    is_sampled: bool,
) {
    headers.insert(&TRACE, request_id::value(&trace.hex()));
    headers.insert(&SPAN, request_id::value(&span.hex()));
    headers.insert(&PARENT, request_id::value(&parent.hex()));
    headers.insert(&SAMPLED, HeaderValue::from_static(if is_sampled { "1" } else { "0" }));
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0af7651916cd43dd8448eb211c80319c";

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        pairs.iter().map(field).collect()
    }

    fn given(pairs: &[(&'static str, &str)]) -> (Option<String>, Option<bool>) {
        let Given { parent, is_sampled, .. } = read(&fields(pairs));
        (parent.map(|(trace, span)| format!("{trace}-{span}")), is_sampled)
    }

    #[test]
    fn both_forms_say_the_same() {
        let span = "b7ad6b7169203331";
        let both = Some(format!("{ID}-{span}"));
        let single = |more: &str| given(&[("b3", &format!("{ID}-{span}{more}"))]);
        assert_eq!(single(""), (both.clone(), None), "somebody else decides");
        assert_eq!(single("-1"), (both.clone(), Some(true)));
        assert_eq!(single("-0"), (both.clone(), Some(false)));
        assert_eq!(single("-d-00f067aa0ba902b7"), (both.clone(), Some(true)));
        let several = |more: &[(&'static str, &str)]| {
            given(&[&[("x-b3-traceid", ID), ("x-b3-spanid", span)], more].concat())
        };
        assert_eq!(several(&[]), (both.clone(), None));
        assert_eq!(several(&[("x-b3-sampled", "1")]), (both.clone(), Some(true)));
        assert_eq!(several(&[("x-b3-sampled", "false")]), (both.clone(), Some(false)));
        assert_eq!(several(&[("x-b3-flags", "1")]), (both, Some(true)));
        assert_eq!(given(&[("b3", "0")]), (None, Some(false)), "a state alone");
        let short = Some(format!("{:0>32}-{span}", &ID[16..]));
        assert_eq!(given(&[("b3", &format!("{}-{span}", &ID[16..]))]), (short, None));
        for wrong in ["", "x", "af7-b7ad6b7169203331", "0af7651916cd43dd-1", "--1"] {
            assert_eq!(given(&[("b3", wrong)]).0, None, "{wrong}");
        }
    }

    #[test]
    fn what_is_told_is_understood() {
        let (trace, span, parent) = (TraceId::random(), SpanId::random(), SpanId::random());
        for is_sampled in [true, false] {
            for tell in [tell, tell_apart] {
                let mut headers = fields(&[("x-b3-flags", "1"), ("b3", "d")]);
                clear(&mut headers);
                assert!(headers.is_empty());
                tell(&mut headers, trace, span, parent, is_sampled);
                let Given { parent: told, is_sampled: state, .. } = read(&headers);
                assert_eq!((told, state), (Some((trace, span)), Some(is_sampled)));
                assert!(headers.len() < FIELDS);
            }
        }
    }
}
