//! Rows 51 to 57: how much may be asked, and what of it the origin is told.

use super::{Edge, head, target, values};
use crate::support::get;

// Row 51.
#[tokio::test]
async fn a_target_has_a_bound_of_16_kib() {
    let edge = Edge::start().await;
    for length in [10 * 1024, 16 * 1024] {
        let path = format!("/{}", "a".repeat(length - 1));
        assert_eq!(target(&edge.forwards(get(&path)).await), path);
    }
    let edge = Edge::start().await;
    for length in [16 * 1024 + 1, 70 * 1024] {
        let path = format!("/{}", "a".repeat(length - 1));
        edge.refuses(get(&path), 414, "target_too_long").await;
        let query = format!("/?{}", "a".repeat(length - 2));
        edge.refuses(get(&query), 414, "target_too_long").await;
    }
}

// Row 52.
#[tokio::test]
async fn a_head_has_a_bound_of_64_kib() {
    let edge = Edge::start().await;
    for length in [9 * 1024, 40 * 1024, 60 * 1024] {
        let value = "v".repeat(length);
        let got = edge.forwards(head(format!("X: {value}\r\n"))).await;
        assert_eq!(values(&got, "x"), [value]);
    }
    let edge = Edge::start().await;
    for length in [64 * 1024, 300 * 1024] {
        let lines = format!("X: {}\r\n", "v".repeat(length));
        edge.refuses(head(lines), 431, "head_too_large").await;
    }
    let lines = format!("X: {}\r\n", "v".repeat(1000)).repeat(100);
    edge.refuses(head(lines), 431, "head_too_large").await;
}

// Row 52.
#[tokio::test]
async fn a_head_has_at_most_128_fields() {
    let edge = Edge::start().await;
    // Beside these there is `Host`.
    for fields in [110, 127] {
        let got = edge.forwards(head("X: v\r\n".repeat(fields))).await;
        assert_eq!(values(&got, "x").len(), fields);
    }
    let edge = Edge::start().await;
    for fields in [128, 1100] {
        edge.refuses(head("X: v\r\n".repeat(fields)), 431, "too_many_fields").await;
    }
}

// Row 53.
#[tokio::test]
async fn the_origin_gets_the_canonical_path() {
    let edge = Edge::start().await;
    for (sent, canonical) in [
        ("/a/../b", "/b"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/%2E./b?c=/../d", "/b?c=/../d"),
        ("//a//b", "//a//b"),
        ("/a;x/../b", "/b"),
        ("/%7Ea", "/~a"),
    ] {
        assert_eq!(target(&edge.forwards(get(sent)).await), canonical);
    }
}

// Row 53.
#[tokio::test]
async fn a_route_may_keep_the_path_as_it_was_sent() {
    let edge = Edge::with_routes("routes: [{ name: raw, path: as_sent, upstream: app }]").await;
    for sent in ["/a/../b", "/a/%2e%2e/b", "//a//b", "/a;x/../b", "/%7Ea%2f"] {
        assert_eq!(target(&edge.forwards(get(sent)).await), sent);
    }
}

// Row 54.
#[tokio::test]
async fn a_path_that_climbs_above_the_root_is_refused() {
    let edge = Edge::start().await;
    for path in ["/../../etc/passwd", "/..", "/a/../../b", "/%2e%2e/etc/passwd"] {
        edge.refuses(get(path), 400, "path_above_root").await;
    }
}

// Row 55.
#[tokio::test]
async fn an_encoded_slash_neither_splits_nor_joins_segments() {
    let edge = Edge::start().await;
    for (sent, canonical) in
        [("/%2f..%2f", "/%2F..%2F"), ("/a%5c..%5cb", "/a%5C..%5Cb"), ("/a%2F../b", "/a%2F../b")]
    {
        assert_eq!(target(&edge.forwards(get(sent)).await), canonical);
    }
}

// Row 55.
#[tokio::test]
async fn a_path_that_origins_read_differently_is_refused() {
    let edge = Edge::start().await;
    for (path, reason) in [
        ("/\\..\\", "target_backslash"),
        ("/a#frag", "target_fragment"),
        ("/a?b#frag", "target_fragment"),
        ("/a%00b", "path_nul"),
        ("/a%zz", "path_broken_escape"),
        ("/a%", "path_broken_escape"),
        ("/a%4", "path_broken_escape"),
    ] {
        edge.refuses(get(path), 400, reason).await;
    }
}

// Rows 54 and 55: also where the bytes go on as they came.
#[tokio::test]
async fn a_path_that_is_kept_as_it_was_sent_is_judged_all_the_same() {
    let edge = Edge::with_routes("routes: [{ name: raw, path: as_sent, upstream: app }]").await;
    edge.refuses(get("/../etc/passwd"), 400, "path_above_root").await;
    edge.refuses(get("/a%00b"), 400, "path_nul").await;
}

// Rows 56 and 57.
#[tokio::test]
async fn fields_that_origins_misread_are_dropped() {
    let edge = Edge::start().await;
    let lines = "X_Forwarded_For: 6.6.6.6\r\nContent_Length: 3\r\nX_Y: z\r\n\
                 Proxy: http://6.6.6.6\r\nPROXY: again\r\nX-Kept: yes\r\n";
    let got = edge.forwards(head(lines)).await;
    for dropped in ["x_forwarded_for", "content_length", "x_y", "proxy"] {
        assert_eq!(values(&got, dropped), [""; 0], "{got}");
    }
    assert_eq!(values(&got, "x-kept"), ["yes"]);
    assert_eq!(values(&got, "x-forwarded-for"), ["127.0.0.1"]);
}
