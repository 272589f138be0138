//! What a reload leaves alone: requests under way, open streams and connections.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::support::{Crestline, Origin, eventually, get, request};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// An upstream `app` of one backend behind one route that names its version.
fn versioned(name: &str, origin: &Origin, version: &str) -> String {
    format!(
        "
        upstreams: {{ {name}: {{ backends: [\"{origin}\"] }} }}
        routes:
          - name: all
            policies: [{{ response_headers: {{ set: {{ x-version: {version} }} }} }}]
            upstream: {name}
        "
    )
}

#[tokio::test]
async fn a_request_keeps_the_route_that_it_started_with() {
    let answer = Arc::new(Semaphore::new(0));
    let waiting = Origin::with({
        let answer = answer.clone();
        move |exchange| {
            let answer = answer.clone();
            async move {
                answer.acquire().await.unwrap().forget();
                exchange.reply("old").await
            }
        }
    });
    let other = Origin::replying("new");
    let proxy = Crestline::start(&versioned("app", &waiting, "old")).await;
    let mut clients = [proxy.client().await, proxy.client().await];
    for (before, client) in clients.iter_mut().enumerate() {
        client.send(get("/")).await;
        eventually("the request at the origin", || waiting.count() == before + 1).await;
    }

    assert_eq!(
        proxy.reload(&versioned("app", &waiting, "newer")).await,
        "v1 → v2: route all changed"
    );
    let told = proxy.reload(&versioned("web", &other, "new")).await;
    assert_eq!(told, "v2 → v3: upstream web added, upstream app removed, route all changed");
    answer.add_permits(2);
    for client in &mut clients {
        let old = client.answer().await;
        assert_eq!((old.text(), old.get("x-version")), ("old", Some("old")));
        let new = client.exchange(get("/")).await;
        assert_eq!((new.text(), new.get("x-version")), ("new", Some("new")));
    }
    let lines = proxy.access_log(4).await;
    assert!(lines.iter().all(|line| line["status"] == 200 && line["attempts"] == 1), "{lines:?}");
}

/// The request is tried again on the upstream that it started with.
#[tokio::test]
async fn a_request_whose_upstream_is_removed_is_still_tried_on_its_other_backend() {
    let fail = Arc::new(Semaphore::new(0));
    let failing = Origin::with({
        let fail = fail.clone();
        move |exchange| {
            let fail = fail.clone();
            async move {
                fail.acquire().await.unwrap().forget();
                exchange.reset()
            }
        }
    });
    let (good, other) = (Origin::replying("good"), Origin::replying("other"));
    let proxy = Crestline::start(&format!(
        "upstreams: {{ app: {{ backends: [\"{failing}\", \"{good}\"] }} }}"
    ))
    .await;
    let mut clients = [proxy.client().await, proxy.client().await];
    for client in &mut clients {
        client.send(get("/")).await;
    }
    eventually("a request at the origin that fails", || failing.count() == 1).await;

    proxy.reload(&format!("upstreams: {{ web: {{ backends: [\"{other}\"] }} }}")).await;
    fail.add_permits(9);
    for client in &mut clients {
        assert_eq!(client.answer().await.text(), "good");
        assert_eq!(client.exchange(get("/")).await.text(), "other");
    }
}

#[tokio::test]
async fn an_upgraded_connection_lives_on_when_its_route_is_gone() {
    let origin = Origin::with(async |mut exchange| {
        exchange
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await;
        while let Ok(word) = exchange.bytes(4).await {
            exchange.send(word).await;
        }
        exchange.close()
    });
    let other = Origin::replying("new");
    let proxy = Crestline::start(&versioned("app", &origin, "old")).await;
    let mut client = proxy.client().await;
    client.send(request("GET", "/", UPGRADE, "")).await;
    assert_eq!(client.head().await.status, 101);

    for yaml in [versioned("app", &origin, "new"), versioned("web", &other, "new")] {
        client.send("ping").await;
        assert_eq!(client.bytes(4).await, "ping");
        proxy.reload(&yaml).await;
    }
    assert_eq!(proxy.get("/").await.text(), "new");
    client.send("pong").await;
    assert_eq!(client.bytes(4).await, "pong");
}

#[tokio::test]
async fn an_event_stream_lives_on_when_its_route_is_gone() {
    let event = Arc::new(Semaphore::new(0));
    let origin = Origin::with({
        let event = event.clone();
        move |mut exchange| {
            let event = event.clone();
            async move {
                exchange
                    .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                    .await;
                for n in 0..3 {
                    event.acquire().await.unwrap().forget();
                    exchange.send(format!("9\r\ndata: {n}\n\n\r\n")).await;
                }
                exchange.send("0\r\n\r\n").await;
                exchange.keep()
            }
        }
    });
    let other = Origin::replying("new");
    let proxy = Crestline::start(&versioned("app", &origin, "old")).await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    assert_eq!(client.head().await.get("x-version"), Some("old"));

    let reloads = [versioned("app", &origin, "new"), versioned("web", &other, "new")];
    for (n, yaml) in reloads.iter().enumerate() {
        event.add_permits(1);
        assert_eq!(client.piece().await.unwrap().unwrap(), format!("data: {n}\n\n"));
        proxy.reload(yaml).await;
    }
    event.add_permits(1);
    assert_eq!(client.piece().await.unwrap().unwrap(), "data: 2\n\n");
    assert_eq!(client.piece().await.unwrap(), None, "it ends as it should");
    assert_eq!(client.exchange(get("/")).await.text(), "new");
}

#[tokio::test]
async fn trusted_proxies_count_for_new_connections() {
    let origin = Origin::replying("hello");
    let yaml = |more: &str| format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n{more}");
    let claim = request("GET", "/", "X-Forwarded-For: 192.0.2.1\r\n", "");
    let proxy = Crestline::start(&yaml("")).await;
    let mut before = proxy.client().await;
    before.exchange(&claim).await;
    assert_eq!(origin.last().fields.get("x-forwarded-for"), Some("127.0.0.1"));

    proxy.reload(&yaml("trusted_proxies: [127.0.0.0/8]\n")).await;
    proxy.send(&claim).await;
    assert_eq!(origin.last().fields.get("x-forwarded-for"), Some("192.0.2.1, 127.0.0.1"));
    before.exchange(&claim).await;
    let of_before = origin.last().fields;
    assert_eq!(of_before.get("x-forwarded-for"), Some("127.0.0.1"), "as it was when it came");
    proxy.reload(&yaml("")).await;
    proxy.send(&claim).await;
    assert_eq!(origin.last().fields.get("x-forwarded-for"), Some("127.0.0.1"));
}

#[tokio::test]
async fn the_bounds_of_a_listener_count_for_new_connections() {
    let origin = Origin::replying("hello");
    let yaml = |more: &str| {
        format!(
            "upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n\
             listeners: [{{ address: \"127.0.0.1:0\"{more} }}]\n"
        )
    };
    let long = request("GET", "/", &format!("X-Long: {}\r\n", "x".repeat(2_000)), "");
    let proxy = Crestline::start(&yaml("")).await;
    let mut before = proxy.client().await;
    assert_eq!(before.exchange(&long).await.status, 200);

    let bounds = ", timeouts: { header: 1s }, limits: { header_size: 1KiB }";
    assert_eq!(proxy.reload(&yaml(bounds)).await, "v1 → v2: listeners changed");
    assert_eq!(proxy.send(&long).await.status, 431);
    assert_eq!(proxy.send("GET / HTTP/1.1\r\n").await.status, 408);
    assert_eq!(before.exchange(&long).await.status, 200, "as it was when it came");
}
