//! A process that has too much to do sheds new requests, and nothing else.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{
    Crestline, Origin, PATIENCE,
    frames::{DATA, GOAWAY, START, asking, frame_of},
    get,
};

fn yaml(origin: &Origin, overload: &str) -> String {
    format!(
        "
        listeners: [{{ address: \"127.0.0.1:0\", h2c: true }}]
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        overload: {{ {overload} }}
        "
    )
}

/// Waits until requests are answered with a status.
async fn answers(proxy: &Crestline, status: u16) {
    let start = Instant::now();
    while proxy.get("/").await.status != status {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Any process has more than this.
#[tokio::test]
async fn without_memory_new_requests_are_shed_and_connections_closed() {
    let origin = Origin::replying("answer");
    let proxy = Crestline::start(&yaml(&origin, "memory: 90%")).await;
    assert_eq!(proxy.get("/").await.text(), "answer");
    let mut open = proxy.client().await;
    open.send([START, &asking(1, "/")[..]].concat()).await;
    frame_of(&mut open, DATA).await;

    proxy.reload(&yaml(&origin, "memory: 1MiB")).await;
    answers(&proxy, 503).await;
    proxy.logs("overload: new requests are shed and connections closed").await;
    let before = origin.count();
    let mut client = proxy.client().await;
    let shed = client.exchange(get("/shed")).await;
    assert_eq!((shed.status, shed.get("retry-after")), (503, Some("2")));
    assert_eq!(shed.get("connection"), Some("close"));
    assert_eq!(origin.count(), before);
    let line = proxy.access_line(|line| line["path"] == "/shed").await;
    assert_eq!(line["reason"], "overloaded");
    let (_, stream, payload) = frame_of(&mut open, GOAWAY).await;
    assert_eq!((stream, &payload[4..8]), (0, &[0; 4][..]), "without blame");
    assert!(0 < proxy.refused("overloaded").await, "the admin socket answers");

    proxy.reload(&yaml(&origin, "memory: off")).await;
    answers(&proxy, 200).await;
    proxy.logs("overload: over").await;
    let kept = proxy.client().await.exchange(get("/")).await;
    assert_eq!((kept.status, kept.get("connection")), (200, Some("keep-alive")));
}

/// No event loop is ever a microsecond late.
#[tokio::test]
async fn late_event_loops_shed_requests_and_keep_connections() {
    let origin = Origin::replying("answer");
    let proxy = Crestline::start(&yaml(&origin, "loop_delay: 1us")).await;
    answers(&proxy, 503).await;
    let mut client = proxy.client().await;
    for _ in 0..2 {
        let shed = client.exchange(get("/")).await;
        assert_eq!((shed.status, shed.get("connection")), (503, Some("keep-alive")));
    }
    proxy.logs("overload: new requests are shed; memory").await;
    assert_eq!(proxy.version().await, 1, "the admin socket answers");

    proxy.reload(&yaml(&origin, "loop_delay: 1h")).await;
    answers(&proxy, 200).await;
}

/// What is in flight when it begins comes to its end.
#[tokio::test]
async fn a_request_in_flight_is_not_shed() {
    let (origin, gate) = Origin::gated("answer");
    let proxy = Crestline::start(&yaml(&origin, "memory: off")).await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    crate::support::eventually("the request at the origin", || origin.count() == 1).await;
    proxy.reload(&yaml(&origin, "memory: 1MiB")).await;
    proxy.logs("overload: new requests are shed").await;
    assert_eq!(proxy.get("/").await.status, 503);
    gate.add_permits(9);
    assert_eq!(client.answer().await.text(), "answer");
}
