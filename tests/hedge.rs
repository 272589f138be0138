//! A second backend is asked where the first is late, and the first answer is passed on.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use h2::Reason;

use crate::support::{Crestline, H2Origin, Origin, curl, eventually, get, post, request};

/// The first backend, and one that serves only beside it or after it.
fn app(first: &dyn ToString, second: &dyn ToString, more: &str) -> String {
    let (first, second) = (first.to_string(), second.to_string());
    format!(
        "
        listeners: [{{ address: \"127.0.0.1:0\", h2c: true }}]
        upstreams:
          app:
            backends: [\"{first}\", {{ address: \"{second}\", backup: true }}]
            health_check: off
            {more}
        "
    )
}

/// Second requests, those that won, and retries.
async fn counts(proxy: &Crestline, counts: [f64; 3]) {
    for (name, count) in ["hedges", "hedges_won", "retries"].into_iter().zip(counts) {
        let sample = format!("crestline_upstream_{name}_total{{upstream=\"app\"}}");
        proxy.measures(&sample, count).await;
    }
}

/// The slow one is told that nobody waits for it any more, and is not ejected for it.
#[tokio::test]
async fn a_late_answer_is_overtaken_and_its_request_cancelled() {
    let cancelled = Arc::new(AtomicUsize::new(0));
    let slow = Origin::with({
        let cancelled = cancelled.clone();
        move |mut exchange| {
            let cancelled = cancelled.clone();
            async move {
                exchange.left().await;
                cancelled.fetch_add(1, SeqCst);
                exchange.close()
            }
        }
    });
    let good = Origin::replying("good");
    let yaml = app(&slow, &good, "retries: { hedge_after: 50ms }");
    let proxy = Crestline::start(&yaml).await;
    let mut client = proxy.client().await;
    for method in ["GET", "DELETE", "GET", "OPTIONS"] {
        let answer = client.exchange(request(method, "/", "", "")).await;
        assert_eq!((answer.status, answer.text()), (200, "good"), "{method}");
    }
    eventually("they are cancelled", || cancelled.load(SeqCst) == 4).await;
    for line in proxy.access_log(4).await {
        assert_eq!(line["via"], format!("{slow}:outrun,{good}:200"));
        assert_eq!((&line["attempts"], &line["backend"]), (&2.into(), &good.to_string().into()));
    }
    counts(&proxy, [4.0, 4.0, 4.0]).await;
    let ids = |origin: &Origin| -> Vec<_> {
        origin
            .requests()
            .iter()
            .map(|it| it.fields.get("x-request-id").map(str::to_owned))
            .collect()
    };
    assert_eq!(ids(&slow), ids(&good));
    assert_eq!(proxy.availability("app").await[&slow.to_string()], "ready");
    let told = proxy.command(&["explain", "--live", "GET", &proxy.url("/")]).await;
    assert!(told.stderr.contains("retries.hedge_after"), "{told:?}");
}

/// A second request would do twice what is to be done once.
#[tokio::test]
async fn what_may_not_be_sent_twice_waits() {
    let ((slow, gate), good) = (Origin::gated("in the end"), Origin::replying("good"));
    let proxy = Crestline::start(&app(&slow, &good, "retries: { hedge_after: 50ms }")).await;
    let mut waiting = Vec::new();
    for request in [post("/", ""), post("/", "a body"), request("PUT", "/", "", "a body")] {
        let mut client = proxy.client().await;
        client.send(request).await;
        waiting.push(client);
    }
    eventually("all at the first", || slow.count() == 3).await;
    assert_eq!(proxy.get("/late").await.text(), "good", "so much time has passed for them");
    gate.add_permits(9);
    for client in &mut waiting {
        assert_eq!(client.answer().await.text(), "in the end");
    }
    assert_eq!(good.count(), 1);
}

/// One that is in time is asked alone; one that fails is followed as ever.
#[tokio::test]
async fn an_answer_in_time_needs_no_second_request() {
    let (first, good) = (Origin::replying("first"), Origin::replying("good"));
    let proxy = Crestline::start(&app(&first, &good, "retries: { hedge_after: 50s }")).await;
    assert_eq!(proxy.texts(3).await, ["first"; 3]);
    assert_eq!((good.count(), first.connections()), (0, 1), "its connection is used again");
    first.kill().await;
    assert_eq!(proxy.texts(3).await, ["good"; 3]);
    counts(&proxy, [0.0, 0.0, 3.0]).await;
}

/// As with requests that Pingora's proxy sends.
#[tokio::test]
async fn fields_of_one_connection_stay_on_it() {
    let (first, second) = (Origin::replying("first"), Origin::refusing());
    let proxy = Crestline::start(&app(&first, &second, "retries: { hedge_after: 50s }")).await;
    let fields = "Connection: keep-alive, x-named\r\nX-Named: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
         Proxy-Authorization: Basic YTpi\r\nTrailer: x-sum\r\nX-Kept: 1\r\n";
    proxy.send(request("GET", "/", fields, "")).await;
    let got = first.last().fields;
    for name in ["x-named", "keep-alive", "te", "proxy-authorization", "trailer", "connection"] {
        assert_eq!(got.get(name), None, "{name}");
    }
    assert_eq!(got.get("x-kept"), Some("1"));
    let fields = "Connection: x-forwarded-for\r\n";
    assert_eq!(proxy.send(request("GET", "/", fields, "")).await.status, 400);
}

#[tokio::test]
async fn a_second_request_that_fails_does_no_harm() {
    let ((slow, gate), resetting) = (Origin::gated("in the end"), Origin::resetting());
    let proxy = Crestline::start(&app(&slow, &resetting, "retries: { hedge_after: 50ms }")).await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    let failures =
        format!("crestline_backend_failures_total{{upstream=\"app\",backend=\"{resetting}\"}}");
    proxy.measures(&failures, 1.0).await;
    gate.add_permits(1);
    assert_eq!(client.answer().await.text(), "in the end");
    let line = proxy.access_log(1).await.remove(0);
    assert_eq!(line["via"], format!("{resetting}:reset,{slow}:200"));
    counts(&proxy, [1.0, 0.0, 1.0]).await;
}

/// However it is framed, and however it ends.
#[tokio::test]
async fn an_answer_is_passed_on_as_it_is() {
    let origin = Origin::with(async |mut exchange| {
        exchange.body().await;
        let (answer, keeps) = match exchange.request.target.as_str() {
            "/chunked" => (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n",
                true,
            ),
            "/length" => ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Kept: 1\r\n\r\nfour", true),
            "/interim" => (
                "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour",
                true,
            ),
            "/nothing" => ("HTTP/1.1 204 No Content\r\n\r\n", true),
            "/unchanged" => ("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", true),
            "/close" => ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfour", false),
            "/short" => ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour", false),
            _ => ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n", false),
        };
        exchange.send(answer).await;
        if keeps { exchange.keep() } else { exchange.close() }
    });
    let other = Origin::refusing();
    let proxy = Crestline::start(&app(&origin, &other, "retries: { hedge_after: 50s }")).await;
    let mut client = proxy.client().await;
    for path in ["/chunked", "/length", "/interim", "/close"] {
        let answer = client.exchange(get(path)).await;
        assert_eq!((answer.status, answer.text()), (200, "four"), "{path}");
    }
    let head = client.exchange(request("HEAD", "/nothing", "", "")).await;
    assert_eq!((head.status, head.text()), (204, ""));
    for (path, status) in [("/nothing", 204), ("/unchanged", 304)] {
        let answer = client.exchange(get(path)).await;
        assert_eq!((answer.status, answer.text()), (status, ""), "{path}");
    }
    let over_http2 = curl(&["--http2-prior-knowledge", &proxy.url("/chunked")]).await;
    assert_eq!(over_http2.stdout, b"four");
    for path in ["/short", "/unended"] {
        let mut client = proxy.client().await;
        client.send(get(path)).await;
        let answer = client.try_answer().await.unwrap();
        assert_eq!(answer.text(), "four", "{path}");
        assert!(answer.broken.is_some(), "{path}: {answer:?}");
    }
}

/// The stream of the slow one is reset, its connection lives on.
#[tokio::test]
async fn streams_of_http2_are_hedged_as_well() {
    let reset = Arc::new(AtomicUsize::new(0));
    let slow = H2Origin::with({
        let reset = reset.clone();
        move |_, mut respond| {
            let reset = reset.clone();
            async move {
                let why = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                assert_eq!(why.unwrap(), Reason::CANCEL);
                reset.fetch_add(1, SeqCst);
            }
        }
    })
    .await;
    let good = H2Origin::replying("good").await;
    let yaml = app(&slow, &good, "http: 2\n            retries: { hedge_after: 50ms }");
    let proxy = Crestline::start(&yaml).await;
    assert_eq!(proxy.texts(3).await, ["good"; 3]);
    eventually("they are cancelled", || reset.load(SeqCst) == 3).await;
    assert_eq!((slow.connections(), good.connections()), (1, 1));
    let asked = &good.requests()[0];
    assert_eq!(asked.uri(), "http://a.test/");
    assert!(asked.headers().get("host").is_none() && asked.headers().contains_key("x-request-id"));
}
