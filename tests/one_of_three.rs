//! One of three backends fails in every way that there is, under load, and costs no client of an
//! idempotent request anything. The latencies are printed, since they are the machine's; that no
//! more than one request in a hundred waits for long holds on any machine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time, time::Instant};

use crate::support::{After, Client, Crestline, Exchange, Origin, eventually, get, post};

const CLIENTS: usize = 8;
const REQUESTS: usize = 800;
/// Above this, a request in a hundred waited for what the proxy has to know better.
const P99_MAX: Duration = Duration::from_secs(10);

/// A backend that is well until it is told to fail.
struct Faulty {
    origin: Origin,
    fails: Arc<AtomicBool>,
}

impl Faulty {
    /// `fault` is given each request from then on, with its number.
    fn new<H, F>(fault: H) -> Self
    where
        H: Fn(Exchange, usize) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = After> + Send + 'static,
    {
        let (fails, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let origin = Origin::with({
            let fails = fails.clone();
            move |exchange| {
                let (fault, fails, count) = (fault.clone(), fails.clone(), count.clone());
                async move {
                    if fails.load(SeqCst) {
                        fault(exchange, count.fetch_add(1, SeqCst)).await
                    } else {
                        exchange.reply("well").await
                    }
                }
            }
        });
        Self { origin, fails }
    }
}

/// A proxy before it and two that are well.
async fn before(faulty: &Origin, retries: &str) -> (Crestline, [Origin; 2]) {
    let others = [Origin::echoing(), Origin::echoing()];
    let [b, c] = &others;
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app:
            backends: [\"{faulty}\", \"{b}\", \"{c}\"]
            health_check: {{ every: 200ms }}
            retries:
              retry_on: [connect, reset, timeout, 502, 503, 504]
              budget: {{ share: 100%, floor: 1000/s }}
              {retries}
        "
    ))
    .await;
    (proxy, others)
}

/// Keeps asking, all clients together so many times, while `fault` does what it does; tells what
/// failed.
async fn under_load(proxy: &Crestline, request: &str, what: &str, fault: impl AsyncFnOnce()) {
    let (sent, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let client = proxy.client().await;
        clients.spawn(ask(client, request.to_owned(), sent.clone(), is_over.clone()));
    }
    eventually("a warm pool", || REQUESTS / 8 < sent.load(SeqCst)).await;
    fault().await;
    is_over.store(true, SeqCst);
    let (mut latencies, mut failures) = (Vec::new(), Vec::new());
    for (took, failed) in clients.join_all().await {
        latencies.extend(took);
        failures.extend(failed);
    }
    latencies.sort_unstable();
    let p99 = latencies[latencies.len() * 99 / 100];
    println!("{what}: {} requests, p99 {p99:?}", latencies.len());
    assert!(failures.is_empty(), "{what}: {} failed: {failures:?}", failures.len());
    assert!(p99 < P99_MAX, "{what}: {p99:?}");
}

async fn ask(
    mut client: Client,
    request: String,
    sent: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
) -> (Vec<Duration>, Vec<String>) {
    let (mut latencies, mut failures) = (Vec::new(), Vec::new());
    while (sent.fetch_add(1, SeqCst) < REQUESTS || !is_over.load(SeqCst)) && failures.is_empty() {
        let start = Instant::now();
        client.send_if_taken(&request).await;
        match client.try_answer().await {
            Ok(answer) if answer.status == 200 => latencies.push(start.elapsed()),
            failed => failures.push(format!("{failed:?}")),
        }
        time::sleep(Duration::from_millis(5)).await; // so that the fault lasts a while
    }
    (latencies, failures)
}

#[tokio::test]
async fn it_dies() {
    let faulty = Faulty::new(async |exchange, _| exchange.reset());
    let (proxy, _others) = before(&faulty.origin, "").await;
    under_load(&proxy, &get("/"), "dies", async || faulty.origin.kill().await).await;
}

/// Nothing was sent to it, so that no method is lost.
#[tokio::test]
async fn it_is_dead_from_the_start() {
    let refusing = Origin::refusing();
    let (proxy, _others) = before(&refusing, "").await;
    under_load(&proxy, &post("/", "a body"), "refuses", async || {}).await;
}

#[tokio::test]
async fn it_hangs() {
    let faulty = Faulty::new(async |exchange, _| exchange.hang().await);
    let (proxy, _others) = before(&faulty.origin, "per_try_timeout: 3s").await;
    let hang = async || faulty.fails.store(true, SeqCst);
    under_load(&proxy, &get("/"), "hangs", hang).await;
}

#[tokio::test]
async fn it_turns_slow() {
    let faulty = Faulty::new(async |exchange, _| {
        time::sleep(Duration::from_millis(100)).await;
        exchange.reply("slowly").await
    });
    let (proxy, _others) = before(&faulty.origin, "").await;
    let turn = async || faulty.fails.store(true, SeqCst);
    under_load(&proxy, &get("/"), "slow by 100 ms", turn).await;
}

#[tokio::test]
async fn it_answers_503_now_and_then() {
    let faulty = Faulty::new(async |exchange, count| match count % 10 {
        0 | 4 | 7 => exchange.answer("503 Busy", "", "busy").await,
        _ => exchange.reply("well").await,
    });
    let (proxy, _others) = before(&faulty.origin, "").await;
    let turn = async || faulty.fails.store(true, SeqCst);
    under_load(&proxy, &get("/"), "30% 503", turn).await;
}

#[tokio::test]
async fn it_resets_every_tenth_connection() {
    let faulty = Faulty::new(async |exchange, count| match count % 10 {
        0 => exchange.reset(),
        _ => match exchange.reply("well").await {
            After::Keep(_) | After::Close => After::Close,
        },
    });
    let (proxy, _others) = before(&faulty.origin, "").await;
    let turn = async || faulty.fails.store(true, SeqCst);
    under_load(&proxy, &get("/"), "resets every tenth", turn).await;
}

#[tokio::test]
async fn it_flaps_every_second() {
    let faulty = Faulty::new(async |exchange, _| exchange.reset());
    let (proxy, _others) = before(&faulty.origin, "").await;
    let flap = async || {
        for _ in 0..3 {
            faulty.origin.kill().await;
            time::sleep(Duration::from_secs(1)).await;
            faulty.origin.revive();
            time::sleep(Duration::from_secs(1)).await;
        }
    };
    under_load(&proxy, &get("/"), "flaps", flap).await;
}
