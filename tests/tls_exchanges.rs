//! Requests and answers within TLS: what is whole, what breaks off, and what has an end.

use std::{fs, time::Duration};

use tokio::time;

use crate::support::{Crestline, Origin, Pair, Pattern, TlsClient, TlsEnding, curl, get, request};

/// A proxy with TLS before an origin, and what its clients trust.
async fn to(origin: &Origin, more: &str) -> (Crestline, String) {
    let pair = Pair::of(&["a.test"]);
    let yaml = format!(
        "listeners: [{{ address: \"127.0.0.1:0\", tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }}{more} }}]\n\
         upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: off }} }}\n"
    );
    let files = [("a.pem", pair.cert.as_str()), ("a.key", &pair.key)];
    (Crestline::start_among(&files, &[], &yaml).await, pair.cert)
}

#[tokio::test]
async fn a_large_answer_and_a_large_body_are_whole() {
    const SIZE: usize = 32 << 20;
    let body: Vec<u8> = {
        let pattern = Pattern::new();
        let pieces = (0..SIZE).step_by(65_521);
        pieces.flat_map(|place| pattern.at(place, SIZE - place).to_vec()).collect()
    };
    let origin = Origin::echoing();
    let (proxy, _) = to(&origin, "").await;
    let port = proxy.address().rsplit(':').next().unwrap();
    let sent = proxy.folder().join("sent");
    fs::write(&sent, &body).unwrap();
    let data = format!("@{}", sent.display());
    let (url, resolve) = (format!("https://a.test:{port}/"), format!("a.test:{port}:127.0.0.1"));
    let ca = proxy.folder().join("a.pem").display().to_string();

    for http in ["--http1.1", "--http2"] {
        let output =
            curl(&["--cacert", &ca, "--resolve", &resolve, http, "--data-binary", &data, &url])
                .await;
        assert!(output.stdout == body, "{http}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn an_answer_that_breaks_is_never_followed_by_the_word_for_its_end() {
    const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n";
    for (start, version) in [(LENGTH, "1.1"), (CHUNKED, "1.1"), (CHUNKED, "1.0")] {
        let origin = Origin::with(move |mut exchange| async move {
            exchange.send(start).await;
            time::sleep(Duration::from_secs(1)).await;
            exchange.close()
        });
        let (proxy, trusted) = to(&origin, "").await;
        let mut client = TlsClient::connect(proxy.address(), "a.test", &trusted).await;
        client.send(format!("GET / HTTP/{version}\r\nHost: a.test\r\n\r\n")).await;
        client.until("part").await;
        let (_, ending) = client.rest().await;
        assert_ne!(ending, TlsEnding::Told, "{start:?} {version}");
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_in_order_says_so() {
    let origin = Origin::replying("whole");
    let (proxy, trusted) = to(&origin, ", timeouts: { idle: 300ms }").await;
    let close = request("GET", "/", "Connection: close\r\n", "");
    for asked in [&get("/"), &close, "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n", "nonsense\r\n\r\n"] {
        let mut client = TlsClient::connect(proxy.address(), "a.test", &trusted).await;
        client.send(asked).await;
        client.until("\r\n\r\n").await;
        assert_eq!(client.rest().await.1, TlsEnding::Told, "{asked}");
    }
    let unframed = Origin::sending("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end");
    let (proxy, trusted) = to(&unframed, "").await;
    let mut client = TlsClient::connect(proxy.address(), "a.test", &trusted).await;
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").await;
    let (answer, ending) = client.rest().await;
    assert!(answer.ends_with(b"to the end"));
    assert_eq!(ending, TlsEnding::Told);
}

/// With the word for it or without, while the answer is on its way.
#[tokio::test]
async fn a_client_that_closed_its_side_gets_its_answer() {
    let origin = Origin::with(async |exchange| {
        time::sleep(Duration::from_millis(200)).await;
        exchange.reply("late").await
    });
    let (proxy, trusted) = to(&origin, "").await;
    for is_told in [true, false] {
        let mut client = TlsClient::connect(proxy.address(), "a.test", &trusted).await;
        client.send(get("/")).await;
        if is_told {
            client.finish().await;
        } else {
            client.cut_off().await;
        }
        client.until("late").await;
    }
    assert_eq!(proxy.access_log(2).await[1]["status"], 200);
}

/// Part of a body is not a body, however the client left.
#[tokio::test]
async fn a_request_that_is_cut_off_is_not_taken_for_a_whole_one() {
    let origin = Origin::echoing();
    let (proxy, trusted) = to(&origin, "").await;
    let mut client = TlsClient::connect(proxy.address(), "a.test", &trusted).await;
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\npart").await;
    client.cut_off().await;
    client.rest().await;
    let line = proxy.access_line(|line| line["method"] == "POST").await;
    assert_ne!(line["status"], 200, "{line}");
}

#[tokio::test]
async fn a_websocket_passes_behind_a_hybrid_exchange_of_keys() {
    const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let origin = Origin::with(async |mut exchange| {
        exchange.send(ACCEPTED).await;
        while let Ok(bytes) = exchange.bytes(4).await {
            exchange.send(bytes).await;
        }
        exchange.close()
    });
    let (proxy, trusted) = to(&origin, "").await;
    let mut client = TlsClient::connect(proxy.address(), "a.test", &trusted).await;
    assert_eq!(client.key_exchange(), rustls::NamedGroup::X25519MLKEM768);
    client.send(request("GET", "/", UPGRADE, "")).await;
    client.until("\r\n\r\n").await;
    for text in ["ping", "pong", "ding"] {
        client.send(text).await;
        assert_eq!(client.until(text).await, text);
    }
    client.finish().await;
    client.rest().await;
    let line = proxy.access_line(|line| line["status"] == 101).await;
    assert_eq!(line["tls_version"], "TLSv1.3");
}
