//! What crosses over: health and ejection of each backend, and the version of the configuration.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use crate::support::{Crestline, Exchange, Origin, eventually, soon};

/// How many requests an origin got that were no checks.
fn requests(origin: &Origin) -> usize {
    origin.requests().iter().filter(|request| request.target != "/healthz").count()
}

/// Answers checks with one status, and requests with another.
fn answering(check: &'static str, request: &'static str) -> Origin {
    Origin::with(move |exchange: Exchange| {
        let status = if exchange.request.target == "/healthz" { check } else { request };
        exchange.answer(status, "", "ok")
    })
}

#[tokio::test]
async fn an_unhealthy_and_an_ejected_backend_stay_so_without_a_request() {
    let (good, failing, sick) =
        (answering("200 X", "200 X"), answering("200 X", "503 X"), answering("500 X", "200 X"));
    let mut proxy = Crestline::start(&format!(
        "
        grace_period_seconds: 1
        graceful_shutdown_timeout_seconds: 1
        upstreams:
          app:
            backends: [\"{good}\", \"{failing}\", \"{sick}\"]
            health_check: {{ http: {{ path: /healthz }}, every: 60s, timeout: 5s }}
            ejection: {{ consecutive_failures: 1, eject_for: 200s }}
        "
    ))
    .await;
    let expected = BTreeMap::from([
        (good.to_string(), "ready".to_owned()),
        (failing.to_string(), "ejected".to_owned()),
        (sick.to_string(), "unhealthy".to_owned()),
    ]);
    let mut before = BTreeMap::new();
    soon("an ejection", async {
        while before != expected {
            proxy.get("/").await;
            before = proxy.availability("app").await;
        }
    })
    .await;
    let asked = requests(&failing);

    for _ in 0..2 {
        let told = proxy.command(&["upgrade"]).await;
        assert_eq!(told.code, Some(0), "{}", told.stderr);
        assert_eq!(proxy.availability("app").await, expected);
        for _ in 0..20 {
            assert_eq!(proxy.get("/").await.status, 200);
        }
    }
    eventually("the end of the first process", || !proxy.is_running()).await;
    let backends = proxy.status().await["upstreams"][0]["backends"].clone();
    let ejected =
        backends.as_array().unwrap().iter().find_map(|one| one["ejected_seconds"].as_u64());
    assert!(ejected.is_some_and(|rest| (150..=200).contains(&rest)), "the rest of it: {backends}");
    assert_eq!((requests(&failing), requests(&sick)), (asked, 0));
}

/// A backend that is known to be well is not waited for, whether it is given by address or by
/// name: its checks would take longer than the test.
#[tokio::test]
async fn the_first_request_meets_warm_health() {
    let by_address = checked_once();
    let by_name = checked_once();
    let port = by_name.to_string().rsplit(':').next().unwrap().to_owned();
    let check = "health_check: { http: { path: /healthz }, every: 60s, timeout: 60s }";
    let proxy = Crestline::start(&format!(
        "
        grace_period_seconds: 1
        graceful_shutdown_timeout_seconds: 1
        upstreams:
          app:
            backends: [\"{by_address}\"]
            {check}
          named:
            backends: [\"localhost:{port}\"]
            {check}
        routes:
          - {{ name: all, upstream: app }}
          - {{ name: named, match: {{ path: /named }}, upstream: named }}
        "
    ))
    .await;
    let told = proxy.command(&["upgrade", "--timeout", "15s"]).await;
    assert_eq!(told.code, Some(0), "it waited for a check: {}", told.stderr);
    for path in ["/", "/named"] {
        assert_eq!(proxy.get(path).await.text(), "hello");
    }
}

/// Answers one check, and all requests.
fn checked_once() -> Origin {
    let checks = AtomicUsize::new(0);
    Origin::with(move |exchange: Exchange| {
        let is_check = exchange.request.target == "/healthz";
        let answers = !is_check || checks.fetch_add(1, SeqCst) == 0;
        async move { if answers { exchange.reply("hello").await } else { exchange.hang().await } }
    })
}

#[tokio::test]
async fn the_version_of_the_configuration_goes_on() {
    let origin = Origin::replying("hello");
    let yaml = |retries: u32| {
        format!(
            "grace_period_seconds: 1\ngraceful_shutdown_timeout_seconds: 1\n\
             upstreams: {{ app: {{ backends: [\"{origin}\"], retries: {retries} }} }}\n"
        )
    };
    let proxy = Crestline::start(&yaml(0)).await;
    proxy.reload(&yaml(1)).await;
    proxy.reload(&yaml(2)).await;
    assert_eq!(proxy.version().await, 3);

    assert_eq!(proxy.command(&["upgrade"]).await.code, Some(0));
    assert_eq!(proxy.version().await, 3, "the same configuration");
    proxy.rewrite(&yaml(3));
    assert_eq!(proxy.command(&["upgrade"]).await.code, Some(0));
    assert_eq!(proxy.version().await, 4, "another one");
    let versions = proxy.status().await["configuration"]["versions"].clone();
    assert_eq!(versions[0]["summary"], "taken over at an upgrade");
    assert_eq!(proxy.reload(&yaml(4)).await, "v4 → v5: upstream app changed");
}
