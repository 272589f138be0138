//! The real etcd, on a port of its own, with keys that tests put and delete.

use std::{net::TcpListener, process::Stdio};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{self, Duration, Instant},
};

use super::{Client, PATIENCE, request};

/// A running etcd, or the place of one. It is killed when this is dropped.
pub(crate) struct Etcd {
    port: u16,
    child: Option<Child>,
    folder: TempDir,
}

impl Etcd {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Another process may take the port between its choice and its use.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(child) = begin(port, &folder).await {
                return Self { port, child: Some(child), folder };
            }
        }
        panic!("etcd does not start; `make setup` installs it");
    }

    /// Where it is asked.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it, as a crash does.
    pub(crate) async fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().await.unwrap();
    }

    /// Starts it again, on the same port, with the keys that it had.
    pub(crate) async fn revive(&mut self) {
        self.child = begin(self.port, &self.folder).await;
        assert!(self.child.is_some(), "the port was taken");
    }

    pub(crate) async fn put(&self, key: &str, value: &str) {
        let question = json!({ "key": encoded(key), "value": encoded(value) });
        self.ask("/v3/kv/put", &question).await;
    }

    pub(crate) async fn delete(&self, key: &str) {
        let deleted = self.ask("/v3/kv/deleterange", &json!({ "key": encoded(key) })).await;
        assert_eq!(deleted["deleted"], "1", "{key} was there");
    }

    async fn ask(&self, path: &str, question: &Value) -> Value {
        let mut client = Client::connect(&format!("127.0.0.1:{}", self.port)).await;
        let answer = client.exchange(request("POST", path, "", &question.to_string())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

fn encoded(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

/// Starts it and waits until it serves; `None` if it ends instead.
async fn begin(port: u16, folder: &TempDir) -> Option<Child> {
    let at = format!("http://127.0.0.1:{port}");
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(folder.path().join("data"));
    command.args(["--listen-client-urls", &at, "--advertise-client-urls", &at]);
    command.args(["--listen-peer-urls", "http://127.0.0.1:0", "--log-level", "error"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().ok()?;
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if serves(port).await {
            return Some(child);
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for etcd");
        time::sleep(Duration::from_millis(20)).await;
    }
    None
}

/// Whether it has a leader, itself.
async fn serves(port: u16) -> bool {
    let Ok(mut client) = Client::try_connect(&format!("127.0.0.1:{port}")).await else {
        return false;
    };
    let question = json!({ "key": encoded("a") }).to_string();
    client.send_if_taken(request("POST", "/v3/kv/range", "", &question)).await;
    client.try_answer().await.is_ok_and(|answer| answer.status == 200)
}
