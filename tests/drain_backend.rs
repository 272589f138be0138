//! One backend is drained by order, or given another weight, while the process serves.

use serde_json::Value;

use crate::support::{Crestline, Origin, eventually, get};

async fn backend(proxy: &Crestline, origin: &Origin) -> Value {
    let status = proxy.status().await;
    let backends = status["upstreams"][0]["backends"].as_array().unwrap().clone();
    backends.into_iter().find(|one| one["address"] == origin.to_string()).expect("a backend")
}

#[tokio::test]
async fn a_drained_backend_ends_what_it_has_and_gets_nothing_new() {
    let (slow, good) = (Origin::stalling(), Origin::replying("good"));
    let yaml = format!(
        "
        grace_period_seconds: 1
        graceful_shutdown_timeout_seconds: 1
        upstreams:
          app:
            backends: [\"{slow}\", \"{good}\"]
            health_check: off
        "
    );
    let mut proxy = Crestline::start(&yaml).await;
    let mut clients = Vec::new();
    while slow.count() == 0 {
        let mut client = proxy.client().await;
        client.send(get("/")).await;
        let (at_slow, at_good) = (slow.count(), good.count());
        eventually("the request", || at_slow + at_good < slow.count() + good.count()).await;
        clients.push(client);
    }
    let path = format!("/v1/backends/app/{slow}/drain");
    let (status, told) = proxy.api("POST", &path, "").await;
    assert_eq!((status, &told["upstream"]), (200, &"app".into()), "{told}");
    assert_eq!(told["backend"]["availability"], "draining", "{told}");
    assert_eq!(told["backend"]["in_flight"], 1, "what it has it may end: {told}");

    assert_eq!(proxy.texts(10).await, ["good"; 10]);
    assert_eq!(proxy.api("POST", &path, "").await.0, 200);
    let line = format!("drain: app {slow} drained by order");
    assert_eq!(proxy.log_with(&line).len(), 1, "once for a change");

    proxy
        .reload(&yaml.replace("health_check: off", "health_check: off\n            retries: 1"))
        .await;
    let after = backend(&proxy, &slow).await;
    assert_eq!((&after["drained"], &after["availability"]), (&true.into(), &"draining".into()));
    assert_eq!(proxy.texts(10).await, ["good"; 10]);
    let shown = proxy.command(&["status"]).await.stderr;
    assert!(shown.contains("drained by order"), "{shown}");

    let upgraded = proxy.command(&["upgrade"]).await;
    assert_eq!(upgraded.code, Some(0), "{}", upgraded.stderr);
    eventually("the end of the first process", || !proxy.is_running()).await;
    assert_eq!(backend(&proxy, &slow).await["drained"], true);
    assert_eq!(proxy.texts(10).await, ["good"; 10]);

    let ready = proxy.command(&["drain", "--ready", &format!("app/{slow}")]).await;
    assert_eq!(ready.code, Some(0), "{}", ready.stderr);
    assert_eq!(backend(&proxy, &slow).await["availability"], "ready");
}

#[tokio::test]
async fn who_is_not_there_cannot_be_drained() {
    let origin = Origin::replying("hello");
    let yaml = format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}");
    let proxy = Crestline::start(&yaml).await;
    let told = proxy.command(&["drain", "app/127.0.0.1:1"]).await;
    assert_eq!(told.code, Some(1), "{}", told.stderr);
    let expected = format!("upstream `app` has no backend `127.0.0.1:1`\nhelp: it has {origin}");
    assert!(told.stderr.contains(&expected), "{}", told.stderr);
    let told = proxy.command(&["drain", &format!("application/{origin}")]).await;
    assert!(told.stderr.contains("there is no upstream `application`"), "{}", told.stderr);
    let told = proxy.command(&["drain", "--ready"]).await;
    assert_eq!(told.code, Some(64), "{}", told.stderr);
    assert_eq!(proxy.api("GET", "/v1/backends/app/127.0.0.1:1", "").await.0, 405);
}

#[tokio::test]
async fn a_weight_by_order_holds_until_the_file_gives_another() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let yaml = |weight: u16, more: &str| {
        format!(
            "
            upstreams:
              app:
                backends: [{{ address: \"{a}\", weight: {weight} }}, \"{b}\"]
                {more}
            "
        )
    };
    let proxy = Crestline::start(&yaml(1, "")).await;
    let share = async || {
        let answers = proxy.texts(40).await;
        answers.iter().filter(|answer| *answer == "a").count()
    };
    assert_eq!(share().await, 20);
    let path = format!("/v1/backends/app/{a}");
    let (status, told) = proxy.api("POST", &path, "{\"weight\": 3}").await;
    assert_eq!((status, &told["backend"]["weight"]), (200, &3.into()), "{told}");
    assert_eq!(share().await, 30);
    assert_eq!(backend(&proxy, &a).await["weight_in_file"], 1);
    proxy.reload(&yaml(1, "retries: 2")).await;
    assert_eq!(share().await, 30, "the file says nothing new of it");
    proxy.reload(&yaml(4, "retries: 2")).await;
    assert_eq!(share().await, 32, "now it does");
    assert_eq!(proxy.api("POST", &path, "{\"weight\": 1}").await.0, 200);
    assert_eq!(share().await, 20);
    assert_eq!(proxy.api("POST", &path, "{\"weight\": null}").await.0, 200);
    assert_eq!(share().await, 32, "that of the file again");
    assert_eq!(proxy.api("POST", &path, "{\"weight\": 0}").await.0, 400);
}
