//! Rows 14 to 24, 26 and 58: who is asked, and by whom.

use super::{Edge, Tap, head, target, values};
use crate::support::Crestline;

// Rows 14 to 16.
#[tokio::test]
async fn a_request_names_its_host_once() {
    let edge = Edge::start().await;
    edge.refuses(head("Host: b.test\r\n"), 400, "duplicate_host").await;
    edge.refuses(head("Host: a.test\r\n"), 400, "duplicate_host").await;
    edge.refuses(head("hOST:\r\n"), 400, "duplicate_host").await;
    edge.refuses("GET / HTTP/1.1\r\n\r\n", 400, "missing_host").await;
    edge.refuses("GET http://a.test/ HTTP/1.1\r\n\r\n", 400, "missing_host").await;
}

// Rows 17 to 19.
#[tokio::test]
async fn a_host_is_a_name_or_an_address_with_an_optional_port() {
    let edge = Edge::start().await;
    for host in [
        "a test",
        "a/b",
        "a.test/",
        "u@a.test",
        "u:p@a.test",
        "a.test,b.test",
        "a.test, b.test",
        "a.test:99999x",
        "a.test:99999",
        "a.test:",
        "a.test:+80",
        "a.test:80:80",
        "a%2etest",
        "a\\test",
        "..",
        "[::1",
        "[::1]x",
        "",
    ] {
        edge.refuses(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), 400, "bad_host").await;
    }
    for host in ["A.test", "a.test:8080", "192.0.2.1", "[2001:db8::1]:80", "a_b.test", "a.test."] {
        let got = edge.forwards(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(values(&got, "host"), [host]);
    }
}

// Row 20.
#[tokio::test]
async fn a_target_with_another_host_is_refused() {
    let edge = Edge::start().await;
    for target in ["http://b.test/", "http://a.test:81/", "https://a.test:80/", "http://b.test"] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        edge.refuses(bytes, 400, "host_mismatch").await;
    }
    edge.refuses("GET http://u@a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, "bad_host").await;
}

// Row 20.
#[tokio::test]
async fn a_target_with_the_same_host_is_cut_down_to_its_path() {
    let edge = Edge::start().await;
    for (sent, expected) in [
        ("http://a.test/x?y=z", "/x?y=z"),
        ("HTTP://A.TEST:80/x", "/x"),
        ("http://a.test", "/"),
        ("http://a.test?y", "/?y"),
    ] {
        let got = edge.forwards(format!("GET {sent} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        assert_eq!(target(&got), expected, "{sent}");
        assert_eq!(values(&got, "host"), ["a.test"], "{sent}");
    }
}

// Rows 21 and 22.
#[tokio::test]
async fn a_target_is_a_path_or_a_web_address() {
    let edge = Edge::start().await;
    for (line, reason) in [
        ("GET ftp://a.test/", "unsupported_scheme"),
        ("GET javascript://a.test/", "unsupported_scheme"),
        ("GET a.test:80", "bad_target_form"),
        ("GET a.test", "bad_target_form"),
        ("GET x/y", "bad_target_form"),
        ("GET ?q", "bad_target_form"),
        ("GET http:/a.test/", "bad_target_form"),
        ("GET *", "asterisk_target"),
    ] {
        edge.refuses(format!("{line} HTTP/1.1\r\nHost: a.test\r\n\r\n"), 400, reason).await;
    }
}

// Row 23.
#[tokio::test]
async fn connect_is_refused_with_all_that_follows_it() {
    let edge = Edge::start().await;
    let next = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for target in ["a.test:80", "/", "http://a.test/"] {
        let bytes = format!("CONNECT {target} HTTP/1.1\r\nHost: a.test\r\n\r\n{next}");
        edge.refuses(bytes, 405, "connect_method").await;
    }
}

// Row 24.
#[tokio::test]
async fn trace_is_refused_and_the_methods_that_would_do_are_named() {
    let edge = Edge::start().await;
    let bytes = "TRACE / HTTP/1.1\r\nHost: a.test\r\nCookie: secret\r\n\r\n";
    edge.refuses(bytes, 405, "trace_method").await;
    let mut client = edge.proxy.client().await;
    let answer = client.exchange(bytes).await;
    let allow = answer.get("allow").expect("RFC 9110 §15.5.6 wants it");
    assert!(allow.contains("GET") && !allow.contains("TRACE"), "{allow}");
    assert!(!answer.text().contains("secret"));
}

// Row 26.
#[tokio::test]
async fn http_1_0_without_host_reaches_the_default_site_alone() {
    let (named, any) = (Tap::start().await, Tap::start().await);
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          named: {{ backends: [\"{named}\"], health_check: off }}
          any: {{ backends: [\"{any}\"], health_check: off }}
        routes:
          - {{ name: named, match: {{ hosts: [a.test, \"*.test\"] }}, upstream: named }}
          - {{ name: any, upstream: any }}
        "
    ))
    .await;

    let mut client = proxy.client().await;
    let answer = client.exchange("GET /x HTTP/1.0\r\n\r\n").await;
    assert_eq!((answer.status, answer.text()), (200, "/x"));
    assert_eq!(client.rest().await.0, b"", "HTTP/1.0 closes");
    assert_eq!((named.connections(), any.whole().len()), (0, 1));
    let hosts: Vec<_> = any.whole().iter().map(|got| values(got, "host").join(",")).collect();
    assert_eq!(hosts, [any.to_string()], "HTTP/1.1 to the origin needs a host");

    assert_eq!(proxy.send("GET /y HTTP/1.0\r\nHost: a.test\r\n\r\n").await.text(), "/y");
    assert_eq!((named.whole().len(), any.whole().len()), (1, 1));
}

// Row 26.
#[tokio::test]
async fn http_1_0_without_host_has_no_site_where_all_have_names() {
    let edge =
        Edge::with_routes("routes: [{ name: named, match: { hosts: [a.test] }, upstream: app }]")
            .await;
    assert_eq!(edge.proxy.send("GET / HTTP/1.0\r\n\r\n").await.status, 404);
    assert_eq!(edge.origin.connections(), 0);
}

// Row 58.
#[tokio::test]
async fn credentials_come_once() {
    let edge = Edge::start().await;
    let one = "Authorization: Basic YTpi\r\n";
    for other in [one, "AUTHORIZATION: Bearer c\r\n", "authorization:\r\n"] {
        edge.refuses(head(format!("{one}{other}")), 400, "duplicate_authorization").await;
    }
    let got = edge.forwards(head(one)).await;
    assert_eq!(values(&got, "authorization"), ["Basic YTpi"]);
}
