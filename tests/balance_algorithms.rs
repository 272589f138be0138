//! How each algorithm shares requests out, as clients and origins see it.

use std::time::Duration;

use tokio::time;

use crate::support::{Answer, Crestline, Exchange, Origin, eventually, get, request, soon};

fn upstream(origins: &[&Origin], more: &str) -> String {
    let backends: Vec<_> = origins.iter().map(|origin| format!("\"{origin}\"")).collect();
    format!("upstreams: {{ app: {{ backends: [{}], {more} }} }}", backends.join(", "))
}

fn keyed(key: usize) -> String {
    request("GET", "/", &format!("x-key: key-{key}\r\n"), "")
}

#[tokio::test]
async fn whatever_the_algorithm_all_serve_and_a_dead_one_costs_nothing() {
    for balance in
        ["random", "least_requests", "peak_ewma", "{ consistent_hash: { on: { header: x-key } } }"]
    {
        let origins = [Origin::replying("a"), Origin::replying("b"), Origin::replying("c")];
        let [a, b, c] = &origins;
        let proxy = Crestline::start(&upstream(&[a, b, c], &format!("balance: {balance}"))).await;
        let mut client = proxy.client().await;
        let mut key = 0;
        soon("a request at each of them", async {
            while origins.iter().any(|origin| origin.count() == 0) {
                key += 1;
                assert_eq!(client.exchange(keyed(key)).await.status, 200, "{balance}");
            }
        })
        .await;
        b.kill().await;
        for key in 0..30 {
            let answer = proxy.send(keyed(key)).await;
            assert_eq!(answer.status, 200, "{balance}");
            assert_ne!(answer.text(), "b", "{balance}");
        }
    }
}

/// One backend has a request that it does not answer, and so another than it is always the better
/// one of two.
#[tokio::test]
async fn least_requests_leaves_a_busy_backend_alone() {
    let (busy, b, c) = (Origin::stalling(), Origin::replying("b"), Origin::replying("c"));
    let proxy = Crestline::start(&upstream(&[&busy, &b, &c], "balance: least_requests")).await;
    let (mut client, mut answered) = (proxy.client().await, 0);
    soon("a request at the one that is busy", async {
        while busy.count() == 0 {
            client.send(get("/")).await;
            while busy.count() == 0 && !client.has_answer() {
                time::sleep(Duration::from_millis(5)).await;
            }
            if client.has_answer() {
                assert_eq!(client.answer().await.status, 200);
                answered += 1;
            }
        }
    })
    .await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/").await.status, 200);
        answered += 1;
        proxy.access_log(answered).await; // until then, its backend may look as busy
    }
    assert_eq!(busy.count(), 1);
}

#[tokio::test]
async fn peak_ewma_prefers_the_ones_that_are_fast() {
    let slow = Origin::with(async |exchange: Exchange| {
        time::sleep(Duration::from_secs(1)).await;
        exchange.reply("slow").await
    });
    let (b, c) = (Origin::replying("b"), Origin::replying("c"));
    let proxy = Crestline::start(&upstream(&[&slow, &b, &c], "balance: peak_ewma")).await;
    let mut client = proxy.client().await;
    soon("the first answer of the slow one", async {
        while slow.count() == 0 {
            client.exchange(get("/")).await;
        }
    })
    .await;
    for _ in 0..60 {
        assert_eq!(client.exchange(get("/")).await.status, 200);
    }
    assert!(slow.count() < b.count().min(c.count()), "{}", slow.count());
}

#[tokio::test]
async fn the_same_key_meets_the_same_backend_and_only_a_dead_one_s_keys_move() {
    let origins = [Origin::replying("a"), Origin::replying("b"), Origin::replying("c")];
    let [a, b, c] = &origins;
    // What is being answered still when the next one comes spills nothing over.
    let more = "balance: { consistent_hash: { on: { header: x-key }, bounded_load: 100 } }";
    let proxy = Crestline::start(&upstream(&[a, b, c], more)).await;
    let ask = async || {
        let mut answers = Vec::new();
        for key in 0..40 {
            answers.push(proxy.send(keyed(key)).await.text().to_owned());
        }
        answers
    };
    let before = ask().await;
    assert_eq!(ask().await, before);
    for text in ["a", "b", "c"] {
        assert!(before.iter().any(|answer| answer == text), "{before:?}");
    }
    b.kill().await;
    for (then, now) in before.iter().zip(ask().await) {
        assert!(*then == now || then == "b", "{then} became {now}");
        assert_ne!(now, "b");
    }
}

#[tokio::test]
async fn a_hot_key_spills_over_to_the_others() {
    let origins = [Origin::stalling(), Origin::stalling(), Origin::stalling()];
    let [a, b, c] = &origins;
    let more = "balance: { consistent_hash: { on: { header: x-key } } }, health_check: off";
    let proxy = Crestline::start(&upstream(&[a, b, c], more)).await;
    let mut clients = Vec::new();
    for asked in 1..=12_usize {
        let mut client = proxy.client().await;
        client.send(keyed(7)).await;
        let arrived = || origins.iter().map(Origin::count).sum::<usize>() == asked;
        eventually("the request at an origin", arrived).await;
        let bound = (asked * 5).div_ceil(4 * 3);
        let most = origins.iter().map(Origin::count).max().unwrap();
        assert!(most <= bound, "{most} of {asked}");
        clients.push(client);
    }
}

#[tokio::test]
async fn backups_serve_only_while_no_other_is_fit() {
    let (first, backup) = (Origin::replying("first"), Origin::replying("backup"));
    let yaml = format!(
        "
        upstreams:
          app:
            backends: [\"{first}\", {{ address: \"{backup}\", backup: true }}]
            health_check: {{ every: 100ms }}
        "
    );
    let proxy = Crestline::start(&yaml).await;
    assert_eq!(proxy.texts(10).await, ["first"; 10]);
    first.kill().await;
    assert_eq!(proxy.texts(10).await, ["backup"; 10]);
    proxy.logs(&format!("health: app {first} down")).await;
    first.revive();
    let up = format!("health: app {first} up");
    eventually(&up, || proxy.log_with(&up).len() == 2).await;
    soon("the first one again", async {
        // A failure that ejected it wants a trial first.
        while proxy.get("/").await.text() != "first" {}
    })
    .await;
}

#[tokio::test]
async fn the_own_zone_is_preferred_while_it_is_fit() {
    let (near, far) = (Origin::replying("near"), Origin::replying("far"));
    let yaml = format!(
        "
        zone: a
        upstreams:
          app:
            backends:
              - {{ address: \"{near}\", zone: a }}
              - {{ address: \"{far}\", zone: b }}
        "
    );
    let proxy = Crestline::start(&yaml).await;
    assert_eq!(proxy.texts(10).await, ["near"; 10]);
    near.kill().await;
    assert_eq!(proxy.texts(10).await, ["far"; 10]);
    near.revive();
    // Where the proxy stands may change with a reload.
    proxy.reload(&yaml.replace("zone: a\n        upstreams", "zone: b\n        upstreams")).await;
    assert_eq!(proxy.texts(10).await, ["far"; 10]);
}

/// In an hour-long slow start, what a backend gets in its first moments is next to nothing.
#[tokio::test]
async fn a_backend_that_comes_back_starts_slowly() {
    let (steady, back) = (Origin::replying("steady"), Origin::replying("back"));
    let more = "slow_start: 1h, health_check: { every: 100ms }, ejection: off";
    let proxy = Crestline::start(&upstream(&[&steady, &back], more)).await;
    assert_eq!(back_of(&proxy.texts(20).await), 10, "at the start all are as good");
    back.kill().await;
    assert_eq!(proxy.get("/").await.status, 200);
    assert_eq!(proxy.get("/").await.status, 200);
    proxy.logs(&format!("health: app {back} down")).await;
    back.revive();
    let up = format!("health: app {back} up");
    eventually(&up, || proxy.log_with(&up).len() == 2).await;
    let answers = proxy.texts(200).await;
    assert!(back_of(&answers) < 50, "{} of 200", back_of(&answers));
}

fn back_of(answers: &[String]) -> usize {
    answers.iter().filter(|answer| *answer == "back").count()
}

/// What a client is told to keep, if anything.
fn cookie(answer: &Answer) -> Option<String> {
    let whole = answer.get("set-cookie")?;
    assert!(whole.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{whole}");
    whole.split(';').next().map(str::to_owned)
}

fn with(cookie: &str) -> String {
    request("GET", "/", &format!("cookie: a=b; {cookie}\r\n"), "")
}

#[tokio::test]
async fn a_client_stays_with_its_backend_and_moves_only_when_it_must() {
    let origins = [Origin::replying("a"), Origin::replying("b"), Origin::replying("c")];
    let [a, b, c] = &origins;
    let yaml = upstream(&[a, b, c], "balance: { sticky: {} }");
    let yaml = format!("grace_period_seconds: 1\n{yaml}");
    let mut proxy = Crestline::start(&yaml).await;
    let first = proxy.get("/").await;
    let (home, token) = (first.text().to_owned(), cookie(&first).expect("a cookie"));
    assert!(token.starts_with("crestline_backend="), "{token}");
    let stays = async |proxy: &Crestline| {
        for _ in 0..6 {
            let answer = proxy.send(with(&token)).await;
            assert_eq!((answer.text(), cookie(&answer)), (home.as_str(), None));
        }
    };
    stays(&proxy).await;
    proxy.reload(&yaml.replace("sticky: {} }", "sticky: {} }, retries: 1")).await;
    stays(&proxy).await;
    let upgraded = proxy.command(&["upgrade"]).await;
    assert_eq!(upgraded.code, Some(0), "{}", upgraded.stderr);
    eventually("the end of the first process", || !proxy.is_running()).await;
    stays(&proxy).await;

    // A forged one is none: the client is given another.
    let forged = proxy.send(with("crestline_backend=AAAAAAAAAAAAAAAAAAAAAA")).await;
    assert!(cookie(&forged).is_some());

    let left = origins.iter().zip(["a", "b", "c"]).find(|(_, text)| *text == home).unwrap().0;
    let drained = proxy.command(&["drain", &format!("app/{left}")]).await;
    assert_eq!(drained.code, Some(0), "{}", drained.stderr);
    let moved = proxy.send(with(&token)).await;
    assert_ne!(moved.text(), home);
    let new = cookie(&moved).expect("another cookie");
    for _ in 0..4 {
        assert_eq!(proxy.send(with(&new)).await.text(), moved.text(), "and there it stays");
    }
}
