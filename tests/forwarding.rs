//! What the origin learns of the client, and what neither side learns of the other.

use crate::support::{Answer, Crestline, Origin, request};

const CLAIMS: &str = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n\
     X-Forwarded-Host: evil.test\r\nX-Forwarded-Port: 444\r\nX-Real-IP: 203.0.113.7\r\n\
     Forwarded: for=203.0.113.7\r\nX-Request-Id: given-id\r\n";

#[tokio::test]
async fn the_origin_learns_who_asked_for_which_host() {
    let (origin, proxy) = pair("").await;

    proxy.get("/").await;
    let fields = origin.last().fields;
    assert_eq!(fields.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(fields.get("x-forwarded-proto"), Some("http"));
    assert_eq!(fields.get("x-forwarded-host"), Some("a.test"));
    assert_eq!(fields.get("forwarded"), None, "only where it is asked for");
    assert_eq!(fields.get("via"), None, "only where it is asked for");
}

#[tokio::test]
async fn what_a_stranger_claims_is_replaced() {
    let (origin, proxy) = pair("").await;

    let answer = proxy.send(request("GET", "/", CLAIMS, "")).await;
    let fields = origin.last().fields;
    assert_eq!(fields.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(fields.get("x-forwarded-proto"), Some("http"));
    assert_eq!(fields.get("x-forwarded-host"), Some("a.test"));
    for name in ["x-forwarded-port", "x-real-ip", "forwarded"] {
        assert_eq!(fields.get(name), None, "{name}");
    }
    assert_ne!(answer.get("x-request-id"), Some("given-id"));
    assert_ne!(fields.get("x-request-id"), Some("given-id"));
    assert_eq!(proxy.access_log(1).await[0]["client"], "127.0.0.1");
}

#[tokio::test]
async fn what_a_trusted_proxy_claims_is_kept_and_appended_to() {
    let (origin, proxy) = pair("trusted_proxies: [127.0.0.0/8, 198.51.100.0/24]").await;
    let chain = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 203.0.113.7, 198.51.100.2\r\n";

    let answer = proxy.send(request("GET", "/", CLAIMS, "")).await;
    let fields = origin.last().fields;
    assert_eq!(fields.get("x-forwarded-for"), Some("203.0.113.7, 127.0.0.1"));
    assert_eq!(fields.get("x-forwarded-proto"), Some("https"));
    assert_eq!(fields.get("x-forwarded-host"), Some("evil.test"));
    assert_eq!(fields.get("x-real-ip"), Some("203.0.113.7"));
    assert_eq!(fields.get("x-request-id"), Some("given-id"));
    assert_eq!(answer.get("x-request-id"), Some("given-id"));
    proxy.send(request("GET", "/chain", chain, "")).await;
    assert_eq!(
        origin.last().fields.get("x-forwarded-for"),
        Some("192.0.2.1, 203.0.113.7, 198.51.100.2, 127.0.0.1")
    );

    let lines = proxy.access_log(2).await;
    assert_eq!((&lines[0]["client"], &lines[0]["id"]), (&"203.0.113.7".into(), &"given-id".into()));
    assert_eq!(lines[1]["client"], "203.0.113.7", "the first that is not trusted, from the right");
}

#[tokio::test]
async fn a_request_has_one_id_everywhere() {
    let (origin, proxy) = pair("").await;

    let (first, second) = (proxy.get("/1").await, proxy.get("/2").await);
    let id = first.get("x-request-id").expect("an id").to_owned();
    assert_ne!(Some(&*id), second.get("x-request-id"));
    assert_eq!((id.len(), id.as_bytes()[14]), (36, b'7'), "a UUID of version 7: {id}");
    assert_eq!(origin.requests()[0].fields.get("x-request-id"), Some(&*id));
    assert_eq!(proxy.access_log(1).await[0]["id"], id);
}

#[tokio::test]
async fn a_trace_is_continued_or_started() {
    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let (origin, proxy) = pair("").await;

    let fields = format!("traceparent: {GIVEN}\r\ntracestate: a=1\r\n");
    proxy.send(request("GET", "/", &fields, "")).await;
    let continued = origin.last().fields;
    assert_eq!(continued.get("traceparent").map(trace), Some(trace(GIVEN)));
    assert_eq!(continued.get("tracestate"), Some("a=1"));
    for wrong in ["", "traceparent: 00-nonsense-01\r\n"] {
        proxy.send(request("GET", "/", wrong, "")).await;
        let started = origin.last().fields.get("traceparent").expect("a trace").to_owned();
        assert_eq!(started.split('-').map(str::len).collect::<Vec<_>>(), [2, 32, 16, 2]);
        assert_ne!(trace(&started), "0".repeat(32));
    }
}

fn trace(parent: &str) -> String {
    parent[3..35].to_owned()
}

#[tokio::test]
async fn fields_of_one_connection_stay_on_it() {
    let origin = Origin::with(|exchange| {
        exchange.answer(
            "200 OK",
            "Connection: x-nominated\r\nX-Nominated: 1\r\nKeep-Alive: timeout=5\r\n\
             Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Kept: 1\r\nServer: origin/1\r\n",
            "hello",
        )
    });
    let proxy = to(&origin, "").await;
    let fields = "Connection: keep-alive, x-nominated\r\nX-Nominated: 1\r\nKeep-Alive: 5\r\n\
         Proxy-Connection: keep-alive\r\nTE: trailers\r\nTrailer: x-sum\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABk\r\nX-Kept: 1\r\n";

    let answer = proxy.send(request("GET", "/", fields, "")).await;
    let got = origin.last().fields;
    let hops = ["x-nominated", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"];
    for name in hops {
        assert_eq!(got.get(name), None, "to the origin: {name}");
        assert_eq!(answer.get(name), None, "to the client: {name}");
    }
    assert_eq!(got.get("http2-settings"), None);
    assert_eq!((got.get("x-kept"), answer.get("x-kept")), (Some("1"), Some("1")));
    assert_eq!(answer.get("server"), Some("origin/1"));
}

/// What is nominated may not take away what Crestline says itself.
#[tokio::test]
async fn a_client_cannot_have_our_fields_removed() {
    let (origin, proxy) = pair("").await;

    let fields = "Connection: x-request-id, traceparent\r\n";
    assert_eq!(proxy.send(request("GET", "/", fields, "")).await.status, 200);
    let got = origin.last().fields;
    assert!(got.get("x-request-id").is_some() && got.get("traceparent").is_some());
}

#[tokio::test]
async fn fields_that_origins_misread_are_dropped() {
    let (origin, proxy) = pair("").await;

    let fields = "X_Forwarded_For: 203.0.113.7\r\nA_b: 1\r\nProxy: http://evil.test\r\nA-b: 2\r\n";
    proxy.send(request("GET", "/", fields, "")).await;
    let got = origin.last().fields;
    assert_eq!((got.get("x_forwarded_for"), got.get("a_b"), got.get("proxy")), (None, None, None));
    assert_eq!(got.get("a-b"), Some("2"));
}

#[tokio::test]
async fn the_host_is_passed_or_replaced() {
    let origin = Origin::replying("hello");
    let proxy = to(
        &origin,
        "
        routes:
          - { name: pass, match: { path: /pass }, host: pass, upstream: app }
          - { name: upstream, match: { path: /upstream }, host: upstream, upstream: app }
          - { name: replace, match: { path: /replace }, host: { replace: app.internal }, upstream: app }
        ",
    )
    .await;

    let address = origin.to_string();
    let cases = [("/pass", "a.test"), ("/upstream", &address), ("/replace", "app.internal")];
    for (path, host) in cases {
        assert_eq!(proxy.get(path).await.status, 200);
        let fields = origin.last().fields;
        assert_eq!(fields.get("host"), Some(host), "{path}");
        assert_eq!(fields.get("x-forwarded-host"), Some("a.test"), "{path}");
    }
}

#[tokio::test]
async fn an_http_1_0_request_without_a_host_gets_the_backends() {
    let (origin, proxy) = pair("").await;

    assert_eq!(proxy.send("GET / HTTP/1.0\r\n\r\n").await.text(), "hello");
    assert_eq!(origin.last().fields.get("host"), Some(&*origin.to_string()));
}

#[tokio::test]
async fn forwarded_and_via_are_added_where_a_route_wants_them() {
    let origin = Origin::with(|exchange| exchange.answer("200 OK", "Via: 1.1 inner\r\n", ""));
    let proxy =
        to(&origin, "routes: [{ name: all, upstream: app, forwarded: true, via: true }]").await;

    let answer = proxy.send(request("GET", "/", "Via: 1.0 outer\r\n", "")).await;
    let fields = origin.last().fields;
    assert_eq!(fields.get("forwarded"), Some("for=127.0.0.1;proto=http;host=\"a.test\""));
    assert_eq!(chain(&fields.all("via")), "1.0 outer, 1.1 crestline");
    assert_eq!(via(&answer), "1.1 inner, 1.1 crestline");
}

fn via(answer: &Answer) -> String {
    chain(&answer.fields().all("via"))
}

/// A list may come in one field or in several.
fn chain(values: &[&str]) -> String {
    values.join(", ")
}

/// Everything else goes on as it came.
#[tokio::test]
async fn other_fields_and_bytes_pass_unchanged() {
    let origin = Origin::with(|exchange| {
        exchange.answer("418 I'm a teapot", "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n", "short")
    });
    let proxy = to(&origin, "").await;

    let fields =
        "Cookie: a=1; b=2\r\nAccept: text/*;q=0.3, */*\r\nX-Empty:\r\nX-List: 1\r\nX-List: 2\r\n";
    let answer = proxy.send(request("REPORT", "/a?b=%20&c=[d]", fields, "a body")).await;
    let asked = origin.last();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("REPORT", "/a?b=%20&c=[d]"));
    assert_eq!(asked.fields.get("cookie"), Some("a=1; b=2"));
    assert_eq!(asked.fields.get("accept"), Some("text/*;q=0.3, */*"));
    assert_eq!(asked.fields.get("x-empty"), Some(""));
    assert_eq!(asked.fields.all("x-list"), ["1", "2"]);
    assert_eq!(asked.fields.get("content-length"), Some("6"));
    assert_eq!((answer.status, answer.text()), (418, "short"));
    assert_eq!(answer.fields().all("set-cookie"), ["a=1", "b=2"]);
}

async fn pair(more: &str) -> (Origin, Crestline) {
    let origin = Origin::replying("hello");
    let proxy = to(&origin, more).await;
    (origin, proxy)
}

async fn to(origin: &Origin, more: &str) -> Crestline {
    let upstreams = format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}");
    Crestline::start_in_parts(&[&upstreams, more]).await
}
