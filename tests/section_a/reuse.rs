//! Rows 46 and 48 to 50: what follows a request on its connection.

use super::{A_WHILE, Edge, body, post, target, values};
use crate::support::{Crestline, Origin, eventually, get, request};

/// Bodies that end before they are whole.
const TRUNCATED: [(&str, &str); 4] = [
    ("Content-Length: 10\r\n", "hello"),
    ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n"),
    ("Transfer-Encoding: chunked\r\n", "a\r\nhello"),
    ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n"),
];

// Row 46.
#[tokio::test]
async fn a_truncated_body_is_no_request_for_the_origin_and_ends_its_connection() {
    for (lines, part) in TRUNCATED {
        let edge = Edge::start().await;
        let mut client = edge.proxy.client().await;
        client.send(post(lines, part)).await;
        edge.reached("hello").await;
        client.finish().await;
        let (answer, _) = client.rest().await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{lines}{part}");
        eventually("the end of the origin's connection", || edge.origin.open() == 0).await;
        assert_eq!(edge.origin.whole(), [""; 0], "{lines}{part}");
        let line = edge.proxy.access_line(|_| true).await;
        assert_eq!(line["reason"], "client_abort", "{line}");
        assert_eq!(line["via"], format!("{}:client_left", edge.origin), "{line}");

        assert_eq!(edge.proxy.get("/next").await.text(), "/next");
        assert_eq!((edge.origin.connections(), edge.origin.whole().len()), (2, 1), "a new one");
    }
}

// Row 46.
#[tokio::test]
async fn a_truncated_body_is_answered_while_the_client_still_listens() {
    for (lines, part) in TRUNCATED {
        let edge = Edge::start().await;
        let mut client = edge.proxy.client().await;
        client.send(post(lines, part)).await;
        client.finish().await;
        let answer = client.try_answer().await;
        let status = answer.map(|answer| answer.status);
        assert_eq!(status, Ok(400), "{lines}{part}");
        assert_eq!(client.rest().await.0, b"");
    }
}

// Row 46.
#[tokio::test]
async fn a_client_that_resets_while_it_sends_ends_the_connection_of_the_origin() {
    let edge = Edge::start().await;
    let mut client = edge.proxy.client().await;
    client.send(post("Content-Length: 10\r\n", "hello")).await;
    edge.reached("hello").await;
    client.reset();
    eventually("the end of the origin's connection", || edge.origin.open() == 0).await;
    assert_eq!(edge.origin.whole(), [""; 0]);
    let line = edge.proxy.access_line(|_| true).await;
    assert_eq!((&line["status"], &line["reason"]), (&499.into(), &"client_abort".into()));
}

// Row 48.
#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let edge = Edge::start().await;
    let mut client = edge.proxy.client().await;
    let pipeline = [
        get("/1"),
        post("Content-Length: 5\r\n", "hello").replace("POST / ", "POST /2 "),
        post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n")
            .replace("POST / ", "PUT /3 "),
        "\r\n".to_owned() + &get("/4"),
    ];
    client.send(pipeline.concat()).await;
    for expected in ["/1", "/2", "/3", "/4"] {
        assert_eq!(client.answer().await.text(), expected);
    }
    let whole = edge.origin.whole();
    let targets: Vec<_> = whole.iter().map(|got| target(got)).collect();
    assert_eq!(targets, ["/1", "/2", "/3", "/4"]);
    assert_eq!((body(&whole[1]), body(&whole[2])), ("hello", "3\r\nabc\r\n0\r\n\r\n"));
}

// Row 48: more than is read ahead.
#[tokio::test]
async fn a_long_pipeline_is_answered_in_order_too() {
    let edge = Edge::start().await;
    let mut client = edge.proxy.client().await;
    let paths: Vec<_> = (0..500).map(|n| format!("/{n}")).collect();
    client.send(paths.iter().map(|path| get(path)).collect::<String>()).await;
    for path in &paths {
        assert_eq!(client.answer().await.text(), path);
    }
}

// Row 48.
#[tokio::test]
async fn a_request_behind_another_waits_for_its_answer() {
    let origin = Origin::with(async |mut exchange| {
        // The second request must not be here before the first is answered.
        let early = tokio::time::timeout(A_WHILE, exchange.bytes(1)).await;
        assert!(early.is_err(), "sent on before its turn");
        exchange.reply("done").await
    });
    let proxy = Crestline::start(&format!(
        "upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: off }} }}"
    ))
    .await;
    let mut client = proxy.client().await;
    client.send([get("/1"), get("/2")].concat()).await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(origin.count(), 1);
    while client.piece().await.unwrap().is_some() {}
    assert_eq!(client.answer().await.text(), "done");
}

// Row 48: what cannot be framed ends the pipeline, after the answers before it.
#[tokio::test]
async fn a_bad_request_in_a_pipeline_is_the_last() {
    let edge = Edge::start().await;
    let mut client = edge.proxy.client().await;
    let bad = "GET /2 HTTP/1.1\r\nHost: a.test\r\nX : y\r\n\r\n".to_owned();
    client.send([get("/1"), bad, get("/3")].concat()).await;
    assert_eq!(client.answer().await.text(), "/1");
    assert_eq!(client.answer().await.status, 400);
    assert_eq!(client.rest().await.0, b"");
    assert_eq!(edge.origin.whole().len(), 1);
}

/// The one protocol that Crestline passes on.
const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

// Row 49.
#[tokio::test]
async fn bytes_behind_an_upgrade_are_held_until_the_origin_switches() {
    let origin = Origin::with(async |mut exchange| {
        let early = tokio::time::timeout(A_WHILE, exchange.bytes(1)).await;
        assert!(early.is_err(), "let through before the 101");
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        exchange.send(switch).await;
        let got = exchange.bytes(get("/2").len()).await.unwrap();
        exchange.send(got).await;
        exchange.close()
    });
    let proxy = Crestline::start(&format!(
        "upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: off }} }}"
    ))
    .await;
    let mut client = proxy.client().await;
    client.send([request("GET", "/1", WEBSOCKET, ""), get("/2")].concat()).await;
    assert_eq!(client.head().await.status, 101);
    assert_eq!(client.bytes(get("/2").len()).await, get("/2"), "as they were sent");
    assert_eq!(origin.count(), 1, "no request, but what the new protocol says");
}

// Row 49.
#[tokio::test]
async fn bytes_behind_an_upgrade_that_is_not_taken_are_the_next_request() {
    let smuggled = "GET /2 HTTP/1.1\r\nHost: a.test\r\nX : y\r\n\r\n".to_owned();
    for (protocol, passed_on) in [("websocket", vec!["websocket"]), ("foo", vec![])] {
        let edge = Edge::start().await;
        let mut client = edge.proxy.client().await;
        let fields = format!("Connection: Upgrade\r\nUpgrade: {protocol}\r\n");
        let first = request("GET", "/1", &fields, "");
        client.send([&first, &get("/2"), &first, &smuggled].map(String::as_str).concat()).await;
        for expected in ["/1", "/2", "/1"] {
            assert_eq!(client.answer().await.text(), expected);
        }
        assert_eq!(client.answer().await.status, 400, "judged as any other");
        assert_eq!(client.rest().await.0, b"");
        let whole = edge.origin.whole();
        let targets: Vec<_> = whole.iter().map(|got| target(got)).collect();
        assert_eq!((targets, edge.origin.partial()), (vec!["/1", "/2", "/1"], String::new()));
        assert_eq!(values(&whole[0], "upgrade"), passed_on);
    }
}

// Row 50.
#[tokio::test]
async fn an_upgrade_to_http_2_is_stripped() {
    let edge = Edge::start().await;
    for fields in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Upgrade: H2C\r\nConnection: HTTP2-Settings\r\nConnection: upgrade\r\nHTTP2-Settings: AA\r\n",
        "Upgrade: h2c\r\nHTTP2-Settings: AA\r\n",
    ] {
        let got = edge.forwards(request("GET", "/", fields, "")).await;
        for name in ["upgrade", "http2-settings"] {
            assert_eq!(values(&got, name), [""; 0], "{fields}{got}");
        }
        let connection = values(&got, "connection").join(",").to_ascii_lowercase();
        assert!(!connection.contains("upgrade") && !connection.contains("http2"), "{got}");
    }
}
