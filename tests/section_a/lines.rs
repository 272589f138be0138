//! Rows 1 to 13, 25, 27 and 28: the lines of a head, and what stands in them.

use super::{Edge, head, values};

// Row 1.
#[tokio::test]
async fn a_line_that_ends_with_lf_alone_is_refused() {
    let edge = Edge::start().await;
    for bytes in [
        "GET / HTTP/1.1\nHost: a.test\n\n",
        "GET / HTTP/1.1\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\n\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nX: y\n\r\n",
        "\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ] {
        edge.refuses(bytes, 400, "bare_line_feed").await;
    }
}

// Rows 2 to 4.
#[tokio::test]
async fn control_bytes_in_a_value_are_refused() {
    let edge = Edge::start().await;
    edge.refuses(head("X: a\rb\r\n"), 400, "bare_carriage_return").await;
    edge.refuses(head("X: a\0b\r\n"), 400, "nul_byte").await;
    for byte in [1, 8, 0x0b, 0x0c, 0x1b, 0x1f, 0x7f] {
        edge.refuses(head([b'X', b':', b'a', byte, b'\r', b'\n']), 400, "control_byte").await;
    }
}

// Row 5.
#[tokio::test]
async fn a_folded_line_is_refused() {
    let edge = Edge::start().await;
    for lines in ["X: a\r\n b\r\n", "X: a\r\n\tb\r\n", "X: a\r\n \r\n"] {
        edge.refuses(head(lines), 400, "obs_fold").await;
    }
    edge.refuses("GET / HTTP/1.1\r\n Host: a.test\r\n\r\n", 400, "obs_fold").await;
}

// Row 6.
#[tokio::test]
async fn a_space_before_the_colon_is_refused() {
    let edge = Edge::start().await;
    for lines in ["X : a\r\n", "X\t: a\r\n", "X y: a\r\n", "Content-Length : 5\r\n"] {
        edge.refuses(head(lines), 400, "space_before_colon").await;
    }
    edge.refuses(head("Transfer-Encoding : chunked\r\n"), 400, "space_before_colon").await;
}

// Rows 7 to 9.
#[tokio::test]
async fn a_line_without_a_name_and_a_colon_is_refused() {
    let edge = Edge::start().await;
    edge.refuses(head("NoColon\r\n"), 400, "missing_colon").await;
    edge.refuses(head(": x\r\n"), 400, "empty_field_name").await;
    for lines in
        [&b"X(A: b\r\n"[..], b"X\xffA: b\r\n", b"X@: b\r\n", b"X\0: b\r\n", b"\"X\": b\r\n"]
    {
        edge.refuses(head(lines), 400, "bad_field_name").await;
    }
}

// Row 10.
#[tokio::test]
async fn bytes_above_ascii_in_a_value_are_forwarded_as_they_are_and_escaped_in_logs() {
    let edge = Edge::start().await;
    let got = edge.forwards(head(b"X: \x80caf\xc3\xa9\xff\r\nUser-Agent: a\xff\xe9z\r\n")).await;
    assert_eq!(values(&got, "x"), ["\u{80}caf\u{c3}\u{a9}\u{ff}"]);
    assert_eq!(values(&got, "user-agent"), ["a\u{ff}\u{e9}z"]);
    // The log is read as UTF-8, and each line as JSON.
    edge.proxy.access_line(|line| line["user_agent"] == "a\u{fffd}\u{fffd}z").await;
}

// Row 11.
#[tokio::test]
async fn a_byte_above_ascii_in_the_target_is_refused() {
    let edge = Edge::start().await;
    for target in [&b"/\xff"[..], b"/caf\xc3\xa9", b"/?q=\xff", b"/a\x01", b"/\x7f"] {
        let bytes = [b"GET ", target, b" HTTP/1.1\r\nHost: a.test\r\n\r\n"].concat();
        edge.refuses(bytes, 400, "bad_target").await;
    }
}

// Row 12.
#[tokio::test]
async fn one_blank_line_may_precede_a_request_and_no_more() {
    let edge = Edge::start().await;
    let request = String::from_utf8(head("")).unwrap();
    let got = edge.forwards(format!("\r\n{request}")).await;
    assert!(got.starts_with("GET / HTTP/1.1\r\n"), "{got:?}");
    let edge = Edge::start().await;
    for lines in [2, 50] {
        let bytes = "\r\n".repeat(lines) + &request;
        edge.refuses(bytes, 400, "leading_blank_lines").await;
    }
}

// Row 13.
#[tokio::test]
async fn the_parts_of_a_request_line_are_separated_by_one_space() {
    let edge = Edge::start().await;
    for (line, reason) in [
        ("GET  / HTTP/1.1", "bad_request_line"),
        ("GET /  HTTP/1.1", "bad_version"),
        ("GET / HTTP/1.1 ", "bad_version"),
        ("GET\t/ HTTP/1.1", "bad_method"),
        ("GET /\tHTTP/1.1", "bad_target"),
        (" GET / HTTP/1.1", "bad_method"),
        ("GET / a HTTP/1.1", "bad_version"),
    ] {
        edge.refuses(format!("{line}\r\nHost: a.test\r\n\r\n"), 400, reason).await;
    }
}

// Row 25.
#[tokio::test]
async fn http_0_9_is_refused() {
    let edge = Edge::start().await;
    edge.refuses("GET /\r\n", 400, "missing_version").await;
    edge.refuses("GET /\r\nHost: a.test\r\n\r\n", 400, "missing_version").await;
}

// Row 27.
#[tokio::test]
async fn other_versions_are_refused() {
    let edge = Edge::start().await;
    for (version, status, reason) in [
        ("HTTP/2.0", 505, "unsupported_version"),
        ("HTTP/3.0", 505, "unsupported_version"),
        ("HTTP/0.9", 505, "unsupported_version"),
        ("HTTP/1.10", 400, "bad_version"),
        ("HTTP/01.1", 400, "bad_version"),
        ("HTTP/1", 400, "bad_version"),
        ("http/1.1", 400, "bad_version"),
        ("HTTP/1,1", 400, "bad_version"),
        ("ICY/1.1", 400, "bad_version"),
    ] {
        let bytes = format!("GET / {version}\r\nHost: a.test\r\n\r\n");
        edge.refuses(bytes, status, reason).await;
    }
}

// Row 27.
#[tokio::test]
async fn a_later_minor_version_is_treated_as_http_1_1() {
    let edge = Edge::start().await;
    for minor in [2, 9] {
        let got = edge.forwards(format!("GET / HTTP/1.{minor}\r\nHost: a.test\r\n\r\n")).await;
        assert!(got.starts_with("GET / HTTP/1.1\r\n"), "{got:?}");
    }
}

// Row 28.
#[tokio::test]
async fn any_token_is_a_method_and_no_method_is_long() {
    let edge = Edge::start().await;
    let longest = "M".repeat(32);
    for method in ["get", "Get", "PURGE", "M-SEARCH", "!#$%&'*+-.^_`|~9", &longest] {
        let got = edge.forwards(format!("{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        assert!(got.starts_with(&format!("{method} / HTTP/1.1\r\n")), "{got:?}");
    }
    let edge = Edge::start().await;
    for method in ["G@T", "G\0T", "(GET)", "G\u{e9}T", ""] {
        let bytes = format!("{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        edge.refuses(bytes, 400, "bad_method").await;
    }
    for length in [33, 300] {
        let method = "M".repeat(length);
        let bytes = format!("{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        edge.refuses(bytes, 501, "method_too_long").await;
    }
}
