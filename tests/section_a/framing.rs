//! Rows 29 to 36, 44 and 47: where the body of a request ends, told once and in one way.

use super::{Edge, body, post, values};

/// What a second parser would take for a request of its own.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";

// Row 29.
#[tokio::test]
async fn a_length_beside_a_transfer_coding_is_refused() {
    let edge = Edge::start().await;
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nX: y\r\ncontent-length: 0\r\n",
    ] {
        let bytes = post(lines, &format!("0\r\n\r\n{SMUGGLED}"));
        edge.refuses(bytes, 400, "length_with_encoding").await;
    }
}

// Row 30.
#[tokio::test]
async fn two_lengths_are_refused_also_if_they_agree() {
    let edge = Edge::start().await;
    for (lines, reason) in [
        ("Content-Length: 5\r\nContent-Length: 6\r\n", "duplicate_content_length"),
        ("Content-Length: 5\r\ncontent-length: 5\r\n", "duplicate_content_length"),
        ("Content-Length: 5, 5\r\n", "bad_content_length"),
        ("Content-Length: 5,6\r\n", "bad_content_length"),
    ] {
        edge.refuses(post(lines, "hello"), 400, reason).await;
    }
}

// Row 31.
#[tokio::test]
async fn a_length_is_decimal_digits_and_fits() {
    let edge = Edge::start().await;
    for length in [
        "+5",
        "-1",
        "0x5",
        "1_0",
        "",
        "5 5",
        "5.0",
        "five",
        "18446744073709551621",
        "99999999999999999999999999999999",
    ] {
        let lines = format!("Content-Length: {length}\r\n");
        edge.refuses(post(&lines, "hello"), 400, "bad_content_length").await;
    }
}

// Row 32.
#[tokio::test]
async fn leading_zeros_of_a_length_are_not_forwarded() {
    let edge = Edge::start().await;
    let got = edge.forwards(post("Content-Length: 0005\r\n", "hello")).await;
    assert_eq!((values(&got, "content-length"), body(&got)), (vec!["5"], "hello"));
}

// Rows 33 to 35.
#[tokio::test]
async fn the_only_transfer_coding_is_chunked_once() {
    let edge = Edge::start().await;
    let chunked = "Transfer-Encoding: chunked\r\n";
    let twice = format!("{chunked}transfer-encoding: chunked\r\n");
    let bytes = post(&twice, &format!("0\r\n\r\n{SMUGGLED}"));
    edge.refuses(bytes, 400, "duplicate_transfer_encoding").await;
    for (codings, status, reason) in [
        ("chunked, chunked", 400, "bad_transfer_encoding"),
        (",chunked", 400, "bad_transfer_encoding"),
        ("chunked,", 400, "bad_transfer_encoding"),
        ("", 400, "bad_transfer_encoding"),
        ("chunked, gzip", 400, "bad_transfer_encoding"),
        ("chunked; q=1", 400, "bad_transfer_encoding"),
        ("\"chunked\"", 400, "bad_transfer_encoding"),
        ("\x0bchunked", 400, "control_byte"),
        ("xchunked", 501, "unknown_transfer_coding"),
        ("identity", 501, "unknown_transfer_coding"),
        ("gzip, chunked", 501, "unknown_transfer_coding"),
        ("gzip", 501, "unknown_transfer_coding"),
    ] {
        let lines = format!("Transfer-Encoding: {codings}\r\n");
        let bytes = post(&lines, &format!("0\r\n\r\n{SMUGGLED}"));
        edge.refuses(bytes, status, reason).await;
    }
    let got = edge.forwards(post("Transfer-Encoding: \tChunked \r\n", "0\r\n\r\n")).await;
    assert_eq!(body(&got), "0\r\n\r\n");
}

// Row 36.
#[tokio::test]
async fn http_1_0_knows_no_transfer_coding() {
    let edge = Edge::start().await;
    for codings in ["chunked", "identity", "x"] {
        let bytes = format!(
            "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: {codings}\r\n\r\n\
             0\r\n\r\n{SMUGGLED}"
        );
        edge.refuses(bytes, 400, "transfer_encoding_in_http_10").await;
    }
}

// Row 44.
#[tokio::test]
async fn trailers_are_dropped() {
    let edge = Edge::start().await;
    for trailers in ["Content-Length: 3\r\n", "Host: b.test\r\nX-Harmless: yes\r\n", ""] {
        let rest = format!("5\r\nhello\r\n0\r\n{trailers}\r\n");
        let got = edge.forwards(post("Transfer-Encoding: chunked\r\n", &rest)).await;
        assert_eq!(body(&got), "5\r\nhello\r\n0\r\n\r\n", "{trailers}");
        assert_eq!(values(&got, "content-length"), [""; 0], "{trailers}");
        assert_eq!(values(&got, "host"), ["a.test"], "{trailers}");
    }
}

// Row 47.
#[tokio::test]
async fn a_get_keeps_its_body_and_its_framing() {
    let edge = Edge::start().await;
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        let line = format!("{method} / HTTP/1.1\r\nHost: a.test\r\n");
        let mut client = edge.proxy.client().await;
        client.send(format!("{line}Content-Length: 5\r\n\r\nhello")).await;
        assert_eq!(client.head().await.status, 200, "{method}");
        let got = edge.origin.whole().pop().unwrap();
        assert_eq!((values(&got, "content-length"), body(&got)), (vec!["5"], "hello"), "{method}");
        assert_eq!(values(&got, "transfer-encoding"), [""; 0], "{method}");

        let mut client = edge.proxy.client().await;
        client
            .send(format!("{line}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
            .await;
        assert_eq!(client.head().await.status, 200, "{method}");
        let got = edge.origin.whole().pop().unwrap();
        assert_eq!(body(&got), "5\r\nhello\r\n0\r\n\r\n", "{method}");
        assert_eq!(values(&got, "transfer-encoding"), ["chunked"], "{method}");
        assert_eq!(values(&got, "content-length"), [""; 0], "{method}");
    }
}
