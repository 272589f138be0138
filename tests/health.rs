//! Checks and names: who is in service, and how that changes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::{self, Instant};

use crate::support::{Crestline, Origin, PATIENCE, eventually};

#[tokio::test]
async fn every_change_of_health_is_one_line_of_the_log() {
    let (one, other) = (Origin::replying("one"), Origin::replying("other"));
    let proxy = Crestline::start(&format!(
        "upstreams: {{ app: {{ backends: [\"{one}\", \"{other}\"], health_check: {{ every: 100ms }} }} }}"
    ))
    .await;

    one.kill().await;
    let down = format!("health: app {one} down: connection refused (after 2 failures)");
    proxy.logs(&down).await;
    for _ in 0..4 {
        assert_eq!(proxy.get("/").await.text(), "other");
    }
    one.revive();
    let up = format!("health: app {one} up");
    eventually("the return", || proxy.log_with(&up).len() == 2).await;
    let mut answers = [proxy.get("/").await, proxy.get("/").await].map(|a| a.text().to_owned());
    answers.sort_unstable();
    assert_eq!(answers, ["one", "other"]);

    assert_eq!(proxy.log_with(&format!("health: app {one} ")), [up.clone(), down, up]);
    assert_eq!(proxy.log_with(&format!("health: app {other} ")).len(), 1, "it never changed");
}

#[tokio::test]
async fn an_http_check_asks_and_judges_as_configured() {
    let status = Arc::new(AtomicU16::new(204));
    let origin = Origin::with({
        let status = status.clone();
        move |exchange| {
            let status = status.load(SeqCst);
            async move {
                match exchange.request.target.starts_with("/healthz") {
                    true if status == 204 => {
                        let mut exchange = exchange;
                        exchange.send("HTTP/1.1 204 No Content\r\n\r\n").await;
                        exchange.keep()
                    }
                    true => exchange.answer(&format!("{status} X"), "", "").await,
                    false => exchange.reply("hello").await,
                }
            }
        }
    });
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{origin}\"]
            health_check:
              every: 100ms
              http:
                path: /healthz?deep=1
                host: app.internal
                expect: [204, 301-302]
                headers: {{ x-probe: yes please }}
        "
    ))
    .await;

    let probe = origin.last();
    assert_eq!((probe.method.as_str(), probe.target.as_str()), ("GET", "/healthz?deep=1"));
    assert_eq!(probe.fields.get("host"), Some("app.internal"));
    assert_eq!(probe.fields.get("x-probe"), Some("yes please"));
    assert_eq!(proxy.get("/").await.status, 200);
    status.store(200, SeqCst);
    proxy.logs(&format!("health: app {origin} down: status 200 (after 2 failures)")).await;
    assert_eq!(proxy.get("/").await.status, 503);
    status.store(302, SeqCst);
    eventually("the return", || proxy.log_with(&format!("health: app {origin} up")).len() == 2)
        .await;
    assert_eq!(proxy.get("/").await.status, 200);
}

#[tokio::test]
async fn a_check_without_a_host_names_the_backend_and_expects_success() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&format!(
        "upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: {{ http: {{}} }} }} }}"
    ))
    .await;

    let probe = origin.last();
    assert_eq!(
        (probe.target.as_str(), probe.fields.get("host")),
        ("/", Some(&*origin.to_string()))
    );
    assert_eq!(proxy.get("/").await.status, 200);
}

#[tokio::test]
async fn a_check_can_ask_another_port() {
    let (origin, agent) = (Origin::replying("hello"), Origin::replying("fine"));
    let (_, port) =
        agent.to_string().rsplit_once(':').map(|(a, b)| (a.len(), b.to_owned())).unwrap();
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{origin}\"]
            health_check: {{ every: 100ms, http: {{ path: /agent, port: {port} }} }}
        "
    ))
    .await;

    assert_eq!(proxy.get("/").await.text(), "hello");
    assert_eq!(agent.last().target, "/agent");
    agent.kill().await;
    proxy.logs(&format!("health: app {origin} down: connection refused")).await;
    assert_eq!(proxy.get("/").await.status, 503);
    assert_eq!(origin.count(), 1, "it was asked by the client alone");
}

#[tokio::test]
async fn listeners_open_after_the_first_round_of_checks() {
    let slow = Origin::with(async |exchange| {
        time::sleep(Duration::from_millis(400)).await;
        exchange.reply("slow").await
    });
    let proxy = Crestline::start(&format!(
        "upstreams: {{ app: {{ backends: [\"{slow}\"], health_check: {{ timeout: 10s, http: {{}} }} }} }}"
    ))
    .await;

    assert_eq!(proxy.log_with("health: app"), [format!("health: app {slow} up")]);
    assert_eq!(proxy.get("/").await.text(), "slow");
}

/// The first round is bounded by the timeout of the check.
#[tokio::test]
async fn a_backend_is_not_in_service_before_its_first_good_probe() {
    let (silent, good) = (Origin::blackhole().await, Origin::replying("good"));
    let start = Instant::now();
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{silent}\", \"{good}\"]
            health_check: {{ timeout: 2s, every: 1h }}
        "
    ))
    .await;

    assert!(Duration::from_millis(1_950) < start.elapsed(), "{:?}", start.elapsed());
    for _ in 0..6 {
        assert_eq!(proxy.get("/").await.text(), "good");
    }
    assert!(proxy.access_log(6).await.iter().all(|line| line["attempts"] == 1));
    assert_eq!(proxy.log_with(&format!("health: app {silent} up")), [""; 0]);
}

/// The next check is an hour away.
#[tokio::test]
async fn a_failure_of_real_traffic_is_probed_at_once() {
    let (one, other) = (Origin::replying("one"), Origin::replying("other"));
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{one}\", \"{other}\"]
            health_check: {{ every: 1h }}
            ejection: off
        "
    ))
    .await;

    one.kill().await;
    for _ in 0..2 {
        assert_eq!(proxy.get("/").await.text(), "other");
    }
    proxy.logs(&format!("health: app {one} down: connection refused (after 2 failures)")).await;
    let attempts = proxy.access_log(2).await.len();
    for _ in 0..4 {
        assert_eq!(proxy.get("/").await.text(), "other");
    }
    let lines = proxy.access_log(attempts + 4).await;
    assert!(lines[attempts..].iter().all(|line| line["attempts"] == 1), "{lines:?}");
}

/// Not one round each.
#[tokio::test]
async fn a_returning_backend_proves_itself_in_quick_succession() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app: {{ backends: [\"{origin}\"], health_check: {{ every: 5s, healthy_after: 20 }} }}
        "
    ))
    .await;
    let up = format!("health: app {origin} up");
    proxy.logs(&up).await;
    origin.kill().await;
    assert_eq!(proxy.get("/").await.status, 502);
    proxy.logs(&format!("health: app {origin} down")).await;

    origin.revive();
    let start = Instant::now();
    eventually("the return", || proxy.log_with(&up).len() == 2).await;
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_name_in_backends_is_resolved() {
    let origin = Origin::replying("hello");
    let (_, port) =
        origin.to_string().split_once(':').map(|(a, b)| (a.len(), b.to_owned())).unwrap();
    let proxy =
        Crestline::start(&format!("upstreams: {{ app: {{ backends: [\"localhost:{port}\"] }} }}"))
            .await;

    assert_eq!(proxy.texts(3).await, ["hello"; 3]);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_leaves_its_upstream_at_503_and_the_process_up() {
    let origin = Origin::replying("hello");
    let mut proxy = Crestline::start(&format!(
        "
        upstreams:
          good: {{ backends: [\"{origin}\"] }}
          lost: {{ backends: [\"does-not-exist.invalid:80\"] }}
        routes:
          - {{ name: lost, match: {{ path: /lost }}, upstream: lost }}
          - {{ name: good, upstream: good }}
        "
    ))
    .await;

    let lost = proxy.get("/lost").await;
    assert_eq!((lost.status, lost.get("retry-after").is_some()), (503, true));
    assert_eq!(proxy.get("/").await.text(), "hello");
    assert!(!proxy.log_with("does-not-exist.invalid").is_empty());
    assert!(proxy.is_running());
}
