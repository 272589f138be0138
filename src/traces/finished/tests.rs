//! What the spans of a request say.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::*;
use crate::{
    observe::traced::{TraceId, Traced},
    otlp::proto::AnyValue,
};

fn tried(backend: &str, outcome: &str, [began, ended]: [f64; 2]) -> Tried {
    Tried {
        backend: backend.to_owned(),
        outcome: outcome.to_owned(),
        began_ms: began,
        connection: Some(Connection::Made),
        connect_ms: Some(0.5),
        tls_ms: None,
        first_byte_ms: None,
        ended_ms: ended,
    }
}

fn finished(status: u16, reason: Reason, attempts: Vec<(Mark, Tried)>) -> Finished {
    let (marks, attempts) = attempts.into_iter().unzip();
    let ids = Traced { trace: TraceId::random(), span: SpanId::random() };
    Finished {
        trace: Trace {
            ids,
            parent: SpanId::read(b"00f067aa0ba902b7"),
            is_sampled: true,
            flags: 0,
            keeps_state: true,
        },
        state: "a=1".to_owned(),
        is_secure: true,
        peer: Some([192, 0, 2, 7].into()),
        user_agent: Some("curl/8".to_owned()),
        is_origin_secure: false,
        sent: Some("/b".to_owned()),
        record: Record {
            id: "id-1".to_owned(),
            trace_id: Some(ids.trace.to_string()),
            span_id: Some(ids.span.to_string()),
            time: Timestamp::from_second(1_000).unwrap(),
            protocol: "HTTP/2.0".to_owned(),
            client: "192.0.2.1".to_owned(),
            method: "GET".to_owned(),
            host: "shop.test:8443".to_owned(),
            path: "/a?token=[hidden]".to_owned(),
            status,
            reason,
            bytes: 5,
            route: Some("shop".to_owned()),
            upstream: Some("app".to_owned()),
            total_ms: 10.5,
            first_byte_ms: Some(9.0),
            timeline: Vec::new(),
            attempts,
        },
        marks,
    }
}

fn mark(number: u8) -> Mark {
    Mark { number, has_ejected: false }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::Text(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Real(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|one| (one.key.as_str(), text(&one.value))).collect()
}

fn holds(attributes: &[KeyValue], expected: &[(&str, &str)]) {
    let told = texts(attributes);
    for (key, value) in expected {
        assert_eq!(told.get(key).map(String::as_str), Some(*value), "{key}: {told:?}");
    }
}

#[test]
fn a_request_and_each_of_its_attempts_are_spans_by_the_conventions() {
    let one = (Mark { number: 0, has_ejected: true }, tried("10.0.0.1:80", "reset", [1.0, 4.0]));
    let two = (mark(1), tried("[::1]:81", "200", [5.0, 10.0]));
    let finished = finished(200, Reason::Ok, vec![one, two]);
    assert_eq!(finished.count(), 3);
    let [server, first, second] = &finished.spans()[..] else { panic!("three spans") };
    let ids = finished.trace.ids;

    assert_eq!((&*server.name, server.kind()), ("GET shop", SpanKind::Server));
    assert_eq!(
        (&server.trace[..], &server.id[..]),
        (&ids.trace.bytes()[..], &ids.span.bytes()[..])
    );
    assert_eq!((server.parent[1], &*server.state), (0xf0, "a=1"));
    assert_eq!((server.began, server.ended), (1_000_000_000_000, 1_000_010_500_000));
    assert_eq!((server.flags, &server.status), (0x301, &None));
    holds(
        &server.attributes,
        &[
            ("http.request.method", "GET"),
            ("http.route", "shop"),
            ("http.response.status_code", "200"),
            ("url.path", "/a"),
            ("url.query", "token=[hidden]"),
            ("url.scheme", "https"),
            ("server.address", "shop.test"),
            ("server.port", "8443"),
            ("client.address", "192.0.2.1"),
            ("network.peer.address", "192.0.2.7"),
            ("network.protocol.version", "2"),
            ("user_agent.original", "curl/8"),
            ("crestline.request_id", "id-1"),
            ("crestline.upstream", "app"),
            ("crestline.attempts", "2"),
        ],
    );
    assert!(!texts(&server.attributes).contains_key("error.type"));
    let [retry] = &server.events[..] else { panic!("one event") };
    assert_eq!((&*retry.name, retry.time), ("retry", 1_000_005_000_000));
    holds(&retry.attributes, &[("crestline.after", "reset"), ("crestline.attempt", "2")]);

    for (number, span) in [(0, first), (1, second)] {
        assert_eq!((&*span.name, span.kind(), span.flags), ("GET", SpanKind::Client, 0x101));
        assert_eq!((&span.parent, &span.trace), (&server.id, &server.trace));
        assert_eq!(span.id, ids.span.below(number).bytes());
    }
    assert_eq!(first.status.as_ref().unwrap(), &Status { message: "reset".to_owned(), code: 2 });
    assert_eq!((&*first.events[0].name, first.events[0].time), ("ejection", first.ended));
    let backend = [
        ("error.type", "reset"),
        ("url.full", "http://10.0.0.1:80/b"),
        ("server.address", "10.0.0.1"),
        ("server.port", "80"),
        ("crestline.connection", "made"),
        ("crestline.connect_ms", "0.5"),
    ];
    holds(&first.attributes, &backend);
    assert_eq!((&second.status, second.events.len()), (&None, 0));
    let backend = [
        ("http.response.status_code", "200"),
        ("http.request.resend_count", "1"),
        ("network.peer.address", "::1"),
        ("network.peer.port", "81"),
    ];
    holds(&second.attributes, &backend);
    assert!(!texts(&first.attributes).contains_key("http.request.resend_count"));
}

#[test]
fn an_attempt_beside_another_is_no_retry_and_one_that_was_outrun_no_failure() {
    let slow = (mark(0), tried("10.0.0.1:80", "outrun", [0.0, 6.0]));
    let fast = (mark(1), tried("10.0.0.2:80", "200", [5.0, 10.0]));
    let spans = finished(200, Reason::Ok, vec![slow, fast]).spans();
    assert_eq!(&*spans[0].events[0].name, "hedge");
    assert_eq!(spans[1].status, None);
}

#[test]
fn what_failed_says_why() {
    let of = |status, reason| {
        let span = finished(status, reason, Vec::new()).spans().remove(0);
        let why = texts(&span.attributes).remove("error.type");
        (span.status.map(|status| status.message), why)
    };
    let words = |said: &str, why: &str| (Some(said.to_owned()), Some(why.to_owned()));
    assert_eq!(of(200, Reason::Ok), (None, None));
    assert_eq!(of(404, Reason::Ok), (None, None), "a client's mistake, told by the origin");
    assert_eq!(of(404, Reason::NoRoute), (None, Some("no_route".to_owned())));
    assert_eq!(of(503, Reason::Ok), words("", "503"));
    assert_eq!(of(502, Reason::ConnectRefused), words("connect_refused", "connect_refused"));
    assert_eq!(of(200, Reason::OriginTruncated), words("origin_truncated", "origin_truncated"));
}

#[test]
fn there_is_no_end_to_methods_and_their_names_are_bounded() {
    let mut finished = finished(200, Reason::Ok, Vec::new());
    "BREW".clone_into(&mut finished.record.method);
    let span = finished.spans().remove(0);
    assert_eq!(span.name, "HTTP shop");
    let told = [("http.request.method", "_OTHER"), ("http.request.method_original", "BREW")];
    holds(&span.attributes, &told);
}
