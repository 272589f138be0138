//! The story of a request, for the recorder: what happened to it, and when.

use crate::{
    clock::Brief,
    observe::{
        access_log::line::Entry,
        recorder::{Event, Record, Step, millis},
    },
    proxy::context::Context,
};

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
