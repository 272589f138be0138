//! Requests as spans of OpenTelemetry: which are traced, what is told of them, to whom.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use opentelemetry_proto::tonic::trace::v1::Span;
use rustix::process::Signal;
use tokio::sync::Semaphore;

use crate::support::{
    Crestline, Origin, eventually, get,
    otlp::{GrpcReceiver, HttpReceiver, texts},
    request,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The one span that has an attribute with a value.
fn find<'a>(spans: &'a [Span], key: &str, value: &str) -> &'a Span {
    let is_it = |span: &&Span| texts(&span.attributes).get(key).is_some_and(|it| it == value);
    let mut found = spans.iter().filter(is_it);
    let (first, second) = (found.next(), found.next());
    assert!(second.is_none(), "{key}={value} twice in {spans:#?}");
    first.unwrap_or_else(|| panic!("no {key}={value} in {spans:#?}"))
}

/// Whichever of two backends is asked first, it fails, and the other answers.
fn failing_once() -> [Origin; 2] {
    let has_failed = Arc::new(AtomicBool::new(false));
    [(), ()].map(|()| {
        let has_failed = has_failed.clone();
        Origin::with(move |exchange| {
            let is_first = !has_failed.swap(true, SeqCst);
            async move { if is_first { exchange.reset() } else { exchange.reply("hello").await } }
        })
    })
}

/// A client's trace goes on, through the request and each attempt, to each origin; and what is
/// written of the request leads to it.
#[tokio::test]
async fn a_retry_is_a_span_of_its_own_and_each_origin_is_told_its_own() {
    let (receiver, origins) = (HttpReceiver::start(&[]), failing_once());
    let [a, b] = &origins;
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{a}\", \"{b}\"]
            health_check: off
            ejection: {{ consecutive_failures: 1 }}
        routes: [{{ name: shop, match: {{ path: /shop }}, upstream: app }}]
        traces:
          otlp: {{ endpoint: \"http://{receiver}/base\", service_name: edge, every: 10ms }}
          sample: 100%
        "
    ))
    .await;
    let fields = format!("traceparent: 00-{TRACE}-{PARENT}-00\r\ntracestate: a=1\r\n");
    let path = "/shop/cart?item=1&token=secret";
    let answer = proxy.send(request("GET", path, &fields, "")).await;
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    let spans = receiver.taken.wait_for_spans(3).await;
    let server = find(&spans, "url.path", "/shop/cart");
    let (failed, good) =
        (find(&spans, "crestline.outcome", "reset"), find(&spans, "crestline.outcome", "200"));

    assert_eq!((&*receiver.origin.last().target, server.kind), ("/base/v1/traces", 2));
    assert_eq!(receiver.taken.resource()["service.name"], "edge");
    assert_eq!((&*server.name, hex(&server.trace_id)), ("GET shop", TRACE.to_owned()));
    assert_eq!((hex(&server.parent_span_id), &*server.trace_state), (PARENT.to_owned(), "a=1"));
    let told = texts(&server.attributes);
    let id = answer.get("x-request-id").unwrap();
    assert_eq!(
        (&*told["url.query"], &*told["crestline.request_id"]),
        ("item=1&token=[hidden]", id)
    );
    let [retry] = &server.events[..] else { panic!("one event: {:?}", server.events) };
    assert_eq!((&*retry.name, &*texts(&retry.attributes)["crestline.after"]), ("retry", "reset"));
    assert_eq!(failed.events[0].name, "ejection");
    assert_eq!(texts(&good.attributes)["http.request.resend_count"], "1");
    for span in [failed, good] {
        assert_eq!((span.kind, &span.trace_id), (3, &server.trace_id));
        assert_eq!(span.parent_span_id, server.span_id);
        assert!(server.start_time_unix_nano <= span.start_time_unix_nano);
        assert!(span.end_time_unix_nano <= server.end_time_unix_nano);
        let backend = &texts(&span.attributes)["crestline.backend"];
        let origin = origins.iter().find(|origin| origin.to_string() == *backend).unwrap();
        let sent = origin.last().fields;
        let expected = format!("00-{TRACE}-{}-01", hex(&span.span_id));
        assert_eq!(sent.get("traceparent"), Some(&*expected), "{backend}");
        assert_eq!(sent.get("tracestate"), Some("a=1"));
    }
    assert!(failed.end_time_unix_nano <= good.start_time_unix_nano);

    let line = proxy.access_line(|line| line["id"] == id).await;
    let (_, record) = proxy.api("GET", &format!("/v1/requests/{id}"), "").await;
    for told in [&line, &record] {
        assert_eq!(
            (&told["trace_id"], &told["span_id"]),
            (&TRACE.into(), &hex(&server.span_id).into())
        );
    }
    assert_eq!(proxy.get("/other").await.status, 404);
    let spans = receiver.taken.wait_for_spans(4).await;
    let unrouted = find(&spans, "error.type", "no_route");
    assert!(unrouted.parent_span_id.is_empty() && hex(&unrouted.trace_id) != TRACE);
    proxy.measures("crestline_otlp_sent_total{signal=\"traces\"}", 4.0).await;
    proxy.measures("crestline_otlp_dropped_total{signal=\"traces\"}", 0.0).await;
}

/// Who is trusted decides; else rules do, and the share of the rest. Zipkin's fields in and out.
#[tokio::test]
async fn what_is_traced_is_decided_by_who_is_trusted_by_rules_and_by_shares() {
    let (receiver, origin) = (GrpcReceiver::start(&["14"]).await, Origin::replying("hello"));
    let with = |trusted: &str| {
        format!(
            "
            trusted_proxies: [{trusted}]
            upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
            routes:
              - {{ name: shop, match: {{ path: /shop }}, upstream: app }}
              - {{ name: rest, upstream: app }}
            traces:
              otlp: {{ endpoint: \"http://{}\", protocol: grpc, every: 10ms }}
              sample: 0%
              rules:
                - {{ path: = /shop/health, sample: 0% }}
                - {{ route: shop, sample: 100% }}
                - {{ headers: {{ x-debug: \"*\" }}, sample: 100% }}
              propagation: [b3, b3_multi]
            ",
            receiver.origin
        )
    };
    let proxy = Crestline::start(&with("127.0.0.1")).await;
    let mut client = proxy.client().await;
    let said = |state: &str| format!("b3: {TRACE}-{PARENT}-{state}\r\n");
    let several = format!(
        "X-B3-TraceId: {TRACE}\r\nX-B3-SpanId: {PARENT}\r\nX-B3-Sampled: 0\r\nX-B3-Flags: 0\r\n"
    );
    // Those that are traced stand for themselves: all others must leave nothing.
    for (path, fields, is_traced) in [
        ("/rest/1", String::new(), false),
        ("/rest/2", said("1"), true),
        ("/shop/3", several, false),
        ("/shop/health", String::new(), false),
        ("/rest/4", "X-Debug: yes\r\n".to_owned(), true),
        ("/shop/5", String::new(), true),
    ] {
        client.exchange(request("GET", path, &fields, "")).await;
        let sent = origin.last().fields;
        let told = sent.get("b3").expect("a trace").split('-').collect::<Vec<_>>();
        assert_eq!(told[2], if is_traced { "1" } else { "0" }, "{path}");
        assert_eq!(sent.get("x-b3-sampled"), Some(told[2]), "{path}");
        assert_eq!((sent.get("x-b3-spanid"), sent.get("x-b3-flags")), (Some(told[1]), None));
        assert_eq!(told[0] == TRACE, !fields.is_empty() && !fields.contains("Debug"), "{path}");
    }
    drop(client);
    proxy.reload(&with("192.0.2.1")).await;
    let mut stranger = proxy.client().await;
    for path in ["/rest/6", "/shop/7"] {
        stranger
            .exchange(request("GET", path, &said(if path == "/rest/6" { "1" } else { "0" }), ""))
            .await;
    }
    let spans = receiver.taken.wait_for_spans(8).await;
    let servers = spans.iter().filter(|span| span.kind == 2);
    let mut traced: Vec<_> =
        servers.map(|span| texts(&span.attributes)["url.path"].clone()).collect();
    traced.sort();
    assert_eq!(traced, ["/rest/2", "/rest/4", "/shop/5", "/shop/7"]);
    let strange = find(&spans, "url.path", "/shop/7");
    assert_eq!(
        (hex(&strange.trace_id), hex(&strange.parent_span_id)),
        (TRACE.to_owned(), PARENT.to_owned())
    );
    let method = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    assert!(receiver.origin.requests().iter().all(|call| call.uri().path() == method));
    proxy.logs("otlp: traces are taken again at").await;
}

/// Spans are gathered for an hour, so that only an end sends them.
#[tokio::test]
async fn no_span_is_lost_at_a_reload_or_a_stop() {
    let (receiver, answers) = (HttpReceiver::start(&[]), Arc::new(Semaphore::new(2)));
    let held = answers.clone();
    let origin = Origin::with(move |exchange| {
        let held = held.clone();
        async move {
            held.acquire().await.unwrap().forget();
            exchange.reply("hello").await
        }
    });
    let off = format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n");
    let otlp = format!("{{ endpoint: \"http://{receiver}\", every: 1h }}");
    let on = format!("{off}traces: {{ otlp: {otlp}, sample: 100% }}\n");
    let mut proxy = Crestline::start(&on).await;
    assert_eq!(proxy.get("/before").await.status, 200);
    let mut during = proxy.client().await;
    answers.acquire().await.unwrap().forget();
    during.send(get("/during")).await;
    eventually("the request at the origin", || origin.count() == 2).await;
    assert_eq!(proxy.reload(&off).await, "v1 → v2: traces changed");
    answers.add_permits(2);
    assert_eq!(during.answer().await.status, 200);
    drop(during);
    assert_eq!(proxy.get("/untraced").await.status, 200);
    let spans = receiver.taken.wait_for_spans(4).await;
    for path in ["/before", "/during"] {
        find(&spans, "url.path", path);
    }
    assert!(origin.last().fields.get("traceparent").is_some(), "as without traces");

    proxy.reload(&on).await;
    answers.add_permits(1);
    assert_eq!(proxy.get("/last").await.status, 200);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code().await, Some(0));
    let spans = receiver.taken.spans();
    assert_eq!(spans.len(), 6, "{spans:#?}");
    find(&spans, "url.path", "/last");
}

/// No request waits for its spans, nor does the end of the process for long.
#[tokio::test]
async fn a_receiver_that_refuses_or_is_away_costs_spans_and_no_request() {
    let (receiver, origin) =
        (HttpReceiver::start(&[("401 Unauthorized", "")]), Origin::replying("hello"));
    let mut proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        traces: {{ otlp: {{ endpoint: \"http://{receiver}\", every: 10ms }}, sample: 100% }}
        "
    ))
    .await;
    assert_eq!(proxy.get("/").await.status, 200);
    proxy.measures("crestline_otlp_dropped_total{signal=\"traces\"}", 2.0).await;
    proxy.logs("otlp: traces are not taken at http://127.0.0.1:").await;
    receiver.origin.kill().await;
    for _ in 0..10 {
        assert_eq!(proxy.get("/").await.status, 200);
    }
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code().await, Some(0));
    proxy.logs("traces: 20 spans were lost at the end").await;
}
