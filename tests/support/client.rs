//! A client that sends exact bytes and tells how an answer ended.

use std::{io, process::Output};

use bytes::Bytes;
use tokio::{
    net::{TcpSocket, TcpStream},
    process::Command,
};

use super::{
    soon,
    wire::{Body, Ending, Fields, Head, Wire},
};

/// A connection to the proxy.
pub(crate) struct Client {
    wire: Wire,
    body: Body,
}

/// An answer, as far as it came.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    /// `None` if it was whole.
    pub(crate) broken: Option<Ending>,
}

impl Client {
    pub(crate) async fn connect(address: &str) -> Self {
        Self::try_connect(address).await.unwrap()
    }

    /// A connection from another address of this machine.
    pub(crate) async fn connect_from(source: &str, address: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
        let connecting = socket.connect(address.parse().unwrap());
        let stream = soon("a connection", connecting).await.unwrap();
        Self { wire: Wire::new(stream), body: Body::Length(0) }
    }

    /// A connection whose client offers hardly any room for what it is sent.
    pub(crate) async fn connect_narrow(address: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(256).unwrap();
        let connecting = socket.connect(address.parse().unwrap());
        let stream = soon("a connection", connecting).await.unwrap();
        Self { wire: Wire::new(stream), body: Body::Length(0) }
    }

    /// A connection that may be refused.
    pub(crate) async fn try_connect(address: &str) -> io::Result<Self> {
        let stream = soon("a connection", TcpStream::connect(address)).await?;
        Ok(Self { wire: Wire::new(stream), body: Body::Length(0) })
    }

    /// The port that it connects from.
    pub(crate) fn port(&self) -> u16 {
        self.wire.port()
    }

    /// Whether the proxy has closed, or has sent what nobody asked for.
    pub(crate) fn is_over(&self) -> bool {
        self.wire.is_over()
    }

    /// Whether an answer has begun to come, or the proxy has closed.
    pub(crate) fn has_answer(&self) -> bool {
        self.wire.has_arrived()
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("sending", self.wire.send(bytes.as_ref())).await.unwrap();
    }

    /// Sends as much as the proxy takes; it may have answered and closed.
    pub(crate) async fn send_if_taken(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = soon("sending", self.wire.send(bytes.as_ref())).await;
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn finish(&mut self) {
        self.wire.finish().await;
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        self.wire.reset();
    }

    /// Sends a request and reads its answer, which must be whole.
    pub(crate) async fn exchange(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request).await;
        self.answer().await
    }

    /// Reads an answer, which must be whole.
    pub(crate) async fn answer(&mut self) -> Answer {
        let answer = self.try_answer().await.expect("a head of an answer");
        assert_eq!(answer.broken, None, "{answer:?}");
        answer
    }

    /// Reads an answer, as far as it comes.
    pub(crate) async fn try_answer(&mut self) -> Result<Answer, Ending> {
        let head = soon("a head", self.wire.head()).await?;
        let status = status_of(&head);
        self.body = body_of(&head, status);
        let (body, end) = soon("a body", self.wire.whole(&mut self.body)).await;
        Ok(Answer { status, head, body, broken: end.err() })
    }

    /// Reads the head of an answer; [`Self::piece`] reads its body.
    pub(crate) async fn head(&mut self) -> Answer {
        let head = soon("a head", self.wire.head()).await.expect("a head of an answer");
        let status = status_of(&head);
        self.body = body_of(&head, status);
        Answer { status, head, body: Vec::new(), broken: None }
    }

    /// Reads what there is of a body; `None` at its end.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, Ending> {
        soon("a piece of a body", self.wire.piece(&mut self.body)).await
    }

    /// Reads so many raw bytes.
    pub(crate) async fn bytes(&mut self, count: usize) -> Bytes {
        soon("bytes", self.wire.exactly(count)).await.expect("more bytes")
    }

    /// Reads so many raw bytes, if the proxy sends them before it leaves.
    pub(crate) async fn try_bytes(&mut self, count: usize) -> Option<Bytes> {
        soon("bytes, or the end", self.wire.exactly(count)).await.ok()
    }

    /// Reads everything until the proxy closes.
    pub(crate) async fn rest(&mut self) -> (Vec<u8>, Ending) {
        soon("the end of the connection", self.wire.rest()).await
    }
}

fn status_of(head: &Head) -> u16 {
    let status = head.line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
    let status = status.and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("a status line: {:?}", head.line))
}

fn body_of(head: &Head, status: u16) -> Body {
    match status {
        100..200 | 204 | 304 => Body::Length(0),
        _ => Body::of(&head.fields, Body::UntilClose),
    }
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The only field of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields().get(name)
    }

    pub(crate) fn fields(&self) -> &Fields {
        &self.head.fields
    }
}

/// A plain `GET`.
pub(crate) fn get(path: &str) -> String {
    request("GET", path, "", "")
}

/// A `POST` with a length.
pub(crate) fn post(path: &str, body: &str) -> String {
    request("POST", path, "", body)
}

/// A request with more fields, each with its line end, and a body unless it is empty.
pub(crate) fn request(method: &str, path: &str, fields: &str, body: &str) -> String {
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Length: {length}\r\n"),
    };
    format!("{method} {path} HTTP/1.1\r\nHost: a.test\r\n{fields}{length}\r\n{body}")
}

/// Runs the real curl.
pub(crate) async fn curl(arguments: &[&str]) -> Output {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "45"]);
    curl.args(arguments).kill_on_drop(true);
    soon("curl", curl.output()).await.expect("curl is installed")
}
