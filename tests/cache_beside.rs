//! Answers that are kept where more happens to requests: another backend is asked beside, a mirror
//! gets copies, bodies are compressed.

use std::io::Read as _;

use http::Request;
use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    Crestline, H2Answer, H2Client, H2Origin, Origin, PATIENCE, eventually, get,
    http2::{answer, ask},
    request,
};

/// One route with such policies to the upstream `app`.
fn yaml(upstreams: &str, policies: &str, route: &str) -> String {
    format!(
        "
        listeners: [{{ address: \"127.0.0.1:0\", h2c: true }}]
        upstreams: {{ {upstreams} }}
        routes: [{{ name: shop, policies: [{policies}], upstream: app, {route} }}]
        "
    )
}

const FRESH: (&str, &str) = ("cache-control", "max-age=600");
const MISS: Option<&str> = Some("crestline; fwd=uri-miss; stored");

fn is_hit(status: Option<&str>) -> bool {
    status.unwrap().starts_with("crestline; hit; ttl=5")
}

fn unzipped(answer: &H2Answer) -> String {
    assert_eq!(answer.field("content-encoding"), Some("gzip"), "{:?}", answer.head);
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*answer.body).read_to_string(&mut text).unwrap();
    text
}

/// What is kept is compressed over HTTP/2 for those who can read that, each time.
#[tokio::test]
async fn what_is_kept_is_compressed_over_http2() {
    const TYPE: (&str, &str) = ("content-type", "text/plain");
    let text = "kept ".repeat(50_000);
    let origin = H2Origin::with({
        let text = text.clone();
        move |request: Request<_>, respond| {
            let text = text.clone();
            async move {
                let is_known = request.headers().contains_key("if-none-match");
                match (is_known, request.uri().path()) {
                    (true, _) => answer(respond, 304, &[FRESH, ("age", "0")], ""),
                    (_, "/stale") => answer(
                        respond,
                        200,
                        &[TYPE, FRESH, ("age", "900"), ("etag", "\"a\"")],
                        &text,
                    ),
                    _ => answer(respond, 200, &[TYPE, FRESH], &text),
                }
            }
        }
    })
    .await;
    let policies = "{ compression: { codings: [gzip] } }, { cache: {} }";
    let upstreams = format!("app: {{ backends: [\"{origin}\"], health_check: off, http: 2 }}");
    let proxy = Crestline::start(&yaml(&upstreams, policies, "")).await;
    let client = H2Client::connect(&proxy).await;
    let gzip = ("accept-encoding", "gzip");
    for path in ["/fresh", "/stale"] {
        for verdict in ["fwd=uri-miss", if path == "/stale" { "fwd=stale" } else { "hit" }, "hit"] {
            let coded = client.get(ask(path, &[gzip])).await;
            assert_eq!(unzipped(&coded), text, "{path}");
            let status = coded.field("cache-status").unwrap();
            assert!(status.starts_with(&format!("crestline; {verdict}")), "{path}: {status}");
            assert_eq!(coded.field("content-length"), None);
        }
        let plain = client.get(ask(path, &[])).await;
        assert_eq!(
            (plain.field("content-encoding"), plain.field("vary")),
            (None, Some("Accept-Encoding"))
        );
        assert_eq!(plain.body, text.as_bytes());
        let part = client.get(ask(path, &[gzip, ("range", "bytes=0-3")])).await;
        assert_eq!((part.field("content-encoding"), &*part.body), (None, &b"kept"[..]));
    }
    assert_eq!(origin.requests().len(), 3);
}

/// Two that might have been asked ask one origin once; what bypasses the cache is hedged.
#[tokio::test]
async fn what_may_be_kept_is_not_hedged_and_what_bypasses_is() {
    let ((slow, gate), good) = (Origin::gated("in the end"), Origin::replying("good"));
    let upstreams = format!(
        "app: {{ backends: [\"{slow}\", {{ address: \"{good}\", backup: true }}], \
         health_check: off, retries: {{ hedge_after: 50ms }} }}"
    );
    let policies = "{ cache: { ttl: { 200: 10m }, bypass_cookies: [sid] } }";
    let proxy = Crestline::start(&yaml(&upstreams, policies, "")).await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    eventually("it is asked", || slow.count() == 1).await;
    let bypass = proxy.send(request("GET", "/", "Cookie: sid=1\r\n", "")).await;
    assert_eq!(bypass.get("cache-status"), Some("crestline; fwd=bypass; detail=cookie"));
    assert_eq!(bypass.text(), "good", "so much time has passed for the other");
    let mut of_head = proxy.client().await;
    of_head.send(request("HEAD", "/other", "", "")).await;
    assert_eq!(of_head.head().await.get("content-length"), Some("4"), "nothing is kept of it");
    assert_eq!((slow.count(), good.count()), (3, 2));

    gate.add_permits(9);
    let first = client.answer().await;
    assert_eq!((first.text(), first.get("cache-status")), ("in the end", MISS));
    let hit = client.exchange(get("/")).await;
    assert!(is_hit(hit.get("cache-status")) && hit.text() == "in the end", "{hit:?}");
    assert_eq!((slow.count(), good.count()), (3, 2));
    let line = proxy.access_line(|line| line["cache"] == "miss" && line["method"] == "GET").await;
    assert_eq!(line["via"], format!("{slow}:200"));
    proxy.measures("crestline_upstream_hedges_total{upstream=\"app\"}", 2.0).await;
}

/// It gets what requests have the origin be asked, as it is asked.
#[tokio::test]
async fn a_mirror_gets_misses_and_questions_and_no_hits() {
    let origin = Origin::with(async |exchange| {
        let fields = match &*exchange.request.target {
            "/asked" => "Age: 99\r\nCache-Control: max-age=9\r\nETag: \"a\"\r\n",
            "/beside" => "Age: 99\r\nCache-Control: max-age=9, stale-while-revalidate=900\r\n",
            _ => "Cache-Control: max-age=600\r\nETag: \"a\"\r\n",
        };
        match exchange.request.fields.get("if-none-match") {
            Some(_) => exchange.answer("304 Not Modified", fields, "").await,
            None => exchange.answer("200 OK", fields, "kept").await,
        }
    });
    let mirror = Origin::replying("copy");
    let upstreams = format!(
        "app: {{ backends: [\"{origin}\"], health_check: off }}, \
         mirror: {{ backends: [\"{mirror}\"], health_check: off }}"
    );
    let yaml = yaml(&upstreams, "{ cache: {} }", "mirror: { upstream: mirror }");
    let proxy = Crestline::start(&yaml).await;
    let mut client = proxy.client().await;
    for fields in ["If-None-Match: \"b\"\r\n", "", "Range: bytes=0-1\r\n", "Accept: x/y\r\n"] {
        let answer = client.exchange(request("GET", "/page", fields, "")).await;
        assert!(answer.status < 300, "{answer:?}");
    }
    for path in ["/asked", "/beside"] {
        for _ in 0..2 {
            assert_eq!(client.exchange(get(path)).await.text(), "kept");
        }
    }
    eventually("it is renewed beside", || origin.count() == 5).await;
    let start = Instant::now();
    let copied = loop {
        let status = proxy.status().await;
        let mut upstreams = status["upstreams"].as_array().unwrap().iter();
        let copied = &upstreams.find(|one| one["name"] == "mirror").unwrap()["mirrored"];
        if copied["now"] == 0 && copied["ended"]["2xx"] == 4 {
            break copied.clone();
        }
        assert!(start.elapsed() < PATIENCE, "{copied}");
    };
    assert_eq!(copied, json!({ "now": 0, "ended": { "2xx": 4 } }));
    let mut copies: Vec<_> = mirror
        .requests()
        .into_iter()
        .map(|copy| (copy.target, copy.fields.get("if-none-match").map(str::to_owned)))
        .collect();
    copies.sort();
    let known = |path: &str, tag: Option<&str>| (path.to_owned(), tag.map(str::to_owned));
    let expected =
        [("/asked", None), ("/asked", Some("\"a\"")), ("/beside", None), ("/page", None)];
    assert_eq!(copies, expected.map(|(path, tag)| known(path, tag)));
}
