//! The story of a request, for the recorder and for its trace: what happened to it, and when.

use http::HeaderValue;
use pingora_http::RequestHeader;

use crate::{
    clock::Brief,
    downstream::connection::Connection,
    observe::{
        access_log::line::Entry,
        recorder::{self, Event, Record, Step, TARGET_MAX, WORD_MAX, millis, shown},
    },
    proxy::{context::Context, select},
    routing::{host::RequestHost, request::RequestParts},
    snapshot::Snapshot,
    traces::{Finished, Mark, Tracing, w3c::TRACESTATE},
};

/// What vendors must be able to note of a trace (W3C Trace Context, section 3.3.1.5).
const STATE_MAX: usize = 512;

/// Makes a record of a request that has ended.
pub(crate) fn record(entry: &Entry<'_>, target: &[u8], ctx: &Context) -> Record {
    let at = |event, at: Option<Brief>| at.map(|at| Step { at_ms: millis(at.into()), event });
    let before = |event, at| {
        let before = ctx.started.saturating_duration_since(at);
        Step { at_ms: -millis(before), event }
    };
    let connection = ctx.connection.as_deref();
    let accepted = connection.map(|connection| before(Event::Accepted, connection.accepted));
    let secured = connection.and_then(|connection| connection.secured);
    let steps = [
        accepted,
        secured.map(|at| before(Event::Secured, at)),
        Some(Step { at_ms: 0.0, event: Event::HeadRead }),
        at(Event::Routed, ctx.routed),
        at(Event::PoliciesAsked, ctx.judged),
        at(Event::Answered, ctx.first_byte().map(Brief::from)),
        Some(Step { at_ms: millis(entry.total), event: Event::Ended }),
    ];
    Record {
        timeline: steps.into_iter().flatten().collect(),
        attempts: ctx.attempts.tried(),
        ..Record::of(entry, target)
    }
}

/// Traces a request that no route took: its path stands as it was sent.
pub(crate) fn trace_unrouted(request: &RequestHeader, ctx: &mut Context, traces: Option<&Tracing>) {
    let (None, Some(traces)) = (&ctx.route, traces) else { return };
    let host = RequestHost::new(select::authority(request));
    let parts = RequestParts {
        host: host.as_str(),
        path: request.uri.path(),
        method: &request.method,
        headers: &request.headers,
        query: request.uri.query().unwrap_or_default(),
    };
    let is_trusted = ctx.connection.as_ref().is_some_and(|connection| connection.is_trusted);
    ctx.trace = Some(traces.begin(&parts, is_trusted));
}

/// Has the spans of a request that is traced exported, where its route says.
pub(crate) fn export(entry: &Entry<'_>, ctx: &Context, snapshot: &Snapshot) {
    let traces = ctx.route.as_ref().map_or(&snapshot.traces, |route| &route.traces);
    let (Some(trace), Some(traces)) = (ctx.trace, traces) else { return };
    let log = snapshot.access_log.as_deref();
    let told = |target: &[u8]| shown(&recorder::target(log, target), TARGET_MAX);
    let sent = ctx.notes.target.as_ref().or(ctx.target.as_ref());
    let sent = sent.and_then(|sent| sent.path_and_query());
    let connection = ctx.connection.as_deref();
    let marks = ctx.attempts.iter().map(|attempt| attempt.times);
    traces.export(Finished {
        trace,
        state: if trace.keeps_state { state(entry) } else { String::new() },
        is_secure: connection.is_some_and(Connection::is_secure),
        peer: connection.and_then(|connection| connection.client),
        user_agent: entry.user_agent.map(|agent| shown(agent, WORD_MAX)),
        is_origin_secure: ctx.route.as_ref().is_some_and(|it| it.upstream.link().is_tls()),
        sent: sent.map(|sent| told(sent.as_str().as_bytes())),
        record: record(entry, &recorder::target(log, entry.target), ctx),
        marks: marks
            .map(|times| Mark { number: times.number, has_ejected: times.has_ejected })
            .collect(),
    });
}

/// The `tracestate` of a request; nothing of one that is longer than any needs to be.
fn state(entry: &Entry<'_>) -> String {
    let fields = entry.request.into_iter().flat_map(|headers| headers.get_all(&TRACESTATE));
    let fields: Vec<_> = fields.filter_map(|field: &HeaderValue| field.to_str().ok()).collect();
    let state = fields.join(",");
    if state.len() <= STATE_MAX { state } else { String::new() }
}
