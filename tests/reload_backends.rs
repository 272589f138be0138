//! What a reload makes of backends: health, ejection and counters are kept by address, and new ones
//! are probed before they take requests.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use serde_json::Value;
use tokio::sync::Semaphore;

use crate::support::{Crestline, Origin, eventually, get};

/// A failing and a good backend; one failure ejects for long.
fn ejecting(failing: &Origin, good: &Origin, more: &str) -> String {
    let ejection = if more.contains("ejection") {
        ""
    } else {
        "ejection: { consecutive_failures: 1, eject_for: 5m }, "
    };
    format!(
        "upstreams: {{ app: {{ backends: [\"{failing}\", \"{good}\"], health_check: off, {ejection}{more} }} }}\n"
    )
}

fn busy() -> Origin {
    Origin::with(|exchange| exchange.answer("503 Busy", "", "busy"))
}

#[tokio::test]
async fn an_upstream_keeps_its_counters_ejections_and_idle_connections() {
    let (failing, good) = (busy(), Origin::replying("good"));
    let proxy = Crestline::start(&ejecting(&failing, &good, "")).await;
    let mut client = proxy.client().await;
    for _ in 0..4 {
        client.exchange(get("/")).await;
    }
    proxy.logs(&format!("ejection: app {failing} ejected")).await;
    let before = proxy.status().await["upstreams"][0].clone();
    assert_eq!(before["requests"], 4);

    // Untouched; then changed in what the connection does not depend on.
    let untouched = ejecting(&failing, &good, "") + "trusted_proxies: [10.0.0.0/8]\n";
    assert_eq!(proxy.reload(&untouched).await, "v1 → v2: trusted_proxies changed");
    let changed = ejecting(&failing, &good, "retries: 2, timeouts: { first_byte: 7s, tunnel: 2h }");
    proxy.reload(&changed).await;
    let after = proxy.status().await["upstreams"][0].clone();
    assert_eq!(after["requests"], before["requests"], "{after}");
    let availability = |upstream: &Value| -> Vec<_> {
        let backends = upstream["backends"].as_array().unwrap().iter();
        backends.map(|backend| backend["availability"].clone()).collect()
    };
    assert_eq!(availability(&after), availability(&before));
    assert!(availability(&after).contains(&"ejected".into()), "{after}");
    // Pingora's pool may lose one now and then; what is not kept would be made anew each time.
    let made = good.connections();
    for retries in 0..4 {
        let changed = ejecting(&failing, &good, &format!("retries: {retries}"));
        proxy.reload(&changed).await;
        assert_eq!(client.exchange(get("/")).await.text(), "good");
    }
    assert!(good.connections() < made + 4, "connections are used before and after");
    assert_eq!(proxy.status().await["upstreams"][0]["requests"], 8);
}

/// The next check is an hour away, but for those that changes ask for.
#[tokio::test]
async fn an_unhealthy_backend_stays_so_without_a_moment_of_service() {
    let (dead, good, third) = (Origin::refusing(), Origin::replying("good"), Origin::replying("3"));
    let yaml = |more: &str| {
        format!(
            "
            upstreams:
              app:
                backends: [\"{dead}\", \"{good}\"{more}
                health_check: {{ every: 1h }}
            "
        )
    };
    let proxy = Crestline::start(&yaml("]")).await;
    proxy.logs(&format!("health: app {dead} down")).await;

    for (index, more) in
        ["]\n                retries: 2", "]\n                retries: 1"].iter().enumerate()
    {
        proxy.reload(&yaml(more)).await;
        for _ in 0..4 {
            assert_eq!(proxy.get("/").await.text(), "good");
        }
        assert_eq!(proxy.availability("app").await[&dead.to_string()], "unhealthy", "{index}");
    }
    proxy.reload(&yaml(&format!(", \"{third}\"]"))).await;
    let lines = proxy.access_log(8).await;
    assert!(lines.iter().all(|line| line["attempts"] == 1), "{lines:?}");
    assert_eq!(proxy.log_with(&format!("health: app {dead} ")).len(), 1, "it never changed");
    assert_eq!(proxy.log_with(&format!("health: app {good} ")).len(), 1, "nor did this one");
}

#[tokio::test]
async fn an_unhealthy_backend_comes_back_under_the_checks_of_a_later_version() {
    let origin = Origin::replying("hello");
    let yaml = |every: &str| {
        format!(
            "upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: {{ every: {every} }} }} }}"
        )
    };
    let proxy = Crestline::start(&yaml("1h")).await;
    origin.kill().await;
    proxy.get("/").await;
    proxy.logs(&format!("health: app {origin} down")).await;

    origin.revive();
    proxy.reload(&yaml("100ms")).await;
    let up = format!("health: app {origin} up");
    eventually(&up, || proxy.log_with(&up).len() == 2).await;
    assert_eq!(proxy.get("/").await.text(), "hello");
    origin.kill().await;
    let down = format!("health: app {origin} down");
    eventually(&down, || proxy.log_with(&down).len() == 2).await;
}

#[tokio::test]
async fn without_checks_an_unhealthy_backend_serves() {
    let origin = Origin::with(async |exchange| match exchange.request.target.as_str() {
        "/healthz" => exchange.answer("500 No", "", "").await,
        _ => exchange.reply("hello").await,
    });
    let yaml = |check: &str| {
        format!("upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: {check} }} }}")
    };
    let checked = "{ every: 100ms, http: { path: /healthz } }";
    let proxy = Crestline::start(&yaml(checked)).await;
    proxy.logs("down: status 500").await;
    assert_eq!(proxy.get("/").await.status, 503);

    proxy.reload(&yaml("off")).await;
    assert_eq!(proxy.get("/").await.text(), "hello");
    let asked = origin.count();
    proxy.reload(&yaml("{ every: 100ms, http: { path: /healthz } }")).await;
    // Trusted before: it serves until its checks say otherwise.
    eventually("two checks", || asked + 2 <= origin.count()).await;
    let down = "down: status 500";
    eventually(down, || proxy.log_with(down).len() == 2).await;
    assert_eq!(proxy.get("/").await.status, 503);
}

#[tokio::test]
async fn without_ejection_an_ejected_backend_serves() {
    let (failing, good) = (busy(), Origin::replying("good"));
    let proxy = Crestline::start(&ejecting(&failing, &good, "")).await;
    proxy.texts(2).await;
    proxy.logs(&format!("ejection: app {failing} ejected")).await;
    assert_eq!(proxy.texts(4).await, ["good"; 4]);

    proxy.reload(&ejecting(&failing, &good, "ejection: off")).await;
    let answers = proxy.texts(4).await;
    assert_eq!(answers.iter().filter(|text| *text == "busy").count(), 2, "{answers:?}");
    assert_eq!(proxy.availability("app").await[&failing.to_string()], "ready");
}

/// They fail after the reload, by the rules of before.
#[tokio::test]
async fn requests_of_before_eject_nothing_where_ejection_was_switched_off() {
    let (fail, is_good) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicBool::new(false)));
    let origin = Origin::with({
        let (fail, is_good) = (fail.clone(), is_good.clone());
        move |exchange| {
            let (fail, is_good) = (fail.clone(), is_good.clone());
            async move {
                if is_good.load(SeqCst) {
                    return exchange.reply("served").await;
                }
                fail.acquire().await.unwrap().forget();
                exchange.answer("503 Busy", "", "busy").await
            }
        }
    });
    let other = Origin::replying("other");
    let proxy = Crestline::start(&ejecting(&origin, &other, "")).await;
    let mut clients = [proxy.client().await, proxy.client().await];
    for client in &mut clients {
        client.send(get("/")).await;
    }
    eventually("a request at the origin", || origin.count() == 1).await;

    proxy.reload(&ejecting(&origin, &other, "ejection: off")).await;
    fail.add_permits(1);
    let statuses = [clients[0].answer().await.status, clients[1].answer().await.status];
    assert!(statuses.contains(&503), "{statuses:?}");
    is_good.store(true, SeqCst);
    let answers = proxy.texts(4).await;
    assert_eq!(answers.iter().filter(|text| *text == "served").count(), 2, "{answers:?}");
    assert_eq!(proxy.availability("app").await[&origin.to_string()], "ready");
}

/// Traffic that goes on until it is stopped; each answer must be whole and good.
async fn traffic(proxy: &Crestline, until: impl Fn() -> bool) -> usize {
    let mut client = proxy.client().await;
    let mut answers = 0;
    while !until() {
        assert_eq!(client.exchange(get("/")).await.status, 200);
        answers += 1;
    }
    answers
}

#[tokio::test]
async fn a_new_backend_is_probed_before_it_takes_requests() {
    let (good, dead, new) = (Origin::replying("good"), Origin::refusing(), Origin::replying("new"));
    let silent = Origin::blackhole().await;
    let yaml = |backends: &[&Origin]| {
        let backends: Vec<_> = backends.iter().map(|origin| format!("\"{origin}\"")).collect();
        format!(
            "upstreams: {{ app: {{ backends: [{}], health_check: {{ timeout: 2s }} }} }}",
            backends.join(", ")
        )
    };
    let proxy = Crestline::start(&yaml(&[&good])).await;
    let done = AtomicBool::new(false);

    let reloads = async {
        let told = proxy.reload(&yaml(&[&good, &dead, &silent])).await;
        assert_eq!(told, "v1 → v2: upstream app +2 backends");
        proxy.logs(&format!("health: app {silent} down")).await;
        proxy.reload(&yaml(&[&good, &dead, &silent, &new])).await;
        eventually("the new one serves", || 0 < new.count()).await;
        done.store(true, SeqCst);
    };
    let (answers, ()) = tokio::join!(traffic(&proxy, || done.load(SeqCst)), reloads);
    let lines = proxy.access_log(answers).await;
    assert!(lines.iter().all(|line| line["attempts"] == 1));
    assert!(0 < new.count());
}

/// Each needs several good answers before it serves.
#[tokio::test]
async fn all_backends_can_be_replaced_at_once_and_no_request_fails() {
    let (old, new) = (Origin::replying("old"), Origin::replying("new"));
    let yaml = |name: &str, origin: &Origin| {
        format!(
            "upstreams: {{ {name}: {{ backends: [\"{origin}\"], health_check: {{ healthy_after: 4 }} }} }}"
        )
    };
    let proxy = Crestline::start(&yaml("app", &old)).await;
    let done = AtomicBool::new(false);

    let reloads = async {
        proxy.reload(&yaml("app", &new)).await;
        proxy.reload(&yaml("app", &old)).await;
        proxy.reload(&yaml("web", &new)).await;
        done.store(true, SeqCst);
    };
    tokio::join!(traffic(&proxy, || done.load(SeqCst)), reloads);
    assert_eq!(proxy.get("/").await.text(), "new");
}

/// Its address is the one thing that changes; the name stays.
#[tokio::test]
async fn an_upstream_that_moves_to_a_name_keeps_serving() {
    let origin = Origin::replying("hello");
    let (_, port) =
        origin.to_string().split_once(':').map(|(a, b)| (a.len(), b.to_owned())).unwrap();
    let yaml = |address: &str| {
        format!(
            "upstreams: {{ app: {{ backends: [\"{address}\"], health_check: {{ every: 200ms }} }} }}"
        )
    };
    let proxy = Crestline::start(&yaml(&origin.to_string())).await;
    let done = AtomicBool::new(false);

    let reloads = async {
        proxy.reload(&yaml(&format!("localhost:{port}"))).await;
        proxy.reload(&yaml(&origin.to_string())).await;
        proxy.reload(&yaml(&format!("localhost:{port}"))).await;
        done.store(true, SeqCst);
    };
    tokio::join!(traffic(&proxy, || done.load(SeqCst)), reloads);
}
