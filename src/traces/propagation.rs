//! How a trace crosses from one program to the next: by which fields of a request.

use http::HeaderMap;

use crate::{
    observe::traced::{SpanId, TraceId},
    traces::{Trace, b3, config::Propagator, w3c},
};

/// What the fields of a request say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// The span that it came from.
    pub(super) parent: Option<(TraceId, SpanId)>,
    /// Whether the trace is recorded, where somebody has decided that.
    pub(super) is_sampled: Option<bool>,
    /// Flags of W3C.
    pub(super) flags: u8,
    /// Whether `tracestate` belongs to it.
    pub(super) keeps_state: bool,
}

/// Reads the fields, each kind in its turn, up to one that names a span.
pub(super) fn read(kinds: &[Propagator], headers: &HeaderMap) -> Given {
    let mut decided = None;
    for kind in kinds {
        let given = match kind {
            Propagator::W3c => w3c::read(headers).map_or_else(Given::default, |parent| Given {
                parent: Some((parent.trace, parent.span)),
                is_sampled: Some(parent.flags & w3c::SAMPLED != 0),
                flags: parent.flags,
                keeps_state: true,
            }),
            Propagator::B3 | Propagator::B3Multi => b3::read(headers),
        };
        if given.parent.is_some() {
            return given;
        }
        decided = decided.or(given.is_sampled);
    }
    Given { is_sampled: decided, ..Given::default() }
}

/// Names the span of an attempt in the fields of what is sent.
pub(super) fn tell(kinds: &[Propagator], trace: &Trace, span: SpanId, headers: &mut HeaderMap) {
    let Trace { ids, is_sampled, .. } = *trace;
    if kinds != [Propagator::W3c] {
        b3::clear(headers);
        headers.reserve(b3::FIELDS);
    }
    for kind in kinds {
        match kind {
            Propagator::W3c => {
                let flags = w3c::flags(trace.flags, is_sampled);
                headers.insert(&w3c::TRACEPARENT, w3c::value(ids.trace, span, flags));
                if !trace.keeps_state {
                    headers.remove(&w3c::TRACESTATE); // it belongs to another trace
                }
            }
            Propagator::B3 => b3::tell(headers, ids.trace, span, ids.span, is_sampled),
            Propagator::B3Multi => b3::tell_apart(headers, ids.trace, span, ids.span, is_sampled),
        }
    }
}
