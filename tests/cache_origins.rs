//! Answers of origins that speak HTTP/2, kept and given again.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request};
use tokio::{sync::Semaphore, time::Instant};

use crate::support::{
    Answer, Client, Crestline, Ending, H2Client, H2Origin, PATIENCE, get,
    http2::{answer, ask, head},
    request, soon,
};

/// One route with a cache before an origin of HTTP/2.
async fn started(origin: &H2Origin) -> Crestline {
    Crestline::start(&format!(
        "
        listeners: [{{ address: \"127.0.0.1:0\", h2c: true }}]
        upstreams:
          app: {{ backends: [\"{origin}\"], health_check: off, http: 2, retries: 0 }}
        routes: [{{ name: shop, policies: [{{ cache: {{}} }}], upstream: app }}]
        "
    ))
    .await
}

const FRESH: (&str, &str) = ("cache-control", "max-age=600");
const MISS: Option<&str> = Some("crestline; fwd=uri-miss; stored");

fn is_hit(status: Option<&str>) -> bool {
    status.unwrap().starts_with("crestline; hit; ttl=5")
}

/// One answer for clients of both protocols, in whole and in part.
#[tokio::test]
async fn an_answer_over_http2_is_kept_and_given_again() {
    let origin = H2Origin::with(async |_, respond| {
        answer(respond, 200, &[FRESH, ("etag", "\"a\"")], "0123456789");
    })
    .await;
    let proxy = started(&origin).await;
    let (mut client, client2) = (proxy.client().await, H2Client::connect(&proxy).await);
    let first = client.exchange(get("/a?b")).await;
    assert_eq!((first.text(), first.get("cache-status")), ("0123456789", MISS));
    let hit = client.exchange(get("/a?b")).await;
    assert_eq!((hit.text(), hit.get("content-length")), ("0123456789", Some("10")));
    assert!(is_hit(hit.get("cache-status")) && hit.get("age").is_some(), "{hit:?}");
    let part = client.exchange(request("GET", "/a?b", "Range: bytes=2-4\r\n", "")).await;
    assert_eq!((part.status, part.text()), (206, "234"));
    assert_eq!(part.get("content-range"), Some("bytes 2-4/10"));
    let known = request("GET", "/a?b", "If-None-Match: \"a\"\r\n", "");
    assert_eq!(client.exchange(known).await.status, 304);
    let hit = client2.get(ask("/a?b", &[])).await;
    assert!(is_hit(hit.field("cache-status")) && hit.body == b"0123456789", "{hit:?}");
    let part = client2.get(ask("/a?b", &[("range", "bytes=-3")])).await;
    assert_eq!((part.head.status().as_u16(), &*part.body), (206, &b"789"[..]));
    let known = client2.get(ask("/a?b", &[("if-none-match", "\"a\"")])).await;
    assert_eq!(known.head.status(), 304);

    let asked = origin.requests();
    assert_eq!((asked.len(), asked[0].uri().to_string()), (1, "http://a.test/a?b".to_owned()));
    assert!(!asked[0].headers().contains_key("host"));
    proxy.measures("crestline_cache_requests_total{route=\"shop\",verdict=\"hit\"}", 6.0).await;

    let first = client2.get(ask("/other", &[])).await;
    assert_eq!((&*first.body, first.field("cache-status")), (&b"0123456789"[..], MISS));
    assert!(is_hit(client.exchange(get("/other")).await.get("cache-status")));
    assert_eq!(origin.requests().len(), 2);
}

/// Answers in so many frames, whose length is told or not, and whose end is a frame of its own
/// that comes at once, after leave, or has fields: `/told/3/fields`.
async fn in_frames(path: &str, mut respond: SendResponse<Bytes>, leave: &Semaphore) {
    let [told, frames, end] = path.splitn(4, '/').skip(1).collect::<Vec<_>>()[..] else { return };
    let frames: usize = frames.parse().unwrap();
    let mut head = head(200, &[FRESH]);
    if told == "told" {
        head.headers_mut().insert("content-length", (5 * frames).into());
    }
    let mut body = respond.send_response(head, false).unwrap();
    for _ in 0..frames {
        body.send_data(Bytes::from_static(b"piece"), false).unwrap();
    }
    // Who has all that was told may have left.
    match end {
        "fields" => {
            let fields =
                HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("7"))]);
            let _ = body.send_trailers(fields);
        }
        end => {
            if end == "late" {
                leave.acquire().await.unwrap().forget();
            }
            let _ = body.send_data(Bytes::new(), true);
        }
    }
}

#[tokio::test]
async fn what_is_whole_is_kept_however_its_stream_ends() {
    let leave = Arc::new(Semaphore::new(0));
    let origin = H2Origin::with({
        let leave = leave.clone();
        move |request: Request<_>, respond| {
            let leave = leave.clone();
            async move { in_frames(request.uri().path(), respond, &leave).await }
        }
    })
    .await;
    let proxy = started(&origin).await;
    let (mut client, client2) = (proxy.client().await, H2Client::connect(&proxy).await);
    let mut asked = 0;
    for kind in ["told", "open"] {
        for (frames, end) in (0..9).flat_map(|n| [(n, "data"), (n, "fields")]) {
            let (path, text) = (format!("/{kind}/{frames}/{end}"), "piece".repeat(frames));
            asked += 2;
            let first = client.exchange(get(&path)).await;
            assert_eq!((first.text(), first.get("cache-status")), (&*text, MISS), "{path}");
            let hit = client.exchange(get(&path)).await;
            assert!(is_hit(hit.get("cache-status")) && hit.text() == text, "{path}: {hit:?}");

            let path = format!("{path}?2");
            let first = client2.get(ask(&path, &[])).await;
            assert_eq!((&*first.body, first.field("cache-status")), (text.as_bytes(), MISS));
            assert_eq!(first.trailers.is_some(), end == "fields", "{path}");
            let hit = client2.get(ask(&path, &[])).await;
            assert!(is_hit(hit.field("cache-status")), "{path}: {hit:?}");
            assert_eq!(hit.body, text.as_bytes(), "{path}");
            assert_eq!(hit.trailers, None, "fields behind a body are not kept: {path}");
            assert_eq!(origin.requests().len(), asked, "{path}");
        }
    }
    // Its client has all of it before the origin says that it ends.
    let first = client.exchange(get("/told/3/late")).await;
    assert_eq!(first.get("cache-status"), MISS);
    let hit = client.exchange(get("/told/3/late")).await;
    assert!(is_hit(hit.get("cache-status")) && hit.text() == "piecepiecepiece", "{hit:?}");
    leave.add_permits(9);
}

/// The first answer to each path breaks off after a part, when its client has begun to read.
#[tokio::test]
async fn a_stream_that_breaks_off_is_not_kept() {
    let (read, count) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let origin = H2Origin::with({
        let read = read.clone();
        move |request: Request<_>, mut respond: SendResponse<Bytes>| {
            let (read, is_first) = (read.clone(), count.fetch_add(1, SeqCst) % 2 == 0);
            async move {
                if !is_first {
                    return answer(respond, 200, &[FRESH], "0123456789");
                }
                let path = request.uri().path();
                let length = if path == "/open" { &[][..] } else { &[("content-length", "10")] };
                let fields = [&[FRESH][..], length].concat();
                let mut body = respond.send_response(head(200, &fields), false).unwrap();
                body.send_data(Bytes::from_static(b"01234"), path == "/short").unwrap();
                read.acquire().await.unwrap().forget();
                if path != "/short" {
                    body.send_reset(Reason::INTERNAL_ERROR);
                }
            }
        }
    })
    .await;
    let proxy = started(&origin).await;
    for path in ["/told", "/open", "/short"] {
        let mut client = proxy.client().await;
        client.send(get(path)).await;
        if path != "/short" {
            assert_eq!(client.head().await.status, 200);
            assert!(client.piece().await.unwrap().is_some());
        }
        read.add_permits(1);
        let (_, ending) = client.rest().await;
        assert!(matches!(ending, Ending::Closed | Ending::Reset), "{path}: {ending:?}");
        let mut client = proxy.client().await;
        let whole = client.exchange(get(path)).await;
        assert_eq!((whole.text(), whole.get("cache-status")), ("0123456789", MISS), "{path}");
        assert!(is_hit(client.exchange(get(path)).await.get("cache-status")), "{path}");
    }
    let client2 = H2Client::connect(&proxy).await;
    for path in ["/told?2", "/open?2"] {
        let mut answer = soon("a head", client2.send(ask(path, &[])).await).await.unwrap();
        read.add_permits(1);
        let ended = async {
            while let Some(piece) = answer.body_mut().data().await {
                piece?;
            }
            Ok::<_, h2::Error>(())
        };
        assert!(soon("its end", ended).await.is_err(), "{path}");
        let whole = client2.get(ask(path, &[])).await;
        assert_eq!((&*whole.body, whole.field("cache-status")), (&b"0123456789"[..], MISS));
    }
    assert_eq!(origin.requests().len(), 10);
}

/// An answer that is stale as it comes.
const STALE: (&str, &str) = ("age", "99");

/// By a `304`, by another answer, or not at all where the origin fails.
#[tokio::test]
async fn a_stale_answer_is_asked_about_over_http2() {
    let origin = H2Origin::with(async |request: Request<_>, respond| {
        let is_known = request.headers().contains_key("if-none-match");
        let stale = [STALE, ("cache-control", "max-age=9"), ("etag", "\"a\""), ("x-news", "1")];
        let error = [STALE, ("cache-control", "max-age=9, stale-if-error=900"), ("etag", "\"a\"")];
        match (is_known, request.uri().path()) {
            (false, "/error") => answer(respond, 200, &error, "kept"),
            (false, _) => answer(respond, 200, &stale, "kept"),
            (true, "/error") => answer(respond, 503, &[], "broken"),
            (true, "/other") => answer(respond, 200, &[FRESH], "another"),
            (true, _) => answer(respond, 304, &[FRESH, ("age", "0"), ("x-news", "2")], ""),
        }
    })
    .await;
    let proxy = started(&origin).await;
    let (mut client, client2) = (proxy.client().await, H2Client::connect(&proxy).await);
    assert_eq!(client.exchange(get("/same")).await.text(), "kept");
    let renewed = client.exchange(get("/same")).await;
    assert_eq!((renewed.status, renewed.text(), renewed.get("x-news")), (200, "kept", Some("2")));
    assert_eq!(renewed.get("cache-status"), Some("crestline; fwd=stale; fwd-status=304"));
    let hit = client.exchange(get("/same")).await;
    assert!(is_hit(hit.get("cache-status")) && hit.get("x-news") == Some("2"), "{hit:?}");

    client2.get(ask("/same?2", &[])).await;
    let known = client2.get(ask("/same?2", &[("if-none-match", "\"a\"")])).await;
    assert_eq!((known.head.status().as_u16(), known.field("x-news")), (304, Some("2")));
    assert!(is_hit(client2.get(ask("/same?2", &[])).await.field("cache-status")));

    assert_eq!(client.exchange(get("/other")).await.text(), "kept");
    let other = client.exchange(get("/other")).await;
    assert_eq!(
        (other.text(), other.get("cache-status")),
        ("another", Some("crestline; fwd=stale; stored"))
    );
    assert_eq!(client2.get(ask("/other", &[])).await.body, b"another");
    assert_eq!(origin.requests().len(), 6);

    assert_eq!(client.exchange(get("/error")).await.text(), "kept");
    for _ in 0..2 {
        assert_eq!(proxy.get("/error").await.text(), "kept");
    }
    drop(origin);
    assert_eq!(proxy.get("/error").await.text(), "kept");
}

/// Asks until what is kept is fresh, and is given what is stale until then.
async fn fresh(client: &mut Client, path: &str, stale: &str) -> Answer {
    let start = Instant::now();
    loop {
        let answer = client.exchange(get(path)).await;
        if is_hit(answer.get("cache-status")) {
            return answer;
        }
        assert!(answer.get("cache-status").unwrap().starts_with("crestline; hit; ttl=-"));
        assert_eq!(answer.text(), stale);
        assert!(start.elapsed() < PATIENCE, "it stays stale");
    }
}

/// By a `304`, or by another answer, of which a part is nothing.
#[tokio::test]
async fn a_stale_answer_is_renewed_beside_over_http2() {
    let broken = Arc::new(AtomicUsize::new(0));
    let origin = H2Origin::with({
        move |request: Request<RecvStream>, mut respond: SendResponse<Bytes>| {
            let broken = broken.clone();
            async move {
                let control = ("cache-control", "max-age=9, stale-while-revalidate=900");
                let stale = [STALE, control, ("etag", "\"a\"")];
                let is_known = request.headers().contains_key("if-none-match");
                let has_ended = request.body().is_end_stream();
                match (is_known, request.uri().path()) {
                    _ if !has_ended => respond.send_reset(Reason::PROTOCOL_ERROR), // with its fields
                    (false, _) => answer(respond, 200, &stale, "old"),
                    (true, "/same") => answer(respond, 304, &[FRESH, ("age", "0")], ""),
                    (true, "/open") => {
                        let mut body = respond.send_response(head(200, &[FRESH]), false).unwrap();
                        body.send_data(Bytes::from_static(b"new"), false).unwrap();
                        body.send_trailers(HeaderMap::new()).unwrap();
                    }
                    (true, "/broken") if broken.fetch_add(1, SeqCst) < 2 => {
                        let mut body = respond.send_response(head(200, &[FRESH]), false).unwrap();
                        body.send_data(Bytes::from_static(b"ne"), false).unwrap();
                        body.send_reset(Reason::INTERNAL_ERROR);
                    }
                    _ => answer(respond, 200, &[FRESH], "new"),
                }
            }
        }
    })
    .await;
    let proxy = started(&origin).await;
    let (mut client, client2) = (proxy.client().await, H2Client::connect(&proxy).await);
    for (path, asked, text) in
        [("/same", 2, "old"), ("/other", 2, "new"), ("/open", 2, "new"), ("/broken", 4, "new")]
    {
        let before = origin.requests().len();
        assert_eq!(client.exchange(get(path)).await.get("cache-status"), MISS);
        let stale = client2.get(ask(path, &[("range", "bytes=0-1"), ("x-kept", "1")])).await;
        assert_eq!((stale.head.status().as_u16(), &*stale.body), (206, &b"ol"[..]), "{path}");
        let renewed = fresh(&mut client, path, "old").await;
        assert_eq!(renewed.text(), text, "{path}");
        let all = origin.requests();
        assert_eq!(all.len() - before, asked, "{path}: {:#?}", &all[before..]);
        let beside = &all[before + 1];
        assert_eq!(beside.uri(), &*format!("http://a.test{path}"));
        assert!(!["host", "range"].iter().any(|name| beside.headers().contains_key(*name)));
        assert!(["x-kept", "x-request-id"].iter().all(|name| beside.headers().contains_key(*name)));
    }
}
