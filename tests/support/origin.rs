//! Origins: HTTP/1 servers in this process that do exactly what a test wants, well or badly.

use std::{
    fmt,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use socket2::{Domain, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
    task::{JoinHandle, JoinSet},
};

use super::wire::{Body, Ending, Fields, Wire};

/// An origin on a port of its own, which stays reserved while it is dead.
pub(crate) struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    state: Mutex<State>,
    /// Bound, not listening: no other process gets the port, and connecting is refused.
    _reserved: Socket,
}

enum State {
    Dead,
    Alive { stop: oneshot::Sender<()>, task: JoinHandle<()> },
    Blackhole { _full: Socket, _filler: TcpStream },
}

struct Shared {
    handler: Box<dyn Fn(Exchange) -> Handled + Send + Sync>,
    connections: AtomicUsize,
    requests: Mutex<Vec<Received>>,
}

type Handled = Pin<Box<dyn Future<Output = After> + Send>>;

/// The head of a request as an origin received it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Fields,
}

/// A request that waits for what the origin does with it.
pub(crate) struct Exchange {
    pub(crate) request: Received,
    /// Which request of its connection it is, from 1.
    pub(crate) nth: usize,
    wire: Wire,
    body: Body,
}

/// What becomes of the connection.
pub(crate) enum After {
    Keep(Wire),
    Close,
}

impl Origin {
    /// An origin that handles each request as told.
    pub(crate) fn with<H, F>(handler: H) -> Self
    where
        H: Fn(Exchange) -> F + Send + Sync + 'static,
        F: Future<Output = After> + Send + 'static,
    {
        let origin = Self::dead(Box::new(move |exchange| Box::pin(handler(exchange))));
        origin.revive();
        origin
    }

    fn dead(handler: Box<dyn Fn(Exchange) -> Handled + Send + Sync>) -> Self {
        let reserved = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
        let shared =
            Shared { handler, connections: AtomicUsize::new(0), requests: Mutex::default() };
        Self {
            address: reserved.local_addr().unwrap().as_socket().unwrap(),
            shared: Arc::new(shared),
            state: Mutex::new(State::Dead),
            _reserved: reserved,
        }
    }

    /// An origin that answers as many requests as it is let, and what lets them.
    pub(crate) fn gated(text: &'static str) -> (Self, Arc<Semaphore>) {
        let gate = Arc::new(Semaphore::new(0));
        let origin = Self::with({
            let gate = gate.clone();
            move |exchange| {
                let gate = gate.clone();
                async move {
                    gate.acquire().await.unwrap().forget();
                    exchange.reply(text).await
                }
            }
        });
        (origin, gate)
    }

    /// Answers everything with this text.
    pub(crate) fn replying(text: &'static str) -> Self {
        Self::with(move |exchange| exchange.reply(text))
    }

    /// Answers with the body that it got.
    pub(crate) fn echoing() -> Self {
        Self::with(async |mut exchange| {
            let body = exchange.body().await;
            exchange.reply(body).await
        })
    }

    /// Refuses connections.
    pub(crate) fn refusing() -> Self {
        Self::dead(Box::new(|exchange| Box::pin(exchange.hang())))
    }

    /// Reads requests and never answers.
    pub(crate) fn stalling() -> Self {
        Self::with(Exchange::hang)
    }

    /// Reads requests and resets.
    pub(crate) fn resetting() -> Self {
        Self::with(async |exchange| exchange.reset())
    }

    /// Sends these bytes to everyone and closes.
    pub(crate) fn sending(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::with(move |mut exchange| {
            let bytes = bytes.clone();
            async move {
                exchange.body().await;
                exchange.send(bytes).await;
                exchange.close()
            }
        })
    }

    /// Lets connections wait for ever: the kernel drops their packets.
    pub(crate) async fn blackhole() -> Self {
        let origin = Self::refusing();
        origin.swallow().await;
        origin
    }

    /// How many connections were made, those of checks included.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// How many requests there were.
    pub(crate) fn count(&self) -> usize {
        self.shared.requests.lock().unwrap().len()
    }

    /// The last request.
    pub(crate) fn last(&self) -> Received {
        self.shared.requests.lock().unwrap().last().cloned().expect("a request")
    }

    /// Dies as a process does: the port is closed, and so are all connections.
    pub(crate) async fn kill(&self) {
        let state = std::mem::replace(&mut *self.state.lock().unwrap(), State::Dead);
        if let State::Alive { stop, task } = state {
            let _ = stop.send(());
            task.await.unwrap();
        }
    }

    /// Lives again, on the same port.
    pub(crate) fn revive(&self) {
        let socket = bound(self.address);
        socket.listen(1024).unwrap();
        let listener = TcpListener::from_std(socket.into()).unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(accept(listener, self.shared.clone(), stopped));
        *self.state.lock().unwrap() = State::Alive { stop, task };
    }

    /// Dies without a word: connections are neither taken nor refused.
    pub(crate) async fn swallow(&self) {
        self.kill().await;
        let full = bound(self.address);
        full.listen(0).unwrap();
        // One connection fills the queue that nobody accepts from.
        let filler = TcpStream::connect(self.address).await.unwrap();
        *self.state.lock().unwrap() = State::Blackhole { _full: full, _filler: filler };
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// A socket that has a place of its own, or again.
pub(crate) fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

/// Serves until it is told to stop; then all connections die with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            _ = &mut stopped => break,
        };
        shared.connections.fetch_add(1, SeqCst);
        connections.spawn(serve(stream, shared.clone()));
    }
    drop(listener);
    connections.shutdown().await;
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut wire = Wire::new(stream);
    for nth in 1.. {
        let Ok(head) = wire.head().await else { return };
        let mut words = head.line.split(' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        let request = Received { method: word(), target: word(), fields: head.fields };
        shared.requests.lock().unwrap().push(request.clone());
        let body = Body::of(&request.fields, Body::Length(0));
        match (shared.handler)(Exchange { request, nth, wire, body }).await {
            After::Keep(kept) => wire = kept,
            After::Close => return,
        }
    }
}

impl Exchange {
    /// Reads what there is of the request's body; `None` at its end.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, Ending> {
        self.wire.piece(&mut self.body).await
    }

    /// Reads the request's body, as far as it comes.
    pub(crate) async fn body(&mut self) -> Vec<u8> {
        self.wire.whole(&mut self.body).await.0
    }

    /// Sends raw bytes; whether the proxy still takes them.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.send(bytes.as_ref()).await.is_ok()
    }

    /// Reads so many raw bytes.
    pub(crate) async fn bytes(&mut self, count: usize) -> Result<Bytes, Ending> {
        self.wire.exactly(count).await
    }

    /// Waits until the proxy leaves.
    pub(crate) async fn left(&mut self) -> Ending {
        self.wire.rest().await.1
    }

    /// Answers `200` with a length, and keeps the connection.
    pub(crate) async fn reply(self, body: impl AsRef<[u8]>) -> After {
        self.answer("200 OK", "", body).await
    }

    /// Answers with a status, more fields, each with its line end, and a length.
    pub(crate) async fn answer(
        mut self,
        status: &str,
        fields: &str,
        body: impl AsRef<[u8]>,
    ) -> After {
        self.body().await;
        let body = body.as_ref();
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n");
        let mut bytes = head.into_bytes();
        if self.request.method != "HEAD" {
            bytes.extend_from_slice(body);
        }
        self.send(bytes).await;
        self.keep()
    }

    /// Keeps the connection for the next request.
    pub(crate) fn keep(self) -> After {
        After::Keep(self.wire)
    }

    /// Closes the connection.
    pub(crate) fn close(self) -> After {
        drop(self.wire);
        After::Close
    }

    /// Closes the connection with a reset.
    pub(crate) fn reset(self) -> After {
        self.wire.reset();
        After::Close
    }

    /// Does nothing until the proxy leaves.
    pub(crate) async fn hang(mut self) -> After {
        self.left().await;
        After::Close
    }
}
