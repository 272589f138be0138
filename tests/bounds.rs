//! How many connections there may be, who gives way, and that what is refused is counted.

use std::{fs, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::{self, Instant};

use crate::support::{Client, Crestline, Ending, Origin, PATIENCE, eventually, get, request};

/// Requests until one is answered: a connection that gives way takes a moment to leave.
async fn served(proxy: &Crestline) -> Client {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE, "nobody gave way");
        let mut client = proxy.client().await;
        client.send_if_taken(get("/")).await;
        if let Ok(answer) = client.try_answer().await {
            assert_eq!(answer.text(), "hello");
            return client;
        }
    }
}

async fn limited(origin: &Origin, limits: &str) -> Crestline {
    Crestline::start(&format!(
        "
        limits: {{ {limits} }}
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        "
    ))
    .await
}

#[tokio::test]
async fn an_idle_connection_gives_way_to_a_new_client() {
    let origin = Origin::replying("hello");
    let proxy = limited(&origin, "connections: 3").await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut client = proxy.client().await;
        client.exchange(get("/")).await;
        idle.push(client);
    }
    let _new = served(&proxy).await;
    eventually("one left", || idle.iter().any(Client::is_over)).await;
    proxy.has_refused("gave_way", 1).await;
}

/// Those that never say anything are the first to go: they have waited for longest.
#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out() {
    let origin = Origin::replying("hello");
    let proxy = limited(&origin, "connections: 10").await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(proxy.client().await);
    }
    for _ in 0..3 {
        drop(served(&proxy).await);
    }
    let left = || silent.iter().filter(|client| client.is_over()).count();
    eventually("they left", || 30 <= left()).await;
}

#[tokio::test]
async fn where_all_are_busy_a_new_connection_is_closed_and_counted() {
    let origin = Origin::stalling();
    let proxy = limited(&origin, "connections: 2").await;
    let mut busy = Vec::new();
    for count in 1..=2 {
        let mut client = proxy.client().await;
        client.send(get("/")).await;
        eventually("the request", || origin.count() == count).await;
        busy.push(client);
    }
    assert_eq!(proxy.client().await.rest().await, (Vec::new(), Ending::Closed));
    proxy.refuses_for("connections", 1).await;
    assert!(busy.iter().all(|client| !client.is_over()));
}

#[tokio::test]
async fn each_client_has_so_many_connections() {
    let origin = Origin::replying("hello");
    let proxy = limited(&origin, "connections_per_client: 2").await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = proxy.client().await;
        client.exchange(get("/")).await;
        held.push(client);
    }
    assert_eq!(proxy.client().await.rest().await, (Vec::new(), Ending::Closed));
    proxy.refuses_for("connections_per_client", 1).await;
    let mut other = Client::connect_from("127.0.0.2", proxy.address()).await;
    assert_eq!(other.exchange(get("/")).await.text(), "hello");
    held.pop();
    let _another = served(&proxy).await;
}

/// And a reload changes it for those that come.
#[tokio::test]
async fn each_client_connects_so_often() {
    let origin = Origin::replying("hello");
    let yaml = |limits: &str| {
        format!("limits: {{ {limits} }}\nupstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n")
    };
    let proxy = Crestline::start(&yaml("accepts_per_client: 3/h")).await;
    for _ in 0..3 {
        assert_eq!(proxy.get("/").await.text(), "hello");
    }
    assert_eq!(proxy.client().await.rest().await, (Vec::new(), Ending::Closed));
    proxy.refuses_for("accepts_per_client", 1).await;
    assert_eq!(proxy.reload(&yaml("")).await, "v1 → v2: limits changed");
    assert_eq!(proxy.get("/").await.text(), "hello");
}

/// Nothing spins, and whoever asks for something is answered, while more connect than there are
/// files for.
#[tokio::test]
async fn where_files_run_out_idle_connections_give_way() {
    const FILES: usize = 512;
    const MORE: usize = 100;
    // This process holds the other ends.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let origin = Origin::replying("hello");
    let proxy = Crestline::start_with_files(
        FILES,
        &format!(
            "
            limits: {{ connections: 1000 }}
            listeners: [{{ address: \"127.0.0.1:0\", timeouts: {{ header: 1h }} }}]
            upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
            "
        ),
    )
    .await;
    let mut idle = Vec::new();
    for _ in 0..FILES + MORE {
        idle.push(proxy.client().await);
    }
    for _ in 0..3 {
        drop(served(&proxy).await);
    }
    eventually("some left", || MORE <= idle.iter().filter(|idle| idle.is_over()).count()).await;
    proxy.has_refused("gave_way", MORE as u64).await;
    let failures = proxy.log_with("Accept() failed").len();
    assert!(failures < 100, "{failures}");
}

/// The soft limit is raised to the hard one, and most of it is for connections.
#[tokio::test]
async fn the_limit_of_open_files_is_raised() {
    let origin = Origin::replying("hello");
    let yaml = format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}");
    let proxy = Crestline::start(&yaml).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", proxy.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
}

/// A byte now and then is no body.
#[tokio::test]
async fn a_body_that_drips_gets_408() {
    let origin = Origin::echoing();
    let proxy = Crestline::start(&format!(
        "
        listeners:
          - address: \"127.0.0.1:0\"
            timeouts: {{ body: 2s }}
            limits: {{ body_rate: 1KiB }}
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        "
    ))
    .await;
    for fields in ["Content-Length: 100000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let piece = if fields.contains("chunked") { "1\r\nx\r\n" } else { "x" };
        let mut client = proxy.client().await;
        client.send(request("POST", "/", fields, "")).await;
        while !client.has_answer() {
            client.send_if_taken(piece).await;
            time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(client.answer().await.status, 408, "{fields}");
    }
    proxy.refuses_for("body_too_slow", 2).await;
    for line in proxy.access_log(2).await {
        assert_eq!(line["reason"], "body_too_slow");
    }
}

/// What never reaches a route is counted and logged with its reason, and says no name.
#[tokio::test]
async fn malformed_requests_are_counted_and_logged_with_their_reason() {
    let origin = Origin::replying("hello");
    let proxy = limited(&origin, "").await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(20_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(300));
    let chunk = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n";
    let cases = [
        ("GET / HTTP/1.1\r\n\r\n", 400, "missing_host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "duplicate_host"),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400, "obs_fold"),
        ("GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505, "unsupported_version"),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "trace_method"),
        (&long, 414, "target_too_long"),
        (&many, 431, "too_many_fields"),
        (chunk, 400, "bad_chunk_size"),
    ];
    for (index, (request, status, reason)) in cases.iter().enumerate() {
        let mut client = proxy.client().await;
        client.send_if_taken(request).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.get("server")), (*status, None), "{reason}");
        proxy.refuses_for(reason, 1).await;
        let line = &proxy.access_log(index + 1).await[index];
        assert_eq!((&line["status"], &line["reason"]), (&(*status).into(), &(*reason).into()));
    }
    // And a chunk that goes wrong later, when Pingora reads already.
    let later = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    let mut client = proxy.client().await;
    client.send(later).await;
    eventually("the request", || origin.count() == 1).await;
    client.send("nonsense\r\n").await;
    assert_eq!(client.answer().await.get("server"), None);
    proxy.refuses_for("bad_chunk_size", 2).await;
    assert_eq!(origin.count(), 1);

    let told = proxy.command(&["status"]).await.stderr;
    let line = told.lines().find(|line| line.starts_with("refused: ")).expect("a line");
    assert!(line.starts_with("refused: bad_chunk_size 2, "), "{line}");
}
