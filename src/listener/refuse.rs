//! The answer to a request that is refused before anything is known of it but its bytes. It is
//! counted and logged with its reason, though no hook ever sees it.

use std::{fmt::Write as _, time::Duration};

use http::StatusCode;
use pingora_core::protocols::Shutdown;
use pingora_timeout::timeout;
use tokio::{io::AsyncWriteExt, time::Instant};

use crate::{
    downstream::{connection::Connection, refused, stream::Downstream},
    http1::refusal::Refusal,
    observe::{
        access_log::{
            line::{Entry, Tls},
            relay,
        },
        recorder::{self, Record},
        request_id,
    },
    reason::{self, Reason},
    reply::{Form, METHODS},
    snapshot::{Listener, Live},
};

/// A refused client gets no longer than this to take its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Refuses requests, and logs that it did.
pub(crate) struct Refuser {
    live: Live,
}

impl Refuser {
    pub(crate) fn new(live: Live) -> Self {
        Self { live }
    }

    /// Answers and closes: the framing of what follows cannot be trusted.
    pub(crate) async fn refuse(&self, stream: &mut Downstream, refusal: Refusal) {
        refused::count(refusal.reason);
        let id = request_id::new();
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
        let body = Form::Text.body(status, &id);
        let mut answer = format!("HTTP/1.1 {status}\r\n");
        if status == StatusCode::METHOD_NOT_ALLOWED {
            let _ = write!(answer, "Allow: {METHODS}\r\n");
        }
        let _ = write!(
            answer,
            "Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             X-Request-Id: {}\r\nConnection: close\r\n\r\n",
            body.len(),
            id.to_str().unwrap_or_default(),
        );
        let mut answer = answer.into_bytes();
        answer.extend_from_slice(&body);
        self.log(stream, refusal, id.as_bytes(), body.len());
        let sent = async {
            stream.write_all(&answer).await?;
            stream.flush().await
        };
        // A client that does not take its answer, or has left, is closed all the same.
        let _ = timeout(PATIENCE, sent).await;
        Shutdown::shutdown(stream).await;
    }

    /// Counts and logs a connection that is relayed nowhere.
    pub(crate) fn relay(
        &self,
        listener: &Listener,
        connection: &Connection,
        sni: Option<&str>,
        (status, reason): (u16, Reason),
    ) {
        refused::count(reason);
        let snapshot = self.live.load();
        let Some(log) = &snapshot.access_log else { return };
        log.write_relay(&relay::Entry {
            id: request_id::new().as_bytes(),
            client: connection.client,
            listener: &listener.address.to_string(),
            tls: Tls { sni, ..connection.tls_entry() },
            status,
            sent: 0,
            received: 0,
            total: Duration::ZERO,
            connect: None,
            first_byte: None,
            upstream: None,
            backend: None,
            attempts: 0,
            via: &"",
            reason,
        });
    }

    /// Counts and logs the request.
    fn log(&self, stream: &Downstream, refusal: Refusal, id: &[u8], bytes: usize) {
        let snapshot = self.live.load();
        snapshot.ledger.unrouted.count(refusal.status, Duration::ZERO);
        reason::count(refusal.reason);
        let (method, target) = first_words(stream.pending());
        let entry = Entry {
            id,
            traced: None,
            client: stream.connection().client,
            method: str::from_utf8(method).unwrap_or("-"),
            host: "",
            target,
            protocol: "HTTP/1.1",
            tls: stream.connection().tls_entry(),
            status: refusal.status,
            bytes: bytes as u64,
            total: Duration::ZERO,
            connect: None,
            first_byte: None,
            route: None,
            upstream: None,
            backend: None,
            attempts: 0,
            via: &"",
            replayed: None,
            is_too_long_to_replay: false,
            cache: None,
            reason: refusal.reason,
            user: None,
            user_agent: None,
            referer: None,
            request: None,
            response: None,
        };
        if let Some(log) = &snapshot.access_log {
            log.write(&entry);
        }
        let (recorder, now) = (&snapshot.ledger.recorder, Instant::now());
        if let Some(kind) = recorder.wants(&entry, now) {
            snapshot.ledger.unrouted.show(refusal.status, Duration::ZERO, id, None);
            let target = recorder::target(snapshot.access_log.as_deref(), target);
            recorder.keep(kind, Record::of(&entry, &target), now);
        }
    }
}

/// What looks like a method and a target, for the log alone; of bounded length.
fn first_words(bytes: &[u8]) -> (&[u8], &[u8]) {
    const SHOWN_MAX: usize = 256;
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).find(|line| !line.is_empty());
    let mut words = line.unwrap_or_default().split(|byte| *byte == b' ');
    let mut word = || {
        let word = words.next().unwrap_or_default();
        &word[..word.len().min(SHOWN_MAX)]
    };
    (word(), word())
}
