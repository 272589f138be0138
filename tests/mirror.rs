//! Copies of requests for another upstream: exact, bounded, and never felt by clients.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{Crestline, Origin, PATIENCE, eventually, get, post};

/// A route to one upstream with a mirror to another.
fn mirrored(origin: &Origin, mirror: &Origin, more: &str) -> String {
    format!(
        "
        upstreams:
          app: {{ backends: [\"{origin}\"] }}
          mirror: {{ backends: [\"{mirror}\"], health_check: off }}
        routes: [{{ name: all, upstream: app, mirror: {{ upstream: mirror{more} }} }}]
        "
    )
}

/// What became of the copies.
async fn copies(proxy: &Crestline) -> Value {
    let status = proxy.status().await;
    let upstreams = status["upstreams"].as_array().unwrap().clone();
    let mirror = upstreams.into_iter().find(|upstream| upstream["name"] == "mirror").unwrap();
    mirror["mirrored"].clone()
}

/// Waits until so many copies have ended in a way.
async fn counts(proxy: &Crestline, end: &str, count: u64) {
    let sample = format!("crestline_mirror_copies_total{{upstream=\"mirror\",result=\"{end}\"}}");
    proxy.measures(&sample, count as f64).await;
}

#[tokio::test]
async fn the_mirror_gets_what_the_origin_gets_with_a_mark() {
    let bodies = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (origin, mirror) = (
        Origin::echoing(),
        Origin::with({
            let bodies = bodies.clone();
            move |mut exchange| {
                let bodies = bodies.clone();
                async move {
                    let body = exchange.body().await;
                    bodies.lock().unwrap().push(body);
                    exchange.answer("503 Busy", "", "nobody hears of this").await
                }
            }
        }),
    );
    let proxy = Crestline::start(&mirrored(&origin, &mirror, "")).await;
    let mut client = proxy.client().await;
    assert_eq!(client.exchange(get("/a?b=c")).await.status, 200);
    assert_eq!(client.exchange(post("/d", "the body")).await.text(), "the body");
    counts(&proxy, "5xx", 2).await;

    let mut of_mirror = mirror.requests();
    of_mirror.sort_by(|a, b| a.target.cmp(&b.target));
    for (sent, copied) in origin.requests().iter().zip(&of_mirror) {
        assert_eq!((&sent.method, &sent.target), (&copied.method, &copied.target));
        for name in ["host", "x-request-id", "x-forwarded-for", "content-length"] {
            assert_eq!(sent.fields.get(name), copied.fields.get(name), "{name}");
        }
        assert_eq!(sent.fields.get("x-crestline-mirror"), None);
        assert_eq!(copied.fields.get("x-crestline-mirror"), Some("1"));
    }
    let mut bodies = bodies.lock().unwrap().clone();
    bodies.sort();
    assert_eq!(bodies, [b"".to_vec(), b"the body".to_vec()]);
    assert_eq!(copies(&proxy).await, json!({ "now": 0, "ended": { "5xx": 2 } }));
    let availability = proxy.availability("mirror").await;
    assert_eq!(availability[&mirror.to_string()], "ready", "nobody is ejected for a copy");
}

#[tokio::test]
async fn a_mirror_that_hangs_is_not_felt_and_bounded() {
    let (origin, mirror) = (Origin::replying("answer"), Origin::stalling());
    let proxy =
        Crestline::start(&mirrored(&origin, &mirror, ", max_requests: 3, timeout: 40s")).await;
    assert_eq!(proxy.texts(50).await, ["answer"; 50]);
    eventually("copies at the mirror", || mirror.count() == 3).await;
    counts(&proxy, "busy", 47).await;
    assert_eq!(copies(&proxy).await["now"], 3);

    let told = proxy.reload(&mirrored(&origin, &mirror, ", max_requests: 4, timeout: 1s")).await;
    assert_eq!(told, "v1 → v2: route all changed");
    assert_eq!(proxy.texts(2).await, ["answer"; 2]);
    counts(&proxy, "busy", 48).await;
    counts(&proxy, "failed", 1).await; // the one of now, by its own time
    assert_eq!(mirror.count(), 4);
}

#[tokio::test]
async fn a_mirror_that_refuses_is_not_felt() {
    let (origin, mirror) = (Origin::replying("answer"), Origin::refusing());
    let proxy = Crestline::start(&mirrored(&origin, &mirror, "")).await;
    assert_eq!(proxy.texts(20).await, ["answer"; 20]);
    counts(&proxy, "failed", 20).await;
    let lines = proxy.access_log(20).await;
    assert!(lines.iter().all(|line| line["status"] == 200 && line["attempts"] == 1), "{lines:?}");
}

#[tokio::test]
async fn bodies_above_the_bound_are_not_copied() {
    let (origin, mirror) = (Origin::echoing(), Origin::echoing());
    let proxy = Crestline::start(&mirrored(&origin, &mirror, ", max_body: 1KiB")).await;
    let (large, small) = ("x".repeat(1025), "y".repeat(1024));
    let mut client = proxy.client().await;
    assert_eq!(client.exchange(post("/large", &large)).await.text(), large);
    assert_eq!(client.exchange(post("/small", &small)).await.text(), small);
    counts(&proxy, "2xx", 1).await;
    assert_eq!(copies(&proxy).await["ended"], json!({ "2xx": 1, "too_large": 1 }));
    assert_eq!(mirror.last().target, "/small");
}

/// One request is copied once, whatever attempts it takes.
#[tokio::test]
async fn a_share_is_copied_and_retries_are_not() {
    let failures = Arc::new(AtomicUsize::new(0));
    let (origin, mirror) = (
        Origin::with({
            let failures = failures.clone();
            move |exchange| {
                let fails = failures.fetch_add(1, SeqCst).is_multiple_of(10);
                async move { if fails { exchange.reset() } else { exchange.reply("answer").await } }
            }
        }),
        Origin::replying("copy"),
    );
    let other = Origin::replying("answer");
    let both = mirrored(&origin, &mirror, ", share: 50%").replace(
        &format!("[\"{origin}\"]"),
        &format!("[\"{origin}\", \"{other}\"], ejection: off"),
    );
    let proxy = Crestline::start(&both).await;
    assert_eq!(proxy.texts(400).await, vec!["answer"; 400]);
    let start = Instant::now();
    while copies(&proxy).await["now"] != 0 {
        assert!(start.elapsed() < PATIENCE);
    }
    let copied = mirror.count();
    assert!((130..270).contains(&copied), "{copied} of 400");
    let ids: std::collections::BTreeSet<_> = mirror
        .requests()
        .iter()
        .map(|copy| copy.fields.get("x-request-id").unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), copied, "none twice");
    let told = proxy.command(&["explain", "--live", "GET", &proxy.url("/")]).await;
    assert!(told.stderr.contains("  mirror   50% to mirror\n"), "{told:?}");
}
