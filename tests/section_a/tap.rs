//! An origin that notes every byte it gets, and answers each whole request with its target.
//!
//! Bytes are shown as the characters of Latin-1, one for one.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

pub(super) struct Tap {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// In the order in which they came to their end.
    whole: Vec<String>,
    connections: Vec<Connection>,
}

#[derive(Default)]
struct Connection {
    partial: String,
    is_closed: bool,
}

impl Tap {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::default());
        let task = tokio::spawn(accept(listener, seen.clone()));
        Self { address, seen, task }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// The requests that came to their end.
    pub(super) fn whole(&self) -> Vec<String> {
        self.seen().whole.clone()
    }

    /// What came of requests that did not.
    pub(super) fn partial(&self) -> String {
        let seen = self.seen();
        seen.connections.iter().map(|connection| connection.partial.as_str()).collect()
    }

    /// How many connections there were.
    pub(super) fn connections(&self) -> usize {
        self.seen().connections.len()
    }

    /// How many there are.
    pub(super) fn open(&self) -> usize {
        self.seen().connections.iter().filter(|connection| !connection.is_closed).count()
    }
}

impl fmt::Display for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, seen: Arc<Mutex<Seen>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        seen.lock().unwrap().connections.push(Connection::default());
        let index = seen.lock().unwrap().connections.len() - 1;
        let seen = seen.clone();
        tokio::spawn(async move {
            serve(stream, &seen, index).await;
            seen.lock().unwrap().connections[index].is_closed = true;
        });
    }
}

async fn serve(mut stream: TcpStream, seen: &Mutex<Seen>, index: usize) {
    let mut buffer = Vec::new();
    loop {
        while let Some(length) = length_of(&buffer) {
            let request = latin_1(&buffer.drain(..length).collect::<Vec<_>>());
            let target = request.split(' ').nth(1).unwrap_or_default().to_owned();
            seen.lock().unwrap().whole.push(request);
            let length = target.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{target}");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
        seen.lock().unwrap().connections[index].partial = latin_1(&buffer);
        if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
    }
}

/// The bytes of the request at the beginning, if it is whole.
fn length_of(bytes: &[u8]) -> Option<usize> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let text = latin_1(&bytes[..head]);
    if let [coding] = super::values(&text, "transfer-encoding")[..] {
        assert_eq!(coding, "chunked");
        return chunks(&bytes[head..]).map(|length| head + length);
    }
    let length = super::values(&text, "content-length");
    let length = length.first().map_or(0, |length| length.parse().unwrap());
    (head + length <= bytes.len()).then_some(head + length)
}

/// The bytes of a chunked body, if it is whole.
fn chunks(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = find(&bytes[at..], b"\r\n")?;
        let size = latin_1(&bytes[at..at + line]);
        let size = usize::from_str_radix(&size, 16).expect("Crestline writes plain sizes");
        at += line + 2;
        if size == 0 {
            return match &bytes[at..] {
                [b'\r', b'\n', ..] => Some(at + 2),
                trailers => find(trailers, b"\r\n\r\n").map(|end| at + end + 4),
            };
        }
        at += size + 2;
        bytes.get(at..)?;
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}
