//! Chaos: origins die and return in turn while clients send requests and count what fails.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use log::warn;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{self, Instant},
};

use crate::{demo::origin::Origin, upstream::Upstream};

const CLIENTS: usize = 8;
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(2);
/// How long an origin is dead, and then how long all live.
const DEAD_FOR: Duration = Duration::from_secs(2);
const ALIVE_FOR: Duration = Duration::from_secs(2);
/// How exactly the last retry is timed.
const WATCH_EVERY: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Tally {
    requests: AtomicU64,
    failures: AtomicU64,
}

/// Kills and revives until the process ends.
pub(super) async fn run(proxy: SocketAddr, mut origins: Vec<Origin>, upstream: &Upstream) {
    let tally = Arc::new(Tally::default());
    wait_for(proxy).await;
    for _ in 0..CLIENTS {
        tokio::spawn(client(proxy, tally.clone()));
    }
    for victim in (0..origins.len()).cycle() {
        time::sleep(ALIVE_FOR).await;
        let origin = &mut origins[victim];
        println!("chaos: {} dies", origin.address());
        let died = Instant::now();
        let before = upstream.retries();
        origin.die().await;
        let last = watch_retries(upstream, died).await;
        if let Err(why) = origin.revive() {
            warn!("chaos: {} stays dead: {why}", origin.address());
        }
        report(&tally, upstream.retries() - before, last);
    }
}

/// Waits out the death; returns when the last retry was made, from the moment of death.
async fn watch_retries(upstream: &Upstream, died: Instant) -> Option<Duration> {
    let (mut seen, mut last) = (upstream.retries(), None);
    while died.elapsed() < DEAD_FOR {
        time::sleep(WATCH_EVERY).await;
        let now = upstream.retries();
        if now != seen {
            (seen, last) = (now, Some(died.elapsed()));
        }
    }
    last
}

fn report(tally: &Tally, retries: u64, last: Option<Duration>) {
    let (requests, failures) = (tally.requests.load(Relaxed), tally.failures.load(Relaxed));
    let last = last.map_or("no retry was needed".to_owned(), |last| {
        format!("the last of {retries} retries came {} ms after the death", last.as_millis())
    });
    println!("chaos: {requests} requests, {failures} failures; {last}");
}

async fn wait_for(proxy: SocketAddr) {
    while TcpStream::connect(proxy).await.is_err() {
        time::sleep(Duration::from_millis(20)).await;
    }
}

async fn client(proxy: SocketAddr, tally: Arc<Tally>) {
    let mut connection = None;
    loop {
        let answered = request(proxy, &mut connection).await;
        tally.requests.fetch_add(1, Relaxed);
        if !matches!(answered, Ok(true)) {
            tally.failures.fetch_add(1, Relaxed);
            connection = None;
        }
        time::sleep(PAUSE).await;
    }
}

/// Sends one request on a kept connection; true if the answer was the right one.
async fn request(proxy: SocketAddr, kept: &mut Option<TcpStream>) -> io::Result<bool> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => TcpStream::connect(proxy).await?,
    };
    stream.write_all(b"GET /hello/chaos HTTP/1.1\r\nhost: demo\r\n\r\n").await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello, chaos!\n") {
        if stream.read_buf(&mut answer).await? == 0 {
            return Ok(false);
        }
    }
    let is_right = answer.starts_with(b"HTTP/1.1 200 ");
    *kept = is_right.then_some(stream);
    Ok(is_right)
}
