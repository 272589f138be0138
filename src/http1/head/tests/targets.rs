//! Rows 14 to 24, 55 and 58: the host, the target, and what stands once.

use super::*;

// Row 14.
#[test]
fn two_hosts_are_refused() {
    assert_eq!(refuse(with(b"Host: b.test\r\n")), Refusal::DUPLICATE_HOST);
}

// Row 15.
#[test]
fn the_same_host_twice_is_refused() {
    assert_eq!(refuse(with(b"hOST: a.test\r\n")), Refusal::DUPLICATE_HOST);
}

// Row 16.
#[test]
fn http_1_1_without_host_is_refused() {
    assert_eq!(refuse("GET / HTTP/1.1\r\n\r\n"), Refusal::MISSING_HOST);
    assert_eq!(refuse("GET http://a.test/ HTTP/1.1\r\n\r\n"), Refusal::MISSING_HOST);
}

// Row 17.
#[test]
fn a_host_with_a_space_or_a_slash_is_refused() {
    for host in ["a b", "a.test/", "a.test/b", ""] {
        assert_eq!(refuse(with_host(host)), Refusal::BAD_HOST, "{host:?}");
    }
    accept(with_host(" \ta.test \t"));
}

// Row 18.
#[test]
fn a_host_with_userinfo_is_refused() {
    for host in ["u@a.test", "u:p@a.test", "@a.test"] {
        assert_eq!(refuse(with_host(host)), Refusal::BAD_HOST, "{host:?}");
    }
}

// Row 19.
#[test]
fn a_host_with_a_comma_or_a_bad_port_is_refused() {
    for host in ["a.test,b.test", "a.test:99999x", "a.test:65536", "a.test:-1", "a.test:"] {
        assert_eq!(refuse(with_host(host)), Refusal::BAD_HOST, "{host:?}");
    }
    accept(with_host("a.test:65535"));
    accept(with_host("[::1]:8080"));
}

// Row 20.
#[test]
fn a_target_in_absolute_form_agrees_with_host() {
    for target in ["http://a.test", "HTTP://A.test:80/x", "https://a.test:443?q"] {
        accept(with_target(target));
    }
    for target in ["http://b.test/", "http://a.test:81/", "https://a.test:80/", "http://a.test.b/"]
    {
        assert_eq!(refuse(with_target(target)), Refusal::HOST_MISMATCH, "{target}");
    }
    for target in ["http://", "http:///x", "http://u@a.test/", "http://a.test:x/", "http://a%41/"] {
        assert_eq!(refuse(with_target(target)), Refusal::BAD_HOST, "{target}");
    }
    accept("GET http://a.test/ HTTP/1.0\r\n\r\n");
}

// Row 21.
#[test]
fn a_target_of_another_scheme_is_refused() {
    for target in ["ftp://a.test/", "ws://a.test/", "://a.test/", "httpx://a.test/"] {
        assert_eq!(refuse(with_target(target)), Refusal::UNSUPPORTED_SCHEME, "{target}");
    }
}

// Row 22.
#[test]
fn a_target_of_any_other_form_is_refused() {
    for target in ["a.test:80", "a.test", "?q", "a/b", "http:/a.test", "http:a.test", "**"] {
        assert_eq!(refuse(with_target(target)), Refusal::BAD_TARGET_FORM, "{target}");
    }
    assert_eq!(refuse(with_target("*")), Refusal::ASTERISK_TARGET);
    accept("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n");
}

// Row 23.
#[test]
fn connect_is_refused_before_anything_behind_it_is_read() {
    assert_eq!(refuse("CONNECT "), Refusal::CONNECT_METHOD);
    assert_eq!(refuse("CONNECT a.test:443 HTTP/1.1\r\n\r\nGET /").status, 405);
}

// Row 24.
#[test]
fn trace_is_refused() {
    assert_eq!(refuse("TRACE / HTTP/1.1\r\nHost: a.test\r\n\r\n"), Refusal::TRACE_METHOD);
    assert_eq!(Refusal::TRACE_METHOD.status, 405);
}

// Row 55, as far as bytes go; `routing::path` has the rest.
#[test]
fn a_backslash_in_the_path_or_a_fragment_is_refused() {
    assert_eq!(refuse(with_target("/..\\x")), Refusal::TARGET_BACKSLASH);
    assert_eq!(refuse(with_target("/x#frag")), Refusal::TARGET_FRAGMENT);
    assert_eq!(refuse(with_target("/x?q#frag")), Refusal::TARGET_FRAGMENT);
    for target in ["/%2f..%2f", "/%zz", "/a/../b", "//a//b", "/?%zz"] {
        accept(with_target(target));
    }
}

// Row 58.
#[test]
fn two_authorizations_are_refused() {
    let fields = b"Authorization: Basic QTpC\r\nauthorization: Basic QTpC\r\n";
    assert_eq!(refuse(with(fields)), Refusal::DUPLICATE_AUTHORIZATION);
}

/// What browsers leave unescaped passes, and what Pingora's `Uri` would refuse does not.
#[test]
fn a_target_holds_what_browsers_send() {
    for byte in 0..=u8::MAX {
        let path = [b"GET /", &[byte][..], b"x HTTP/1.1\r\nHost: a.test\r\n\r\n"].concat();
        let query = [b"GET /?", &[byte][..], b"x HTTP/1.1\r\nHost: a.test\r\n\r\n"].concat();
        let passes = |head: &[u8]| matches!(read(head), Ok(Some(_)));
        let printable = byte.is_ascii_graphic();
        assert_eq!(passes(&path), printable && !b"#<>\\`".contains(&byte), "{byte:#04x}");
        assert_eq!(passes(&query), printable && !b"#<>\"".contains(&byte), "{byte:#04x}");
    }
}
