//! The line of a connection that was relayed, written when it is over.
//!
//! The fields are those of a request where they mean the same; it has no method, host or path.

use std::{fmt::Display, net::IpAddr, time::Duration};

use crate::observe::access_log::line::{
    Format, Stamp, Tls, attempts, begin, client, escape_hex, key, known_fields, millis_field,
    number, number_field, text_field, tls,
};

/// What a connection that was relayed leaves in the log.
pub struct Entry<'a> {
    /// Its id.
    pub id: &'a [u8],
    /// The client; `None` on a Unix socket.
    pub client: Option<IpAddr>,
    /// Where it came in.
    pub listener: &'a str,
    /// What is known of a handshake: for a connection that was passed through, only the name.
    pub tls: Tls<'a>,
    /// 200 if there was a connection to an origin, else why not, in a status of HTTP.
    pub status: u16,
    /// Bytes to the client.
    pub sent: u64,
    /// Bytes from the client.
    pub received: u64,
    /// From the client's connection to its end.
    pub total: Duration,
    /// Making the connection to the origin in the last attempt.
    pub connect: Option<Duration>,
    /// From the client's connection to the first byte from the origin.
    pub first_byte: Option<Duration>,
    /// The upstream; `None` for a connection that was refused before one was chosen.
    pub upstream: Option<&'a str>,
    /// The backend of the last attempt.
    pub backend: Option<&'a str>,
    /// How many attempts were made.
    pub attempts: usize,
    /// The attempts, as `address:outcome` with commas.
    pub via: &'a dyn Display,
    /// Why it ended, in one word; `None` if both sides closed it.
    pub reason: Option<&'a str>,
}

/// Appends the line of `entry`, with its end.
pub(super) fn write(format: Format, entry: &Entry<'_>, out: &mut Vec<u8>) {
    match format {
        Format::Json => json(entry, out),
        Format::Combined => combined(entry, out),
    }
}

fn json(entry: &Entry<'_>, out: &mut Vec<u8>) {
    begin(out, entry.id, entry.client);
    text_field(out, key!("protocol"), b"TCP");
    text_field(out, key!("listener"), entry.listener.as_bytes());
    tls(&entry.tls, out);
    number_field(out, key!("status"), u64::from(entry.status));
    number_field(out, key!("bytes"), entry.sent);
    number_field(out, key!("bytes_received"), entry.received);
    millis_field(out, key!("total_ms"), Some(entry.total));
    millis_field(out, key!("connect_ms"), entry.connect);
    millis_field(out, key!("first_byte_ms"), entry.first_byte);
    let texts = [
        (key!("upstream"), entry.upstream),
        (key!("backend"), entry.backend),
        (key!("reason"), entry.reason),
    ];
    known_fields(out, texts);
    attempts(out, entry.attempts, entry.via);
    out.extend_from_slice(b"}\n");
}

/// As if it had been asked for with `CONNECT`: programs that read this format want a request.
fn combined(entry: &Entry<'_>, out: &mut Vec<u8>) {
    client(out, entry.client);
    out.extend_from_slice(b" - - [");
    Stamp::Apache.write(out);
    out.extend_from_slice(b"] \"CONNECT ");
    escape_hex(out, entry.tls.sni.unwrap_or(entry.listener).as_bytes());
    out.extend_from_slice(b" TCP\" ");
    number(out, u64::from(entry.status));
    out.push(b' ');
    number(out, entry.sent);
    out.extend_from_slice(b" \"-\" \"-\"\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, sni: Option<&str>) -> String {
        let mut out = Vec::new();
        let entry = Entry {
            id: b"1",
            client: Some([192, 0, 2, 1].into()),
            listener: "0.0.0.0:443",
            tls: Tls { sni, ..Tls::default() },
            status: 200,
            sent: 12,
            received: 34,
            total: Duration::from_micros(5_006),
            connect: Some(Duration::from_micros(7)),
            first_byte: None,
            upstream: Some("app"),
            backend: Some("127.0.0.1:3032"),
            attempts: 2,
            via: &"127.0.0.1:3031:refused,127.0.0.1:3032:connected",
            reason: Some("idle_timeout"),
        };
        write(format, &entry, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_json_line_is_json_whatever_the_client_asked_for() {
        let line = written(Format::Json, Some("a\"\n.test"));
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!((&parsed["protocol"], &parsed["sni"]), (&"TCP".into(), &"a\"\n.test".into()));
        assert_eq!((&parsed["bytes"], &parsed["bytes_received"]), (&12.into(), &34.into()));
        assert_eq!((&parsed["total_ms"], &parsed["connect_ms"]), (&5.006.into(), &0.007.into()));
        assert_eq!(parsed["via"], "127.0.0.1:3031:refused,127.0.0.1:3032:connected");
        assert_eq!((&parsed["reason"], &parsed["method"]), (&"idle_timeout".into(), &().into()));
    }

    #[test]
    fn a_combined_line_has_a_request_that_programs_can_read() {
        let line = |sni| {
            let line = written(Format::Combined, sni);
            line.split_once("] ").unwrap().1.to_owned()
        };
        assert_eq!(line(None), "\"CONNECT 0.0.0.0:443 TCP\" 200 12 \"-\" \"-\"\n");
        assert_eq!(line(Some("a\"")), "\"CONNECT a\\x22 TCP\" 200 12 \"-\" \"-\"\n");
    }
}
