//! A request that is kept, and how its story is told.

use std::{fmt, time::SystemTime};

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Duration;

use crate::{observe::access_log::line::Entry, reason::Reason};

/// The most bytes that are kept of a target.
pub const TARGET_MAX: usize = 512;
/// The same of a host, and of a method.
pub const WORD_MAX: usize = 255;

/// What is kept of a request. Times are milliseconds, counted from when its head was read; those of
/// a connection that was relayed, from when it was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RequestRecord")]
pub struct Record {
    /// Its id, as in the access log.
    pub id: String,
    /// Its trace, if it is traced.
    pub trace_id: Option<String>,
    /// Its span in that.
    pub span_id: Option<String>,
    /// When its head was read.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: Timestamp,
    /// `HTTP/1.1`; `TCP` for a connection that was relayed.
    pub protocol: String,
    /// The client's address; `unix` on a Unix socket.
    pub client: String,
    /// The method.
    pub method: String,
    /// The host that was asked for.
    pub host: String,
    /// The target, without what the access log hides; at most 512 bytes of it.
    pub path: String,
    /// The status that the client got; 499 if it left before there was one.
    pub status: u16,
    /// Why it ended.
    pub reason: Reason,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// The route that matched.
    pub route: Option<String>,
    /// The upstream that it was sent to.
    pub upstream: Option<String>,
    /// From its head to the end of its answer.
    pub total_ms: f64,
    /// From its head to that of its answer.
    pub first_byte_ms: Option<f64>,
    /// What happened to it here, in order.
    pub timeline: Vec<Step>,
    /// The attempts, in order.
    pub attempts: Vec<Tried>,
}

/// A step of a request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RequestStep")]
pub struct Step {
    /// When; below zero before the head was read.
    pub at_ms: f64,
    /// What.
    pub event: Event,
}

/// What happens to a request here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RequestEvent")]
pub enum Event {
    /// Its connection was accepted.
    Accepted,
    /// The handshake of its connection was over.
    Secured,
    /// Its head was read.
    HeadRead,
    /// Its route was found.
    Routed,
    /// The policies of its route were asked: all let it pass, or one answered it.
    PoliciesAsked,
    /// The head of an answer came from an origin.
    Answered,
    /// It was over.
    Ended,
}

/// One attempt of a request at one backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RequestAttempt")]
pub struct Tried {
    /// The backend.
    pub backend: String,
    /// How it ended: a status of the origin, or what went wrong.
    pub outcome: String,
    /// When the backend was chosen.
    pub began_ms: f64,
    /// How it came to its connection; `null` if it did not.
    pub connection: Option<Connection>,
    /// How long the connection took to make, handshake included.
    pub connect_ms: Option<f64>,
    /// How long the handshake of TLS took.
    pub tls_ms: Option<f64>,
    /// When the head of the answer was here.
    pub first_byte_ms: Option<f64>,
    /// When it was over.
    pub ended_ms: f64,
}

/// How an attempt came to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RequestConnection")]
pub enum Connection {
    /// It was made.
    Made,
    /// It was in the pool.
    Pooled,
}

/// A duration as it is shown: milliseconds, to the microsecond.
#[expect(clippy::cast_precision_loss, reason = "exact for three hundred years")]
pub fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

impl Record {
    /// What is known of a request that has ended now, without steps and attempts. `target` is
    /// shown in place of what it asked for.
    pub fn of(entry: &Entry<'_>, target: &[u8]) -> Self {
        let now = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
        let total = SignedDuration::try_from(entry.total).unwrap_or_default();
        Self {
            id: shown(entry.id, WORD_MAX),
            trace_id: entry.traced.map(|traced| traced.trace.to_string()),
            span_id: entry.traced.map(|traced| traced.span.to_string()),
            time: now.saturating_sub(total).unwrap_or(now),
            protocol: entry.protocol.to_owned(),
            client: entry.client.map_or("unix".to_owned(), |client| client.to_string()),
            method: shown(entry.method.as_bytes(), WORD_MAX),
            host: shown(entry.host.as_bytes(), WORD_MAX),
            path: shown(target, TARGET_MAX),
            status: entry.status,
            reason: entry.reason,
            bytes: entry.bytes,
            route: entry.route.map(str::to_owned),
            upstream: entry.upstream.map(str::to_owned),
            total_ms: millis(entry.total),
            first_byte_ms: entry.first_byte.map(millis),
            timeline: Vec::new(),
            attempts: Vec::new(),
        }
    }

    /// How long the client waited for the head of an answer, or in vain.
    pub fn waited_ms(&self) -> f64 {
        self.first_byte_ms.unwrap_or(self.total_ms)
    }

    /// The same.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    pub(super) fn waited_nanos(&self) -> u64 {
        (self.waited_ms() * 1e6) as u64
    }

    /// When it was over.
    pub fn ended(&self) -> Timestamp {
        let total = SignedDuration::try_from_secs_f64(self.total_ms / 1e3).unwrap_or_default();
        self.time.saturating_add(total).unwrap_or(self.time)
    }

    /// Everything, for people: what happened, and when.
    pub fn story(&self) -> Story<'_> {
        Story(self)
    }
}

/// So much of a text that somebody else wrote, without what moves a cursor.
pub fn shown(text: &[u8], max: usize) -> String {
    let is_cut = max < text.len();
    let text = String::from_utf8_lossy(&text[..max.min(text.len())]);
    let plain = |letter: char| if letter.is_control() { '\u{fffd}' } else { letter };
    text.chars().map(plain).chain(is_cut.then_some('…')).collect()
}

impl fmt::Display for Record {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, time, method, host, path, status, reason, total_ms, .. } = self;
        write!(f, "{time:.3} {id} {status} {reason} {method} {host}{path} {total_ms:.1} ms")?;
        for (index, tried) in self.attempts.iter().enumerate() {
            let before = if index == 0 { " via " } else { "," };
            write!(f, "{before}{}:{}", tried.backend, tried.outcome)?;
        }
        Ok(())
    }
}

/// The story of a request, in lines.
#[derive(Clone, Copy, Debug)]
pub struct Story<'a>(&'a Record);

impl fmt::Display for Story<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { id, time, protocol, client, method, host, path, status, reason, .. } = self.0;
        writeln!(f, "request {id}: {status} {reason}")?;
        writeln!(f, "  {method} {host}{path}, {protocol}, from {client}, at {time:.3}")?;
        let (route, upstream) = (self.0.route.as_deref(), self.0.upstream.as_deref());
        let (route, upstream) = (route.unwrap_or("-"), upstream.unwrap_or("-"));
        writeln!(f, "  route {route}, upstream {upstream}, {} bytes sent", self.0.bytes)?;
        if let (Some(trace), Some(span)) = (&self.0.trace_id, &self.0.span_id) {
            writeln!(f, "  trace {trace}, span {span}")?;
        }
        for (at, line) in self.lines() {
            writeln!(f, "{at:>12.3} ms  {line}")?;
        }
        Ok(())
    }
}

impl Story<'_> {
    /// What happened, in the order of time.
    fn lines(self) -> Vec<(f64, String)> {
        let Record { status, reason, timeline, attempts, .. } = self.0;
        let (mut lines, mut ended) = (Vec::new(), None);
        for Step { at_ms, event } in timeline {
            let line = match event {
                Event::Accepted => "connection accepted".to_owned(),
                Event::Secured => "TLS handshake over".to_owned(),
                Event::HeadRead => "head read".to_owned(),
                Event::Routed => "route found".to_owned(),
                Event::PoliciesAsked => "policies asked".to_owned(),
                Event::Answered => "answer passed on".to_owned(),
                Event::Ended => {
                    ended = Some((*at_ms, format!("ended: {status} {reason}")));
                    continue;
                }
            };
            lines.push((*at_ms, line));
        }
        for (index, tried) in attempts.iter().enumerate() {
            let (number, Tried { backend, outcome, began_ms, ended_ms, .. }) = (index + 1, tried);
            lines.push((*began_ms, format!("attempt {number}: {backend} chosen")));
            match (tried.connection, tried.connect_ms) {
                (Some(Connection::Made), Some(took)) => {
                    let tls = tried.tls_ms.map(|tls| format!(", TLS {tls:.3} ms"));
                    let tls = tls.unwrap_or_default();
                    let line = format!("attempt {number}: connected in {took:.3} ms{tls}");
                    lines.push((began_ms + took, line));
                }
                (Some(_), _) => {
                    lines.push((*began_ms, format!("attempt {number}: connection from the pool")));
                }
                (None, _) => {}
            }
            if let Some(at) = tried.first_byte_ms {
                lines.push((at, format!("attempt {number}: head of the answer")));
            }
            lines.push((*ended_ms, format!("attempt {number}: ended: {outcome}")));
        }
        // What happened at the same time stays in its order, but the end is the end.
        lines.extend(ended);
        lines.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        lines
    }
}
