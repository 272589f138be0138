//! A log record of a line: its fields by the names that OpenTelemetry's conventions have for them,
//! and what is Crestline's own under `crestline.`.

use crate::{
    observe::{
        access_log::{
            frame::{Frame, Severity},
            otlp::packed::{self, Value},
        },
        traced::{SpanId, TraceId},
    },
    otlp::{
        attributes::{network, server, url},
        proto::{self, AnyValue, KeyValue, ListValue, LogRecord},
    },
};

/// What the record of a line is.
const EVENT: &str = "crestline.access";

/// Makes the record of a frame.
pub(super) fn record(frame: &Frame<'_>) -> LogRecord {
    let (line, fields) = packed::split(frame.payload);
    let time = u64::try_from(frame.time.as_nanos()).unwrap_or(u64::MAX);
    let (severity, severity_text) = match frame.severity {
        Severity::Info => (9, "INFO"),
        Severity::Warning => (13, "WARN"),
        Severity::Error => (17, "ERROR"),
    };
    let mut record = LogRecord {
        time,
        observed: time,
        severity,
        severity_text: severity_text.to_owned(),
        event: EVENT.to_owned(),
        ..LogRecord::default()
    };
    let mut story = Story::default();
    for (name, value) in fields {
        story.hear(name, value);
        add(name, value, frame.severity, &mut record);
    }
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let body = if line.is_empty() { story.told() } else { lossy(line) };
    record.body = Some(proto::Value::Text(body).into());
    record
}

/// What a record says to people where no line was asked for: `GET /a 200 ok`.
#[derive(Default)]
struct Story<'a> {
    words: [&'a [u8]; 3],
    status: u64,
}

impl<'a> Story<'a> {
    fn hear(&mut self, name: &str, value: Value<'a>) {
        match (name, value) {
            ("method", Value::Text(text)) => self.words[0] = text,
            // A relayed connection has no method and no path.
            ("protocol", Value::Text(text)) if self.words[0].is_empty() => self.words[0] = text,
            ("path" | "listener", Value::Text(text)) => self.words[1] = text,
            ("reason", Value::Text(text)) => self.words[2] = text,
            ("status", Value::Number(status)) => self.status = status,
            _ => {}
        }
    }

    fn told(&self) -> String {
        let [what, place, reason] = self.words.map(lossy);
        format!("{what} {place} {} {reason}", self.status)
    }
}

/// Adds what a field says.
fn add(name: &str, value: Value<'_>, severity: Severity, record: &mut LogRecord) {
    match (name, value) {
        ("trace_id", Value::Text(id)) => {
            record.trace = TraceId::read(id).map(|id| id.bytes().to_vec()).unwrap_or_default();
        }
        ("span_id", Value::Text(id)) => {
            record.span = SpanId::read(id).map(|id| id.bytes().to_vec()).unwrap_or_default();
        }
        ("host", Value::Text(host)) => server(&lossy(host), &mut record.attributes),
        ("path", Value::Text(target)) => url(&lossy(target), &mut record.attributes),
        ("protocol", Value::Text(protocol)) => {
            network(&lossy(protocol), &mut record.attributes);
        }
        ("tls_version", Value::Text(version)) => {
            let version = lossy(version);
            let version = version.strip_prefix("TLSv").unwrap_or(&version);
            record.attributes.push(KeyValue::new("tls.protocol.name", "tls"));
            record.attributes.push(KeyValue::new("tls.protocol.version", version));
        }
        ("reason", Value::Text(reason)) => {
            let reason = lossy(reason);
            if severity != Severity::Info {
                record.attributes.push(KeyValue::new("error.type", reason.as_str()));
            }
            record.attributes.push(KeyValue::new("crestline.reason", reason));
        }
        _ => record.attributes.push(attribute(name, value)),
    }
}

/// The attribute of a field that has one.
fn attribute(name: &str, value: Value<'_>) -> KeyValue {
    for (message, attribute) in
        [("request.", "http.request.header."), ("response.", "http.response.header.")]
    {
        if let (Some(field), Value::Text(text)) = (name.strip_prefix(message), value) {
            let values = vec![AnyValue::from(proto::Value::Text(lossy(text)))];
            let list = proto::Value::List(ListValue { values });
            return KeyValue::new(format!("{attribute}{field}"), list);
        }
    }
    let key = match name {
        "bytes" => "http.response.body.size",
        "client" => "client.address",
        "method" => "http.request.method",
        "route" => "http.route",
        "sni" => "tls.client.server_name",
        "status" => "http.response.status_code",
        "tls_cipher" => "tls.cipher",
        "tls_client_fingerprint" => "tls.client.hash.sha256",
        "tls_client_subject" => "tls.client.subject",
        "tls_group" => "tls.curve",
        "tls_resumed" => "tls.resumed",
        "user_agent" => "user_agent.original",
        other => return KeyValue::new(format!("crestline.{other}"), converted(value)),
    };
    KeyValue::new(key, converted(value))
}

fn converted(value: Value<'_>) -> proto::Value {
    match value {
        Value::Text(text) => lossy(text).into(),
        Value::Number(number) => number.into(),
        Value::Micros(micros) => proto::Value::Real(micros as f64 / 1_000.0),
        Value::Flag => proto::Value::Flag(true),
    }
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::access_log::{
        otlp::packed::Packed,
        sink::{Sink, key},
    };

    fn of(severity: Severity, line: &str, pack: impl FnOnce(&mut Packed<'_>)) -> LogRecord {
        let mut payload = Vec::new();
        packed::line(&mut payload, |out| out.extend_from_slice(line.as_bytes()));
        pack(&mut Packed(&mut payload));
        record(&Frame { severity, time: Duration::from_nanos(7), payload: &payload })
    }

    #[test]
    fn fields_have_the_names_of_the_conventions() {
        let record = of(Severity::Warning, "", |sink| {
            sink.client(key!("client"), Some([192, 0, 2, 1].into()));
            sink.text(key!("method"), b"GET");
            sink.text(key!("host"), b"a.test:8443");
            sink.text(key!("path"), b"/a\xff?b=c");
            sink.text(key!("protocol"), b"HTTP/2.0");
            sink.text(key!("tls_version"), b"TLSv1.3");
            sink.number(key!("status"), 404);
            sink.millis(key!("total_ms"), Some(Duration::from_micros(1_500)));
            sink.text(key!("reason"), b"no_route");
            sink.text(key!("request.x-a"), b"b");
            sink.text(key!("trace_id"), b"4bf92f3577b34da6a3ce929d0e0e4736");
            sink.text(key!("span_id"), b"00f067aa0ba902b7");
        });
        let list = ListValue { values: vec![proto::Value::from("b").into()] };
        let expected = [
            KeyValue::new("client.address", "192.0.2.1"),
            KeyValue::new("http.request.method", "GET"),
            KeyValue::new("server.address", "a.test"),
            KeyValue::new("server.port", 8_443),
            KeyValue::new("url.path", "/a\u{fffd}"),
            KeyValue::new("url.query", "b=c"),
            KeyValue::new("network.protocol.name", "http"),
            KeyValue::new("network.protocol.version", "2"),
            KeyValue::new("tls.protocol.name", "tls"),
            KeyValue::new("tls.protocol.version", "1.3"),
            KeyValue::new("http.response.status_code", 404),
            KeyValue::new("crestline.total_ms", proto::Value::Real(1.5)),
            KeyValue::new("error.type", "no_route"),
            KeyValue::new("crestline.reason", "no_route"),
            KeyValue::new("http.request.header.x-a", proto::Value::List(list)),
        ];
        assert_eq!(record.attributes, expected);
        assert_eq!(
            (record.trace[0], &*record.span),
            (0x4b, &b"\x00\xf0\x67\xaa\x0b\xa9\x02\xb7"[..])
        );
        assert_eq!((record.time, record.severity, &*record.severity_text), (7, 13, "WARN"));
        assert_eq!(record.body, Some(proto::Value::from("GET /a\u{fffd}?b=c 404 no_route").into()));
    }

    #[test]
    fn a_line_that_was_asked_for_is_the_body() {
        let record = of(Severity::Info, "a line\n", |sink| sink.text(key!("reason"), b"ok"));
        assert_eq!(record.body, Some(proto::Value::from("a line").into()));
        assert_eq!(record.attributes, [KeyValue::new("crestline.reason", "ok")]);
    }
}
