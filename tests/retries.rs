//! What is worth another try, and when a request is given up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::support::{Crestline, Origin, PATIENCE, get, post, request, soon};

/// An upstream of these backends that neither checks nor ejects.
fn app(backends: &[&Origin], more: &str) -> String {
    let backends: Vec<String> = backends.iter().map(|one| format!("\"{one}\"")).collect();
    let backends = backends.join(", ");
    format!(
        "upstreams: {{ app: {{ backends: [{backends}], health_check: off, ejection: off, {more} }} }}"
    )
}

fn answering(status: &'static str, fields: &'static str) -> Origin {
    Origin::with(move |exchange| exchange.answer(status, fields, "its own"))
}

#[tokio::test]
async fn a_status_is_tried_elsewhere_for_idempotent_methods() {
    for status in ["502 Bad Gateway", "503 Busy", "504 Late"] {
        let (failing, good) = (answering(status, ""), Origin::echoing());
        let proxy =
            Crestline::start(&app(&[&failing, &good], "retries: { retry_on: [502, 503, 504] }"))
                .await;

        for method in ["GET", "GET", "PUT", "PUT", "DELETE", "DELETE"] {
            let body = if method == "PUT" { "a body" } else { "" };
            let answer = proxy.send(request(method, "/", "", body)).await;
            assert_eq!((answer.status, answer.text()), (200, body), "{method}: {status}");
        }
        let code = &status[..3];
        let failed_over = proxy.access_line(|line| line["attempts"] == 2).await;
        assert_eq!(failed_over["via"], format!("{failing}:{code},{good}:200"));

        let mut texts = Vec::new();
        for _ in 0..2 {
            texts.push(proxy.send(post("/", "1")).await.text().to_owned());
        }
        texts.sort_unstable();
        assert_eq!(texts, ["1", "its own"], "it may have been done");
    }
}

/// The origin knows more than we do of why.
#[tokio::test]
async fn when_retries_are_used_up_the_client_sees_the_last_answer() {
    let (one, other) =
        (answering("503 Busy", "x-why: full\r\n"), answering("503 Busy", "x-why: full\r\n"));
    let proxy = Crestline::start(&app(&[&one, &other], "retries: { retry_on: [503] }")).await;
    for _ in 0..2 {
        let answer = proxy.get("/").await;
        assert_eq!((answer.status, answer.text()), (503, "its own"));
        assert_eq!(answer.get("x-why"), Some("full"));
    }
    assert!(proxy.access_log(2).await.iter().all(|line| line["attempts"] == 2));
    assert_eq!((one.count(), other.count()), (2, 2));

    let proxy =
        Crestline::start(&app(&[&one, &other], "retries: { max: 0, retry_on: [503] }")).await;
    assert_eq!(proxy.get("/").await.text(), "its own");
    assert_eq!(proxy.access_log(1).await[0]["attempts"], 1);
}

/// By a field, an origin says that the request was not done; any method is tried elsewhere then.
#[tokio::test]
async fn an_answer_with_the_field_is_tried_elsewhere() {
    let (leaving, good) = (answering("409 Conflict", "X-Retry: 1\r\n"), Origin::echoing());
    let retries = "retries: { retry_on: [retriable_header], retriable_header: x-retry }";
    let proxy = Crestline::start(&app(&[&leaving, &good], retries)).await;
    for request in [get("/"), get("/"), post("/", ""), post("/", "")] {
        assert_eq!(proxy.send(&request).await.status, 200, "{request}");
    }
    let line = proxy.access_line(|line| line["method"] == "POST" && line["attempts"] == 2).await;
    assert_eq!(line["via"], format!("{leaving}:409,{good}:200"));
}

/// There is no other backend, and the origin says when it can be asked again.
#[tokio::test]
async fn an_origin_that_says_when_is_asked_again_then() {
    let requests = Arc::new(AtomicUsize::new(0));
    let busy = Origin::with({
        let requests = requests.clone();
        move |exchange| {
            let nth = requests.fetch_add(1, SeqCst);
            let long = exchange.request.target == "/long";
            async move {
                match nth {
                    _ if long => exchange.answer("503 Busy", "Retry-After: 60\r\n", "long").await,
                    0 => exchange.answer("503 Busy", "Retry-After: 1\r\n", "busy").await,
                    _ => exchange.reply("here").await,
                }
            }
        }
    });
    let retries = "retries: { retry_on: [503], retry_after_max: 2s }";
    let proxy = Crestline::start(&app(&[&busy], retries)).await;

    let start = Instant::now();
    assert_eq!(soon("an answer", proxy.get("/")).await.text(), "here");
    assert!(Duration::from_millis(990) < start.elapsed(), "{:?}", start.elapsed());
    let answer = proxy.get("/long").await;
    assert_eq!((answer.status, answer.get("retry-after")), (503, Some("60")), "it is passed on");
    assert_eq!(busy.count(), 3);
}

#[tokio::test]
async fn a_body_within_the_bound_is_sent_again_and_a_longer_one_is_not() {
    let (resetting, good) = (
        Origin::with(async |mut exchange| {
            exchange.body().await;
            exchange.reset()
        }),
        Origin::echoing(),
    );
    let proxy = Crestline::start(&app(&[&resetting, &good], "retries: { buffer: 1KiB }")).await;
    let short = "s".repeat(1_024);
    for _ in 0..2 {
        let answer = proxy.send(request("PUT", "/short", "", &short)).await;
        assert_eq!((answer.status, answer.text()), (200, short.as_str()));
    }
    let line = proxy.access_line(|line| line["attempts"] == 2).await;
    assert_eq!((&line["replayed_bytes"], &line["replay"]), (&1_024.into(), &().into()));

    let long = "l".repeat(1_025);
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(proxy.send(request("PUT", "/long", "", &long)).await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502]);
    let line = proxy.access_line(|line| line["status"] == 502).await;
    assert_eq!((&line["attempts"], &line["replay"]), (&1.into(), &"too_long".into()));
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_followed_by_another() {
    let (stalling, good) = (Origin::stalling(), Origin::echoing());
    let retries = "retries: { per_try_timeout: 1s }";
    let proxy = Crestline::start(&app(&[&stalling, &good], retries)).await;
    for request in [get("/"), get("/"), request("PUT", "/", "", "b"), request("PUT", "/", "", "b")]
    {
        assert_eq!(soon("an answer", proxy.send(&request)).await.status, 200, "{request}");
    }
    let line = proxy.access_line(|line| line["attempts"] == 2).await;
    assert_eq!(line["via"], format!("{stalling}:timeout,{good}:200"));

    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(soon("an answer", proxy.send(post("/", "1"))).await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 504], "it may have been done");
}

/// An answer that has begun has all the time that `timeouts` give it.
#[tokio::test]
async fn no_time_of_an_attempt_or_a_route_cuts_an_answer_that_has_begun() {
    let slow = Origin::with(async |mut exchange| {
        exchange.body().await;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        exchange.send("done").await;
        exchange.keep()
    });
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{slow}\"], retries: {{ per_try_timeout: 1s }} }} }}
        routes: [{{ name: all, upstream: app, timeout: 1s }}]
        "
    ))
    .await;
    let mut client = proxy.client().await;
    for request in [get("/"), post("/", "a body"), get("/")] {
        let answer = client.exchange(&request).await;
        assert_eq!((answer.status, answer.text()), (200, "halfdone"), "{request}");
    }
}

/// Whatever is going on: an origin that does not answer, one that cannot be reached, a client
/// that does not go on.
#[tokio::test]
async fn a_route_gives_a_request_up_when_its_time_is_over() {
    let (stalling, silent) = (Origin::stalling(), Origin::blackhole().await);
    let upstream = |backend: &Origin| {
        format!("{{ backends: [\"{backend}\"], health_check: off, timeouts: {{ connect: 60s }} }}")
    };
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ stalling: {}, silent: {} }}
        routes:
          - {{ name: silent, match: {{ path: /silent }}, upstream: silent, timeout: 700ms }}
          - {{ name: stalling, upstream: stalling, timeout: 700ms }}
        ",
        upstream(&stalling),
        upstream(&silent),
    ))
    .await;
    let unfinished = "POST /half HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhalf";
    for request in [get("/"), post("/", "a body"), get("/silent"), unfinished.to_owned()] {
        let start = Instant::now();
        assert_eq!(soon("an answer", proxy.send(&request)).await.status, 504, "{request}");
        let took = start.elapsed();
        assert!(Duration::from_millis(690) < took && took < PATIENCE, "{request}: {took:?}");
    }
    let lines = proxy.access_log(4).await;
    let reason = |path: &str| {
        let line = lines.iter().find(|line| line["path"] == path).expect("a line");
        line["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(reason("/"), "deadline");
    assert_eq!(reason("/half"), "deadline");
    let half = lines.iter().find(|line| line["path"] == "/half").expect("a line");
    assert_eq!(half["via"], format!("{stalling}:deadline"), "not the origin's fault");
}

#[tokio::test]
async fn a_budget_bounds_the_retries_of_all_requests() {
    let (refusing, good) = (Origin::refusing(), Origin::replying("good"));
    let retries = "retries: { budget: { share: 0%, floor: 2/h } }";
    let proxy = Crestline::start(&app(&[&refusing, &good], retries)).await;
    for _ in 0..8 {
        proxy.get("/").await;
    }
    let lines = proxy.access_log(8).await;
    assert_eq!(lines.iter().filter(|line| line["attempts"] == 2).count(), 1, "{lines:?}");
    let refused = lines.iter().filter(|line| line["reason"] == "connect_refused").count();
    assert!((3..=4).contains(&refused), "{lines:?}");
}
