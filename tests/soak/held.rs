//! What is open while an upgrade happens: a slow download, a slow upload and a WebSocket. Each is
//! half done when it begins, and goes on after the old process has let go of its listeners.

use tokio::sync::watch;

use crate::support::{After, Client, Exchange, Origin, Pattern, get, request, soon};

/// Sent or received before the upgrade, and again after it.
const HALF: usize = 48 * 1024;
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
     Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// Text frames (RFC 6455 §5.7): of a client, masked with zeros, and of a server.
const ASKED: &[u8] = b"\x81\x85\0\0\0\0hello";
const ECHOED: &[u8] = b"\x81\x05hello";
/// A close frame of a client, status 1000, and its answer.
const GOODBYE: &[u8] = b"\x88\x82\0\0\0\0\x03\xe8";
const GOODBYE_ECHOED: &[u8] = b"\x88\x02\x03\xe8";

/// Lets the origins go on: they have up to this upgrade's second halves.
pub(super) struct Gate(watch::Sender<u32>);

/// The three, half done.
pub(super) struct Held {
    download: Client,
    upload: Client,
    websocket: Client,
    pattern: Pattern,
}

/// An origin that answers at once, and slowly where a path asks for it: `/download/7` waits for
/// the seventh opening of the gate.
pub(super) fn origin() -> (Origin, Gate) {
    let (gate, opened) = watch::channel(0);
    let origin = Origin::with(move |exchange| answer(exchange, opened.clone()));
    (origin, Gate(gate))
}

async fn answer(mut exchange: Exchange, mut opened: watch::Receiver<u32>) -> After {
    let target = exchange.request.target.clone();
    if let Some(number) = target.strip_prefix("/download/") {
        let (number, pattern) = (number.parse::<u32>().unwrap(), Pattern::new());
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 * HALF)).await;
        exchange.send(pattern.at(0, HALF)).await;
        let _ = opened.wait_for(|opened| number <= *opened).await;
        exchange.send(pattern.at(HALF, HALF)).await;
        return exchange.keep();
    }
    match target.as_str() {
        "/upload" => {
            let body = exchange.body().await;
            let is_whole = body.len() == 2 * HALF && Pattern::new().matches(0, &body);
            exchange.reply(if is_whole { "whole" } else { "broken" }).await
        }
        "/websocket" => {
            exchange.send(ACCEPTED).await;
            while let Ok(frame) = exchange.bytes(2).await {
                let length = usize::from(frame[1] & 0x7f);
                let Ok(rest) = exchange.bytes(4 + length).await else { break };
                let echo = [&[frame[0], frame[1] & 0x7f], &rest[4..]].concat();
                exchange.send(echo).await;
            }
            exchange.close()
        }
        _ => exchange.reply("hello").await,
    }
}

impl Gate {
    /// Opens it for all that was begun so far.
    pub(super) fn open(&self, number: u32) {
        self.0.send_replace(number);
    }
}

impl Held {
    /// Begins all three, for this upgrade.
    pub(super) async fn begin(address: &str, number: u32) -> Self {
        let pattern = Pattern::new();
        let mut download = Client::connect(address).await;
        download.send(get(&format!("/download/{number}"))).await;
        assert_eq!(download.head().await.status, 200);
        let mut upload = Client::connect(address).await;
        let length = format!("Content-Length: {}\r\n", 2 * HALF);
        upload.send(request("POST", "/upload", &length, "")).await;
        upload.send(pattern.at(0, HALF)).await;
        let mut websocket = Client::connect(address).await;
        websocket.send(request("GET", "/websocket", UPGRADE, "")).await;
        assert_eq!(websocket.head().await.status, 101);
        websocket.send(ASKED).await;
        assert_eq!(websocket.bytes(ECHOED.len()).await, ECHOED);
        Self { download, upload, websocket, pattern }
    }

    /// Ends all three, and each must be whole.
    pub(super) async fn end(mut self) {
        let mut body = Vec::new();
        while let Some(piece) = self.download.piece().await.expect("the rest of the download") {
            body.extend_from_slice(&piece);
        }
        assert_eq!(body.len(), 2 * HALF);
        assert!(self.pattern.matches(0, &body), "the download is what was sent");

        self.upload.send(self.pattern.at(HALF, HALF)).await;
        assert_eq!(self.upload.answer().await.text(), "whole");

        self.websocket.send(ASKED).await;
        assert_eq!(self.websocket.bytes(ECHOED.len()).await, ECHOED);
        self.websocket.send(GOODBYE).await;
        assert_eq!(self.websocket.bytes(GOODBYE_ECHOED.len()).await, GOODBYE_ECHOED);
        self.websocket.finish().await;
        soon("the end of the tunnel", self.websocket.rest()).await;
    }
}
