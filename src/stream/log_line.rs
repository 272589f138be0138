//! What the access log and the recorder are told of a relayed connection.

use tokio::time::Instant;

use crate::{
    observe::{
        access_log::{line::Tls, relay::Entry},
        recorder::{Event, Record, Step, millis},
        request_id,
    },
    snapshot::Snapshot,
    stream::{Ended, Passage},
};

/// Tells of a connection that has ended.
pub(super) fn tell(snapshot: &Snapshot, passage: &Passage, ended: &Ended) {
    let Passage { client, listener, sni, started, target, attempts } = passage;
    let Ended { status, reason, passed } = ended;
    let tls = client.tls_entry();
    let id = request_id::new();
    let entry = Entry {
        id: id.as_bytes(),
        client: client.client,
        listener,
        tls: Tls { sni: sni.as_deref().or(tls.sni), ..tls },
        status: *status,
        sent: passed.sent,
        received: passed.received,
        total: started.elapsed(),
        connect: attempts.connect(),
        first_byte: passed.first_byte.map(|at| at.saturating_duration_since(*started)),
        upstream: Some(target.upstream.name()),
        backend: attempts.last_backend(),
        attempts: attempts.len(),
        via: attempts,
        reason: *reason,
    };
    if let Some(log) = &snapshot.access_log {
        log.write_relay(&entry);
    }
    keep(snapshot, &entry, passage);
}

/// Keeps the story of one that failed.
fn keep(snapshot: &Snapshot, entry: &Entry<'_>, passage: &Passage) {
    let (recorder, entry, now) = (&snapshot.ledger.recorder, entry.as_request(), Instant::now());
    if let Some(kind) = recorder.wants(&entry, now) {
        let step = |event, at| Step { event, at_ms: millis(at) };
        let begin = step(Event::Accepted, tokio::time::Duration::ZERO);
        let record = Record {
            timeline: vec![begin, step(Event::Ended, entry.total)],
            attempts: passage.attempts.tried(),
            ..Record::of(&entry, entry.target)
        };
        recorder.keep(kind, record, now);
    }
}
