//! The access log as records of OpenTelemetry, to receivers over HTTP and gRPC.

use rustix::process::Signal;

use crate::support::{
    Asks, Crestline, Front, Origin, Pair, get,
    otlp::{GrpcReceiver, HttpReceiver, texts},
    request,
};

fn origin() -> Origin {
    Origin::with(async |exchange| {
        let status = if exchange.request.target == "/none" { "404 No" } else { "200 OK" };
        exchange.answer(status, "", "hello").await
    })
}

/// A receiver that is busy at first, and says for how long, gets all of it a little later.
#[tokio::test]
async fn a_record_has_the_fields_of_the_line_and_is_sent_again_until_it_is_taken() {
    let origin = origin();
    let receiver = HttpReceiver::start(&[
        ("503 Service Unavailable", "Retry-After: 0\r\n"),
        ("429 Too Many Requests", ""),
    ]);
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes: [{{ name: all, upstream: app }}]
        access_log:
          request_headers: [x-tenant]
          otlp:
            endpoint: \"http://{receiver}/base\"
            headers: {{ authorization: Bearer sesame }}
            service_name: edge
            resource: {{ deployment.environment.name: test }}
            every: 10ms
        "
    ))
    .await;
    let mut client = proxy.client().await; // one, whose records keep their order
    let answer = client.exchange(request("GET", "/a?b=c&token=d", "X-Tenant: t\r\n", "")).await;
    client.exchange(get("/none")).await;
    let records = receiver.taken.wait_for(2).await;
    proxy.logs("otlp: logs are not taken at http://127.0.0.1:").await;
    proxy.logs("otlp: logs are taken again at").await;

    let first = receiver.origin.requests()[0].clone();
    assert_eq!((&*first.method, &*first.target), ("POST", "/base/v1/logs"));
    assert_eq!(first.fields.get("content-type"), Some("application/x-protobuf"));
    assert_eq!(first.fields.get("authorization"), Some("Bearer sesame"));
    let resource = receiver.taken.resource();
    for (key, value) in [
        ("service.name", "edge"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("deployment.environment.name", "test"),
        ("process.pid", &proxy.id().to_string()),
    ] {
        assert_eq!(resource.get(key).map(String::as_str), Some(value), "{key}: {resource:?}");
    }
    let good = texts(&records[0].attributes);
    for (key, value) in [
        ("crestline.id", answer.get("x-request-id").unwrap()),
        ("client.address", "127.0.0.1"),
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("http.response.body.size", "5"),
        ("url.path", "/a"),
        ("url.query", "b=c&token=[hidden]"),
        ("server.address", "a.test"),
        ("network.protocol.version", "1.1"),
        ("http.route", "all"),
        ("crestline.upstream", "app"),
        ("crestline.backend", &origin.to_string()),
        ("crestline.reason", "ok"),
    ] {
        assert_eq!(good.get(key).map(String::as_str), Some(value), "{key}: {good:?}");
    }
    assert!(good["http.request.header.x-tenant"].contains("\"t\""), "{good:?}");
    assert!(!good.contains_key("error.type"), "{good:?}");
    assert_eq!((records[0].severity_number, records[1].severity_number), (9, 13));
    assert!(
        0 < records[0].time_unix_nano && records[0].time_unix_nano <= records[1].time_unix_nano
    );
    proxy.measures("crestline_otlp_sent_total{signal=\"logs\"}", 2.0).await;
    proxy.measures("crestline_otlp_dropped_total{signal=\"logs\"}", 0.0).await;
}

/// Over TLS, with a receiver that says that it cannot just now.
#[tokio::test]
async fn grpc_over_tls_takes_them_as_well() {
    let (origin, receiver) = (origin(), GrpcReceiver::start(&["14"]).await);
    let pair = Pair::of(&["localhost"]);
    let front = Front::before(&receiver.origin, Asks::tls(&pair, &["h2"])).await;
    let yaml = format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        access_log:
          format: {{ template: \"{{method}} {{path}}\" }}
          otlp: {{ endpoint: \"https://localhost:{}\", protocol: grpc, ca: ca.pem, every: 10ms }}
        ",
        front.port()
    );
    let proxy = Crestline::start_among(&[("ca.pem", &pair.cert)], &[], &yaml).await;
    let mut client = proxy.client().await;
    for path in ["/a", "/b"] {
        client.exchange(get(path)).await;
    }
    let records = receiver.taken.wait_for(2).await;
    let calls = receiver.origin.requests();
    let method = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    assert!(calls.iter().all(|call| call.uri().path() == method), "{calls:?}");
    assert_eq!(calls[0].headers()["te"], "trailers");
    let bodies: Vec<_> = records.iter().map(|record| format!("{:?}", record.body)).collect();
    assert!(bodies[0].contains("\"GET /a\"") && bodies[1].contains("\"GET /b\""), "{bodies:?}");
}

/// What it refuses for good is lost and counted; no request waits, and neither does the end.
#[tokio::test]
async fn a_receiver_that_refuses_or_is_away_costs_records_and_no_request() {
    let origin = origin();
    let receiver = HttpReceiver::start(&[("401 Unauthorized", "")]);
    let mut proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        access_log: {{ otlp: {{ endpoint: \"http://{receiver}\", every: 10ms }} }}
        "
    ))
    .await;
    assert_eq!(proxy.get("/").await.status, 200);
    proxy.measures("crestline_otlp_dropped_total{signal=\"logs\"}", 1.0).await;
    proxy.measures("crestline_access_log_dropped_lines_total", 1.0).await;
    proxy.logs("the answer was 401 Unauthorized: not now").await;
    receiver.origin.kill().await;
    for _ in 0..10 {
        assert_eq!(proxy.get("/").await.status, 200);
    }
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code().await, Some(0));
}
