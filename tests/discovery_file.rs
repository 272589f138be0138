//! Backends that a file lists, and what becomes of requests while the list changes.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::support::{Crestline, Load, Origin, PATIENCE};

const BY_FILE: &str = "upstreams: { app: { discovery: { file: app.yaml } } }";

/// Replaces a file by a rename.
fn replace(path: &Path, text: &str) {
    let draft = path.with_extension("new");
    fs::write(&draft, text).unwrap();
    fs::rename(draft, path).unwrap();
}

/// Waits until `status` tells of the source of `app` what a test wants.
async fn source(proxy: &Crestline, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let source = proxy.status().await["upstreams"][0]["discovery"][0].clone();
        if is_it(&source) {
            return source;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}: {source}");
    }
}

#[tokio::test]
async fn a_file_is_followed_and_what_is_wrong_in_it_changes_nothing() {
    let [first, second] = ["1", "2"].map(Origin::replying);
    let list = format!("- \"{first}\"\n");
    let proxy = Crestline::start_among(&[("app.yaml", &list)], &[], BY_FILE).await;
    let path = proxy.folder().join("app.yaml");
    assert_eq!(proxy.get("/").await.text(), "1");

    replace(&path, "- 127.0.0.1:1\n- a.test\n");
    let told = source(&proxy, "an error", |source| source["error"] != Value::Null).await;
    let error = told["error"].as_str().unwrap();
    assert!(error.starts_with("app.yaml:2:3: `a.test` has no port"), "{error}");
    assert_eq!(told["backends"], 1);
    assert_eq!(proxy.get("/").await.text(), "1");
    let source_name = format!("file {}", path.display());
    assert_eq!(told["source"], source_name);
    proxy
        .logs(&format!("discovery: app {source_name} failed, the last answer kept: app.yaml:2:3"))
        .await;

    replace(&path, &format!(r#"[{{"address": "{second}", "weight": 2}}]"#));
    proxy.logs(&format!("discovery: app {first} dropped")).await;
    assert_eq!(proxy.texts(3).await, ["2", "2", "2"]);
    source(&proxy, "no error", |source| source["error"] == Value::Null).await;
}

#[tokio::test]
async fn a_file_that_is_gone_is_believed_for_as_long_as_the_operator_said() {
    let origin = Origin::replying("hello");
    let list = format!("[\"{origin}\"]");
    let yaml = |max_stale: &str| {
        format!("upstreams: {{ app: {{ discovery: {{ file: app.yaml{max_stale} }} }} }}")
    };
    let proxy = Crestline::start_among(&[("app.yaml", &list)], &[], &yaml("")).await;
    assert_eq!(proxy.get("/").await.text(), "hello");
    fs::remove_file(proxy.folder().join("app.yaml")).unwrap();
    let told = source(&proxy, "an error", |source| source["error"] != Value::Null).await;
    assert!(told["error"].as_str().unwrap().starts_with("cannot read it: "), "{told}");
    assert_eq!(proxy.get("/").await.text(), "hello", "for ever by default");

    proxy.reload(&yaml(", max_stale: 1s")).await;
    source(&proxy, "no backends", |source| source["backends"] == 0).await;
    assert_eq!(proxy.get("/").await.status, 503);
    replace(&proxy.folder().join("app.yaml"), &list);
    source(&proxy, "one again", |source| source["backends"] == 1).await;
    let up = format!("health: app {origin} up");
    crate::support::eventually(&up, || 2 <= proxy.log_with(&up).len()).await;
    assert_eq!(proxy.get("/").await.text(), "hello");
}

/// What came to each address of an origin that is at all of them: for each connection in its
/// turn, how many requests.
type Seen = Arc<Mutex<HashMap<SocketAddr, Vec<usize>>>>;

/// An origin at every address of the loopback network; its port.
fn everywhere(seen: Seen) -> u16 {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).unwrap();
    socket.listen(4096).unwrap();
    let listener = TcpListener::from_std(socket.into()).unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let Ok(address) = stream.local_addr() else { continue };
            let nth = {
                let mut seen = seen.lock().unwrap();
                let connections = seen.entry(address).or_default();
                connections.push(0);
                connections.len() - 1
            };
            tokio::spawn(answer(stream, address, nth, seen.clone()));
        }
    });
    port
}

async fn answer(mut stream: TcpStream, address: SocketAddr, nth: usize, seen: Seen) {
    let (mut head, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut piece).await {
        head.extend_from_slice(&piece[..count]);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            seen.lock().unwrap().get_mut(&address).unwrap()[nth] += 1;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    }
}

/// A thousand backends from a number on.
fn thousand(first: u16, port: u16) -> String {
    let one = |nth: u16| format!("- 127.1.{}.{}:{port}\n", nth / 250, nth % 250 + 1);
    (first..first + 1_000).map(one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flap_of_a_thousand_backends_fails_no_request_and_touches_only_what_changes() {
    const FLAPS: usize = 6;
    let seen = Seen::default();
    let port = everywhere(seen.clone());
    let checked = "upstreams: { app: { discovery: { file: app.yaml }, \
                   health_check: { every: 1h, timeout: 30s }, timeouts: { connect: 30s } } }";
    let proxy = Crestline::start_among(&[("app.yaml", &thousand(0, port))], &[], checked).await;
    let path = proxy.folder().join("app.yaml");
    let load = Load::start(proxy.address(), 2, 1);
    load.goes_on().await;
    let gives = "gives 1000 backends";
    for flap in 1..=FLAPS {
        // Half of them change each time.
        replace(&path, &thousand(if flap % 2 == 0 { 0 } else { 500 }, port));
        let what = format!("flap {flap}");
        crate::support::eventually(&what, || proxy.log_with(gives).len() == 1 + flap).await;
        crate::support::eventually(&what, || proxy.log_with(" dropped").len() == 500 * flap).await;
        load.goes_on().await;
    }
    assert!(20 * FLAPS < load.stop().await);
    assert_eq!(proxy.status().await["upstreams"][0]["retries"], 0);
    // One swap at the start, and one for all that a flap changes.
    let swaps = proxy.metric("crestline_upstream_set_changes_total{upstream=\"app\"}").await;
    assert_eq!(swaps.to_bits(), (1.0 + FLAPS as f64).to_bits(), "{swaps}");

    let seen = seen.lock().unwrap();
    for (address, connections) in &*seen {
        let is_asked_first =
            connections.first() == Some(&0) || connections.iter().all(|it| *it == 0);
        assert!(is_asked_first, "{address} served before it was asked: {connections:?}");
    }
    for nth in 500..1_000_u16 {
        let address = format!("127.1.{}.{}:{port}", nth / 250, nth % 250 + 1).parse().unwrap();
        let asked = seen[&address].iter().filter(|requests| **requests == 0).count();
        assert_eq!(asked, 1, "{address} was there all the time, and asked again");
    }
}
