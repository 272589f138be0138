//! What backends bear: bounds that are kept, and a line of those who wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{task::JoinSet, time::Instant};

use crate::support::{Answer, Client, Crestline, Origin, PATIENCE, eventually, get};

/// An origin that takes a moment, and the most requests that it ever had at a time.
fn counting() -> (Origin, Arc<AtomicUsize>) {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let origin = Origin::with({
        let most = most.clone();
        move |exchange| {
            let (now, most) = (now.clone(), most.clone());
            async move {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                now.fetch_sub(1, SeqCst);
                exchange.reply("done").await
            }
        }
    });
    (origin, most)
}

async fn load(proxy: &Crestline) -> Value {
    proxy.status().await["upstreams"][0]["load"].clone()
}

/// Waits until so many requests wait for a place.
async fn waiting(proxy: &Crestline, count: u64) {
    let start = Instant::now();
    while load(proxy).await["waiting"] != count {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {count} in the line");
    }
}

/// Sends a request on a connection of its own, and does not wait for the answer.
async fn ask(proxy: &Crestline, path: &str) -> Client {
    let mut client = proxy.client().await;
    client.send(get(path)).await;
    client
}

fn retry_after(answer: &Answer) -> u64 {
    answer.get("retry-after").expect("Retry-After").parse().unwrap()
}

#[tokio::test]
async fn a_backend_never_has_more_requests_than_it_bears() {
    let ((one, most_of_one), (other, most_of_other)) = (counting(), counting());
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{one}\", \"{other}\"]
            max_requests: 3
            queue: {{ max: 1000, timeout: 50s }}
        "
    ))
    .await;
    let mut clients = JoinSet::new();
    for _ in 0..40 {
        let mut client = proxy.client().await;
        clients.spawn(async move {
            for _ in 0..5 {
                assert_eq!(client.exchange(get("/")).await.text(), "done");
            }
        });
    }
    clients.join_all().await;
    assert_eq!([most_of_one.load(SeqCst), most_of_other.load(SeqCst)], [3, 3]);
    let load = load(&proxy).await;
    assert!(0 < load["served"].as_u64().unwrap(), "{load}");
    assert_eq!(load["waiting"], 0);
}

/// As seen by the origin: a connection carries one request at a time.
#[tokio::test]
async fn a_backend_never_has_more_connections_than_it_bears() {
    let (origin, most) = counting();
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{origin}\"]
            health_check: off
            max_connections: 3
            queue: {{ max: 1000, timeout: 50s }}
        "
    ))
    .await;
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let mut client = proxy.client().await;
        clients.spawn(async move {
            for _ in 0..5 {
                assert_eq!(client.exchange(get("/")).await.text(), "done");
            }
        });
    }
    clients.join_all().await;
    assert_eq!(most.load(SeqCst), 3);
    assert!(origin.connections() < 100, "they are used again");
    let load = load(&proxy).await;
    let connections = load["backends"][origin.to_string()]["connections"].as_u64().unwrap();
    assert!((1..=3).contains(&connections), "{connections} in the pool");
}

#[tokio::test]
async fn the_line_is_served_in_the_order_of_arrival() {
    let (origin, gate) = Origin::gated("done");
    let yaml = format!(
        "upstreams: {{ app: {{ backends: [\"{origin}\"], max_requests: 1, \
         queue: {{ max: 5, timeout: 50s }} }} }}"
    );
    let proxy = Crestline::start(&yaml).await;
    let mut clients = vec![ask(&proxy, "/0").await];
    eventually("the first at the origin", || origin.count() == 1).await;
    for nth in 1..=5 {
        clients.push(ask(&proxy, &format!("/{nth}")).await);
        waiting(&proxy, nth).await;
    }
    let refused = proxy.get("/6").await;
    assert_eq!(refused.status, 503);
    assert_eq!(retry_after(&refused), 50, "nothing is known but how long one may wait");

    let told = proxy.reload(&yaml.replace("max: 5", "max: 4")).await;
    assert_eq!(told, "v1 → v2: upstream app changed");
    assert_eq!(proxy.get("/7").await.status, 503, "the line is still there");
    gate.add_permits(100);
    for client in &mut clients {
        assert_eq!(client.answer().await.text(), "done");
    }
    let order: Vec<String> = origin.requests().into_iter().map(|it| it.target).collect();
    assert_eq!(order, ["/0", "/1", "/2", "/3", "/4", "/5"]);
    assert_eq!(proxy.get("/8").await.text(), "done");
    let load = load(&proxy).await;
    assert_eq!(
        (&load["served"], &load["refused"], &load["waiting"]),
        (&5.into(), &2.into(), &0.into())
    );
    let reasons = proxy.access_line(|line| line["path"] == "/6").await;
    assert_eq!(reasons["reason"], "queue_full");
}

#[tokio::test]
async fn who_waits_too_long_is_told_when_to_come_back() {
    let (origin, gate) = Origin::gated("done");
    let proxy = Crestline::start(&format!(
        "upstreams: {{ app: {{ backends: [\"{origin}\"], max_requests: 1, \
         queue: {{ timeout: 300ms }} }} }}"
    ))
    .await;
    let mut first = ask(&proxy, "/").await;
    eventually("the first at the origin", || origin.count() == 1).await;
    let start = Instant::now();
    let late = proxy.get("/late").await;
    assert_eq!((late.status, retry_after(&late)), (503, 1));
    assert!(Duration::from_millis(300) <= start.elapsed());
    let line = proxy.access_line(|line| line["path"] == "/late").await;
    assert_eq!(line["reason"], "queue_timeout");
    assert_eq!(load(&proxy).await["timed_out"], 1);
    gate.add_permits(9);
    assert_eq!(first.answer().await.text(), "done");
    assert_eq!(proxy.get("/").await.text(), "done", "the place is free again");
}

/// The time of a route may be over before that of the line.
#[tokio::test]
async fn the_time_of_a_route_ends_the_wait() {
    let (origin, gate) = Origin::gated("done");
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app: {{ backends: [\"{origin}\"], max_requests: 1, queue: {{ timeout: 50s }} }}
        routes:
          - {{ name: late, match: {{ path: /late }}, upstream: app, timeout: 300ms }}
          - {{ name: all, upstream: app }}
        "
    ))
    .await;
    let mut first = ask(&proxy, "/").await;
    eventually("the first at the origin", || origin.count() == 1).await;
    assert_eq!(proxy.get("/late").await.status, 504);
    let line = proxy.access_line(|line| line["path"] == "/late").await;
    assert_eq!((&line["reason"], &line["attempts"]), (&"deadline".into(), &0.into()));
    gate.add_permits(9);
    assert_eq!(first.answer().await.text(), "done");
}

#[tokio::test]
async fn without_a_line_a_full_upstream_answers_at_once() {
    let (origin, gate) = Origin::gated("done");
    let proxy = Crestline::start(&format!(
        "upstreams: {{ app: {{ backends: [\"{origin}\"], max_requests: 1 }} }}"
    ))
    .await;
    let mut first = ask(&proxy, "/").await;
    eventually("the first at the origin", || origin.count() == 1).await;
    let refused = proxy.get("/more").await;
    assert_eq!((refused.status, retry_after(&refused)), (503, 1));
    let line = proxy.access_line(|line| line["path"] == "/more").await;
    assert_eq!(line["reason"], "upstream_full");
    let availability = proxy.availability("app").await;
    assert_eq!(availability[&origin.to_string()], "full");
    gate.add_permits(9);
    assert_eq!(first.answer().await.text(), "done");
}

#[tokio::test]
async fn a_client_that_leaves_leaves_the_line() {
    let (origin, gate) = Origin::gated("done");
    let proxy = Crestline::start(&format!(
        "upstreams: {{ app: {{ backends: [\"{origin}\"], max_requests: 1, \
         queue: {{ max: 2, timeout: 50s }} }} }}"
    ))
    .await;
    let mut first = ask(&proxy, "/first").await;
    eventually("the first at the origin", || origin.count() == 1).await;
    let leaving = ask(&proxy, "/leaving").await;
    waiting(&proxy, 1).await;
    let mut staying = ask(&proxy, "/staying").await;
    waiting(&proxy, 2).await;
    drop(leaving);
    waiting(&proxy, 1).await;
    let line = proxy.access_line(|line| line["path"] == "/leaving").await;
    assert_eq!((&line["status"], &line["attempts"]), (&499.into(), &0.into()));
    gate.add_permits(9);
    assert_eq!(first.answer().await.text(), "done");
    assert_eq!(staying.answer().await.text(), "done");
    let order: Vec<String> = origin.requests().into_iter().map(|it| it.target).collect();
    assert_eq!(order, ["/first", "/staying"]);
    assert_eq!(load(&proxy).await["left"], 1);
}

/// A backend that comes back serves those who wait for the one that is full.
#[tokio::test]
async fn a_backend_that_becomes_fit_serves_the_line() {
    let (full, gate) = Origin::gated("done");
    let back = Origin::replying("back");
    back.kill().await;
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{full}\", \"{back}\"]
            max_requests: 1
            queue: {{ timeout: 50s }}
            health_check: {{ every: 100ms }}
        "
    ))
    .await;
    let mut first = ask(&proxy, "/").await;
    eventually("the first at the origin", || full.count() == 1).await;
    let mut second = ask(&proxy, "/").await;
    waiting(&proxy, 1).await;
    back.revive();
    assert_eq!(second.answer().await.text(), "back");
    gate.add_permits(9);
    assert_eq!(first.answer().await.text(), "done");
}

/// The limit moves by itself, within its bounds, and is kept.
#[tokio::test]
async fn an_adaptive_limit_is_kept_and_moves() {
    let (origin, most) = counting();
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{origin}\"]
            max_requests: {{ adaptive: {{ min: 2, max: 25 }} }}
            queue: {{ max: 1000, timeout: 50s }}
        "
    ))
    .await;
    let limit = async || {
        let load = load(&proxy).await;
        load["backends"][origin.to_string()]["requests_max"].as_u64().unwrap()
    };
    assert_eq!(limit().await, 20);
    let mut clients = JoinSet::new();
    let moved = Arc::new(AtomicUsize::new(0));
    for _ in 0..40 {
        let (mut client, moved) = (proxy.client().await, moved.clone());
        clients.spawn(async move {
            while moved.load(SeqCst) == 0 {
                assert_eq!(client.exchange(get("/")).await.text(), "done");
            }
        });
    }
    let start = Instant::now();
    while limit().await == 20 {
        assert!(start.elapsed() < PATIENCE, "the limit does not move");
    }
    moved.store(1, SeqCst);
    clients.join_all().await;
    assert!((2..=25).contains(&limit().await));
    assert!(most.load(SeqCst) <= 25);
}

/// An address that is not ours is no place to connect from.
#[tokio::test]
async fn without_an_address_to_connect_from_the_answer_comes_at_once() {
    let origin = Origin::replying("never");
    let proxy = Crestline::start(&format!(
        "
        client_bind_to_ipv4: [192.0.2.1]
        upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: off, retries: 0 }} }}
        "
    ))
    .await;
    assert_eq!(proxy.get("/").await.status, 503);
    let line = proxy.access_line(|line| line["status"] == 503).await;
    assert_eq!(
        (&line["reason"], &line["via"]),
        (&"no_source".into(), &format!("{origin}:no_source").into())
    );
    proxy.refuses_for("no_source", 1).await;
    assert_eq!(origin.count(), 0);
}
