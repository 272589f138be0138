//! Crestline's own answers: the right status, in the form that the client asked for.

use std::time::Duration;

use crate::support::{Answer, Crestline, Origin, get, post, request};

#[tokio::test]
async fn an_error_is_told_in_the_form_that_the_client_asked_for() {
    let origin = Origin::refusing();
    let proxy = unchecked(&origin).await;

    let text = proxy.get("/").await;
    assert_eq!(text.get("content-type"), Some("text/plain; charset=utf-8"));
    assert!(text.text().starts_with("502 Bad Gateway\n"));
    let json = asking_for(&proxy, "application/json").await;
    assert_eq!(json.get("content-type"), Some("application/json"));
    assert_eq!(json.json()["status"], 502);
    assert_eq!(json.json()["request_id"], json.get("x-request-id").unwrap());
    let html = asking_for(&proxy, "text/html,application/xhtml+xml,*/*;q=0.8").await;
    assert_eq!(html.get("content-type"), Some("text/html; charset=utf-8"));
    assert!(html.text().starts_with("<!doctype html>"));

    for answer in [text, json, html] {
        assert_eq!(answer.status, 502);
        let id = answer.get("x-request-id").expect("an id").to_owned();
        assert!(answer.text().contains(&id), "{answer:?}");
        assert_tells_nothing(&answer);
    }
}

async fn asking_for(proxy: &Crestline, media: &str) -> Answer {
    proxy.send(request("GET", "/", &format!("Accept: {media}\r\n"), "")).await
}

/// No address, no version, no internal message, no name of what runs here.
fn assert_tells_nothing(answer: &Answer) {
    let told = format!("{:?} {}", answer.head, answer.text()).to_lowercase();
    for secret in ["127.0.0.1", "pingora", "0.1.0", "crestline", "refused", "upstream", "backend"] {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
}

#[tokio::test]
async fn an_error_for_head_has_no_body() {
    let origin = Origin::refusing();
    let proxy = only(&origin).await;

    let mut client = proxy.client().await;
    client.send(request("HEAD", "/", "", "")).await;
    assert_eq!(client.head().await.status, 404);
    assert_eq!(client.exchange(get("/")).await.status, 404, "the connection is in step");
}

/// No route to an answer: the method is refused before anything is matched.
#[tokio::test]
async fn connect_and_trace_get_405() {
    let origin = Origin::replying("hello");
    let proxy = unchecked(&origin).await;

    for head in [
        "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n",
        "TRACE / HTTP/1.1\r\nHost: a.test\r\n",
    ] {
        let mut client = proxy.client().await;
        client.send(format!("{head}\r\n")).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 405, "{head}");
        let allowed = answer.get("allow").expect("a list of methods");
        assert!(allowed.contains("GET") && !allowed.contains("TRACE"), "{allowed}");
    }
    assert_eq!(origin.count(), 0);
}

/// The table of design, section 5, as far as one backend and one request show it.
#[tokio::test]
async fn each_failure_of_an_origin_has_its_status() {
    let cases = [
        (Origin::refusing(), "connect_refused", 502),
        (Origin::blackhole().await, "connect_timeout", 504),
        (Origin::stalling(), "first_byte_timeout", 504),
        (Origin::resetting(), "origin_reset", 502),
        (Origin::sending(""), "origin_reset", 502),
        (Origin::sending("HTTP/1.1 200 OK\r\nConte"), "origin_reset", 502),
        (Origin::sending("SSH-2.0-OpenSSH_9.2\r\n\r\n"), "origin_nonsense", 502),
    ];
    for (origin, reason, status) in cases {
        let proxy = unchecked(&origin).await;
        for request in [get("/"), post("/", "a body")] {
            let mut client = proxy.client().await;
            client.send(&request).await;
            let answer = client.try_answer().await;
            let answer = answer.unwrap_or_else(|_| panic!("{reason}: no answer to {request}"));
            assert_eq!(answer.status, status, "{reason}: {request}");
            assert_tells_nothing(&answer);
        }
        for line in proxy.access_log(2).await {
            assert_eq!(line["reason"], reason, "{line}");
            assert_eq!(line["status"], status, "{line}");
        }
    }
}

/// A client that was told may go on; where a body was left unread, it is told that it may not.
#[tokio::test]
async fn the_connection_outlives_an_error_that_is_not_its_fault() {
    let origin = Origin::refusing();
    let proxy = only(&origin).await;

    let mut client = proxy.client().await;
    for (path, status) in [("/", 404), ("/only", 503), ("/", 404), ("/only", 503)] {
        assert_eq!(client.exchange(get(path)).await.status, status, "{path}");
        let unread = proxy.send(post(path, "a body")).await;
        assert_eq!((unread.status, unread.get("connection")), (status, Some("close")), "{path}");
    }
}

/// Failures of the client count against nobody else.
#[tokio::test]
async fn a_client_that_fails_does_not_eject_a_backend() {
    let origin = Origin::with(async |mut exchange| {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let body = exchange.body().await;
        exchange.reply(body).await
    });
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app: {{ backends: [\"{origin}\"], ejection: {{ consecutive_failures: 1, max_ejected: 100% }} }}
        "
    ))
    .await;

    for start in [get("/"), request("POST", "/", "Content-Length: 10\r\n", "")] {
        let mut client = proxy.client().await;
        client.send(start).await;
        client.reset();
    }
    proxy.access_log(2).await;
    assert_eq!(proxy.get("/").await.status, 200);
    assert_eq!(proxy.log_with("ejected"), [""; 0]);
}

async fn unchecked(origin: &Origin) -> Crestline {
    Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{origin}\"]
            health_check: off
            ejection: off
            timeouts: {{ connect: 1s, first_byte: 2s, between_bytes: 2s }}
        "
    ))
    .await
}

/// Sends `/only` to an origin; everything else has no route.
async fn only(origin: &Origin) -> Crestline {
    Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes: [{{ name: only, match: {{ path: /only }}, upstream: app }}]
        "
    ))
    .await
}
