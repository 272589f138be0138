//! Backends that DNS tells of: names and SRV records, asked of a real server.

use std::net::UdpSocket;

use serde_json::Value;
use tokio::time::Instant;

use crate::support::{Crestline, Dns, Origin, PATIENCE};

/// A record `_http._tcp.app.test`.
fn srv(target: &str, origin: &Origin, priority: u16, weight: u16) -> String {
    let port = origin.to_string().rsplit(':').next().unwrap().to_owned();
    format!("--srv-host=_http._tcp.app.test,{target},{port},{priority},{weight}")
}

/// Waits until `status` tells of the sources of `app` what a test wants.
async fn source(proxy: &Crestline, what: &str, is_it: impl Fn(&Value, &Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let app = proxy.status().await["upstreams"][0].clone();
        if is_it(&app["discovery"][0], &app["backends"]) {
            return app;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}: {app}");
    }
}

fn weights(backends: &Value) -> Vec<(String, u64)> {
    let backends = backends.as_array().unwrap().iter();
    let one = |one: &Value| {
        (one["address"].as_str().unwrap().to_owned(), one["weight"].as_u64().unwrap())
    };
    let mut all: Vec<_> = backends.map(one).collect();
    all.sort();
    all
}

fn sorted<const N: usize>(mut all: [(String, u64); N]) -> Vec<(String, u64)> {
    all.sort();
    all.into()
}

#[tokio::test]
async fn srv_records_name_backends_with_ports_weights_and_priorities() {
    let [first, second, third] = ["1", "2", "3"].map(Origin::replying);
    let hosts = "127.0.0.1 a.test\n127.0.0.1 b.test\n";
    let records = [
        srv("a.test", &first, 10, 60),
        srv("b.test", &second, 10, 20),
        srv("b.test", &third, 20, 5),
    ];
    let mut dns = Dns::start(hosts, &records).await;
    let yaml = format!(
        "
        dns: {{ servers: [\"{}\"] }}
        upstreams: {{ app: {{ discovery: {{ srv: _http._tcp.app.test }} }} }}
        ",
        dns.address()
    );
    let proxy = Crestline::start(&yaml).await;
    let app = source(&proxy, "two backends", |source, _| source["backends"] == 2).await;
    assert_eq!(
        weights(&app["backends"]),
        sorted([(first.to_string(), 60), (second.to_string(), 20)])
    );
    assert_eq!(app["discovery"][0]["source"], "srv _http._tcp.app.test");
    assert_eq!(app["discovery"][0]["error"], Value::Null);
    assert!(app["discovery"][0]["in_touch_seconds"].as_u64().is_some());
    let answers = proxy.texts(8).await;
    let of = |text: &str| answers.iter().filter(|answer| *answer == text).count();
    assert_eq!((of("1"), of("2"), of("3")), (6, 2, 0), "{answers:?}");

    // While there is no server, the last good set serves, and `status` says why.
    dns.kill().await;
    source(&proxy, "an error", |source, _| source["error"] != Value::Null).await;
    assert_eq!(proxy.texts(4).await.len(), 4);
    let told = proxy.command(&["status"]).await.stderr;
    assert!(told.contains("by srv _http._tcp.app.test: 2 backends, in touch"), "{told}");

    dns.revive(&[srv("a.test", &third, 1, 0)]).await;
    let app = source(&proxy, "the new one", |source, backends| {
        source["error"] == Value::Null && weights(backends) == sorted([(third.to_string(), 1)])
    })
    .await;
    assert_eq!(app["discovery"][0]["backends"], 1);
    assert_eq!(proxy.get("/").await.text(), "3");
}

#[tokio::test]
async fn a_slow_name_holds_up_no_other() {
    let origin = Origin::replying("hello");
    let port = origin.to_string().rsplit(':').next().unwrap().to_owned();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let slow = format!("--server=/slow.example/127.0.0.1#{}", silent.local_addr().unwrap().port());
    let dns = Dns::start("127.0.0.1 fast.test\n", &[slow]).await;
    let proxy = Crestline::start(&format!(
        "
        dns: {{ servers: [\"{}\"] }}
        upstreams:
          app: {{ backends: [\"slow.example:80\", \"fast.test:{port}\"], health_check: off }}
        ",
        dns.address()
    ))
    .await;
    assert_eq!(proxy.get("/").await.text(), "hello");
    // The other one moves on while that one is still looked for.
    dns.set_hosts("127.0.0.2 fast.test\n");
    let moved = format!("127.0.0.2:{port}");
    let app = source(&proxy, "the new address", |source, backends| {
        source["error"] != Value::Null && weights(backends) == sorted([(moved.clone(), 1)])
    })
    .await;
    let error = app["discovery"][0]["error"].as_str().unwrap();
    assert!(error.starts_with("slow.example: "), "{error}");
}

#[tokio::test]
async fn a_name_that_comes_late_is_found() {
    let origin = Origin::replying("hello");
    let port = origin.to_string().rsplit(':').next().unwrap().to_owned();
    let dns = Dns::start("", &[]).await;
    let proxy = Crestline::start(&format!(
        "
        dns: {{ servers: [\"{}\"] }}
        upstreams: {{ app: {{ backends: [\"late.test:{port}\"] }} }}
        ",
        dns.address()
    ))
    .await;
    proxy.logs("discovery: app late.test not resolved, no answer kept").await;
    assert_eq!(proxy.get("/").await.status, 503);
    dns.set_hosts("127.0.0.1 late.test\n");
    proxy.logs("discovery: app late.test resolved to").await;
    proxy.logs(&format!("health: app {origin} up")).await;
    assert_eq!(proxy.get("/").await.text(), "hello");
}

/// A server that takes questions and answers none.
#[tokio::test]
async fn a_start_goes_on_without_a_source_that_is_silent() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&format!(
        "
        dns: {{ servers: [\"{}\"] }}
        upstreams:
          app: {{ discovery: {{ srv: _http._tcp.app.test }} }}
          web: {{ backends: [\"{origin}\"] }}
        routes: [{{ name: web, match: {{ path: /web }}, upstream: web }}, {{ name: app, upstream: app }}]
        ",
        silent.local_addr().unwrap()
    ))
    .await;
    let waited = "discovery: app srv _http._tcp.app.test has not answered yet, and is waited for \
                  no longer";
    proxy.logs(waited).await;
    assert_eq!(proxy.get("/").await.status, 503);
    assert_eq!(proxy.get("/web").await.text(), "hello");
    let source = proxy.status().await["upstreams"][0]["discovery"][0].clone();
    assert_eq!((&source["backends"], &source["in_touch_seconds"]), (&0.into(), &Value::Null));

    // A check asks nobody.
    silent.set_nonblocking(true).unwrap();
    let asked = || silent.recv(&mut [0; 512]).is_ok();
    assert!(asked(), "the start did");
    drop(proxy);
    while asked() {}
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checked.yaml");
    let yaml = format!(
        "dns: {{ servers: [\"{}\"] }}\nupstreams: {{ app: {{ discovery: {{ srv: a.test }} }} }}\n",
        silent.local_addr().unwrap()
    );
    std::fs::write(&file, yaml).unwrap();
    let checked = Crestline::run(&["check", file.to_str().unwrap()]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(!asked());
}
