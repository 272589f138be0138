//! A backend that dies costs no request; what cannot be saved is told honestly.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    After, Client, Crestline, Origin, PATIENCE, eventually, get, post, request, soon,
};

/// Retries of any method, body included: nothing was sent yet.
#[tokio::test]
async fn a_refused_connection_fails_over_to_the_next_backend() {
    let (refusing, good) = (Origin::refusing(), Origin::echoing());
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app: {{ backends: [\"{refusing}\", \"{good}\"], health_check: off, ejection: off }}
        "
    ))
    .await;

    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        for body in ["", "a body"] {
            let answer = proxy.send(request(method, "/", "", body)).await;
            assert_eq!((answer.status, answer.text()), (200, body), "{method}");
        }
    }
    assert_eq!(good.count(), 12);
    let failed_over = proxy.access_line(|line| line["attempts"] == 2).await;
    assert_eq!(failed_over["via"], format!("{refusing}:refused,{good}:200"));
    assert_eq!(failed_over["backend"], good.to_string());
}

/// Keep-alive clients, `GET` and `POST` by turns, three backends of which one dies for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_killed_under_load_fails_no_request() {
    let origins = [Origin::echoing(), Origin::echoing(), Origin::echoing()];
    let [a, b, c] = &origins;
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app: {{ backends: [\"{a}\", \"{b}\", \"{c}\"], health_check: {{ every: 1h }} }}
        "
    ))
    .await;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for _ in 0..64 {
        clients.spawn(load(proxy.client().await, stop.clone(), sent.clone()));
    }
    // Warm: every connection that the load needs has been made.
    let (mut made, mut since) = (0, Instant::now());
    eventually("a warm pool", || {
        let now = origins.iter().map(Origin::connections).sum();
        if made != now {
            (made, since) = (now, Instant::now());
        }
        Duration::from_millis(300) < since.elapsed()
    })
    .await;

    a.kill().await;
    proxy.logs(&format!("health: app {a} down: connection refused")).await;
    let (before, answered) = (sent.load(SeqCst), b.count() + c.count());
    eventually("more requests after the death", || before + 1_000 < sent.load(SeqCst)).await;
    assert!(answered + 500 < b.count() + c.count());

    stop.store(true, SeqCst);
    let failures: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
    assert!(failures.is_empty(), "{} of {}: {failures:?}", failures.len(), sent.load(SeqCst));
}

/// Sends requests one after the other; tells those that failed.
async fn load(mut client: Client, stop: Arc<AtomicBool>, sent: Arc<AtomicUsize>) -> Vec<String> {
    let body = "x".repeat(1_000);
    let mut failures = Vec::new();
    while !stop.load(SeqCst) && failures.is_empty() {
        for (request, body) in [(get("/"), ""), (post("/", &body), body.as_str())] {
            client.send_if_taken(&request).await;
            sent.fetch_add(1, SeqCst);
            match client.try_answer().await {
                Ok(answer) if answer.status == 200 && answer.body == body.as_bytes() => {}
                failed => failures.push(format!("{failed:?}")),
            }
        }
    }
    failures
}

/// The kernel drops the packets: only the connect timeout tells.
#[tokio::test]
async fn a_backend_that_blackholes_costs_the_connect_timeout_and_no_request() {
    let (silent, good) = (Origin::blackhole().await, Origin::echoing());
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{silent}\", \"{good}\"]
            health_check: off
            ejection: off
            timeouts: {{ connect: 150ms }}
        "
    ))
    .await;

    for request in [get("/"), get("/"), post("/", "a body"), post("/", "a body")] {
        assert_eq!(soon("an answer", proxy.send(request)).await.status, 200);
    }
    let failed_over = proxy.access_line(|line| line["attempts"] == 2).await;
    assert_eq!(failed_over["via"], format!("{silent}:connect_timeout,{good}:200"));
}

/// It answered until now; then its host is gone, and packets with it.
#[tokio::test]
async fn a_backend_that_falls_silent_costs_no_request() {
    let (one, other) = (Origin::echoing(), Origin::echoing());
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{one}\", \"{other}\"]
            health_check: {{ every: 1h, timeout: 200ms }}
            ejection: off
            timeouts: {{ connect: 150ms }}
        "
    ))
    .await;
    let mut client = proxy.client().await;
    for _ in 0..4 {
        assert_eq!(client.exchange(get("/")).await.status, 200);
    }

    one.swallow().await;
    for request in [get("/"), post("/", "a body"), get("/"), post("/", "a body")] {
        assert_eq!(client.exchange(request).await.status, 200);
    }
    proxy.logs(&format!("health: app {one} down: no ")).await;
    let before = proxy.access_log(8).await.len();
    for _ in 0..4 {
        assert_eq!(client.exchange(get("/")).await.status, 200);
    }
    let lines = proxy.access_log(before + 4).await;
    assert!(lines[before..].iter().all(|line| line["attempts"] == 1), "nobody waits for it");
}

#[tokio::test]
async fn a_reset_before_the_answer_is_retried_for_idempotent_methods() {
    let (resetting, good) = (Origin::resetting(), Origin::echoing());
    let proxy = Crestline::start(&unchecked(&resetting, &good)).await;

    for method in ["GET", "GET", "PUT", "PUT", "DELETE", "DELETE", "OPTIONS", "OPTIONS"] {
        let body = if method == "PUT" { "a body" } else { "" };
        let answer = proxy.send(request(method, "/", "", body)).await;
        assert_eq!((answer.status, answer.text()), (200, body), "{method}");
    }
    let failed_over = proxy.access_line(|line| line["attempts"] == 2).await;
    assert_eq!(failed_over["via"], format!("{resetting}:reset,{good}:200"));
}

/// The origin may have acted on it.
#[tokio::test]
async fn a_post_that_was_reset_on_a_fresh_connection_gets_502_and_is_sent_once() {
    let (resetting, good) = (Origin::resetting(), Origin::echoing());
    let proxy = Crestline::start(&unchecked(&resetting, &good)).await;

    let (first, second) = (proxy.send(post("/", "1")).await, proxy.send(post("/", "2")).await);
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502]);
    assert_eq!((resetting.count(), good.count()), (1, 1));
}

/// The origin closes each connection as soon as it has answered, without saying so.
#[tokio::test]
async fn a_pooled_connection_that_the_origin_closed_costs_no_request() {
    let closing = Origin::with(async |exchange| match exchange.reply("hello").await {
        After::Keep(_) | After::Close => After::Close,
    });
    let proxy = Crestline::start(&format!(
        "upstreams: {{ app: {{ backends: [\"{closing}\"], health_check: off }} }}"
    ))
    .await;

    let mut client = proxy.client().await;
    for _ in 0..40 {
        assert_eq!(client.exchange(get("/")).await.status, 200);
        assert_eq!(client.exchange(post("/", "a body")).await.status, 200);
    }
}

/// The race: the request is on its way when the origin gives up the connection.
#[tokio::test]
async fn a_pooled_connection_that_breaks_under_a_request_costs_no_request() {
    let once = Origin::with(async |mut exchange| match exchange.nth {
        1 => {
            let body = exchange.body().await;
            exchange.reply(body).await
        }
        _ => exchange.reset(),
    });
    let proxy = Crestline::start(&format!(
        "upstreams: {{ app: {{ backends: [\"{once}\"], health_check: off }} }}"
    ))
    .await;

    let mut client = proxy.client().await;
    for request in [get("/"), get("/"), post("/", "a body"), post("/", "a body"), get("/")] {
        assert_eq!(client.exchange(request).await.status, 200);
    }
    let stale = proxy.access_line(|line| line["method"] == "POST").await;
    assert_eq!(stale["via"], format!("{once}:stale,{once}:200"));
}

#[tokio::test]
async fn when_all_backends_are_dead_the_answer_is_503_at_once() {
    let (one, other) = (Origin::replying("one"), Origin::replying("other"));
    let proxy = Crestline::start(&format!(
        "upstreams: {{ app: {{ backends: [\"{one}\", \"{other}\"], health_check: {{ every: 100ms }} }} }}"
    ))
    .await;
    assert_eq!(proxy.get("/").await.status, 200);
    one.kill().await;
    other.kill().await;
    proxy.logs(&format!("health: app {one} down")).await;
    proxy.logs(&format!("health: app {other} down")).await;

    for request in [get("/"), post("/", "a body"), get("/")] {
        let answer = proxy.send(&request).await;
        assert_eq!(answer.status, 503, "{request}");
        assert!(answer.get("retry-after").unwrap().parse::<u32>().is_ok());
    }
    let lines = proxy.access_log(4).await;
    assert!(lines[1..].iter().all(|line| line["attempts"] == 0), "{lines:?}");
}

#[tokio::test]
async fn when_all_backends_refuse_and_none_is_checked_the_answer_is_502() {
    let (one, other) = (Origin::refusing(), Origin::refusing());
    let proxy = Crestline::start(&unchecked(&one, &other)).await;

    assert_eq!(proxy.get("/").await.status, 502);
    assert_eq!(proxy.send(post("/", "a body")).await.status, 502);
    for line in proxy.access_log(2).await {
        assert_eq!(line["attempts"], 2, "each backend once: {line}");
    }
}

#[tokio::test]
async fn a_stalled_origin_gets_504_after_the_first_byte_timeout() {
    let stalling = Origin::stalling();
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{stalling}\"]
            timeouts: {{ first_byte: 300ms }}
        "
    ))
    .await;

    for request in [get("/"), post("/", "a body")] {
        let start = Instant::now();
        assert_eq!(proxy.send(&request).await.status, 504, "{request}");
        let waited = start.elapsed();
        assert!(Duration::from_millis(280) < waited && waited < PATIENCE, "{waited:?}");
    }
    assert_eq!(stalling.count(), 2, "no other backend, no second try");
}

#[tokio::test]
async fn with_retries_0_nothing_is_tried_again() {
    let (refusing, good) = (Origin::refusing(), Origin::replying("good"));
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{refusing}\", \"{good}\"]
            health_check: off
            ejection: off
            retries: 0
        "
    ))
    .await;

    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(proxy.get("/").await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 502, 502]);
    assert!(proxy.access_log(4).await.iter().all(|line| line["attempts"] == 1));
}

#[tokio::test]
async fn a_request_is_tried_on_three_more_backends_and_then_fails() {
    let dead = [(); 5].map(|()| Origin::refusing());
    let good = Origin::replying("good");
    let yaml = |backends: &[&Origin]| {
        let backends: Vec<String> = backends.iter().map(|one| format!("\"{one}\"")).collect();
        let backends = backends.join(", ");
        format!(
            "upstreams: {{ app: {{ backends: [{backends}], health_check: off, ejection: off }} }}"
        )
    };

    let proxy = Crestline::start(&yaml(&[&dead[0], &dead[1], &dead[2], &good])).await;
    for _ in 0..8 {
        assert_eq!(proxy.get("/").await.status, 200);
    }
    let proxy = Crestline::start(&yaml(&dead.each_ref())).await;
    assert_eq!(proxy.get("/").await.status, 502);
    let line = &proxy.access_log(1).await[0];
    let via = line["via"].as_str().unwrap();
    let tried = dead.iter().filter(|dead| via.contains(&format!("{dead}:refused"))).count();
    assert_eq!((&line["attempts"], tried), (&4.into(), 4), "four of five, each once: {line}");
}

fn unchecked(one: &Origin, other: &Origin) -> String {
    format!(
        "upstreams: {{ app: {{ backends: [\"{one}\", \"{other}\"], health_check: off, ejection: off }} }}"
    )
}
