//! HTTP/1 as strangers send it: section A of the fault table, row by row, bytes in and bytes out.
//!
//! A refused request is answered, logged with its reason, unknown to the origin, and the last of
//! its connection, because nobody can tell where the next one would begin.

mod chunks;
mod framing;
mod hosts;
mod lines;
mod reuse;
mod tap;
mod targets;

use std::time::Duration;

use self::tap::Tap;
use crate::support::{Answer, Client, Crestline, eventually};

/// A proxy before one origin that notes every byte.
struct Edge {
    origin: Tap,
    proxy: Crestline,
}

impl Edge {
    async fn start() -> Self {
        Self::with_routes("").await
    }

    async fn with_routes(routes: &str) -> Self {
        let origin = Tap::start().await;
        let proxy = Crestline::start(&format!(
            "
            upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: off }} }}
            {routes}
            "
        ))
        .await;
        Self { origin, proxy }
    }

    /// Sends bytes that must be refused, before the origin hears of them.
    async fn refuses(&self, bytes: impl AsRef<[u8]>, status: u16, reason: &str) {
        let what = shown(bytes.as_ref());
        let connections = self.origin.connections();
        let mut client = self.proxy.client().await;
        client.send_if_taken(bytes).await;
        self.refused(client, status, reason, &what).await;
        assert_eq!(self.origin.connections(), connections, "the origin heard of {what}");
    }

    /// Reads the refusal of what was sent, and expects nothing after it.
    async fn refused(&self, mut client: Client, status: u16, reason: &str, what: &str) {
        let answer = client.try_answer().await;
        let answer = answer.unwrap_or_else(|ending| panic!("no answer but {ending:?} to {what}"));
        assert_eq!((answer.status, &answer.broken), (status, &None), "{what}");
        let line = self.line(&answer).await;
        assert_eq!((&line["status"], &line["reason"]), (&status.into(), &reason.into()), "{what}");
        assert_eq!(answer.get("connection"), Some("close"), "{what}");
        let (rest, _) = client.rest().await;
        assert_eq!(shown(&rest), "", "after {what}");
        assert_eq!(self.origin.whole(), [""; 0], "the origin got {what}");
    }

    /// Sends a request that must be answered, and returns what the origin got of it.
    async fn forwards(&self, bytes: impl AsRef<[u8]>) -> String {
        let what = shown(bytes.as_ref());
        let before = self.origin.whole().len();
        let answer = self.proxy.send(bytes).await;
        assert_eq!(answer.status, 200, "{what}");
        let mut whole = self.origin.whole();
        assert_eq!(whole.len(), before + 1, "{what}: {whole:?}");
        whole.pop().unwrap()
    }

    /// The line of the access log about an answer.
    async fn line(&self, answer: &Answer) -> serde_json::Value {
        let id = answer.get("x-request-id").expect("an id").to_owned();
        self.proxy.access_line(|line| line["id"] == id.as_str()).await
    }

    /// Waits until the origin has got these bytes of a request that is not whole yet.
    async fn reached(&self, bytes: &str) {
        eventually(bytes, || self.origin.partial().contains(bytes)).await;
    }
}

/// Bytes for a message, cut.
fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(200)];
    cut.escape_ascii().to_string()
}

/// The values of a field in raw bytes of a request.
fn values<'a>(request: &'a str, name: &str) -> Vec<&'a str> {
    let head = request.split("\r\n\r\n").next().unwrap_or_default();
    let fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    let named = fields.filter(|(known, _)| known.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.trim_matches(' ')).collect()
}

/// What follows the head of a request.
fn body(request: &str) -> &str {
    request.split_once("\r\n\r\n").expect("a head").1
}

/// The target in the first line of a request.
fn target(request: &str) -> &str {
    request.split(' ').nth(1).expect("a target")
}

/// A head of `GET /` with these lines in it, each with its end.
fn head(lines: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET / HTTP/1.1\r\nHost: a.test\r\n", lines.as_ref(), b"\r\n"].concat()
}

/// The same with `POST`, and what follows.
fn post(lines: &str, rest: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n{rest}")
}

/// So long that something that must not happen would have happened.
const A_WHILE: Duration = Duration::from_millis(200);
