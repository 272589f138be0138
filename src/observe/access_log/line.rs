//! The line of a request.
//!
//! Whatever a client or an origin sent is escaped, so that no byte of theirs ends a line, fakes a
//! field, or moves a terminal's cursor.

use std::{fmt::Display, net::IpAddr, time::Duration};

use http::HeaderMap;

use crate::{
    observe::{
        access_log::{
            escape,
            form::{Extra, Form},
            sink::{Sink, key},
            stamp::Stamp,
        },
        traced::Traced,
    },
    reason::Reason,
};

/// What one request leaves in the log.
pub struct Entry<'a> {
    /// The request id.
    pub id: &'a [u8],
    /// Its trace, and its span in that; `None` if it is not traced.
    pub traced: Option<Traced>,
    /// The client, as far as trusted proxies tell; `None` on a Unix socket.
    pub client: Option<IpAddr>,
    /// The method.
    pub method: &'a str,
    /// The host that was asked for.
    pub host: &'a str,
    /// Path and query as the client sent them.
    pub target: &'a [u8],
    /// The protocol: `HTTP/1.1`.
    pub protocol: &'a str,
    /// What is known of the handshake.
    pub tls: Tls<'a>,
    /// The status that the client got; 499 if it left before there was one.
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// From the request's head to the answer's end.
    pub total: Duration,
    /// Making the connection of the last attempt; `None` if it was pooled or there was none.
    pub connect: Option<Duration>,
    /// From the request's head to the answer's.
    pub first_byte: Option<Duration>,
    /// The route that matched.
    pub route: Option<&'a str>,
    /// The upstream that it sends to.
    pub upstream: Option<&'a str>,
    /// The backend of the last attempt.
    pub backend: Option<&'a str>,
    /// How many attempts were made.
    pub attempts: usize,
    /// The attempts, as `address:outcome` with commas.
    pub via: &'a dyn Display,
    /// Bytes of the request's body that were sent once more, to another backend.
    pub replayed: Option<u64>,
    /// Whether the body was too long to be sent once more, where that was wanted.
    pub is_too_long_to_replay: bool,
    /// What became of it where answers are kept: `hit`, `miss`.
    pub cache: Option<&'static str>,
    /// Why it ended.
    pub reason: Reason,
    /// Who the client is, where a policy has found out.
    pub user: Option<&'a [u8]>,
    /// The client's `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// The client's `Referer`.
    pub referer: Option<&'a [u8]>,
    /// The fields of the request; `None` where they were not read.
    pub request: Option<&'a HeaderMap>,
    /// The fields of the answer.
    pub response: Option<&'a HeaderMap>,
}

impl Entry<'_> {
    /// Whether nobody will ask why.
    pub(super) fn is_good(&self) -> bool {
        self.status < 400 && !self.reason.is_failure()
    }
}

/// What a line tells of the connection's handshake; nothing in plaintext.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tls<'a> {
    /// The version: `TLSv1.3`.
    pub version: Option<&'a str>,
    /// The name that the client asked for.
    pub sni: Option<&'a str>,
    /// How the connection is encrypted: `TLS13_AES_256_GCM_SHA384`.
    pub cipher: Option<&'a str>,
    /// How its keys were agreed on: `X25519MLKEM768`.
    pub group: Option<&'a str>,
    /// Whether an older session goes on.
    pub is_resumed: bool,
    /// Who the client is by its certificate: the name in it, its other names, and its fingerprint.
    pub client: Option<[&'a [u8]; 3]>,
    /// The common name in the client's certificate, as a load balancer told it.
    pub told_client_cn: Option<&'a str>,
}

/// Appends all that is known of a request.
pub(super) fn fields(entry: &Entry<'_>, form: &Form, sink: &mut impl Sink) {
    sink.begin();
    sink.text(key!("id"), entry.id);
    if let Some(Traced { trace, span }) = entry.traced {
        sink.text(key!("trace_id"), &trace.hex());
        sink.text(key!("span_id"), &span.hex());
    }
    sink.client(key!("client"), entry.client);
    sink.text(key!("method"), entry.method.as_bytes());
    sink.text(key!("host"), entry.host.as_bytes());
    sink.text(key!("path"), &form.secrets.clean(entry.target));
    sink.text(key!("protocol"), entry.protocol.as_bytes());
    tls(&entry.tls, sink);
    sink.number(key!("status"), u64::from(entry.status));
    sink.number(key!("bytes"), entry.bytes);
    sink.millis(key!("total_ms"), Some(entry.total));
    sink.millis(key!("connect_ms"), entry.connect);
    sink.millis(key!("first_byte_ms"), entry.first_byte);
    sink.known([
        (key!("route"), entry.route),
        (key!("upstream"), entry.upstream),
        (key!("backend"), entry.backend),
    ]);
    attempts(entry.attempts, entry.via, sink);
    if let Some(replayed) = entry.replayed {
        sink.number(key!("replayed_bytes"), replayed);
    }
    if entry.is_too_long_to_replay {
        sink.text(key!("replay"), b"too_long");
    }
    if let Some(cache) = entry.cache {
        sink.text(key!("cache"), cache.as_bytes());
    }
    sink.text(key!("reason"), entry.reason.as_str().as_bytes());
    if let Some(user) = entry.user {
        sink.text(key!("user"), user);
    }
    if let Some(agent) = entry.user_agent {
        sink.text(key!("user_agent"), agent);
    }
    more(&form.request, entry.request, form, sink);
    more(&form.response, entry.response, form, sink);
    sink.end();
}

/// The fields that the operator asked for, as far as they were sent.
fn more(wanted: &[Extra], sent: Option<&HeaderMap>, form: &Form, sink: &mut impl Sink) {
    let Some(sent) = sent else { return };
    for extra in wanted {
        if let Some(value) = sent.get(&extra.name) {
            sink.text(extra.key(), form.secrets.shown(&extra.name, value));
        }
    }
}

/// What is known of a handshake.
pub(super) fn tls(known: &Tls<'_>, sink: &mut impl Sink) {
    sink.known([
        (key!("tls_version"), known.version),
        (key!("sni"), known.sni),
        (key!("tls_cipher"), known.cipher),
        (key!("tls_group"), known.group),
        (key!("client_cn"), known.told_client_cn),
    ]);
    sink.flag(key!("tls_resumed"), known.is_resumed);
    let Some([subject, sans, fingerprint]) = known.client else { return };
    sink.text(key!("tls_client_subject"), subject);
    sink.text(key!("tls_client_sans"), sans);
    sink.text(key!("tls_client_fingerprint"), fingerprint);
}

/// How many attempts were made, and how each ended.
pub(super) fn attempts(count: usize, via: &dyn Display, sink: &mut impl Sink) {
    sink.number(key!("attempts"), count as u64);
    if 0 < count {
        sink.ours(key!("via"), via); // addresses and outcomes are ours
    }
}

/// Appends a user's name as one word: whoever takes a line apart does so at its spaces.
fn user(name: Option<&[u8]>, out: &mut Vec<u8>) {
    for (at, word) in name.unwrap_or(b"-").split(|byte| *byte == b' ').enumerate() {
        if 0 < at {
            out.extend_from_slice(b"\\x20");
        }
        escape::hex(out, word);
    }
}

/// Appends the combined format of Apache and nginx.
pub(super) fn combined(entry: &Entry<'_>, form: &Form, out: &mut Vec<u8>) {
    escape::client(out, entry.client);
    out.extend_from_slice(b" - ");
    user(entry.user, out);
    out.extend_from_slice(b" [");
    Stamp::Apache.write(out);
    out.extend_from_slice(b"] \"");
    escape::hex(out, entry.method.as_bytes());
    out.push(b' ');
    escape::hex(out, &form.secrets.clean(entry.target));
    out.push(b' ');
    escape::hex(out, entry.protocol.as_bytes());
    out.extend_from_slice(b"\" ");
    escape::number(out, u64::from(entry.status));
    out.push(b' ');
    escape::number(out, entry.bytes);
    let referer = entry.referer.map(|referer| form.secrets.clean(referer));
    for quoted in [referer.as_deref(), entry.user_agent] {
        out.extend_from_slice(b" \"");
        escape::hex(out, quoted.unwrap_or(b"-"));
        out.push(b'"');
    }
    out.push(b'\n');
}
