//! Three kinds of load at once, none of which tries anything twice: what fails is counted.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use h2::{
    Reason,
    client::{self, SendRequest},
};
use http::Request;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{self, Instant},
};

use crate::support::{Client, Ending, eventually, get, request, soon};

/// How much of each kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Connections of HTTP/1.1 that send one request after the other.
    pub(super) keep_alive: usize,
    /// Clients that open a connection for each request.
    pub(super) each: usize,
    /// Connections of HTTP/2.
    pub(super) http2: usize,
    /// Streams at a time on each of these.
    pub(super) streams: usize,
    /// The pause of a client between an answer and the next request. Every other one makes none:
    /// then a connection may well be closed while a request is on its way.
    pub(super) pause: Duration,
}

/// The kinds of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    KeepAlive,
    Each,
    Http2,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::KeepAlive, Self::Each, Self::Http2];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeepAlive => "keep-alive",
            Self::Each => "a connection each",
            Self::Http2 => "HTTP/2",
        })
    }
}

/// What became of the requests.
#[derive(Debug, Default)]
pub(super) struct Tally {
    answers: [AtomicUsize; 3],
    /// How often connections were made.
    pub(super) connections: AtomicUsize,
    /// Streams that HTTP/2 allows to be sent again, because they were refused unread.
    pub(super) again: AtomicUsize,
    failures: Mutex<BTreeMap<(Kind, String), usize>>,
    slowest: Mutex<Duration>,
}

impl Tally {
    pub(super) fn answers(&self, kind: Kind) -> usize {
        self.answers[kind as usize].load(SeqCst)
    }

    /// What failed, in words, and how often.
    pub(super) fn failures(&self) -> BTreeMap<(Kind, String), usize> {
        self.failures.lock().unwrap().clone()
    }

    pub(super) fn slowest(&self) -> Duration {
        *self.slowest.lock().unwrap()
    }

    fn answered(&self, kind: Kind, since: Instant) {
        self.answers[kind as usize].fetch_add(1, SeqCst);
        let mut slowest = self.slowest.lock().unwrap();
        *slowest = slowest.max(since.elapsed());
    }

    fn failed(&self, kind: Kind, why: impl fmt::Display) {
        *self.failures.lock().unwrap().entry((kind, why.to_string())).or_default() += 1;
    }
}

/// The load while it goes on.
pub(super) struct Load {
    pub(super) tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

/// What every client knows.
#[derive(Clone)]
struct Shared {
    address: String,
    size: Size,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
}

impl Load {
    pub(super) fn start(address: &str, size: Size) -> Self {
        let (tally, stop) = (Arc::<Tally>::default(), Arc::<AtomicBool>::default());
        let address = address.to_owned();
        let shared = Shared { address, size, tally: tally.clone(), stop: stop.clone() };
        let nth = |nth: usize| {
            let pause = if nth.is_multiple_of(2) { size.pause } else { Duration::ZERO };
            Shared { size: Size { pause, ..size }, ..shared.clone() }
        };
        let mut clients = JoinSet::new();
        for client in 0..size.keep_alive {
            clients.spawn(keep_alive(nth(client)));
        }
        for client in 0..size.each {
            clients.spawn(a_connection_each(nth(client)));
        }
        for client in 0..size.http2 {
            clients.spawn(http2(nth(client)));
        }
        Self { tally, stop, clients }
    }

    /// Waits for more answers of each kind.
    pub(super) async fn goes_on(&self) {
        let before = Kind::ALL.map(|kind| self.tally.answers(kind));
        let more = |kind: Kind| before[kind as usize] + 20 < self.tally.answers(kind);
        eventually("more answers of each kind", || Kind::ALL.into_iter().all(more)).await;
    }

    pub(super) async fn stop(self) {
        self.stop.store(true, SeqCst);
        soon("the end of the load", self.clients.join_all()).await;
    }
}

impl Shared {
    fn goes_on(&self) -> bool {
        !self.stop.load(SeqCst)
    }

    async fn rest(&self) {
        if !self.size.pause.is_zero() {
            time::sleep(self.size.pause).await;
        }
    }

    async fn connect(&self, kind: Kind) -> Option<Client> {
        self.tally.connections.fetch_add(1, SeqCst);
        let client = Client::try_connect(&self.address).await;
        client.map_err(|why| self.tally.failed(kind, format!("connecting: {why}"))).ok()
    }

    /// One request; whether the connection may be used for another.
    async fn ask(&self, kind: Kind, client: &mut Client, request: &str, nth: usize) -> bool {
        let start = Instant::now();
        client.send_if_taken(request).await;
        let how = |ending| match ending {
            Ending::Closed => "closed",
            Ending::Reset => "reset",
        };
        let which = if nth == 0 { "first" } else { "later" };
        let answer = match client.try_answer().await {
            Ok(answer) => answer,
            Err(ending) => {
                let how = how(ending);
                self.tally.failed(kind, format!("{how} before an answer, {which} request"));
                return false;
            }
        };
        match (answer.broken, answer.status, &*answer.body) {
            (None, 200, b"hello") => self.tally.answered(kind, start),
            (None, status, _) => self.tally.failed(kind, format!("status {status}")),
            (Some(ending), ..) => {
                self.tally.failed(kind, format!("{} within an answer", how(ending)));
            }
        }
        let closes = |value: &str| value.eq_ignore_ascii_case("close");
        answer.broken.is_none() && !answer.get("connection").is_some_and(closes)
    }
}

/// A client notices a close between two requests, as libraries do, and connects again.
async fn keep_alive(shared: Shared) {
    while shared.goes_on() {
        let Some(mut client) = shared.connect(Kind::KeepAlive).await else { continue };
        let request = get("/");
        for nth in 0.. {
            if !shared.goes_on() || client.is_over() {
                break;
            }
            if !shared.ask(Kind::KeepAlive, &mut client, &request, nth).await {
                break;
            }
            shared.rest().await;
        }
    }
}

async fn a_connection_each(shared: Shared) {
    let request = request("GET", "/", "Connection: close\r\n", "");
    while shared.goes_on() {
        if let Some(mut client) = shared.connect(Kind::Each).await {
            shared.ask(Kind::Each, &mut client, &request, 0).await;
        }
        shared.rest().await;
    }
}

/// Connections are used until they are told to go away.
async fn http2(shared: Shared) {
    while shared.goes_on() {
        shared.tally.connections.fetch_add(1, SeqCst);
        let connected = async {
            let stream = TcpStream::connect(&shared.address).await.map_err(in_words)?;
            stream.set_nodelay(true).map_err(in_words)?;
            client::handshake(stream).await.map_err(in_words)
        };
        let (sender, connection) = match soon("a connection of HTTP/2", connected).await {
            Ok(connected) => connected,
            Err(why) => {
                shared.tally.failed(Kind::Http2, format!("connecting: {why}"));
                continue;
            }
        };
        let mut tasks = JoinSet::new();
        for _ in 0..shared.size.streams {
            tasks.spawn(streams(shared.clone(), sender.clone()));
        }
        drop(sender);
        let connection = tokio::spawn(connection);
        tasks.join_all().await;
        connection.abort();
    }
}

fn in_words(why: impl fmt::Display) -> String {
    why.to_string()
}

/// Sends one stream after the other while the connection takes them.
async fn streams(shared: Shared, mut sender: SendRequest<bytes::Bytes>) {
    while shared.goes_on() {
        let mut ready = match soon("room for a stream", sender.ready()).await {
            Ok(ready) => ready,
            // Nothing was sent: it is for GOAWAY to say so.
            Err(why) if why.is_go_away() => return,
            Err(why) => {
                shared.tally.failed(Kind::Http2, format!("without GOAWAY: {why}"));
                return;
            }
        };
        let start = Instant::now();
        let request = Request::get("http://a.test/").body(()).unwrap();
        let Ok((answer, _)) = ready.send_request(request, true) else { return };
        let whole = async {
            let mut answer = answer.await?;
            let mut body = Vec::new();
            while let Some(piece) = answer.body_mut().data().await {
                body.extend_from_slice(&piece?);
            }
            Ok::<_, h2::Error>((answer.status().as_u16(), body))
        };
        match soon("an answer", whole).await {
            Ok((200, body)) if body == b"hello" => shared.tally.answered(Kind::Http2, start),
            Ok((status, _)) => shared.tally.failed(Kind::Http2, format!("status {status}")),
            Err(why) if may_be_sent_again(&why) => {
                shared.tally.again.fetch_add(1, SeqCst);
                return;
            }
            Err(why) => {
                shared.tally.failed(Kind::Http2, why);
                return;
            }
        }
        sender = ready;
        shared.rest().await;
    }
}

/// Streams above the last one of a GOAWAY, and refused ones, were not worked on (RFC 9113 §8.7).
fn may_be_sent_again(why: &h2::Error) -> bool {
    let went_away = why.is_go_away() && why.is_remote() && why.reason() == Some(Reason::NO_ERROR);
    went_away || (why.is_reset() && why.reason() == Some(Reason::REFUSED_STREAM))
}
