//! A backend that fails real requests is left alone for a while, and comes back by a trial.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinSet, time};

use crate::support::{Crestline, Origin, eventually, get};

#[tokio::test]
async fn a_backend_that_keeps_failing_is_ejected_and_returns_after_a_trial() {
    let healthy = Arc::new(AtomicBool::new(false));
    let trial = Arc::new(Semaphore::new(0));
    let failing = Origin::with({
        let (healthy, trial) = (healthy.clone(), trial.clone());
        move |exchange| {
            let (healthy, trial) = (healthy.load(SeqCst), trial.clone());
            async move {
                if !healthy {
                    return exchange.answer("502 Bad Gateway", "", "sorry").await;
                }
                trial.acquire().await.unwrap().forget();
                exchange.reply("back").await
            }
        }
    });
    let good = Origin::replying("good");
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{failing}\", \"{good}\"]
            ejection: {{ consecutive_failures: 3, eject_for: 3s }}
        "
    ))
    .await;

    let answers = proxy.texts(6).await;
    assert_eq!(answers.iter().filter(|answer| *answer == "sorry").count(), 3, "{answers:?}");
    let ejected =
        format!("ejection: app {failing} ejected for 3s (3 failures in a row, the last: 502)");
    proxy.logs(&ejected).await;
    assert_eq!(proxy.texts(6).await, ["good"; 6]);

    healthy.store(true, SeqCst);
    time::sleep(Duration::from_millis(3_100)).await;
    let (mut clients, before) = (JoinSet::new(), good.count());
    for _ in 0..6 {
        let mut client = proxy.client().await;
        clients.spawn(async move { client.exchange(get("/")).await.text().to_owned() });
    }
    let is_one_on_trial = || (good.count(), failing.count()) == (before + 5, 4);
    eventually("one request on trial, and five answers", is_one_on_trial).await;
    trial.add_permits(100);
    let answers = clients.join_all().await;
    assert_eq!(answers.iter().filter(|answer| *answer == "back").count(), 1);
    proxy.logs(&format!("ejection: app {failing} returned")).await;
    assert!(proxy.texts(4).await.contains(&"back".to_owned()));
}

#[tokio::test]
async fn no_more_than_max_ejected_are_ejected() {
    let failing = || Origin::with(|exchange| exchange.answer("503 Busy", "", "busy"));
    let (one, other) = (failing(), failing());
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{one}\", \"{other}\"]
            ejection: {{ consecutive_failures: 2, eject_for: 5m, max_ejected: 50% }}
        "
    ))
    .await;

    assert_eq!(proxy.texts(10).await, ["busy"; 10], "the origin's answer, not ours");
    proxy.logs("ejected for").await;
    assert_eq!(proxy.log_with("ejected for").len(), 1);
}

/// Better a backend that failed before than no answer.
#[tokio::test]
async fn an_ejected_backend_is_tried_before_a_request_fails() {
    let (failing, good) = (
        Origin::with(|exchange| exchange.answer("503 Busy", "", "busy")),
        Origin::replying("good"),
    );
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{failing}\", \"{good}\"]
            health_check: off
            ejection: {{ consecutive_failures: 1, eject_for: 5m }}
        "
    ))
    .await;
    proxy.texts(2).await;
    proxy.logs(&format!("ejection: app {failing} ejected")).await;
    assert_eq!(proxy.texts(2).await, ["good"; 2]);

    good.kill().await;
    assert_eq!(proxy.texts(2).await, ["busy"; 2]);
}
