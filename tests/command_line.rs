//! The command line: what runs without a file, what is checked, and how the program ends.

use std::{collections::BTreeMap, fs, path::PathBuf};

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::support::{Client, Crestline, Finished, Origin, PATIENCE, get};

#[tokio::test]
async fn two_flags_balance_without_a_file() {
    let (one, other) = (Origin::replying("one"), Origin::replying("other"));
    let (port, _reserved) = free_port();
    let (backends, port) = (format!("--backends=http://{one},http://{other}"), port.to_string());
    let proxy = Crestline::start_with(&[&backends, "--port", &port]).await;
    assert_eq!(proxy.address(), format!("0.0.0.0:{port}"));

    let mut client = Client::connect(&format!("127.0.0.1:{port}")).await;
    let mut shares = BTreeMap::new();
    for _ in 0..10 {
        *shares.entry(client.exchange(get("/")).await.text().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(shares, BTreeMap::from([("one".to_owned(), 5), ("other".to_owned(), 5)]));
    one.kill().await;
    for _ in 0..4 {
        assert_eq!(client.exchange(get("/")).await.text(), "other");
    }
}

/// Bound, so that nobody else gets it, and not listening, so that the proxy may.
fn free_port() -> (u16, Socket) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    (socket.local_addr().unwrap().as_socket().unwrap().port(), socket)
}

#[tokio::test]
async fn a_good_file_is_good_both_ways_of_asking() {
    let (_folder, file) = written("upstreams: { app: { backends: [\"127.0.0.1:9\"] } }\n");

    for arguments in [&["check", &file][..], &["-c", &file, "check"], &["-t", "-c", &file]] {
        let finished = Crestline::run(arguments).await;
        assert_eq!(finished.code, Some(0), "{arguments:?}: {}", finished.stderr);
        assert_eq!(finished.stdout, "", "words for people go to stderr");
    }
}

/// Everything at once, each with its place.
#[tokio::test]
async fn a_bad_file_is_refused_with_all_its_problems() {
    let (_folder, file) = written(
        "upstreams:\n  app: { backends: [\"127.0.0.1:9\"], retrys: 3 }\nroutes:\n  - { name: a, upstream: ap }\nlistenrs: []\n",
    );

    for arguments in [&["check", &file][..], &["-t", "-c", &file], &["-c", &file]] {
        let Finished { code, stderr, took, .. } = Crestline::run(arguments).await;
        assert_eq!(code, Some(78), "{arguments:?}: {stderr}");
        assert!(took < PATIENCE, "{took:?}");
        for problem in ["retrys", "retries", "listenrs", "listeners", "`ap`", ":2:", ":4:", ":5:"] {
            assert!(stderr.contains(problem), "{problem} in {stderr}");
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_refused() {
    let (folder, _) = written("");

    let missing = folder.path().join("missing.yaml").display().to_string();
    let directory = folder.path().display().to_string();
    for file in [missing, directory] {
        for arguments in [&["-c", &file][..], &["check", &file]] {
            let finished = Crestline::run(arguments).await;
            assert_eq!(finished.code, Some(78), "{arguments:?}: {}", finished.stderr);
            assert!(finished.stderr.contains(&file), "{}", finished.stderr);
            assert!(finished.took < PATIENCE, "{:?}", finished.took);
        }
    }
}

#[tokio::test]
async fn wrong_usage_ends_with_64() {
    let wrong: [&[&str]; 6] = [
        &["--no-such-flag"],
        &["no-such-command"],
        &["--backends=http://"],
        &["--backends=127.0.0.1:1", "--port", "70000"],
        &["--backends=127.0.0.1:1", "-c", "file.yaml"],
        &["--port", "3030"],
    ];
    for arguments in wrong {
        let finished = Crestline::run(arguments).await;
        assert_eq!(finished.code, Some(64), "{arguments:?}: {}", finished.stderr);
        assert!(!finished.stderr.is_empty() && finished.stdout.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn help_and_version_are_answers() {
    for (flag, expected) in [("--help", "--backends"), ("--version", "crestline 0.")] {
        let finished = Crestline::run(&[flag]).await;
        assert_eq!(finished.code, Some(0));
        assert!(finished.stdout.contains(expected), "{}", finished.stdout);
    }
}

fn written(yaml: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("crestline.yaml");
    fs::write(&file, yaml).unwrap();
    (folder, file.display().to_string())
}
