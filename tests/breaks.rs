//! An answer that broke is never taken for a whole one, nor its request sent again.

use std::time::Duration;

use tokio::time;

use crate::support::{Crestline, Ending, Origin, get, post};

/// Neither on a fresh connection nor on one of the pool.
#[tokio::test]
async fn nothing_is_sent_twice_after_a_byte_was_answered() {
    let breaking = || {
        Origin::with(async |mut exchange| {
            exchange.body().await;
            if exchange.request.target == "/whole" {
                return exchange.reply("whole").await;
            }
            exchange.send("HTTP/1.1 200 OK\r\nConte").await;
            exchange.reset()
        })
    };
    let (one, other) = (breaking(), breaking());
    let proxy = Crestline::start(&unchecked(&one, &other)).await;

    for pooled in [0, 2] {
        for request in [post("/", "a body"), get("/")] {
            for _ in 0..pooled {
                assert_eq!(proxy.get("/whole").await.status, 200);
            }
            let before = one.count() + other.count();
            assert_eq!(proxy.send(&request).await.status, 502, "{request}");
            assert_eq!(one.count() + other.count(), before + 1, "{request}");
        }
    }
}

/// A body that broke never looks complete, however it was framed and however it broke.
#[tokio::test]
async fn the_client_sees_an_answer_break() {
    const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n";
    const MID_CHUNK: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\npart";
    const TO_THE_CLOSE: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\npart";
    let cases = [
        (LENGTH, Ending::Closed),
        (LENGTH, Ending::Reset),
        (CHUNKED, Ending::Closed),
        (CHUNKED, Ending::Reset),
        (MID_CHUNK, Ending::Closed),
        (MID_CHUNK, Ending::Reset),
        (TO_THE_CLOSE, Ending::Reset),
    ];
    for (start, ending) in cases {
        let origin = breaking_after(start, ending);
        let proxy = Crestline::start(&format!(
            "upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: off }} }}"
        ))
        .await;
        let mut client = proxy.client().await;
        client.send(get("/")).await;
        let answer = client.try_answer().await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, "part"), "{start:?} {ending:?}");
        assert!(answer.broken.is_some(), "{start:?} {ending:?}: {answer:?}");
        assert_eq!(origin.count(), 1, "{start:?} {ending:?}");
    }
}

/// Where the end of the connection is the end of the body, only a reset can say that it broke.
#[tokio::test]
async fn an_http_1_0_client_sees_an_answer_break() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n";
    let origin = breaking_after(CHUNKED, Ending::Closed);
    let proxy = Crestline::start(&format!(
        "upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: off }} }}"
    ))
    .await;

    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").await;
    let answer = client.try_answer().await.unwrap();
    assert_eq!(answer.broken, Some(Ending::Reset), "{answer:?}");
}

/// Sends the start of an answer, waits until it must have been passed on, and breaks.
fn breaking_after(start: &'static str, ending: Ending) -> Origin {
    Origin::with(move |mut exchange| async move {
        exchange.send(start).await;
        // A reset overtakes bytes that were not read yet.
        time::sleep(Duration::from_secs(1)).await;
        match ending {
            Ending::Closed => exchange.close(),
            Ending::Reset => exchange.reset(),
        }
    })
}

fn unchecked(one: &Origin, other: &Origin) -> String {
    format!(
        "upstreams: {{ app: {{ backends: [\"{one}\", \"{other}\"], health_check: off, ejection: off }} }}"
    )
}
