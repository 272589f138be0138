//! What clients of HTTP/2 do to keep a server busy for nothing (faults C): the connection ends,
//! and nobody else notices.

use crate::support::{
    After, Client, Crestline, Exchange, Origin, eventually,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM,
        Received, SETTINGS, START, WINDOW_UPDATE, asking, fields, frame, frame_of, next, pseudo,
    },
};

/// RFC 9113 §7.
const ENHANCE_YOUR_CALM: u8 = 0xb;

/// Requests that are taken back at once (CVE-2023-44487).
#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let origin = Origin::with(silent);
    let (proxy, mut client) = connected(&origin, "").await;
    let reset = |stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    let flood = (0..3_000)
        .map(|nth| 2 * nth + 1)
        .flat_map(|stream| [asking(stream, "/"), reset(stream)].concat());
    client.send_if_taken(flood.collect::<Vec<u8>>()).await;

    assert_eq!(calmed(&mut client).await, Some(ENHANCE_YOUR_CALM));
    assert!(origin.count() <= 110, "{} requests reached the origin", origin.count());
    assert_eq!(proxy.status().await["refused"]["h2_resets"], 1);
    others_are_served(&proxy).await;
}

/// Browsers and gRPC clients take requests back, too.
#[tokio::test]
async fn a_client_that_cancels_some_of_its_requests_is_served() {
    let origin = Origin::replying("hello");
    let (_proxy, mut client) = connected(&origin, "").await;
    for nth in 0..300 {
        let (kept, reset) = (4 * nth + 1, 4 * nth + 3);
        let cancel = frame(RST_STREAM, 0, reset, &[0, 0, 0, 8]);
        client.send([asking(kept, "/"), asking(reset, "/"), cancel].concat()).await;
        loop {
            let (kind, flags, stream, _) = next(&mut client).await.expect("an answer");
            assert_ne!(kind, GOAWAY, "after {nth} rounds");
            if stream == kept && flags & END_STREAM != 0 && (kind == DATA || kind == HEADERS) {
                break;
            }
        }
    }
}

/// The client makes the server reset its streams (CVE-2025-8671).
#[tokio::test]
async fn streams_that_a_client_makes_us_reset_are_bounded() {
    let origin = Origin::with(silent);
    let (proxy, mut client) = connected(&origin, "").await;
    let flood = (0..2_000).map(|nth| 2 * nth + 1).flat_map(|stream| {
        [asking(stream, "/"), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
    });
    client.send_if_taken(flood.collect::<Vec<u8>>()).await;

    calmed(&mut client).await;
    assert!(origin.count() <= 21, "{} requests reached the origin", origin.count());
    others_are_served(&proxy).await;
}

#[tokio::test]
async fn floods_that_ask_for_nothing_end_the_connection() {
    let origin = Origin::replying("hello");
    let start = frame(HEADERS, END_HEADERS, 1, &fields(&pseudo("/")));
    let floods: [(&str, &[u8], Vec<u8>, usize); 5] = [
        ("pings", &[], frame(PING, 0, 0, &[0; 8]), 15_000),
        ("settings", &[], frame(SETTINGS, 0, 0, &[]), 3_000),
        ("priorities", &[], frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 0]), 3_000),
        ("frames of an unknown type", &[], frame(0xfa, 0, 0, &[]), 3_000),
        ("empty data", &start, frame(DATA, 0, 1, &[]), 2_000),
    ];
    for (what, before, one, times) in floods {
        let (proxy, mut client) = connected(&origin, "").await;
        client.send_if_taken([before, &one.repeat(times)].concat()).await;
        assert_eq!(calmed(&mut client).await, Some(ENHANCE_YOUR_CALM), "{what}");
        others_are_served(&proxy).await;
    }
}

#[tokio::test]
async fn fields_without_end_end_the_connection() {
    let origin = Origin::replying("hello");
    let some = fields(&[("x-some", &"x".repeat(40))]);
    let floods = [
        ("of 50 bytes", frame(CONTINUATION, 0, 1, &some), 1_000),
        ("empty", frame(CONTINUATION, 0, 1, &[]), 1_500),
    ];
    for (what, one, times) in floods {
        let (proxy, mut client) = connected(&origin, "").await;
        let begin = frame(HEADERS, END_STREAM, 1, &fields(&pseudo("/")));
        client.send_if_taken([begin, one.repeat(times)].concat()).await;
        assert!(calmed(&mut client).await.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{what}");
        others_are_served(&proxy).await;
    }
    assert!(origin.requests().iter().all(|request| request.target == "/other"));
}

/// The deadline of a request head holds for its frames, too.
#[tokio::test]
async fn fields_that_do_not_come_to_their_end_have_their_time() {
    let origin = Origin::replying("hello");
    let (proxy, mut client) = connected(&origin, ", timeouts: { header: 1s }").await;
    let asked = fields(&pseudo("/"));
    client.send(frame(HEADERS, END_STREAM, 1, &asked[..10])).await;

    assert_eq!(calmed(&mut client).await, Some(ENHANCE_YOUR_CALM));
    assert_eq!(proxy.status().await["refused"]["header_timeout"], 1);
    others_are_served(&proxy).await;
}

/// One field in a table, named again by a byte, thousands of times.
#[tokio::test]
async fn fields_that_grow_when_they_are_unpacked_are_refused() {
    let origin = Origin::replying("hello");
    let (proxy, mut client) = connected(&origin, "").await;
    let large = "x".repeat(3_900);
    let mut block = fields(&pseudo("/"));
    block.extend([0x40, 1, b'a', 0x7f]); // literal, to be kept in the table
    let rest = large.len() - 127;
    block.extend([u8::try_from(rest % 128).unwrap() | 128, u8::try_from(rest / 128).unwrap()]);
    block.extend(large.bytes());
    block.extend([0xbe].repeat(4_000)); // the newest entry of the table
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;

    answer_to(&mut client, 1).await;
    assert_eq!(origin.count(), 0);
    others_are_served(&proxy).await;
}

/// RFC 9113 §8.2, §8.3: they end their stream, or the connection, and reach nobody.
#[tokio::test]
async fn malformed_requests_reach_no_origin() {
    let origin = Origin::replying("hello");
    let (proxy, _) = connected(&origin, "").await;
    let with = |name, value| [&pseudo("/")[..], &[(name, value)]].concat();
    let instead = |name, value| {
        let mut fields = pseudo("/").to_vec();
        fields.iter_mut().filter(|(known, _)| *known == name).for_each(|field| field.1 = value);
        fields
    };
    let cases = [
        with("connection", "close"),
        with("transfer-encoding", "chunked"),
        with("te", "gzip"),
        with("X-Upper", "1"),
        with("x-a", "a\r\nx-b: b"),
        with("x-a", "a\0b"),
        with("x:a", "1"),
        with("host", "b.test"),
        [&pseudo("/")[1..], &pseudo("/")[..1], &[("x-a", "1")], &[(":method", "GET")]].concat(),
        pseudo("/").into_iter().filter(|(name, _)| *name != ":authority").collect(),
        instead(":path", "/ HTTP/1.1\r\nx: y"),
        instead(":path", ""),
        instead(":method", "GET /evil HTTP/1.1"),
        instead(":scheme", "ht tp"),
    ];
    for case in cases {
        let mut client = proxy.client().await;
        let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&case));
        client.send([START, &request].concat()).await;
        if let Some((HEADERS, _, _, payload)) = answer_to(&mut client, 1).await {
            // `400` is in HPACK's own table (RFC 7541, appendix A).
            assert_eq!(payload[0], 0x8c, "{case:?}: {payload:?}");
        }
    }
    assert_eq!(origin.count(), 0);
    others_are_served(&proxy).await;
}

/// What the client says of its body and what it sends must agree.
#[tokio::test]
async fn a_body_of_another_length_than_was_said_resets_its_stream() {
    let origin = Origin::echoing();
    let (proxy, mut client) = connected(&origin, "").await;
    for (stream, length) in [(1, "3"), (3, "10")] {
        let said = [&pseudo("/")[..], &[("content-length", length)]].concat();
        let head = frame(HEADERS, END_HEADERS, stream, &fields(&said));
        client.send([head, frame(DATA, END_STREAM, stream, b"hello")].concat()).await;
        let (kind, _, _, payload) = answer_to(&mut client, stream).await.expect("an answer");
        assert!(kind == RST_STREAM || payload[0] == 0x8c, "{length}: {kind} {payload:?}");
    }
    others_are_served(&proxy).await;
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_the_connection() {
    let origin = Origin::replying("hello");
    let (proxy, mut client) = connected(&origin, "").await;
    client.send_if_taken(&[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1]).await;
    let (_, _, payload) = frame_of(&mut client, GOAWAY).await;
    assert_eq!(payload[4..8], [0, 0, 0, 6], "FRAME_SIZE_ERROR");
    others_are_served(&proxy).await;
}

/// It asks, and lets nobody answer.
#[tokio::test]
async fn a_window_that_never_opens_is_not_waited_for_for_ever() {
    let origin = Origin::replying("hello");
    let (proxy, mut client) = connected(&origin, ", timeouts: { write: 1s }").await;
    let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    client.send([no_window, asking(1, "/")].concat()).await;

    while let Some((kind, _, stream, _)) = next(&mut client).await {
        if kind == RST_STREAM && stream == 1 {
            break;
        }
    }
    eventually("the end of the request", || !proxy.access_lines().is_empty()).await;
    others_are_served(&proxy).await;
}

/// A proxy that speaks HTTP/2, and a client that has begun.
async fn connected(origin: &Origin, more: &str) -> (Crestline, Client) {
    let upstreams = format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}");
    let listeners = format!("listeners: [{{ address: \"127.0.0.1:0\", h2c: true{more} }}]");
    let proxy = Crestline::start_in_parts(&[&upstreams, &listeners]).await;
    let mut client = proxy.client().await;
    client.send(START).await;
    (proxy, client)
}

/// Answers nothing but `/other`.
async fn silent(exchange: Exchange) -> After {
    match exchange.request.target.as_str() {
        "/other" => exchange.reply("hello").await,
        _ => exchange.hang().await,
    }
}

/// The code of the GOAWAY with which the connection ends; `None` if it ends without.
async fn calmed(client: &mut Client) -> Option<u8> {
    let mut code = None;
    while let Some((kind, _, _, payload)) = next(client).await {
        if kind == GOAWAY {
            code = Some(payload[7]);
        }
    }
    code
}

/// The frame that answers a stream: fields, or a reset.
async fn answer_to(client: &mut Client, wanted: u32) -> Option<Received> {
    while let Some(frame) = next(client).await {
        if frame.2 == wanted && (frame.0 == HEADERS || frame.0 == RST_STREAM) {
            return Some(frame);
        }
    }
    None
}

/// Another client is served as ever.
async fn others_are_served(proxy: &Crestline) {
    let mut other = proxy.client().await;
    other.send([START, &asking(1, "/other")].concat()).await;
    let (kind, ..) = answer_to(&mut other, 1).await.expect("an answer");
    assert_eq!(kind, HEADERS);
}
