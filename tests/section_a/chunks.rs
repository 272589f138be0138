//! Rows 37 to 45: chunks that two readers could read in two ways.
//!
//! Each bad part comes once with the head, and once when the origin is already listening. It is
//! the client's fault either way: never a `502`, and never a whole request for the origin.

use super::{Edge, post};

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// Sends a bad chunk of a body, early and late.
async fn refuses(edge: &Edge, bad: &str, status: u16, reason: &str) {
    let what = || bad.chars().take(60).collect::<String>();
    let mut early = edge.proxy.client().await;
    early.send_if_taken(post(CHUNKED, bad)).await;
    edge.refused(early, status, reason, &format!("early {:?}", what())).await;

    let mut late = edge.proxy.client().await;
    late.send(post(CHUNKED, "6\r\nbefore\r\n")).await;
    edge.reached("6\r\nbefore\r\n").await;
    late.send_if_taken(bad).await;
    edge.refused(late, status, reason, &format!("late {:?}", what())).await;
    assert!(!edge.origin.partial().contains("\r\n0\r\n"), "{:?}", edge.origin.partial());
}

#[tokio::test]
async fn a_bad_chunk_that_comes_with_the_head_reaches_no_origin() {
    let edge = Edge::start().await;
    for (bad, reason) in [
        ("x\r\n", "bad_chunk_size"),
        ("5\r\nhelloXX", "bad_chunk_end"),
        ("5\r\nhello\r\n-1\r\n", "bad_chunk_size"),
    ] {
        edge.refuses(post(CHUNKED, bad), 400, reason).await;
    }
}

#[tokio::test]
async fn a_bad_chunk_is_no_fault_of_the_origin() {
    let edge = Edge::start().await;
    let mut client = edge.proxy.client().await;
    client.send(post(CHUNKED, "6\r\nbefore\r\n")).await;
    edge.reached("before").await;
    client.send("x\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 400);
    let line = edge.line(&answer).await;
    assert_eq!(line["via"], format!("{}:client_left", edge.origin), "{line}");
}

// Row 37.
#[tokio::test]
async fn chunk_extensions_have_a_bound_over_the_whole_body() {
    let edge = Edge::start().await;
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(64 * 1024));
    refuses(&edge, &long, 400, "chunk_extensions_too_large").await;
    let many = format!("1;{}\r\nh\r\n", "x".repeat(99)).repeat(41) + "0\r\n\r\n";
    refuses(&edge, &many, 400, "chunk_extensions_too_large").await;

    let edge = Edge::start().await;
    let few = format!("1;{}\r\nh\r\n", "x".repeat(99)).repeat(40) + "0;a=\"b\"\r\n\r\n";
    let got = edge.forwards(post(CHUNKED, &few)).await;
    assert!(
        !got.contains(";x") && !got.contains("a=\"b\""),
        "extensions end here (RFC 9112 §7.1.1)"
    );
}

// Row 38.
#[tokio::test]
async fn an_extension_holds_no_line_break() {
    let edge = Edge::start().await;
    refuses(&edge, "5;a\nb\r\nhello\r\n0\r\n\r\n", 400, "bare_line_feed").await;
    refuses(&edge, "5;a\rb\r\nhello\r\n0\r\n\r\n", 400, "bare_carriage_return").await;
    refuses(&edge, "0;a\n\r\n", 400, "bare_line_feed").await;
    refuses(&edge, "5;a\0\r\nhello\r\n0\r\n\r\n", 400, "bad_chunk_extension").await;
}

// Row 39.
#[tokio::test]
async fn a_chunk_size_ends_with_crlf() {
    let edge = Edge::start().await;
    refuses(&edge, "5\nhello\r\n0\r\n\r\n", 400, "bare_line_feed").await;
    refuses(&edge, "5\r\nhello\r\n0\n\r\n", 400, "bare_line_feed").await;
    refuses(&edge, "5\r\nhello\r\n0\r\n\n", 400, "bare_line_feed").await;
    refuses(&edge, "5\rhello\r\n0\r\n\r\n", 400, "bare_carriage_return").await;
    refuses(&edge, "5\r\nhello\r\n0\r\n\rx", 400, "bare_carriage_return").await;
}

// Rows 40 to 42.
#[tokio::test]
async fn a_chunk_size_is_up_to_sixteen_hexadecimal_digits() {
    let edge = Edge::start().await;
    let zeros = "0".repeat(500) + "5";
    for size in
        ["0x5", "0_5", "-1", "+5", " 5", "\t5", "5 ", "5\t", "", "10000000000000005", "g", &zeros]
    {
        refuses(&edge, &format!("{size}\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk_size").await;
    }
    let edge = Edge::start().await;
    for (size, data) in [("0000000000000005", "hello"), ("A", "0123456789"), ("a", "0123456789")] {
        edge.forwards(post(CHUNKED, &format!("{size}\r\n{data}\r\n0\r\n\r\n"))).await;
    }
}

// Row 43.
#[tokio::test]
async fn chunk_data_is_followed_by_crlf() {
    let edge = Edge::start().await;
    for bad in ["5\r\nhelloXX", "5\r\nhello\n0\r\n\r\n", "5\r\nhello\r0\r\n\r\n", "4\r\nhello\r\n"]
    {
        refuses(&edge, bad, 400, "bad_chunk_end").await;
    }
}

#[tokio::test]
async fn a_trailer_line_is_judged_as_a_field_line_is() {
    let edge = Edge::start().await;
    for (trailer, reason) in [
        ("X: y\n", "bare_line_feed"),
        ("X : y\r\n", "space_before_colon"),
        ("X: a\r\n b\r\n", "obs_fold"),
        ("NoColon\r\n", "missing_colon"),
        (": y\r\n", "empty_field_name"),
        ("X(: y\r\n", "bad_field_name"),
        ("X: \0\r\n", "nul_byte"),
        ("X: \x01\r\n", "control_byte"),
    ] {
        refuses(&edge, &format!("5\r\nhello\r\n0\r\n{trailer}\r\n"), 400, reason).await;
    }
}

// Row 45.
#[tokio::test]
async fn a_large_trailer_section_is_refused() {
    let edge = Edge::start().await;
    let one = format!("0\r\nX: {}\r\n\r\n", "y".repeat(64 * 1024));
    refuses(&edge, &one, 431, "trailers_too_large").await;
    let many = format!("0\r\n{}\r\n", "X: 0123456789abcde\r\n".repeat(4 * 1024));
    refuses(&edge, &many, 431, "trailers_too_large").await;
}

#[tokio::test]
async fn a_trailer_section_within_the_bound_is_dropped() {
    let edge = Edge::start().await;
    let rest = format!("5\r\nhello\r\n0\r\nX: {}\r\n\r\n", "y".repeat(60 * 1024));
    let got = edge.forwards(post(CHUNKED, &rest)).await;
    assert!(got.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{} bytes", got.len());
}
