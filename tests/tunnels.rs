//! WebSocket and other upgrades: bytes pass as they come, both ways.

use std::{sync::Arc, time::Duration};

use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::Notify,
    time::{self, Instant},
};

use crate::support::{
    After, Client, Crestline, Ending, Exchange, Origin, PATIENCE, eventually, get, request,
};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
     Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[tokio::test]
async fn a_websocket_echoes_its_frames() {
    let origin = Origin::with(echo);
    let proxy = to(&origin, "1h").await;
    let mut client = proxy.client().await;
    client.send(request("GET", "/chat", UPGRADE, "")).await;
    let accepted = client.head().await;
    assert_eq!(accepted.status, 101);
    assert_eq!(accepted.get("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(accepted.get("upgrade").unwrap().eq_ignore_ascii_case("websocket"));
    assert!(accepted.get("connection").unwrap().eq_ignore_ascii_case("upgrade"));

    for text in ["hello", "", "GET / HTTP/1.1\r\n\r\n"] {
        client.send(masked(text)).await;
        assert_eq!(client.bytes(text.len() + 2).await, plain(text));
    }
    let asked = origin.last().fields;
    assert_eq!(asked.get("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert!(asked.get("upgrade").unwrap().eq_ignore_ascii_case("websocket"));
    client.finish().await;
    assert_eq!(client.rest().await.1, Ending::Closed, "the origin closes in turn");
    let line = proxy.access_line(|line| line["path"] == "/chat").await;
    assert_eq!(line["status"], 101);
}

/// However soon the origin agrees: the end of the request is not that of the WebSocket.
#[tokio::test]
async fn of_many_websockets_in_a_row_all_live() {
    let origin = Origin::with(echo);
    let proxy = to(&origin, "1h").await;
    for _ in 0..200 {
        let mut client = proxy.client().await;
        client.send(request("GET", "/chat", UPGRADE, "")).await;
        assert_eq!(client.head().await.status, 101);
        client.send(masked("hello")).await;
        assert_eq!(client.bytes(7).await, plain("hello"));
    }
}

/// Even before it has read the request.
#[tokio::test]
async fn an_origin_may_agree_sooner_than_it_is_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                connection.write_all(ACCEPTED.as_bytes()).await.unwrap();
                let mut read = Vec::new();
                while !read.ends_with(&masked("hello")) {
                    if connection.read_buf(&mut read).await.unwrap_or(0) == 0 {
                        return; // it was only a check, or the tunnel ended too soon
                    }
                }
                connection.write_all(&plain("hello")).await.unwrap();
                let _ = connection.read_buf(&mut read).await;
            });
        }
    });
    let proxy = Crestline::start(&format!(
        "upstreams: {{ app: {{ backends: [\"{address}\"], health_check: off }} }}"
    ))
    .await;
    for _ in 0..50 {
        let mut client = proxy.client().await;
        client.send(request("GET", "/chat", UPGRADE, "")).await;
        assert_eq!(client.head().await.status, 101);
        client.send(masked("hello")).await;
        assert_eq!(client.bytes(7).await, plain("hello"));
    }
}

/// They come in the same packet as the request, or before the origin has agreed.
#[tokio::test]
async fn bytes_sent_before_the_101_are_not_lost() {
    let origin = Origin::with(echo);
    let proxy = to(&origin, "1h").await;
    let mut client = proxy.client().await;
    let mut bytes = request("GET", "/", UPGRADE, "").into_bytes();
    bytes.extend_from_slice(&masked("early"));

    client.send(bytes).await;
    assert_eq!(client.head().await.status, 101);
    assert_eq!(client.bytes(7).await, plain("early"));
}

/// Then they are the next request.
#[tokio::test]
async fn bytes_after_a_refused_upgrade_are_the_next_request() {
    let origin = Origin::with(async |exchange| {
        let target = exchange.request.target.clone();
        exchange.reply(target).await
    });
    let proxy = to(&origin, "1h").await;
    let mut client = proxy.client().await;

    client.send([request("GET", "/first", UPGRADE, ""), get("/second")].concat()).await;
    assert_eq!(client.answer().await.text(), "/first");
    assert_eq!(client.answer().await.text(), "/second");
}

#[tokio::test]
async fn a_silent_tunnel_is_closed_after_its_timeout() {
    let origin = Origin::with(echo);
    let proxy = to(&origin, "400ms").await;
    let mut client = proxy.client().await;
    client.send(request("GET", "/", UPGRADE, "")).await;
    assert_eq!(client.head().await.status, 101);

    let start = Instant::now();
    assert_eq!(client.rest().await.0, b"");
    let waited = start.elapsed();
    assert!(Duration::from_millis(350) < waited && waited < PATIENCE, "{waited:?}");
}

#[tokio::test]
async fn a_tunnel_that_is_used_both_ways_outlives_its_timeout() {
    let origin = Origin::with(echo);
    let proxy = to(&origin, "2s").await;
    let mut client = proxy.client().await;
    client.send(request("GET", "/", UPGRADE, "")).await;
    assert_eq!(client.head().await.status, 101);

    for _ in 0..6 {
        time::sleep(Duration::from_millis(500)).await;
        client.send(masked("x")).await;
        assert_eq!(client.bytes(3).await, plain("x"));
    }
}

/// A feed: the client has nothing to say.
#[tokio::test]
async fn a_tunnel_that_is_used_one_way_outlives_its_timeout() {
    let origin = Origin::with(async |mut exchange| {
        exchange.send(ACCEPTED).await;
        for _ in 0..6 {
            time::sleep(Duration::from_millis(500)).await;
            exchange.send("tick").await;
        }
        exchange.close()
    });
    let proxy = to(&origin, "2s").await;
    let mut client = proxy.client().await;
    client.send(request("GET", "/", UPGRADE, "")).await;
    assert_eq!(client.head().await.status, 101);

    assert_eq!(client.rest().await, (b"tick".repeat(6), Ending::Closed));
}

/// The timeouts of ordinary answers are not those of a tunnel.
#[tokio::test]
async fn a_tunnel_outlives_the_timeouts_of_answers() {
    let origin = Origin::with(echo);
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{origin}\"]
            timeouts: {{ first_byte: 1s, between_bytes: 1s }}
        listeners:
          - {{ address: \"127.0.0.1:0\", timeouts: {{ body: 1s, idle: 1s }} }}
        "
    ))
    .await;
    let mut client = proxy.client().await;
    client.send(request("GET", "/", UPGRADE, "")).await;
    assert_eq!(client.head().await.status, 101);

    time::sleep(Duration::from_secs(3)).await;
    client.send(masked("still here")).await;
    assert_eq!(client.bytes(12).await, plain("still here"));
}

#[tokio::test]
async fn the_end_of_a_client_ends_the_tunnel_at_the_origin() {
    let origin = Origin::with(echo);
    let proxy = to(&origin, "1h").await;
    let mut client = proxy.client().await;
    client.send(request("GET", "/", UPGRADE, "")).await;
    assert_eq!(client.head().await.status, 101);

    client.reset();
    proxy.access_line(|line| line["status"] == 101).await;
    eventually("the request to end", || origin.count() == 1).await;
}

/// Waits until the grace period of a process that was told to stop is over.
async fn its_end(proxy: &Crestline) {
    proxy.signal(Signal::TERM);
    loop {
        let status = proxy.status().await;
        if status["state"] == "ending" {
            assert_eq!(status["in_flight"]["tunnels"], 1, "{status}");
            return;
        }
    }
}

/// "Going away", 1001 (RFC 6455 §7.4.1).
const GOING_AWAY: &[u8] = &[0x88, 0x02, 0x03, 0xe9];

#[tokio::test]
async fn a_websocket_lives_to_the_end_of_the_grace_period_and_is_closed_with_1001() {
    let origin = Origin::with(echo);
    let mut proxy = ending(&origin, 1).await;
    let mut client = opened(&proxy).await;
    let start = Instant::now();
    proxy.signal(Signal::TERM);
    proxy.logs("closed").await;
    client.send(masked("hello")).await;
    assert_eq!(client.bytes(7).await, plain("hello"), "it is in flight");

    assert_eq!(client.rest().await, (GOING_AWAY.to_vec(), Ending::Closed));
    let waited = start.elapsed();
    assert!(Duration::from_secs(1) <= waited, "{waited:?}");
    client.send_if_taken([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]).await;
    drop(client);
    eventually("the end of the process", || !proxy.is_running()).await;
    proxy.logs("stop: left at the end of the grace period").await;
    assert_eq!(proxy.access_lines().len(), 1);
}

/// Nothing is written into the middle of a frame, and nothing after the close frame.
#[tokio::test]
async fn a_frame_that_is_under_way_is_finished_first() {
    let go = Arc::new(Notify::new());
    let told = go.clone();
    let origin = Origin::with(move |mut exchange| {
        let go = told.clone();
        async move {
            exchange.send(ACCEPTED).await;
            exchange.send(b"\x82\x05ab").await;
            go.notified().await;
            exchange.send(b"cd").await;
            go.notified().await;
            exchange.send(b"e\x82\x04more").await;
            exchange.hang().await
        }
    });
    let mut proxy = ending(&origin, 1).await;
    let mut client = opened(&proxy).await;
    assert_eq!(client.bytes(4).await, &b"\x82\x05ab"[..]);

    its_end(&proxy).await;
    go.notify_one();
    assert_eq!(client.bytes(2).await, &b"cd"[..]);
    go.notify_one();
    let expected = [b"e", GOING_AWAY].concat();
    assert_eq!(client.rest().await, (expected, Ending::Closed));
    drop(client);
    eventually("the end of the process", || !proxy.is_running()).await;
}

#[tokio::test]
async fn a_frame_that_never_ends_is_broken_and_gets_no_close_frame() {
    let origin = Origin::with(async |mut exchange| {
        exchange.send(ACCEPTED).await;
        exchange.send(b"\x82\x05ab").await;
        exchange.hang().await
    });
    let mut proxy = ending(&origin, 1).await;
    let mut client = opened(&proxy).await;
    its_end(&proxy).await;
    assert_eq!(client.rest().await.0, b"\x82\x05ab");
    eventually("the end of the process", || !proxy.is_running()).await;
    proxy.logs("with 1 connection, 1 request, 1 tunnel cut off").await;
}

#[tokio::test]
async fn a_websocket_that_its_origin_has_closed_gets_no_second_close_frame() {
    const CLOSE: &[u8] = b"\x88\x02\x03\xe8";
    let origin = Origin::with(async |mut exchange| {
        exchange.send(ACCEPTED).await;
        exchange.send(CLOSE).await;
        exchange.hang().await
    });
    let mut proxy = ending(&origin, 1).await;
    let mut client = opened(&proxy).await;
    assert_eq!(client.bytes(CLOSE.len()).await, CLOSE);
    proxy.signal(Signal::TERM);
    assert_eq!(client.rest().await, (Vec::new(), Ending::Closed));
    drop(client);
    eventually("the end of the process", || !proxy.is_running()).await;
}

/// A proxy that gives what is in flight so many seconds, and `WebSockets` a while more.
async fn ending(origin: &Origin, grace: u32) -> Crestline {
    Crestline::start(&format!(
        "grace_period_seconds: {grace}\ngraceful_shutdown_timeout_seconds: 3\n\
         upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}"
    ))
    .await
}

/// A client with an open `WebSocket`.
async fn opened(proxy: &Crestline) -> Client {
    let mut client = proxy.client().await;
    client.send(request("GET", "/chat", UPGRADE, "")).await;
    assert_eq!(client.head().await.status, 101);
    client
}

async fn to(origin: &Origin, tunnel: &str) -> Crestline {
    Crestline::start(&format!(
        "upstreams: {{ app: {{ backends: [\"{origin}\"], timeouts: {{ tunnel: {tunnel} }} }} }}"
    ))
    .await
}

/// Accepts, and sends each frame back, unmasked.
pub(crate) async fn echo(mut exchange: Exchange) -> After {
    exchange.send(ACCEPTED).await;
    while let Ok(start) = exchange.bytes(6).await {
        let length = usize::from(start[1] & 0x7f);
        let Ok(masked) = exchange.bytes(length).await else { break };
        let text: Vec<u8> =
            masked.iter().zip(start[2..].iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        exchange.send(plain(str::from_utf8(&text).unwrap())).await;
    }
    exchange.close()
}

/// A text frame of a client (RFC 6455 §5.2).
pub(crate) fn masked(text: &str) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let length = u8::try_from(text.len()).unwrap();
    let bytes = text.bytes().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key);
    [0x81, 0x80 | length].into_iter().chain(KEY).chain(bytes).collect()
}

/// A text frame of a server.
pub(crate) fn plain(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    [0x81, length].into_iter().chain(text.bytes()).collect()
}
