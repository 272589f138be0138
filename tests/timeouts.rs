//! Nobody can hold a connection for longer than the configuration allows.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{self, Instant},
};

use crate::support::{Crestline, Ending, Origin, PATIENCE, eventually, get, request, soon};

const MILLISECOND: Duration = Duration::from_millis(1);

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_timeout() {
    let origin = Origin::replying("hello");
    let proxy = bounded(&origin, "idle: 2s", "").await;
    let mut client = proxy.client().await;
    for _ in 0..4 {
        time::sleep(700 * MILLISECOND).await;
        assert_eq!(client.exchange(get("/")).await.text(), "hello", "each request starts it anew");
    }

    let start = Instant::now();
    assert_eq!(client.rest().await, (Vec::new(), Ending::Closed));
    assert_took(start, 1950 * MILLISECOND);
}

/// A deadline for the whole head: dripping bytes do not move it.
#[tokio::test]
async fn a_slow_header_gets_408_at_its_deadline() {
    let origin = Origin::replying("hello");
    let proxy = bounded(&origin, "header: 1s", "").await;
    let (mut client, start) = (proxy.client().await, Instant::now());

    for byte in get("/a/path").bytes().take(12) {
        client.send_if_taken(&[byte]).await;
        time::sleep(60 * MILLISECOND).await;
    }
    assert_eq!(client.answer().await.status, 408);
    assert_eq!(client.rest().await.0, b"");
    assert_took(start, 950 * MILLISECOND);
    assert_eq!(origin.count(), 0);
    let line = &proxy.access_log(1).await[0];
    assert_eq!((&line["status"], &line["reason"]), (&408.into(), &"header_timeout".into()));
}

/// Also on a connection that had a request before.
#[tokio::test]
async fn a_slow_second_header_gets_408() {
    let origin = Origin::replying("hello");
    let proxy = bounded(&origin, "header: 1s, idle: 60s", "").await;
    let mut client = proxy.client().await;
    client.exchange(get("/")).await;

    client.send("GET / HT").await;
    let start = Instant::now();
    assert_eq!(client.answer().await.status, 408);
    assert_took(start, 950 * MILLISECOND);
}

/// It may be a probe of the port.
#[tokio::test]
async fn a_client_that_sends_nothing_is_closed_without_a_word() {
    let origin = Origin::replying("hello");
    let proxy = bounded(&origin, "header: 300ms", "").await;

    let (mut client, start) = (proxy.client().await, Instant::now());
    assert_eq!(client.rest().await, (Vec::new(), Ending::Closed));
    assert_took(start, 250 * MILLISECOND);
    assert_eq!(proxy.access_lines(), [""; 0]);
}

/// The client is told, and the origin is let go.
#[tokio::test]
async fn a_body_that_stops_gets_408() {
    let (ended, mut endings) = mpsc::unbounded_channel();
    let origin = Origin::with(move |mut exchange| {
        let ended = ended.clone();
        async move {
            let body = exchange.body().await;
            ended.send(body).unwrap();
            exchange.close()
        }
    });
    let proxy = bounded(&origin, "body: 300ms", "").await;
    for framing in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
        let piece = if framing.contains("chunked") { "4\r\npart\r\n" } else { "part" };
        let (mut client, start) = (proxy.client().await, Instant::now());
        client.send([request("POST", "/", framing, "").as_str(), piece].concat()).await;
        assert_eq!(client.answer().await.status, 408, "{framing}");
        assert_took(start, 250 * MILLISECOND);
        assert_eq!(client.rest().await.0, b"", "{framing}");
        assert_eq!(endings.recv().await.unwrap(), b"part", "{framing}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    let (stopped, mut stops) = mpsc::unbounded_channel();
    let origin = Origin::with(move |mut exchange| {
        let stopped = stopped.clone();
        async move {
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
            while exchange.send(vec![b'x'; 65_536]).await {}
            stopped.send(()).unwrap();
            exchange.close()
        }
    });
    let proxy = bounded(&origin, "write: 500ms", "").await;

    let mut client = proxy.client().await;
    client.send(get("/")).await;
    client.head().await;
    let start = Instant::now();
    soon("the end of the answer", stops.recv()).await.unwrap();
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_short_wait_for_the_first_byte_does_not_shorten_later_ones() {
    let origin = pausing();
    let proxy = bounded(&origin, "", "first_byte: 1s, between_bytes: 60s").await;

    let start = Instant::now();
    let answer = proxy.get("/before").await;
    assert_eq!(answer.status, 504);
    assert_took(start, 950 * MILLISECOND);
    assert_eq!(proxy.get("/within").await.text(), "hello");
}

/// Nobody reads from such a client any more, and the time is kept all the same.
#[tokio::test]
async fn a_client_that_closed_its_side_does_not_wait_for_a_silent_origin_for_ever() {
    let origin = Origin::stalling();
    let proxy = bounded(&origin, "", "first_byte: 300ms").await;

    let mut client = proxy.client().await;
    client.send(get("/")).await;
    client.finish().await;
    assert_eq!(client.answer().await.status, 504);
}

/// The body fills every buffer on the way, and then nothing moves.
#[tokio::test]
async fn an_upload_that_its_origin_does_not_read_ends() {
    let origin = Origin::stalling();
    let proxy = bounded(&origin, "body: 60s", "first_byte: 500ms, between_bytes: 500ms").await;

    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 50000000\r\n\r\n").await;
    client.send_if_taken(vec![b'x'; 50_000_000]).await;
    eventually("the end of the request", || !proxy.access_lines().is_empty()).await;
    let line = &proxy.access_log(1).await[0];
    assert_eq!((&line["status"], &line["attempts"]), (&504.into(), &1.into()), "{line}");
}

#[tokio::test]
async fn a_short_wait_between_bytes_does_not_shorten_the_first_one() {
    let origin = pausing();
    let proxy = bounded(&origin, "", "first_byte: 60s, between_bytes: 1s").await;

    assert_eq!(proxy.get("/before").await.text(), "hello");
    let mut client = proxy.client().await;
    client.send(get("/within")).await;
    assert_eq!(client.head().await.status, 200);
    let mut got = Vec::new();
    let end = loop {
        match client.piece().await {
            Ok(Some(piece)) => got.extend_from_slice(&piece),
            end => break end,
        }
    };
    assert_eq!(got, b"hel", "what came is passed on");
    assert!(end.is_err(), "and the break is shown");
}

/// Waits two seconds before it answers, or within its answer.
fn pausing() -> Origin {
    Origin::with(async |mut exchange| {
        let (before, within) = match exchange.request.target.as_str() {
            "/before" => (2000, 0),
            _ => (0, 2000),
        };
        exchange.body().await;
        time::sleep(before * MILLISECOND).await;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel").await;
        time::sleep(within * MILLISECOND).await;
        exchange.send("lo").await;
        exchange.keep()
    })
}

/// The clock of the origin starts when it has the whole request.
#[tokio::test]
async fn a_slow_upload_is_not_blamed_on_the_origin() {
    let origin = Origin::echoing();
    let proxy = bounded(&origin, "", "first_byte: 2s, between_bytes: 2s").await;

    let mut client = proxy.client().await;
    client.send(request("POST", "/", "Content-Length: 10\r\n", "")).await;
    for _ in 0..10 {
        time::sleep(250 * MILLISECOND).await;
        client.send("x").await;
    }
    assert_eq!(client.answer().await.text(), "xxxxxxxxxx");
}

/// The same, where the two times differ.
#[tokio::test]
async fn a_slow_upload_is_not_blamed_on_the_origin_either_way_round() {
    let origin = Origin::echoing();
    for timeouts in ["first_byte: 2s, between_bytes: 60s", "first_byte: 60s, between_bytes: 2s"] {
        let proxy = bounded(&origin, "", timeouts).await;
        let mut client = proxy.client().await;
        client.send(request("POST", "/", "Content-Length: 10\r\n", "")).await;
        for _ in 0..10 {
            time::sleep(250 * MILLISECOND).await;
            client.send("x").await;
        }
        assert_eq!(client.answer().await.text(), "xxxxxxxxxx", "{timeouts}");
    }
}

async fn bounded(origin: &Origin, listener: &str, upstream: &str) -> Crestline {
    Crestline::start(&format!(
        "
        listeners: [{{ address: \"127.0.0.1:0\", timeouts: {{ {listener} }} }}]
        upstreams: {{ app: {{ backends: [\"{origin}\"], timeouts: {{ {upstream} }} }} }}
        "
    ))
    .await
}

/// And no longer than a machine may be busy.
fn assert_took(start: Instant, least: Duration) {
    let took = start.elapsed();
    assert!(least <= took && took < PATIENCE, "{took:?}");
}
