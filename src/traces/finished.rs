//! A request that is over, and its spans: one of kind `SERVER` for the request itself, and one of
//! kind `CLIENT` for each attempt, with the names of OpenTelemetry's conventions for HTTP.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::{
    observe::{
        recorder::{Connection, Record, Tried},
        traced::SpanId,
    },
    otlp::{
        attributes::{network, server, url},
        proto::{Event, KeyValue, Span, SpanKind, Status, Value},
    },
    reason::{Class, Reason},
    traces::{Trace, w3c::SAMPLED},
};

/// Flags of a span that say whether its parent is another program's.
const IS_REMOTE_KNOWN: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
/// The code of a span that failed.
const ERROR: i32 = 2;
/// The methods that are told by their names; there is no end to others.
const METHODS: [&str; 10] =
    ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"];

/// What is told of a request that is over. All its texts are bounded.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its trace.
    pub trace: Trace,
    /// Its `tracestate`, if that belongs to the trace.
    pub state: String,
    /// Whether the client speaks TLS.
    pub is_secure: bool,
    /// Who made the connection; `None` on a Unix socket.
    pub peer: Option<IpAddr>,
    /// The client's `User-Agent`.
    pub user_agent: Option<String>,
    /// Whether its backends speak TLS.
    pub is_origin_secure: bool,
    /// What backends were asked for, if it differs from what the client sent.
    pub sent: Option<String>,
    /// What a record keeps of it.
    pub record: Record,
    /// What a record does not keep of its attempts, in their order.
    pub marks: Vec<Mark>,
}

/// What a span tells of an attempt, and a record does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// So many had begun before.
    pub number: u8,
    /// Whether its backend was ejected for how it ended.
    pub has_ejected: bool,
}

impl Finished {
    /// How many spans it has.
    pub(super) fn count(&self) -> u64 {
        1 + self.record.attempts.len() as u64
    }

    /// Its spans.
    pub(super) fn spans(&self) -> Vec<Span> {
        let attempts = self.attempts();
        let server = self.server(&attempts);
        [server].into_iter().chain(attempts.iter().map(|attempt| self.client(attempt))).collect()
    }

    /// The attempts in the order in which they began.
    fn attempts(&self) -> Vec<(Mark, &Tried)> {
        let mut attempts: Vec<_> = self.marks.iter().copied().zip(&self.record.attempts).collect();
        attempts.sort_by_key(|(mark, _)| mark.number);
        attempts
    }

    fn server(&self, attempts: &[(Mark, &Tried)]) -> Span {
        let Record { method, route, reason, status, .. } = &self.record;
        let (known, _) = known(method);
        let name = route.as_ref().map_or(known.to_owned(), |route| format!("{known} {route}"));
        let is_failure = 500 <= *status || reason.class() == Class::Failed;
        let (trace, parent) = (&self.trace, self.trace.parent);
        let is_remote = if parent.is_some() { IS_REMOTE } else { 0 };
        Span {
            state: self.state.clone(),
            parent: parent.map(|parent| parent.bytes().to_vec()).unwrap_or_default(),
            kind: SpanKind::Server.into(),
            ended: self.at(self.record.total_ms),
            attributes: self.of_server(),
            events: self.events(attempts),
            status: is_failure.then(|| failed(said(*reason))),
            flags: u32::from(SAMPLED) | IS_REMOTE_KNOWN | is_remote,
            ..self.span(trace.ids.span, name, 0.0)
        }
    }

    fn span(&self, id: SpanId, name: String, began_ms: f64) -> Span {
        Span {
            trace: self.trace.ids.trace.bytes().to_vec(),
            id: id.bytes().to_vec(),
            name,
            began: self.at(began_ms),
            ..Span::default()
        }
    }

    fn of_server(&self) -> Vec<KeyValue> {
        let Record { id, protocol, client, method, host, path, status, reason, .. } = &self.record;
        let mut attributes = method_of(method);
        url(path, &mut attributes);
        server(host, &mut attributes);
        network(protocol, &mut attributes);
        let word = |key: &str, value: &str| KeyValue::new(key, value);
        attributes.extend([
            word("url.scheme", scheme(self.is_secure)),
            word("client.address", client),
            KeyValue::new("http.response.status_code", u64::from(*status)),
            KeyValue::new("http.response.body.size", self.record.bytes),
            word("crestline.request_id", id),
            word("crestline.reason", reason.as_str()),
            KeyValue::new("crestline.attempts", self.record.attempts.len() as u64),
        ]);
        let peer = self.peer.map(|peer| peer.to_string());
        let known = [
            ("http.route", &self.record.route),
            ("user_agent.original", &self.user_agent),
            ("network.peer.address", &peer),
            ("crestline.upstream", &self.record.upstream),
        ];
        attributes.extend(
            known
                .into_iter()
                .filter_map(|(key, value)| value.as_deref().map(|value| word(key, value))),
        );
        if reason.class() != Class::Good {
            attributes.push(word("error.type", reason.as_str()));
        } else if 500 <= *status {
            attributes.push(KeyValue::new("error.type", status.to_string()));
        }
        if let Some(first_byte) = self.record.first_byte_ms {
            attributes.push(KeyValue::new("crestline.first_byte_ms", Value::Real(first_byte)));
        }
        attributes
    }

    /// Each attempt after the first: another try of what had failed, or one beside it.
    fn events(&self, attempts: &[(Mark, &Tried)]) -> Vec<Event> {
        let later = attempts.iter().enumerate().skip(1);
        let event = |(index, (_, tried)): (usize, &(Mark, &Tried))| {
            let before = attempts[..index].iter().rev().map(|(_, before)| before);
            let mut over = before.filter(|before| before.ended_ms <= tried.began_ms);
            let last = over.next();
            let mut attributes = vec![
                KeyValue::new("crestline.attempt", index as u64 + 1),
                KeyValue::new("crestline.backend", tried.backend.as_str()),
            ];
            attributes
                .extend(last.map(|last| KeyValue::new("crestline.after", last.outcome.as_str())));
            let name = if last.is_some() { "retry" } else { "hedge" };
            Event { time: self.at(tried.began_ms), name: name.to_owned(), attributes }
        };
        later.map(event).collect()
    }

    fn client(&self, (mark, tried): &(Mark, &Tried)) -> Span {
        let ids = self.trace.ids;
        let (status, is_failure) = match tried.outcome.parse::<u16>() {
            Ok(status) => (Some(status), 400 <= status),
            // It may have been as good as the one that was faster.
            Err(_) => (None, tried.outcome != "outrun"),
        };
        let mut attributes = self.of_client(tried, status);
        if 0 < mark.number {
            attributes.push(KeyValue::new("http.request.resend_count", u64::from(mark.number)));
        }
        if is_failure {
            attributes.push(KeyValue::new("error.type", tried.outcome.as_str()));
        }
        let ended = self.at(tried.ended_ms);
        let ejection = mark.has_ejected.then(|| Event {
            time: ended,
            name: "ejection".to_owned(),
            attributes: vec![KeyValue::new("crestline.backend", tried.backend.as_str())],
        });
        let said = if status.is_some() { String::new() } else { tried.outcome.clone() };
        Span {
            parent: ids.span.bytes().to_vec(),
            kind: SpanKind::Client.into(),
            ended,
            attributes,
            events: ejection.into_iter().collect(),
            status: is_failure.then(|| failed(said)),
            flags: u32::from(SAMPLED) | IS_REMOTE_KNOWN,
            ..self.span(
                ids.span.below(mark.number),
                known(&self.record.method).0.to_owned(),
                tried.began_ms,
            )
        }
    }

    fn of_client(&self, tried: &Tried, status: Option<u16>) -> Vec<KeyValue> {
        let Tried { backend, connection, connect_ms, tls_ms, first_byte_ms, .. } = tried;
        let mut attributes = method_of(&self.record.method);
        server(backend, &mut attributes);
        if let Ok(peer) = backend.parse::<SocketAddr>() {
            let path = self.sent.as_ref().unwrap_or(&self.record.path);
            let full = format!("{}://{backend}{path}", scheme(self.is_origin_secure));
            attributes.extend([
                KeyValue::new("url.full", full),
                KeyValue::new("network.peer.address", peer.ip().to_string()),
                KeyValue::new("network.peer.port", u64::from(peer.port())),
            ]);
        }
        attributes.extend(
            status.map(|status| KeyValue::new("http.response.status_code", u64::from(status))),
        );
        attributes.push(KeyValue::new("crestline.backend", backend.as_str()));
        let upstream = self.record.upstream.as_deref();
        attributes.extend(upstream.map(|name| KeyValue::new("crestline.upstream", name)));
        attributes.push(KeyValue::new("crestline.outcome", tried.outcome.as_str()));
        let how = connection.map(|how| match how {
            Connection::Made => "made",
            Connection::Pooled => "pooled",
        });
        attributes.extend(how.map(|how| KeyValue::new("crestline.connection", how)));
        let first_byte = first_byte_ms.map(|at| at - tried.began_ms);
        for (key, ms) in [
            ("crestline.connect_ms", *connect_ms),
            ("crestline.tls_ms", *tls_ms),
            ("crestline.first_byte_ms", first_byte),
        ] {
            attributes.extend(ms.map(|ms| KeyValue::new(key, Value::Real(ms))));
        }
        attributes
    }

    /// A time that is counted from the head of the request, in nanoseconds since 1970.
    fn at(&self, ms: f64) -> u64 {
        let since = Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default();
        let start = u64::try_from(self.record.time.as_nanosecond()).unwrap_or_default();
        start.saturating_add(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// A method, as conventions have it, and whether it is one that is known.
fn known(method: &str) -> (&str, bool) {
    if METHODS.contains(&method) { (method, true) } else { ("HTTP", false) }
}

fn method_of(method: &str) -> Vec<KeyValue> {
    let (name, is_known) = known(method);
    let given = KeyValue::new("http.request.method_original", method);
    let name = KeyValue::new("http.request.method", if is_known { name } else { "_OTHER" });
    [Some(name), (!is_known).then_some(given)].into_iter().flatten().collect()
}

fn scheme(is_secure: bool) -> &'static str {
    if is_secure { "https" } else { "http" }
}

/// What is said of a failure; its status says all of one that an origin answered with.
fn said(reason: Reason) -> String {
    if reason == Reason::Ok { String::new() } else { reason.as_str().to_owned() }
}

fn failed(message: String) -> Status {
    Status { message, code: ERROR }
}

#[cfg(test)]
mod tests;
