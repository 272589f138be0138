//! What routes do to requests and answers.

use crate::support::{Crestline, Ending, Origin, get, post, request};

/// The configuration of design, section 4.
#[tokio::test]
async fn header_fields_are_set_added_and_removed() {
    let origin = Origin::with(|exchange| {
        exchange.answer("200 OK", "Server: origin/1\r\nKey1: theirs\r\nX-List: 1\r\n", "hello")
    });
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes:
          - name: all
            policies:
              - request_headers: {{ set: {{ x-edge: crestline }}, add: {{ X-List: \"2\" }}, remove: [cookie] }}
              - response_headers: {{ set: {{ key1: value1 }}, add: {{ x-list: \"2\" }}, remove: [server] }}
            upstream: app
        "
    ))
    .await;

    let fields = "X-Edge: forged\r\nX-Edge: twice\r\nX-List: 1\r\nCookie: a=1\r\n";
    let answer = proxy.send(request("GET", "/", fields, "")).await;
    let got = origin.last().fields;
    assert_eq!(got.get("x-edge"), Some("crestline"));
    assert_eq!(got.all("x-list"), ["1", "2"]);
    assert_eq!(got.get("cookie"), None);
    assert_eq!(answer.get("key1"), Some("value1"));
    assert_eq!(answer.fields().all("x-list"), ["1", "2"]);
    assert_eq!(answer.get("server"), None);
}

/// Requests pass in the order written, answers in the reverse order.
#[tokio::test]
async fn policies_wrap_the_origin_like_an_onion() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes:
          - name: all
            policies:
              - request_headers: {{ set: {{ x-last: first }} }}
              - request_headers: {{ set: {{ x-last: second }} }}
              - response_headers: {{ set: {{ x-last: first }} }}
              - response_headers: {{ set: {{ x-last: second }} }}
            upstream: app
        "
    ))
    .await;

    assert_eq!(proxy.get("/").await.get("x-last"), Some("first"));
    assert_eq!(origin.last().fields.get("x-last"), Some("second"));
}

/// A body that tells its length is refused before a backend hears of it.
#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let origin = Origin::echoing();
    let proxy = limited(&origin).await;

    let exact = "x".repeat(1024);
    assert_eq!(proxy.send(post("/", &exact)).await.text(), exact);
    let answer = proxy.send(post("/", &"x".repeat(1025))).await;
    assert_eq!(answer.status, 413);
    assert_eq!(origin.count(), 1);
    let mut client = proxy.client().await;
    client.send(request("POST", "/", "Content-Length: 1000000\r\n", "")).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 413, "before a byte of it was sent");
    assert_eq!(answer.get("connection"), Some("close"), "and the rest of it is not awaited");
}

/// A body that does not tell its length is cut off where it passes the limit.
#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused() {
    let origin = Origin::echoing();
    let proxy = limited(&origin).await;
    let chunk = format!("200\r\n{}\r\n", "x".repeat(512));
    let head = request("POST", "/", "Transfer-Encoding: chunked\r\n", "");

    let exact = format!("{head}{chunk}{chunk}0\r\n\r\n");
    assert_eq!(proxy.send(exact).await.body.len(), 1024);
    let mut client = proxy.client().await;
    client.send(format!("{head}{chunk}{chunk}1\r\nx\r\n")).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 413);
    assert_eq!(client.rest().await, (Vec::new(), Ending::Closed));
    let line = proxy.access_line(|line| line["status"] == 413).await;
    assert_eq!(line["reason"], "over_limit");
}

/// The client can read the refusal although it is still sending.
#[tokio::test]
async fn the_refusal_of_a_large_upload_can_be_read() {
    let origin = Origin::echoing();
    let proxy = limited(&origin).await;

    let mut client = proxy.client().await;
    client.send(request("POST", "/", "Content-Length: 600000\r\n", "")).await;
    client.send_if_taken(vec![b'x'; 600_000]).await;
    assert_eq!(client.answer().await.status, 413);
    assert_eq!(proxy.send(get("/")).await.status, 200);
}

async fn limited(origin: &Origin) -> Crestline {
    Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes: [{{ name: all, policies: [{{ body_limit: 1KiB }}], upstream: app }}]
        "
    ))
    .await
}
