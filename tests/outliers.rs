//! Backends that are worse than they may be, or than the others, are left alone; and when nobody
//! is fit, the operator has said what then.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time;

use crate::support::{Crestline, Origin, get};

/// Sends requests until the log says what it must.
async fn until_logged(proxy: &Crestline, text: &str) {
    let mut client = proxy.client().await;
    for _ in 0..5_000 {
        assert!(client.exchange(get("/")).await.status < 504);
        if !proxy.log_with(text).is_empty() {
            return;
        }
    }
    panic!("not in the log: {text}");
}

/// A backend that fails every second request: never two in a row.
fn flaky() -> Origin {
    let requests = Arc::new(AtomicUsize::new(0));
    Origin::with(move |exchange| {
        let fails = requests.fetch_add(1, SeqCst).is_multiple_of(2);
        async move {
            if fails {
                exchange.answer("503 Busy", "", "busy").await
            } else {
                exchange.reply("flaky").await
            }
        }
    })
}

#[tokio::test]
async fn a_backend_that_fails_a_share_of_its_requests_is_ejected() {
    let (flaky, good) = (flaky(), Origin::replying("good"));
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{flaky}\", \"{good}\"]
            ejection: {{ failure_share: 40%, window: 1s, min_requests: 4, eject_for: 5m }}
        "
    ))
    .await;
    until_logged(&proxy, &format!("ejection: app {flaky} ejected for 300s (failure share: ")).await;
    assert_eq!(proxy.texts(6).await, ["good"; 6]);
}

#[tokio::test]
async fn a_backend_that_succeeds_less_often_than_the_others_is_ejected() {
    let (flaky, good) = (flaky(), [(); 4].map(|()| Origin::replying("good")));
    let [one, two, three, four] = &good;
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{flaky}\", \"{one}\", \"{two}\", \"{three}\", \"{four}\"]
            ejection:
              {{ success_rate_deviations: 1.5, window: 1s, min_requests: 4, eject_for: 5m }}
        "
    ))
    .await;
    until_logged(&proxy, &format!("ejection: app {flaky} ejected for 300s (success rate: ")).await;
    assert_eq!(proxy.texts(8).await, ["good"; 8]);
}

#[tokio::test]
async fn a_backend_that_turns_slow_is_ejected() {
    let is_slow = Arc::new(AtomicBool::new(false));
    let slow = Origin::with({
        let is_slow = is_slow.clone();
        move |exchange| {
            let is_slow = is_slow.load(SeqCst);
            async move {
                if is_slow {
                    time::sleep(Duration::from_secs(1)).await;
                }
                exchange.reply("slow").await
            }
        }
    });
    let (one, other) = (Origin::replying("fast"), Origin::replying("fast"));
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{slow}\", \"{one}\", \"{other}\"]
            ejection: {{ latency_factor: 4, window: 20s, min_requests: 2, eject_for: 5m }}
        "
    ))
    .await;
    is_slow.store(true, SeqCst);
    until_logged(&proxy, &format!("ejection: app {slow} ejected for 300s (latency: ")).await;
    assert_eq!(proxy.texts(6).await, ["fast"; 6]);
}

/// Checks ask for a page that is gone; the backends answer all else.
#[tokio::test]
async fn when_no_backend_is_fit_any_is_tried_where_the_upstream_says_so() {
    let is_broken = Arc::new(AtomicBool::new(true));
    let origin = Origin::with({
        let is_broken = is_broken.clone();
        move |exchange| {
            let fails = is_broken.load(SeqCst) && exchange.request.target == "/healthz";
            async move {
                if fails {
                    exchange.answer("500 No", "", "").await
                } else {
                    exchange.reply("alive").await
                }
            }
        }
    });
    let yaml = |word: &str| {
        format!(
            "
            upstreams:
              app:
                backends: [\"{origin}\"]
                health_check: {{ http: {{ path: /healthz }}, every: 100ms }}
                on_no_healthy: {word}
            "
        )
    };
    let proxy = Crestline::start(&yaml("fail")).await;
    assert_eq!(proxy.get("/").await.status, 503);
    let proxy = Crestline::start(&yaml("any")).await;
    assert_eq!(proxy.texts(3).await, ["alive"; 3]);
    proxy.logs("health: no backend of app is fit: all are tried").await;
    assert_eq!(proxy.log_with("all are tried").len(), 1, "once");

    is_broken.store(false, SeqCst);
    proxy.logs(&format!("health: app {origin} up")).await;
    assert_eq!(proxy.get("/").await.text(), "alive");
    proxy.logs("health: a backend of app is fit again").await;
}
