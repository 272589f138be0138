//! Clients that ask for one thing over and over while something happens to the proxy.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use tokio::task::{self, JoinSet};

use super::{Client, PATIENCE, eventually, get, soon};

/// Clients whose requests must all be answered, and well.
pub(crate) struct Load {
    answers: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

/// Clients that make a connection for each request, until one is refused.
pub(crate) struct UntilRefused {
    answers: Arc<AtomicUsize>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Load {
    /// Some that keep their connections while they may, and some that make one for each request.
    pub(crate) fn start(address: &str, keeping: usize, each: usize) -> Self {
        let (answers, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut clients = JoinSet::new();
        for nth in 0..keeping + each {
            let (address, answers, stop) = (address.to_owned(), answers.clone(), stop.clone());
            clients.spawn(async move {
                let mut kept = None;
                while !stop.load(SeqCst) {
                    // A close between two requests is noticed, as libraries do.
                    let mut client = match kept.take().filter(|kept: &Client| !kept.is_over()) {
                        Some(client) => client,
                        None => Client::connect(&address).await,
                    };
                    let answer = client.exchange(get("/")).await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                    let closes = answer.get("connection").is_some_and(|it| it == "close");
                    kept = (nth < keeping && !closes).then_some(client);
                    answers.fetch_add(1, SeqCst);
                }
            });
        }
        Self { answers, stop, clients }
    }

    pub(crate) fn answers(&self) -> usize {
        self.answers.load(SeqCst)
    }

    /// Waits for more answers.
    pub(crate) async fn goes_on(&self) {
        let before = self.answers();
        eventually("more answers", || before + 20 < self.answers()).await;
    }

    /// Stops; how many answers there were. Panics if a request failed.
    pub(crate) async fn stop(self) -> usize {
        self.stop.store(true, SeqCst);
        soon("the end of the load", self.clients.join_all()).await;
        self.answers.load(SeqCst)
    }
}

impl UntilRefused {
    /// In threads, so that as little as can be lies between two connections.
    pub(crate) fn start(address: &str, clients: usize) -> Self {
        let answers = Arc::new(AtomicUsize::new(0));
        let client = |_| {
            let (address, answers) = (address.to_owned(), answers.clone());
            thread::spawn(move || {
                while let Ok(mut stream) = TcpStream::connect(&address) {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let mut answer = String::new();
                    let asked = stream
                        .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
                    let read = asked.and_then(|()| stream.read_to_string(&mut answer));
                    assert!(answer.ends_with("hello"), "{read:?}, {answer:?}");
                    answers.fetch_add(1, SeqCst);
                }
            })
        };
        let clients = (0..clients).map(client).collect();
        Self { answers, clients }
    }

    /// Waits for more answers.
    pub(crate) async fn goes_on(&self) {
        let before = self.answers.load(SeqCst);
        eventually("more answers", || before + 50 < self.answers.load(SeqCst)).await;
    }

    /// Waits until all are refused. Panics if one was accepted and not answered.
    pub(crate) async fn end(self) {
        for client in self.clients {
            let joined = task::spawn_blocking(move || client.join());
            soon("a client", joined).await.unwrap().expect("no lost connection");
        }
    }
}
