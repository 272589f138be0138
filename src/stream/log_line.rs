//! The line of a relayed connection in the access log.

use crate::{
    observe::{
        access_log::{AccessLog, line::Tls, relay::Entry},
        request_id,
    },
    stream::{Ended, Passage},
};

/// Writes the line of a connection that has ended.
pub(super) fn write(log: &AccessLog, passage: &Passage, ended: &Ended) {
    let Passage { client, listener, sni, started, target, attempts, connect } = passage;
    let Ended { status, reason, passed } = ended;
    let tls = client.tls_entry();
    log.write_relay(&Entry {
        id: request_id::new().as_bytes(),
        client: client.client,
        listener,
        tls: Tls { sni: sni.as_deref().or(tls.sni), ..tls },
        status: *status,
        sent: passed.sent,
        received: passed.received,
        total: started.elapsed(),
        connect: *connect,
        first_byte: passed.first_byte.map(|at| at.saturating_duration_since(*started)),
        upstream: Some(target.upstream.name()),
        backend: attempts.last_backend(),
        attempts: attempts.len(),
        via: attempts,
        reason: *reason,
    });
}
