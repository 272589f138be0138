//! Bodies pass as they come, in both directions, whole and in order.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, mpsc},
    time::Instant,
};

use crate::support::{
    Client, Crestline, Ending, Origin, PATIENCE, Pattern, curl, get, post, request,
};

const MEBIBYTE: usize = 1024 * 1024;

/// Each event is received before the next one is sent.
#[tokio::test]
async fn server_sent_events_arrive_one_by_one() {
    const CHUNKED: &str = "Transfer-Encoding: chunked";
    const LENGTH: &str = "Content-Length: 400";
    const EVENT_LENGTH: usize = 20;
    for framing in [CHUNKED, LENGTH] {
        let (send, events) = mpsc::unbounded_channel::<String>();
        let origin = origin_of_events(framing, events);
        let proxy = to(&origin).await;
        let mut client = proxy.client().await;
        client.send(get("/events")).await;
        assert_eq!(client.head().await.get("content-type"), Some("text/event-stream"));

        let mut fastest = Duration::MAX;
        for number in 0..20 {
            let event = format!("data: event {number:06}\n\n");
            assert_eq!(event.len(), EVENT_LENGTH, "the sum is the length");
            let sent = Instant::now();
            send.send(event.clone()).unwrap();
            let mut got = Vec::new();
            while got.len() < event.len() {
                got.extend_from_slice(&client.piece().await.unwrap().expect("an event"));
            }
            assert_eq!(String::from_utf8(got).unwrap(), event, "{framing}");
            fastest = fastest.min(sent.elapsed());
        }
        assert!(fastest < Duration::from_millis(250), "{fastest:?}");
        drop(send);
        assert_eq!(client.piece().await, Ok(None), "{framing}");
    }
}

fn origin_of_events(framing: &'static str, events: mpsc::UnboundedReceiver<String>) -> Origin {
    let events = Arc::new(Mutex::new(events));
    Origin::with(move |mut exchange| {
        let events = events.clone();
        async move {
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n\r\n");
            exchange.send(head).await;
            let is_chunked = framing.contains("chunked");
            while let Some(event) = events.lock().await.recv().await {
                let length = event.len();
                let piece = if is_chunked { format!("{length:x}\r\n{event}\r\n") } else { event };
                exchange.send(piece).await;
            }
            if is_chunked {
                exchange.send("0\r\n\r\n").await;
            }
            exchange.keep()
        }
    })
}

/// The origin reads each piece of a request before the next one is sent.
#[tokio::test]
async fn a_request_body_arrives_piece_by_piece() {
    let (got, mut pieces) = mpsc::unbounded_channel();
    let origin = Origin::with(move |mut exchange| {
        let got = got.clone();
        async move {
            while let Ok(Some(piece)) = exchange.piece().await {
                got.send(piece).unwrap();
            }
            exchange.reply("done").await
        }
    });
    let proxy = to(&origin).await;
    let mut client = proxy.client().await;
    client.send(request("POST", "/", "Transfer-Encoding: chunked\r\n", "")).await;

    for number in 10..30 {
        client.send(format!("7\r\npiece{number}\r\n")).await;
        assert_eq!(pieces.recv().await.unwrap(), format!("piece{number}"));
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_of_100_mib_arrives_unchanged() {
    let origin = Origin::with(async |mut exchange| {
        let (pattern, mut place) = (Pattern::new(), 0);
        while let Ok(Some(piece)) = exchange.piece().await {
            assert!(pattern.matches(place, &piece), "changed after {place} bytes");
            place += piece.len();
        }
        exchange.reply(place.to_string()).await
    });
    let proxy = to(&origin).await;
    let (pattern, mut place) = (Pattern::new(), 0);
    let mut client = proxy.client().await;
    let length = format!("Content-Length: {}\r\n", 100 * MEBIBYTE);
    client.send(request("POST", "/", &length, "")).await;

    while place < 100 * MEBIBYTE {
        let piece = pattern.at(place, 100 * MEBIBYTE - place);
        client.send(piece).await;
        place += piece.len();
    }
    assert_eq!(client.answer().await.text(), (100 * MEBIBYTE).to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_of_100_mib_arrives_unchanged() {
    let origin = Origin::with(async |mut exchange| {
        let (pattern, mut place) = (Pattern::new(), 0);
        exchange
            .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 100 * MEBIBYTE))
            .await;
        while place < 100 * MEBIBYTE {
            let piece = pattern.at(place, 100 * MEBIBYTE - place);
            exchange.send(piece).await;
            place += piece.len();
        }
        exchange.keep()
    });
    let proxy = to(&origin).await;
    let (pattern, mut place) = (Pattern::new(), 0);
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    client.head().await;

    while let Some(piece) = client.piece().await.unwrap() {
        assert!(pattern.matches(place, &piece), "changed after {place} bytes");
        place += piece.len();
    }
    assert_eq!(place, 100 * MEBIBYTE);
    assert_eq!(client.exchange(get("/")).await.body.len(), 100 * MEBIBYTE, "once more on it");
}

/// To a client that takes little at a time, one buffer goes after the other, and no more is held;
/// all else is as for others.
#[tokio::test]
async fn a_client_that_takes_little_at_a_time_is_given_little_at_a_time() {
    const CLIENTS: u64 = 100;
    fn body(path: &str) -> Vec<u8> {
        let periods = if path == "/held" { 32 } else { 2 };
        Pattern::new().at(0, 60_000).repeat(periods)
    }
    let origin = Origin::with(async |exchange| {
        let path = exchange.request.target.clone();
        exchange.answer("200 OK", &format!("X-Asked: {path}\r\n"), body(&path)).await
    });
    let dead = Origin::refusing();
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app: {{ backends: [\"{dead}\", \"{origin}\"], health_check: off }}
        routes: [{{ name: all, policies: [{{ response_headers: {{ set: {{ x-by: crestline }} }} }}], upstream: app }}]
        "
    ))
    .await;
    let mut client = Client::connect_narrow(proxy.address()).await;
    for path in ["/one", "/two"] {
        let answer = client.exchange(get(path)).await;
        assert_eq!((answer.status, answer.get("x-by")), (200, Some("crestline")));
        assert_eq!(answer.get("x-asked"), Some(path));
        assert!(answer.body == body(path), "{path}: all of it, in order");
    }
    proxy.access_line(|line| line["attempts"] == 2 && line["reason"] == "ok").await;

    let before = proxy.memory();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::connect_narrow(proxy.address()).await;
        client.send(get("/held")).await;
        assert_eq!(client.head().await.status, 200);
        clients.push(client);
    }
    let mut most = 0;
    for _ in 0..50 {
        assert_eq!(proxy.get("/one").await.status, 200, "others are answered");
        most = proxy.memory().max(most);
    }
    let each = most.saturating_sub(before) / CLIENTS;
    assert!(each < 400, "{each} KiB for each, where Pingora's proxy would hold ten of 64");
}

#[tokio::test]
async fn the_origin_decides_about_an_expected_100() {
    let origin = Origin::with(async |mut exchange| {
        assert_eq!(exchange.request.fields.get("expect"), Some("100-continue"));
        if exchange.request.target == "/refused" {
            exchange.send("HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno").await;
            return exchange.close();
        }
        exchange.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        let body = exchange.body().await;
        exchange.reply(body).await
    });
    let proxy = to(&origin).await;
    let expect = "Expect: 100-continue\r\nContent-Length: 6\r\n";

    let mut client = proxy.client().await;
    client.send(request("POST", "/", expect, "")).await;
    assert_eq!(client.head().await.status, 100);
    assert_eq!(client.exchange("a body").await.text(), "a body");
    let mut client = proxy.client().await;
    client.send(request("POST", "/refused", expect, "")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (417, "no"));

    let url = proxy.url("/");
    let fields = ["-H", "Expect: 100-continue", "--expect100-timeout", "600", "-d", "from curl"];
    let start = Instant::now();
    let output = curl(&[&fields[..], &[&url]].concat()).await;
    assert_eq!(output.stdout, b"from curl");
    assert!(start.elapsed() < PATIENCE, "curl waited: {:?}", start.elapsed());
}

/// It knows no chunks: the end of the connection ends the answer.
#[tokio::test]
async fn an_http_1_0_client_gets_no_chunks() {
    let origin = Origin::sending(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello,\r\n6\r\n world\r\n0\r\n\r\n",
    );
    let proxy = to(&origin).await;

    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.get("transfer-encoding"), None);
    assert_eq!(answer.text(), "hello, world");
    assert_eq!(client.rest().await, (Vec::new(), Ending::Closed));
}

#[tokio::test]
async fn an_http_1_0_client_may_keep_its_connection() {
    let origin = Origin::replying("hello");
    let proxy = to(&origin).await;

    let mut client = proxy.client().await;
    let request = "GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(client.exchange(request).await.text(), "hello");
    assert_eq!(client.exchange("GET / HTTP/1.0\r\n\r\n").await.text(), "hello");
    assert_eq!(client.rest().await, (Vec::new(), Ending::Closed), "it did not ask a second time");
}

/// No body follows, whatever the fields say.
#[tokio::test]
async fn answers_without_a_body_keep_the_connection_in_step() {
    let origin = Origin::with(async |mut exchange| {
        let answer = match exchange.request.target.as_str() {
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
            _ if exchange.request.method == "HEAD" => {
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
            }
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        };
        exchange.send(answer).await;
        exchange.keep()
    });
    let proxy = to(&origin).await;

    let mut client = proxy.client().await;
    client.send(request("HEAD", "/", "", "")).await;
    let head = client.head().await;
    assert_eq!((head.status, head.get("content-length")), (200, Some("5")));
    assert_eq!(client.exchange(get("/204")).await.status, 204);
    let unchanged = client.exchange(get("/304")).await;
    assert_eq!((unchanged.status, unchanged.get("etag")), (304, Some("\"a\"")));
    assert_eq!(client.exchange(get("/")).await.text(), "hello");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::with(async |mut exchange| {
        let body = String::from_utf8(exchange.body().await).unwrap();
        let answer = format!("{} {body}", exchange.request.target);
        exchange.reply(answer).await
    });
    let proxy = to(&origin).await;

    let mut client = proxy.client().await;
    let chunked = request("POST", "/3", "Transfer-Encoding: chunked\r\n", "");
    client
        .send(
            [
                &get("/1"),
                &post("/2", "GET /x HTTP/1.1"),
                &chunked,
                "1\r\nc\r\n0\r\n\r\n",
                &get("/4"),
            ]
            .concat(),
        )
        .await;
    for expected in ["/1 ", "/2 GET /x HTTP/1.1", "/3 c", "/4 "] {
        assert_eq!(client.answer().await.text(), expected);
    }
}

#[tokio::test]
async fn early_hints_pass() {
    let origin = Origin::with(async |mut exchange| {
        exchange.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n").await;
        exchange.reply("hello").await
    });
    let proxy = to(&origin).await;

    let mut client = proxy.client().await;
    client.send(get("/")).await;
    let hints = client.head().await;
    assert_eq!((hints.status, hints.get("link")), (103, Some("</a.css>; rel=preload")));
    assert_eq!(client.answer().await.text(), "hello");
}

/// It said all it had to say, and waits.
#[tokio::test]
async fn a_client_that_closed_its_side_still_gets_its_answer() {
    let origin = Origin::with(async |exchange| {
        tokio::time::sleep(Duration::from_millis(200)).await;
        exchange.reply("hello").await
    });
    let proxy = to(&origin).await;

    let mut client = proxy.client().await;
    client.send(get("/")).await;
    client.finish().await;
    assert_eq!(client.answer().await.text(), "hello");
}

async fn to(origin: &Origin) -> Crestline {
    Crestline::start(&format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}")).await
}
