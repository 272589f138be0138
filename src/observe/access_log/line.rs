//! One line of the access log.
//!
//! Whatever a client or an origin sent is escaped, so that no byte of theirs ends a line, fakes a
//! field, or moves a terminal's cursor.

use std::{
    cell::RefCell,
    fmt::Display,
    io::Write,
    net::IpAddr,
    time::{Duration, SystemTime},
};

/// What one request leaves in the log.
pub struct Entry<'a> {
    /// The request id.
    pub id: &'a [u8],
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
    /// Why Crestline itself refused or failed the request, in one word.
    pub reason: Option<&'a str>,
    /// The client's `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// The client's `Referer`.
    pub referer: Option<&'a [u8]>,
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

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "AccessLogFormat")]
pub enum Format {
    /// One JSON object a line, with all fields.
    #[default]
    Json,
    /// The combined format of Apache and nginx.
    Combined,
}

impl Format {
    /// Appends the line of `entry`, with its end.
    pub fn write(self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Json => json(entry, out),
            Self::Combined => combined(entry, out),
        }
    }
}

/// A key with all that stands around it, so that it is copied at once.
#[derive(Clone, Copy)]
pub(super) struct Key(pub(super) &'static str);

macro_rules! key {
    ($name:literal) => {
        $crate::observe::access_log::line::Key(concat!(",\"", $name, "\":"))
    };
}
pub(super) use key;

fn json(entry: &Entry<'_>, out: &mut Vec<u8>) {
    begin(out, entry.id, entry.client);
    text_field(out, key!("method"), entry.method.as_bytes());
    text_field(out, key!("host"), entry.host.as_bytes());
    text_field(out, key!("path"), entry.target);
    text_field(out, key!("protocol"), entry.protocol.as_bytes());
    tls(&entry.tls, out);
    number_field(out, key!("status"), u64::from(entry.status));
    number_field(out, key!("bytes"), entry.bytes);
    millis_field(out, key!("total_ms"), Some(entry.total));
    millis_field(out, key!("connect_ms"), entry.connect);
    millis_field(out, key!("first_byte_ms"), entry.first_byte);
    let named = [
        (key!("route"), entry.route),
        (key!("upstream"), entry.upstream),
        (key!("backend"), entry.backend),
    ];
    known_fields(out, named);
    attempts(out, entry.attempts, entry.via);
    if let Some(replayed) = entry.replayed {
        number_field(out, key!("replayed_bytes"), replayed);
    }
    if entry.is_too_long_to_replay {
        text_field(out, key!("replay"), b"too_long");
    }
    if let Some(reason) = entry.reason {
        text_field(out, key!("reason"), reason.as_bytes());
    }
    if let Some(agent) = entry.user_agent {
        text_field(out, key!("user_agent"), agent);
    }
    out.extend_from_slice(b"}\n");
}

pub(super) fn tls(known: &Tls<'_>, out: &mut Vec<u8>) {
    let texts = [
        (key!("tls_version"), known.version),
        (key!("sni"), known.sni),
        (key!("tls_cipher"), known.cipher),
        (key!("tls_group"), known.group),
        (key!("client_cn"), known.told_client_cn),
    ];
    known_fields(out, texts);
    if known.is_resumed {
        out.extend_from_slice(b",\"tls_resumed\":true");
    }
    let Some([subject, sans, fingerprint]) = known.client else { return };
    text_field(out, key!("tls_client_subject"), subject);
    text_field(out, key!("tls_client_sans"), sans);
    text_field(out, key!("tls_client_fingerprint"), fingerprint);
}

/// What every line in JSON begins with.
pub(super) fn begin(out: &mut Vec<u8>, id: &[u8], address: Option<IpAddr>) {
    out.extend_from_slice(b"{\"time\":\"");
    Stamp::Iso.write(out);
    out.push(b'"');
    text_field(out, key!("id"), id);
    out.extend_from_slice(b",\"client\":\"");
    client(out, address);
    out.push(b'"');
}

/// Those of the fields that are known.
pub(super) fn known_fields<const N: usize>(out: &mut Vec<u8>, fields: [(Key, Option<&str>); N]) {
    for (key, value) in fields {
        if let Some(value) = value {
            text_field(out, key, value.as_bytes());
        }
    }
}

/// How many attempts were made, and how each ended.
pub(super) fn attempts(out: &mut Vec<u8>, count: usize, via: &dyn Display) {
    number_field(out, key!("attempts"), count as u64);
    if 0 < count {
        // Addresses and outcomes are ours: nothing in them needs escaping.
        let written = write!(out, ",\"via\":\"{via}\"");
        debug_assert!(written.is_ok(), "memory takes every byte");
    }
}

fn combined(entry: &Entry<'_>, out: &mut Vec<u8>) {
    client(out, entry.client);
    out.extend_from_slice(b" - - [");
    Stamp::Apache.write(out);
    out.extend_from_slice(b"] \"");
    escape_hex(out, entry.method.as_bytes());
    out.push(b' ');
    escape_hex(out, entry.target);
    out.push(b' ');
    escape_hex(out, entry.protocol.as_bytes());
    out.extend_from_slice(b"\" ");
    number(out, u64::from(entry.status));
    out.push(b' ');
    number(out, entry.bytes);
    for quoted in [entry.referer, entry.user_agent] {
        out.extend_from_slice(b" \"");
        escape_hex(out, quoted.unwrap_or(b"-"));
        out.push(b'"');
    }
    out.push(b'\n');
}

pub(super) fn client(out: &mut Vec<u8>, client: Option<IpAddr>) {
    match client {
        Some(IpAddr::V4(address)) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                out.extend_from_slice(if index == 0 { b"" } else { b"." });
                number(out, u64::from(octet));
            }
        }
        Some(IpAddr::V6(address)) => {
            let written = write!(out, "{address}");
            debug_assert!(written.is_ok(), "memory takes every byte");
        }
        None => out.extend_from_slice(b"unix"),
    }
}

pub(super) fn text_field(out: &mut Vec<u8>, key: Key, value: &[u8]) {
    out.extend_from_slice(key.0.as_bytes());
    out.push(b'"');
    if is_plain(value) {
        out.extend_from_slice(value);
    } else {
        escape_json(out, value);
    }
    out.push(b'"');
}

/// Whether nothing has to be escaped. It looks at all bytes, so that many are looked at at once.
fn is_plain(value: &[u8]) -> bool {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    value.iter().fold(true, |all, byte| all & is_plain(byte))
}

/// Bytes that are no UTF-8 are shown as U+FFFD: JSON cannot hold them. All control characters are
/// escaped, those of C1 as well, which JSON would allow and some terminals obey.
fn escape_json(out: &mut Vec<u8>, value: &[u8]) {
    for letter in String::from_utf8_lossy(value).chars() {
        let written = match letter {
            '"' | '\\' => write!(out, "\\{letter}"),
            letter if letter.is_control() => write!(out, "\\u{:04x}", u32::from(letter)),
            letter => write!(out, "{letter}"),
        };
        debug_assert!(written.is_ok(), "memory takes every byte");
    }
}

pub(super) fn number_field(out: &mut Vec<u8>, key: Key, value: u64) {
    out.extend_from_slice(key.0.as_bytes());
    number(out, value);
}

/// Milliseconds with three decimals.
pub(super) fn millis_field(out: &mut Vec<u8>, key: Key, value: Option<Duration>) {
    let Some(value) = value else { return };
    let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    number_field(out, key, micros / 1_000);
    out.push(b'.');
    padded(out, micros % 1_000, 3);
}

pub(super) fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value);
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(digits.len())));
    out.extend_from_slice(digits.as_bytes());
}

/// As nginx escapes: quotes, backslashes, and all that is not visible ASCII become `\xHH`.
pub(super) fn escape_hex(out: &mut Vec<u8>, value: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value {
        if matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\') {
            out.push(*byte);
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            out.extend_from_slice(&[b'\\', b'x', HEX[high], HEX[low]]);
        }
    }
}

/// The form of a time.
#[derive(Clone, Copy)]
pub(super) enum Stamp {
    /// `2026-11-22T18:03:51.042Z`
    Iso,
    /// `22/Nov/2026:18:03:51 +0000`
    Apache,
}

/// The text of a second is made once for each thread and second.
struct Second {
    unix: u64,
    iso: String,
    apache: String,
}

thread_local!(static SECOND: RefCell<Second> = const {
    RefCell::new(Second { unix: 0, iso: String::new(), apache: String::new() })
});

impl Stamp {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        SECOND.with_borrow_mut(|second| {
            if second.unix != now.as_secs() || second.iso.is_empty() {
                *second = Second::new(now.as_secs());
            }
            match self {
                Self::Apache => out.extend_from_slice(second.apache.as_bytes()),
                Self::Iso => {
                    out.extend_from_slice(second.iso.as_bytes());
                    out.push(b'.');
                    padded(out, u64::from(now.subsec_millis()), 3);
                    out.push(b'Z');
                }
            }
        });
    }
}

impl Second {
    fn new(unix: u64) -> Self {
        let seconds = i64::try_from(unix).unwrap_or(i64::MAX);
        let at = jiff::Timestamp::from_second(seconds).unwrap_or_default();
        Self {
            unix,
            iso: at.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
            apache: at.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
        }
    }
}
