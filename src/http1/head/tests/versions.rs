//! Rows 25 to 28: versions and methods.

use super::*;

// Row 25.
#[test]
fn http_0_9_is_refused() {
    assert_eq!(refuse("GET /\r\n"), Refusal::MISSING_VERSION);
    assert_eq!(refuse("GET /\n"), Refusal::MISSING_VERSION);
    assert_eq!(refuse("GET /?q\r\n"), Refusal::MISSING_VERSION);
    assert_eq!(refuse("GET\r\n"), Refusal::BAD_METHOD);
    assert_eq!(refuse("GET / \r\n"), Refusal::BAD_VERSION);
    assert_eq!(refuse(with_version("HTTP/0.9")).status, 505);
}

// Row 26.
#[test]
fn http_1_0_needs_no_host() {
    assert_eq!(accept("GET / HTTP/1.0\r\n\r\n").version, Version::Http10);
    assert_eq!(accept("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").version, Version::Http10);
    assert_eq!(refuse("GET / HTTP/1.0\r\nHost: a b\r\n\r\n"), Refusal::BAD_HOST);
}

// Row 27. HTTP/1.2 is 505 and not answered as 1.1, because httparse does not know it.
#[test]
fn a_later_minor_version_is_read_as_http_1_1() {
    let head = accept(with_version("HTTP/1.2"));
    assert_eq!((head.version, head.edits.minor), (Version::Http11, Some(b"GET / HTTP/1.".len())));
}

#[test]
fn other_versions_are_refused() {
    for (version, status) in [
        ("HTTP/2.0", 505),
        ("HTTP/0.9", 505),
        ("HTTP/3.0", 505),
        ("HTTP/1.10", 400),
        ("HTTP/1", 400),
        ("HTTP/2", 400),
        ("http/1.1", 400),
        ("HTTP/1,1", 400),
        ("HTTP/ 1.1", 400),
        ("ICY/1.1", 400),
    ] {
        assert_eq!(refuse(with_version(version)).status, status, "{version}");
    }
    assert_eq!(refuse("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").status, 400);
}

// Row 28.
#[test]
fn a_method_is_a_token_of_at_most_32_characters() {
    let with_method = |method: &str| format!("{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    for method in ["get", "connect", "PROPFIND", "M-SEARCH", "G!", &"M".repeat(32)] {
        accept(with_method(method));
    }
    for method in ["G@T", "", "G(", "G\0T", "GÉT"] {
        assert_eq!(refuse(with_method(method)), Refusal::BAD_METHOD, "{method:?}");
    }
    for length in [33, 300, 100_000] {
        assert_eq!(refuse("M".repeat(length)), Refusal::METHOD_TOO_LONG);
    }
    assert_eq!(Refusal::METHOD_TOO_LONG.status, 501);
}
