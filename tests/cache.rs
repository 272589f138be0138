//! Answers that are kept and given again, for as long as they may be, to those whom they are for.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use crate::support::{Crestline, Ending, Origin, curl, eventually, get, post, request};

/// An origin whose answers are numbered, with fields by the path of the request.
fn numbered(fields: fn(&str) -> &'static str) -> Origin {
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    Origin::with(move |exchange| {
        let nth = count.fetch_add(1, SeqCst) + 1;
        async move {
            let (target, fields) =
                (exchange.request.target.clone(), fields(&exchange.request.target));
            let is_known = exchange.request.fields.get("if-none-match").is_some();
            if is_known && target.starts_with("/known") {
                return exchange.answer("304 Not Modified", fields, "").await;
            }
            exchange.answer("200 OK", fields, format!("{nth} {target}")).await
        }
    })
}

/// One route with a cache before an origin; more policies, and more of this one.
fn yaml(origin: &dyn ToString, before: &str, cache: &str) -> String {
    let origin = origin.to_string();
    format!(
        "
        listeners: [{{ address: \"127.0.0.1:0\", h2c: true }}]
        upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: off }} }}
        routes:
          - name: shop
            policies: [{before} {{ cache: {cache} }}]
            upstream: app
        "
    )
}

async fn started(origin: &Origin, before: &str, cache: &str) -> Crestline {
    Crestline::start(&yaml(origin, before, cache)).await
}

/// One answer for everybody, in whole and in part, over both protocols, across a reload, until it
/// is purged.
#[tokio::test]
async fn an_answer_is_kept_and_given_again() {
    let origin = numbered(|_| "Cache-Control: max-age=600\r\nETag: \"a\"\r\nCache-Tag: x, y\r\n");
    let proxy = started(&origin, "", "{ hide_tags: true }").await;
    let mut client = proxy.client().await;
    let first = client.exchange(get("/page")).await;
    assert_eq!((first.text(), first.get("age")), ("1 /page", None));
    assert_eq!(first.get("cache-status"), Some("crestline; fwd=uri-miss; stored"));

    let hit = client.exchange(get("/page")).await;
    assert_eq!((hit.status, hit.text(), hit.get("content-length")), (200, "1 /page", Some("7")));
    assert!(hit.get("age").is_some() && hit.get("cache-tag").is_none());
    assert!(hit.get("cache-status").unwrap().starts_with("crestline; hit; ttl=5"));
    let known = request("GET", "/page", "If-None-Match: \"b\", W/\"a\"\r\n", "");
    assert_eq!(client.exchange(known).await.status, 304);
    let part = client.exchange(request("GET", "/page", "Range: bytes=2-4\r\n", "")).await;
    assert_eq!((part.status, part.text()), (206, "/pa"));
    assert_eq!(part.get("content-range"), Some("bytes 2-4/7"));
    let none = client.exchange(request("GET", "/page", "Range: bytes=99-\r\n", "")).await;
    assert_eq!(none.status, 416);
    client.send(request("HEAD", "/page", "", "")).await;
    let head = client.head().await;
    assert_eq!((head.status, head.get("content-length")), (200, Some("7")));
    let mut client = proxy.client().await;
    assert_eq!(client.exchange(get("/other")).await.text(), "2 /other");

    let url = proxy.url("/page");
    let over_h2 = curl(&["-s", "--http2-prior-knowledge", "-H", "Host: a.test", &url]).await;
    assert_eq!(over_h2.stdout, b"1 /page");
    assert_eq!(origin.count(), 2);
    let line = proxy.access_line(|line| line["cache"] == "hit").await;
    assert_eq!((&line["reason"], &line["attempts"]), (&"ok".into(), &0.into()));
    proxy.measures("crestline_cache_requests_total{route=\"shop\",verdict=\"miss\"}", 2.0).await;
    proxy.measures("crestline_cache_entries", 2.0).await;

    proxy.reload(&yaml(&origin, "", "{ wait: 1s }")).await;
    assert_eq!(client.exchange(get("/page")).await.text(), "1 /page", "it outlives a reload");
    assert_eq!(origin.count(), 2);

    let purged = proxy.command(&["purge", "http://A.test/page"]).await;
    assert!(purged.stderr.contains("1 answer removed"), "{purged:?}");
    assert_eq!(client.exchange(get("/page")).await.text(), "3 /page");
    let (status, told) = proxy.api("POST", "/v1/cache/purge", r#"{"tag":"y"}"#).await;
    assert_eq!((status, &told["purged"]), (200, &2.into()));
    assert_eq!(proxy.api("POST", "/v1/cache/purge", "{}").await.0, 400);
    assert_eq!(client.exchange(get("/page")).await.text(), "4 /page");
}

/// What is for one alone, or not for keeping, is asked for each time.
#[tokio::test]
async fn what_may_not_be_kept_is_asked_for_each_time() {
    let origin = numbered(|target| match target {
        "/none" => "Cache-Control: no-store, max-age=60\r\n",
        "/own" => "Cache-Control: private, max-age=60\r\n",
        "/cookie" => "Cache-Control: max-age=60\r\nSet-Cookie: a=1\r\n",
        "/all" => "Cache-Control: max-age=60\r\nVary: *\r\n",
        "/public" => "Cache-Control: public, max-age=60\r\n",
        "/silent" => "",
        _ => "Cache-Control: max-age=60\r\n",
    });
    let proxy = started(&origin, "", "{}").await;
    let mut client = proxy.client().await;
    let mut asked = 0;
    for path in ["/none", "/own", "/cookie", "/all", "/silent"] {
        for _ in 0..2 {
            asked += 1;
            assert_eq!(client.exchange(get(path)).await.text(), format!("{asked} {path}"));
        }
    }
    let known = "Authorization: Bearer x\r\n";
    for (target, fields, body) in [("/own-by-name", known, ""), ("/with-body", "", "x")] {
        for _ in 0..2 {
            asked += 1;
            let answer = client.exchange(request("GET", target, fields, body)).await;
            assert_eq!(answer.text(), format!("{asked} {target}"));
        }
    }
    asked += 1;
    let public = request("GET", "/public", known, "");
    for _ in 0..2 {
        let text = format!("{asked} /public");
        assert_eq!(client.exchange(&public).await.text(), text, "the origin says so");
    }
    let only = request("GET", "/never", "Cache-Control: only-if-cached\r\n", "");
    assert_eq!(client.exchange(only).await.status, 504);
    let only = format!("{known}Cache-Control: only-if-cached\r\n");
    assert_eq!(client.exchange(request("GET", "/public", &only, "")).await.status, 200);
}

/// Policies are asked before an answer that is kept is given.
#[tokio::test]
async fn nobody_is_given_what_the_policies_refuse() {
    let origin = numbered(|_| "Cache-Control: public, max-age=600\r\n");
    // The key is `secret`.
    let key = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let before = format!("{{ api_key: {{ keys: {{ shop: {key} }}, header: x-api-key }} }},");
    let proxy = started(&origin, &before, "{}").await;
    let mut client = proxy.client().await;
    let good = request("GET", "/", "X-Api-Key: secret\r\n", "");
    assert_eq!(client.exchange(&good).await.text(), "1 /");
    assert_eq!(client.exchange(&good).await.text(), "1 /");
    for fields in ["", "X-Api-Key: wrong\r\n"] {
        assert_eq!(client.exchange(request("GET", "/", fields, "")).await.status, 401);
    }
    let line = proxy.access_line(|line| line["status"] == 401).await;
    assert_eq!(line.get("cache"), None);
}

/// What is not part of the key reaches nobody else's answer.
#[tokio::test]
async fn one_client_cannot_poison_the_answer_of_another() {
    let origin = Origin::with(async |mut exchange| {
        let body = exchange.body().await;
        let mut seen = exchange.request.target.clone();
        seen.push_str(&String::from_utf8_lossy(&body));
        for name in [
            "host",
            "x-forwarded-host",
            "x-forwarded-scheme",
            "x-forwarded-proto",
            "x-original-url",
            "x-rewrite-url",
            "x-http-method-override",
            "x-host",
            "forwarded",
            "x-forwarded-port",
        ] {
            let value = exchange.request.fields.get(name).unwrap_or_default();
            seen.extend([" ", name, "=", value]);
        }
        exchange.answer("200 OK", "Cache-Control: max-age=600\r\n", seen).await
    });
    let proxy = started(&origin, "", "{}").await;
    let mut client = proxy.client().await;
    let tricks = [
        ("X-Forwarded-Host: evil.test\r\n", "/1"),
        ("X-Forwarded-Scheme: evil\r\n", "/2"),
        ("X-Forwarded-Port: evil\r\n", "/3"),
        ("X-Original-URL: /evil\r\n", "/4"),
        ("X-Rewrite-URL: /evil\r\n", "/5"),
        ("X-HTTP-Method-Override: evil\r\n", "/6"),
        ("X-Host: evil.test\r\n", "/7"),
        ("Forwarded: host=evil.test\r\n", "/8"),
        ("", "/9"), // with a body that the origin may take for parameters
    ];
    for (fields, path) in tricks {
        let body = if fields.is_empty() { "x=evil" } else { "" };
        client.exchange(request("GET", path, fields, body)).await;
        let clean = client.exchange(get(path)).await;
        assert!(!clean.text().contains("evil"), "{fields}: {}", clean.text());
    }
    // What the origin may see differently has a key of its own.
    for evil in ["/a?x=1;y=evil", "/a?x=1&y=evil", "/a?X=1", "/a?", "/b/../a?x=1%26evil"] {
        client.exchange(get(evil)).await;
    }
    assert_eq!(client.exchange(get("/a?x=1")).await.text().split(' ').next(), Some("/a?x=1"));
    for host in ["evil.test", "evil.test:81", "www.test:8080"] {
        client.exchange(format!("GET /h HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        client.exchange(format!("GET http://{host}/h HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    }
    let clean = client.exchange("GET /h HTTP/1.1\r\nHost: www.test\r\n\r\n").await;
    assert!(clean.text().contains(" host=www.test "), "{}", clean.text());
    // However it is written, one path has one answer.
    let counted = origin.count();
    assert_eq!(client.exchange(get("/%61?x=1")).await.status, 200);
    assert_eq!(client.exchange(get("/b/../a?x=1")).await.status, 200);
    assert_eq!(origin.count(), counted);
}

/// One fetches, and others follow what comes; what is not to be kept is fetched by all at once.
#[tokio::test]
async fn requests_for_the_same_answer_share_one_fetch() {
    let (origin, gate) = {
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let inner = gate.clone();
        let origin = Origin::with(move |mut exchange| {
            let gate = inner.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                if exchange.request.target == "/none" {
                    return exchange.answer("200 OK", "Cache-Control: no-store\r\n", "none").await;
                }
                let head =
                    "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 11\r\n\r\n";
                exchange.send(format!("{head}hello ")).await;
                gate.acquire().await.unwrap().forget();
                exchange.send("world").await;
                exchange.keep()
            }
        });
        (origin, gate)
    };
    let proxy = started(&origin, "", "{ wait: 40s }").await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = proxy.client().await;
        client.send(get("/shared")).await;
        clients.push(client);
    }
    eventually("one asks", || origin.count() == 1).await;
    gate.add_permits(1);
    for client in &mut clients {
        assert_eq!(client.head().await.status, 200);
        assert_eq!(client.bytes(6).await, "hello ", "before the rest is there");
    }
    assert_eq!(origin.count(), 1);
    gate.add_permits(1);
    for client in &mut clients {
        assert_eq!(client.bytes(5).await, "world");
    }

    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = proxy.client().await;
        client.send(get("/none")).await;
        clients.push(client);
    }
    eventually("one asks", || origin.count() == 2).await;
    gate.add_permits(1);
    eventually("the others ask all at once", || origin.count() == 5).await;
    gate.add_permits(3);
    for client in &mut clients {
        assert_eq!(client.answer().await.text(), "none");
    }
}

/// Stale answers are asked about, renewed beside, and given where the origin fails; and are not
/// where it says so.
#[tokio::test]
async fn stale_answers_are_renewed_or_stand_in() {
    let is_broken = Arc::new(AtomicBool::new(false));
    let broken = is_broken.clone();
    let origin = Origin::with(move |exchange| {
        let is_broken = broken.load(SeqCst);
        async move {
            // All are stale as they come.
            let fields = match &*exchange.request.target {
                "/beside" => "Age: 99\r\nCache-Control: max-age=9, stale-while-revalidate=900\r\n",
                "/error" => "Age: 99\r\nCache-Control: max-age=9, stale-if-error=900\r\n",
                "/must" => {
                    "Age: 99\r\nCache-Control: max-age=9, must-revalidate, stale-if-error=900\r\nETag: \"m\"\r\n"
                }
                _ => {
                    "Age: 99\r\nCache-Control: max-age=9\r\nETag: \"a\"\r\nX-News: 1\r\nContent-Type: text/plain\r\n"
                }
            };
            let is_known = exchange.request.fields.get("if-none-match").is_some();
            match (is_broken, is_known) {
                (true, _) => exchange.answer("503 Service Unavailable", "", "broken").await,
                (_, true) => exchange.answer("304 Not Modified", "X-News: 2\r\n", "").await,
                _ => exchange.answer("200 OK", fields, "kept ".repeat(500)).await,
            }
        }
    });
    let before = "{ compression: { codings: [gzip], min_size: 1B } },";
    let proxy = started(&origin, before, "{}").await;
    let mut client = proxy.client().await;
    let plain = "kept ".repeat(500);
    for path in ["/asked", "/beside", "/error", "/must"] {
        assert_eq!(client.exchange(get(path)).await.text(), plain);
    }
    let again = client.exchange(get("/asked")).await;
    assert_eq!((again.text(), again.get("x-news")), (&*plain, Some("2")));
    assert_eq!(again.get("cache-status"), Some("crestline; fwd=stale; fwd-status=304"));
    let gzip = request("GET", "/asked", "Accept-Encoding: gzip\r\n", "");
    let small = client.exchange(&gzip).await;
    assert_eq!((small.status, small.get("content-encoding")), (200, Some("gzip")));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&*small.body), &mut text)
        .unwrap();
    assert_eq!(text, plain, "it has its end, although only a 304 came");

    let counted = origin.count();
    let stale = client.exchange(get("/beside")).await;
    assert!(stale.get("cache-status").unwrap().starts_with("crestline; hit; ttl=-"));
    eventually("it is renewed beside", || origin.count() == counted + 1).await;

    is_broken.store(true, SeqCst);
    let stale = proxy.get("/error").await;
    assert_eq!((stale.status, stale.text()), (200, &*plain));
    assert_eq!(proxy.get("/must").await.status, 503);
    origin.kill().await;
    let stale = proxy.get("/error").await;
    assert_eq!((stale.status, stale.text()), (200, &*plain));
    assert!(matches!(proxy.get("/must").await.status, 502 | 503));
    let line = proxy.access_line(|line| line["path"] == "/error" && line["cache"] == "stale").await;
    assert_eq!(line["reason"], "ok");
}

/// What breaks off is not kept, nor what changed meanwhile.
#[tokio::test]
async fn what_is_cut_short_or_changed_is_not_kept() {
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let origin = Origin::with(move |mut exchange| {
        let nth = count.fetch_add(1, SeqCst);
        async move {
            if exchange.request.target == "/short" && nth == 0 {
                let head =
                    "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 99\r\n\r\n";
                exchange.send(format!("{head}not all")).await;
                return exchange.close();
            }
            exchange.answer("200 OK", "Cache-Control: max-age=60\r\n", format!("{nth}")).await
        }
    });
    let proxy = started(&origin, "", "{}").await;
    let mut client = proxy.client().await;
    client.send(get("/short")).await;
    assert_eq!(client.head().await.status, 200);
    let (_, ending) = client.rest().await;
    assert!(matches!(ending, Ending::Closed | Ending::Reset), "{ending:?}");
    let mut client = proxy.client().await;
    assert_eq!(client.exchange(get("/short")).await.text(), "1");
    assert_eq!(client.exchange(get("/short")).await.text(), "1");
    assert_eq!(client.exchange(post("/short", "change")).await.text(), "2");
    assert_eq!(client.exchange(get("/short")).await.text(), "3");
}

/// Variants are told apart by the fields that the origin sees, those that policies set among them.
#[tokio::test]
async fn variants_are_told_apart_by_what_the_origin_sees() {
    let origin = Origin::with(async |exchange| {
        let seen = |name| exchange.request.fields.get(name).unwrap_or("-").to_owned();
        let text = format!("{} {}", seen("accept-language"), seen("x-side"));
        let fields = "Cache-Control: max-age=60\r\nVary: Accept-Language, X-Side\r\n";
        exchange.answer("200 OK", fields, text).await
    });
    let before = "{ request_headers: { set: { x-side: \"{header.x-from}\" } } },";
    let proxy = started(&origin, before, "{}").await;
    let mut client = proxy.client().await;
    for _ in 0..2 {
        for (language, side) in [("de", "a"), ("en", "a"), ("en", "b"), ("de", "b")] {
            let fields = format!("Accept-Language: {language}\r\nX-From: {side}\r\n");
            let answer = client.exchange(request("GET", "/", &fields, "")).await;
            assert_eq!(answer.text(), format!("{language} {side}"));
        }
    }
    assert_eq!(origin.count(), 4);
    let same = request("GET", "/", "Accept-Language:  DE \r\nX-From: a\r\n", "");
    assert_eq!(client.exchange(same).await.text(), "de a");
}
