//! Clients that want a part of an answer, or have it already, where it is not kept yet.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::support::{Client, Crestline, Exchange, Origin, eventually, get, request};

/// An origin that knows conditions and ranges, and sends half of what is whole before it waits.
fn halting(gate: &Arc<Semaphore>) -> Origin {
    let gate = gate.clone();
    Origin::with(move |mut exchange: Exchange| {
        let gate = gate.clone();
        async move {
            let field = |name| exchange.request.fields.get(name).is_some();
            let fields = "Cache-Control: max-age=600\r\nETag: \"a\"\r\n";
            if field("if-none-match") {
                return exchange.answer("304 Not Modified", fields, "").await;
            }
            if field("range") {
                let fields = format!("{fields}Content-Range: bytes 5-9/10\r\n");
                return exchange.answer("206 Partial Content", &fields, "56789").await;
            }
            gate.acquire().await.unwrap().forget();
            exchange
                .send(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 10\r\n\r\n01234"))
                .await;
            gate.acquire().await.unwrap().forget();
            exchange.send("56789").await;
            exchange.keep()
        }
    })
}

async fn started(origin: &Origin, cache: &str) -> Crestline {
    Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: off }} }}
        routes: [{{ name: shop, policies: [{{ cache: {cache} }}], upstream: app }}]
        "
    ))
    .await
}

/// A client that has sent a request, which the proxy has read.
async fn asking(proxy: &Crestline, fields: &str, requests: f64) -> Client {
    let mut client = proxy.client().await;
    client.send(request("GET", "/", fields, "")).await;
    proxy.measures("crestline_requests_in_flight", requests).await;
    client
}

/// Others who wait for what it has the origin asked for get it whole.
#[tokio::test]
async fn who_has_an_answer_already_breaks_off_nobody() {
    let gate = Arc::new(Semaphore::new(0));
    let origin = halting(&gate);
    let proxy = started(&origin, "{ wait: 40s }").await;
    let mut first = asking(&proxy, "If-None-Match: \"a\"\r\n", 1.0).await;
    eventually("it is asked", || origin.count() == 1).await;
    let mut second = asking(&proxy, "", 2.0).await;
    gate.add_permits(1);
    assert_eq!(first.answer().await.status, 304);
    gate.add_permits(9);
    assert_eq!(second.answer().await.text(), "0123456789");
    let hit = proxy.get("/").await;
    assert!(hit.get("cache-status").unwrap().starts_with("crestline; hit"), "{hit:?}");
}

/// A part that begins in the midst does not cost the origin the whole.
#[tokio::test]
async fn a_part_of_what_is_not_kept_is_asked_for_as_a_part() {
    let gate = Arc::new(Semaphore::new(0));
    let origin = halting(&gate);
    let proxy = started(&origin, "{ wait: 40s }").await;
    let mut client = proxy.client().await;
    let part = request("GET", "/", "Range: bytes=5-\r\n", "");
    for nth in 1..=2 {
        let answer = client.exchange(&part).await;
        assert_eq!((answer.status, answer.text()), (206, "56789"));
        assert_eq!(answer.get("cache-status"), Some("crestline; fwd=miss"));
        assert_eq!(origin.last().fields.get("range"), Some("bytes=5-"));
        assert_eq!(origin.count(), nth);
    }
    // From the beginning to the end it is the whole.
    gate.add_permits(9);
    let whole = client.exchange(request("GET", "/", "Range: bytes=0-\r\n", "")).await;
    assert_eq!((whole.status, whole.text()), (206, "0123456789"));
    let kept = client.exchange(&part).await;
    assert_eq!((kept.status, kept.text(), origin.count()), (206, "56789", 3));
}

/// It is not taken for one that might be kept again and again.
#[tokio::test]
async fn what_is_too_long_to_be_kept_is_left_to_the_origin() {
    let gate = Arc::new(Semaphore::new(9));
    let origin = halting(&gate);
    let proxy = started(&origin, "{ object_max: 9B }").await;
    let mut client = proxy.client().await;
    assert_eq!(client.exchange(get("/")).await.text(), "0123456789");
    let known = request("GET", "/", "If-None-Match: \"a\"\r\n", "");
    assert_eq!(client.exchange(known).await.status, 304);
    assert_eq!(origin.last().fields.get("if-none-match"), Some("\"a\""));
}
