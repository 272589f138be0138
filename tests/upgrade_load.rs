//! Upgrades under load: no request fails, and the listening socket stays the same.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use tokio::task::JoinSet;

use crate::support::{Client, Crestline, Origin, eventually, get};

/// Clients that keep their connections while they may, and clients that make one per request.
struct Load {
    answers: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Load {
    fn start(address: &str) -> Self {
        let (answers, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut clients = JoinSet::new();
        for number in 0..8 {
            let (address, answers, stop) = (address.to_owned(), answers.clone(), stop.clone());
            let keeps = number % 2 == 0;
            clients.spawn(async move {
                let mut kept = None;
                while !stop.load(SeqCst) {
                    let mut client = match kept.take() {
                        Some(client) => client,
                        None => Client::connect(&address).await,
                    };
                    let answer = client.exchange(get("/")).await;
                    assert_eq!((answer.status, answer.text()), (200, "hello"), "{answer:?}");
                    let closes = answer.get("connection").is_some_and(|it| it == "close");
                    kept = (keeps && !closes).then_some(client);
                    answers.fetch_add(1, SeqCst);
                }
            });
        }
        Self { answers, stop, clients }
    }

    /// Waits for more answers.
    async fn goes_on(&self) {
        let before = self.answers.load(SeqCst);
        eventually("more answers", || before + 50 < self.answers.load(SeqCst)).await;
    }

    /// Stops. Panics if a request failed.
    async fn stop(self) {
        self.stop.store(true, SeqCst);
        self.clients.join_all().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_upgrades_under_load_fail_no_request() {
    let origin = Origin::replying("hello");
    let mut proxy = Crestline::start(&format!(
        "grace_period_seconds: 2\ngraceful_shutdown_timeout_seconds: 1\nupstreams: {{ app: {{ backends: [\"{origin}\"] }} }}"
    ))
    .await;
    let load = Load::start(proxy.address());
    let mut processes = vec![proxy.id()];
    for _ in 0..5 {
        load.goes_on().await;
        let told = proxy.command(&["upgrade"]).await;
        assert_eq!(told.code, Some(0), "{}", told.stderr);
        processes.push(proxy.in_force().unwrap());
    }
    load.goes_on().await;
    let last = processes.pop().unwrap();
    eventually("the end of the first process", || !proxy.is_running()).await;
    let others = || processes.iter().all(|pid| !proxy.is_of_this_test(*pid));
    eventually("the end of all but the last", others).await;
    assert_eq!(proxy.in_force(), Some(last));
    load.goes_on().await;
    load.stop().await;
}
