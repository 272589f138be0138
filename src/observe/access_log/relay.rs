//! The line of a connection that was relayed, written when it is over.
//!
//! The fields are those of a request where they mean the same; it has no method, host or path.

use std::{fmt::Display, net::IpAddr, time::Duration};

use crate::{
    observe::access_log::{
        line::{self, Tls, attempts, tls},
        sink::{Sink, key},
    },
    reason::Reason,
};

/// What stands where a request has its protocol.
const PROTOCOL: &str = "TCP";

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
    /// Why it ended.
    pub reason: Reason,
}

/// Appends all that is known of it.
pub(super) fn fields(entry: &Entry<'_>, sink: &mut impl Sink) {
    sink.begin();
    sink.text(key!("id"), entry.id);
    sink.client(key!("client"), entry.client);
    sink.text(key!("protocol"), PROTOCOL.as_bytes());
    sink.text(key!("listener"), entry.listener.as_bytes());
    tls(&entry.tls, sink);
    sink.number(key!("status"), u64::from(entry.status));
    sink.number(key!("bytes"), entry.sent);
    sink.number(key!("bytes_received"), entry.received);
    sink.millis(key!("total_ms"), Some(entry.total));
    sink.millis(key!("connect_ms"), entry.connect);
    sink.millis(key!("first_byte_ms"), entry.first_byte);
    sink.known([(key!("upstream"), entry.upstream), (key!("backend"), entry.backend)]);
    attempts(entry.attempts, entry.via, sink);
    sink.text(key!("reason"), entry.reason.as_str().as_bytes());
    sink.end();
}

impl Entry<'_> {
    /// Whether nobody will ask why.
    pub(super) fn is_good(&self) -> bool {
        !self.reason.is_failure()
    }

    /// As if it had been asked for with `CONNECT`: programs that read lines of requests, and
    /// templates that are made for them, want one.
    pub fn as_request(&self) -> line::Entry<'_> {
        line::Entry {
            id: self.id,
            traced: None,
            client: self.client,
            method: "CONNECT",
            host: self.tls.sni.unwrap_or(self.listener),
            target: self.tls.sni.unwrap_or(self.listener).as_bytes(),
            protocol: PROTOCOL,
            tls: self.tls,
            status: self.status,
            bytes: self.sent,
            total: self.total,
            connect: self.connect,
            first_byte: self.first_byte,
            route: None,
            upstream: self.upstream,
            backend: self.backend,
            attempts: self.attempts,
            via: self.via,
            replayed: None,
            is_too_long_to_replay: false,
            cache: None,
            reason: self.reason,
            user: None,
            user_agent: None,
            referer: None,
            request: None,
            response: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::access_log::form::{Form, Format};

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
            reason: Reason::IdleTimeout,
        };
        Form::of(format).write_relay(&entry, &mut out);
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
