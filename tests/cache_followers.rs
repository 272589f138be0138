//! Those who follow a fetch that another's request began: what becomes of that other is not theirs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use tokio::sync::Semaphore;

use crate::support::{
    After, Client, Crestline, Exchange, H2Client, Origin, get,
    http2::{ask, piece},
    soon,
};

const LENGTH: usize = 8 * 1024 * 1024;

/// What an origin does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// It answers.
    Whole,
    /// It answers with something else, which is as long.
    Otherwise,
    /// It answers with the same, for one client alone.
    Private,
    /// It stops amid its answer until it is let go on.
    Halts,
    /// It stops, and breaks off.
    Breaks,
}

/// An origin that does one after the other, and the last ever after; and what lets it go on.
fn acting(acts: &[Act]) -> (Origin, Arc<Semaphore>) {
    let (gate, count) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let acts = acts.to_vec();
    let origin = Origin::with({
        let gate = gate.clone();
        move |exchange| {
            let nth = count.fetch_add(1, SeqCst).min(acts.len() - 1);
            act(exchange, acts[nth], gate.clone())
        }
    });
    (origin, gate)
}

async fn act(mut exchange: Exchange, act: Act, gate: Arc<Semaphore>) -> After {
    let text = if act == Act::Otherwise { other() } else { text() };
    let for_all = if act == Act::Private { "private" } else { "public" };
    let fields = format!("Cache-Control: {for_all}, max-age=600\r\n");
    if let Act::Whole | Act::Otherwise | Act::Private = act {
        return exchange.answer("200 OK", &fields, text).await;
    }
    let (first, rest) = text.split_at(LENGTH / 16);
    let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {LENGTH}\r\n\r\n");
    exchange.send(head).await;
    exchange.send(first).await;
    gate.acquire().await.unwrap().forget();
    if act == Act::Halts && exchange.send(rest).await { exchange.keep() } else { exchange.close() }
}

/// No two pieces of it are alike.
fn text() -> Vec<u8> {
    (0..LENGTH).map(|at| u8::try_from((at / 251 * 7 + at) % 256).unwrap()).collect()
}

/// It begins in the same way.
fn other() -> Vec<u8> {
    let mut text = text();
    text[LENGTH / 32] ^= 1;
    text
}

async fn started(origin: &Origin) -> Crestline {
    started_among(&format!("\"{origin}\"")).await
}

async fn started_among(backends: &str) -> Crestline {
    Crestline::start(&format!(
        "
        listeners: [{{ address: \"127.0.0.1:0\", h2c: true }}]
        upstreams: {{ app: {{ backends: [{backends}], health_check: off }} }}
        routes: [{{ name: shop, policies: [cache: {{}}], upstream: app }}]
        "
    ))
    .await
}

/// A client that has begun to be answered.
async fn begun(proxy: &Crestline) -> Client {
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    assert_eq!(client.head().await.status, 200);
    client
}

/// Reads what a client is sent of a body, which must be whole.
async fn whole(client: &mut Client) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = client.piece().await.expect("a whole body") {
        all.extend_from_slice(&piece);
    }
    all
}

/// The next request is given what is kept.
async fn is_kept(proxy: &Crestline) {
    let hit = proxy.get("/").await;
    let status = hit.get("cache-status").unwrap();
    assert!(status.starts_with("crestline; hit; ttl="), "{status}");
    assert!(hit.body == text());
}

/// The fetch goes on for those who follow, and once for all of them.
#[tokio::test]
async fn who_follows_gets_all_when_the_client_that_fetched_leaves() {
    let (origin, gate) = acting(&[Act::Halts, Act::Whole]);
    let proxy = started(&origin).await;
    let first = begun(&proxy).await;
    let mut followers = [begun(&proxy).await, begun(&proxy).await, begun(&proxy).await];
    assert_eq!(origin.count(), 1);
    first.reset();
    gate.add_permits(1);
    for follower in &mut followers {
        assert!(whole(follower).await == text());
    }
    is_kept(&proxy).await;
    assert_eq!(origin.count(), 2);
}

/// A stream that is reset, as browsers do with pages that are left.
#[tokio::test]
async fn who_follows_gets_all_when_the_stream_that_fetched_is_reset() {
    let (origin, gate) = acting(&[Act::Halts, Act::Whole]);
    let proxy = started(&origin).await;
    let client = H2Client::connect(&proxy).await;
    let mut first = soon("a head", client.send(ask("/", &[])).await).await.unwrap().into_body();
    soon("a piece", piece(&mut first)).await.unwrap().unwrap();
    let mut follower = begun(&proxy).await;
    drop(first);
    gate.add_permits(1);
    assert!(whole(&mut follower).await == text());
    is_kept(&proxy).await;
    assert_eq!(origin.count(), 2);
}

/// One that takes its time does not take that of others.
#[tokio::test]
async fn who_follows_a_client_that_reads_slowly_is_not_as_slow() {
    let (origin, _) = acting(&[Act::Whole]);
    let proxy = started(&origin).await;
    let mut slow = Client::connect_narrow(proxy.address()).await;
    slow.send(get("/")).await;
    assert_eq!(slow.head().await.status, 200);
    let mut follower = begun(&proxy).await;
    assert!(whole(&mut follower).await == text());
    is_kept(&proxy).await;
    assert_eq!(origin.count(), 2);
    assert!(whole(&mut slow).await == text(), "it is not cut off for that");
}

/// Where another backend has the same, the end of one is nothing to them.
#[tokio::test]
async fn who_follows_gets_all_when_the_origin_breaks_off() {
    let ((broken, gate), (good, _)) = (acting(&[Act::Breaks]), acting(&[Act::Whole]));
    let dead = Origin::refusing();
    let backends = format!("\"{broken}\", \"{dead}\", {{ address: \"{good}\", backup: true }}");
    let proxy = started_among(&backends).await;
    let mut first = begun(&proxy).await;
    let mut follower = begun(&proxy).await;
    gate.add_permits(1);
    assert!(whole(&mut follower).await == text());
    is_kept(&proxy).await;
    while first.piece().await.is_ok_and(|piece| piece.is_some()) {}
    assert_eq!((broken.count(), good.count()), (1, 1));
}

/// No two answers are ever put together, and none that is one client's is given to others.
#[tokio::test]
async fn who_follows_is_cut_short_where_the_origin_has_changed() {
    for acts in [[Act::Halts, Act::Otherwise], [Act::Halts, Act::Private]] {
        let (origin, gate) = acting(&acts);
        let proxy = started(&origin).await;
        let mut first = begun(&proxy).await;
        let mut follower = begun(&proxy).await;
        first.bytes(LENGTH / 16).await; // where they differ, and more
        first.reset();
        gate.add_permits(1);
        let mut read = Vec::new();
        let ending = loop {
            match follower.piece().await {
                Ok(Some(piece)) => read.extend_from_slice(&piece),
                ending => break ending,
            }
        };
        assert!(ending.is_err(), "{:?}: {} bytes were taken for all", acts[1], read.len());
        assert!(text().starts_with(&read));
        let line = proxy.access_line(|line| line["cache"] == "hit").await;
        assert_eq!((&line["reason"], &line["status"]), (&"origin_truncated".into(), &200.into()));
        let next = proxy.get("/").await;
        assert!(next.get("cache-status").unwrap().starts_with("crestline; fwd="), "{acts:?}");
        assert!(next.body == if acts[1] == Act::Otherwise { other() } else { text() });
        assert_eq!(origin.count(), 3);
    }
}

/// One that leaves amid what is kept is told from one that has all.
#[tokio::test]
async fn who_leaves_amid_an_answer_that_is_kept_is_logged_so() {
    let (origin, _) = acting(&[Act::Whole]);
    let proxy = started(&origin).await;
    assert!(proxy.get("/").await.body == text());
    let mut client = Client::connect_narrow(proxy.address()).await;
    client.send(get("/")).await;
    assert_eq!(client.head().await.status, 200);
    client.reset();
    let client = H2Client::connect(&proxy).await;
    let head = soon("a head", client.send(ask("/", &[])).await).await.unwrap();
    drop(head.into_body());
    for line in &proxy.access_log(3).await[1..] {
        assert_eq!((&line["cache"], &line["reason"]), (&"hit".into(), &"client_abort".into()));
        assert_eq!(line["status"], 200);
    }
    proxy.measures("crestline_request_ends_total{reason=\"client_abort\"}", 2.0).await;
}
