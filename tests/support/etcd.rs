//! The real etcd, with keys that tests put and delete.

use std::path::Path;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{
    Client,
    daemon::{Daemon, Service},
    request,
};

/// What is run.
pub(crate) struct EtcdServer;

pub(crate) type Etcd = Daemon<EtcdServer>;

impl Service for EtcdServer {
    const PROGRAM: &'static str = "etcd";

    fn arguments(command: &mut Command, port: u16, folder: &Path) {
        let at = format!("http://127.0.0.1:{port}");
        command.arg("--data-dir").arg(folder.join("data"));
        command.args(["--listen-client-urls", &at, "--advertise-client-urls", &at]);
        command.args(["--listen-peer-urls", "http://127.0.0.1:0", "--log-level", "error"]);
    }

    /// Whether it has a leader.
    async fn serves(port: u16) -> bool {
        let Ok(mut client) = Client::try_connect(&format!("127.0.0.1:{port}")).await else {
            return false;
        };
        let question = json!({ "key": encoded("a") }).to_string();
        client.send_if_taken(request("POST", "/v3/kv/range", "", &question)).await;
        client.try_answer().await.is_ok_and(|answer| answer.status == 200)
    }
}

impl Etcd {
    /// Where it is asked.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
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
        let mut client = Client::connect(&format!("127.0.0.1:{}", self.port())).await;
        let answer = client.exchange(request("POST", path, "", &question.to_string())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

fn encoded(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}
