//! What origins get wrong in HTTP is the origin's fault: `502`, or a break, never a guess.

use tokio::sync::mpsc;

use crate::support::{Crestline, Origin, get, soon};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

#[tokio::test]
async fn an_answer_that_is_no_http_gets_502() {
    let cases = [
        ("garbage", b"garbage\r\n\r\n".to_vec()),
        ("a status of two digits", b"HTTP/1.1 99 X\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("a status of four digits", b"HTTP/1.1 1000 X\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("NUL in a field", with_field(b"X-A: a\0b")),
        ("a line without a colon", with_field(b"NoColon")),
        ("a bad name", with_field(b"X(A: 1")),
        ("two lengths", with_field(b"Content-Length: 5\r\nContent-Length: 6")),
    ];
    for (name, bytes) in cases {
        assert_eq!(status_of(bytes).await, Some(502), "{name}");
    }
}

/// Pingora's parser takes both forms, so the client, at least, can read it in one way only.
#[tokio::test]
async fn a_field_that_can_be_read_in_two_ways_leaves_in_one() {
    for (field, value) in [(b"X-A: a\r\n b".as_slice(), "a b"), (b"X-A : a", "a")] {
        let origin = Origin::sending(with_field(field));
        let proxy = to(&origin).await;
        let answer = proxy.get("/").await;
        let read = answer.get("x-a").map(|read| read.split_whitespace().collect::<Vec<_>>());
        assert_eq!(read, Some(value.split_whitespace().collect()), "{}", field.escape_ascii());
    }
}

/// What follows is no tunnel.
#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_gets_502() {
    let upgrade = b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(status_of(upgrade.to_vec()).await, Some(502));
}

#[tokio::test]
async fn interim_answers_without_end_get_502() {
    let hints = b"HTTP/1.1 103 Early Hints\r\nX-A: 1\r\n\r\n".repeat(200);
    assert_eq!(status_of(hints).await, Some(502));
}

/// An answer may be as large as a request: 64 KiB.
#[tokio::test]
async fn a_head_of_300_kib_gets_502() {
    let field = [b"X-A: ".as_slice(), &vec![b'a'; 300 * 1024]].concat();
    assert_eq!(status_of(with_field(&field)).await, Some(502));
}

fn with_field(field: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\n", field, b"\r\nContent-Length: 0\r\n\r\n"].concat()
}

/// What the client gets of an origin that sends these bytes, after some hints at most.
async fn status_of(bytes: Vec<u8>) -> Option<u16> {
    let origin = Origin::sending(bytes);
    let proxy = to(&origin).await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    loop {
        let answer = client.try_answer().await.ok()?;
        if answer.status != 103 {
            return Some(answer.status);
        }
    }
}

/// They could be taken for the next answer.
#[tokio::test]
async fn bytes_beyond_an_answer_are_discarded() {
    let origin = Origin::with(async |mut exchange| {
        exchange.send(format!("{HELLO}{EVIL}")).await;
        exchange.keep()
    });
    let proxy = to(&origin).await;

    let mut client = proxy.client().await;
    for _ in 0..10 {
        assert_eq!(client.exchange(get("/")).await.text(), "hello");
    }
}

/// The connection is idle by then, and ends.
#[tokio::test]
async fn bytes_that_come_after_an_answer_end_the_connection() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let origin = Origin::with(move |mut exchange| {
        let ended = ended.clone();
        async move {
            exchange.send(HELLO).await;
            exchange.send(EVIL).await;
            exchange.left().await;
            ended.send(()).unwrap();
            exchange.close()
        }
    });
    let proxy = to(&origin).await;

    let mut client = proxy.client().await;
    for nth in 1..=10 {
        assert_eq!(client.exchange(get("/")).await.text(), "hello");
        soon("the end of the connection", ends.recv()).await.unwrap();
        assert_eq!(origin.count(), nth);
    }
}

#[tokio::test]
async fn chunks_win_over_a_length() {
    let origin = Origin::sending(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    let proxy = to(&origin).await;

    let answer = proxy.get("/").await;
    assert_eq!((answer.text(), answer.get("content-length")), ("hello", None));
}

/// Its end is the end of the connection: the client gets chunks, and keeps its own.
#[tokio::test]
async fn a_body_without_a_length_is_chunked_for_the_client() {
    let origin = Origin::sending("HTTP/1.1 200 OK\r\n\r\nhello");
    let proxy = to(&origin).await;

    let mut client = proxy.client().await;
    for _ in 0..3 {
        let answer = client.exchange(get("/")).await;
        assert_eq!((answer.text(), answer.get("transfer-encoding")), ("hello", Some("chunked")));
    }
}

#[tokio::test]
async fn a_bad_chunk_breaks_the_answer() {
    let origin = Origin::sending(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\nmore\r\n0\r\n\r\n",
    );
    let proxy = to(&origin).await;

    let mut client = proxy.client().await;
    client.send(get("/")).await;
    // The head may have been sent, or the fault seen before it was.
    match client.try_answer().await {
        Ok(answer) if answer.status == 502 => {}
        Ok(answer) => assert!(answer.broken.is_some(), "{answer:?}"),
        Err(_) => {}
    }
}

async fn to(origin: &Origin) -> Crestline {
    Crestline::start(&format!(
        "upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: off, ejection: off }} }}"
    ))
    .await
}
