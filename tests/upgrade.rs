//! Pingora's own way of upgrading: start the new one with `-u`, send `SIGQUIT` to the old one.

use std::{net::TcpListener, process::Stdio};

use rustix::process::Signal;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::support::{Crestline, Origin, eventually, soon};

#[tokio::test]
async fn a_successor_takes_the_sockets_over_and_no_request_fails() {
    let origin = Origin::replying("hello");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut old = Crestline::start(&format!(
        "listeners: [{{ address: \"{free}\" }}]\ngrace_period_seconds: 1\n\
         upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}"
    ))
    .await;

    let file = old.folder().join("crestline.yaml");
    let mut new = Command::new(env!("CARGO_BIN_EXE_crestline"))
        .arg("-u")
        .arg("-c")
        .arg(&file)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let socket = old.folder().join("upgrade.sock");
    eventually("the successor asks for the sockets", || socket.exists()).await;
    old.signal(Signal::QUIT);

    let mut lines = BufReader::new(new.stderr.take().unwrap()).lines();
    let taken_over = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.ends_with(&format!("listener: {free} taken over")) {
                return;
            }
        }
        panic!("the successor ended");
    };
    soon("the sockets are taken over", taken_over).await;
    while old.is_running() {
        assert_eq!(old.get("/").await.status, 200);
    }
    assert_eq!(old.get("/").await.text(), "hello", "the successor alone");
}
