//! How every algorithm serves a hundred backends of which a third are at fault: `make simulate`.
//!
//! What chooses, retries, budgets and ejects is Crestline's own code, compiled from a
//! configuration. Clients, network and backends are simulated, in virtual time and from the same
//! seed, so that every row meets the same faults, and no machine makes a difference.

#![expect(clippy::unwrap_used, reason = "a simulation that cannot begin says so by panicking")]

#[path = "simulate/world.rs"]
mod world;

use std::{
    cell::RefCell,
    fmt::{self, Write as _},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use crestline::{
    diagnostic::Problems,
    snapshot,
    upstream::{
        Upstream,
        attempts::{Attempts, Begun},
        balance::hints::Hints,
        outcome::Outcome,
    },
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::{
    runtime,
    task::{self, JoinSet},
    time::{self, Instant},
};
use world::{BACKENDS, World};

/// How long clients ask.
const TIME: Duration = Duration::from_secs(30);
/// Each has a key and, where there are cookies, a cookie.
const CLIENTS: usize = 10_000;
const SEED: u64 = 20_261_126;

const NO_HELP: &str = "retries: 0, ejection: off";
const RETRIES: &str = "retries: { retry_on: [connect, reset, timeout, 503], per_try_timeout: 500ms }, \
                       ejection: off";
const HELP: &str = "retries: { retry_on: [connect, reset, timeout, 503], per_try_timeout: 500ms }, \
                    ejection: { failure_share: 20%, latency_factor: 3 }";

const ROWS: [(&str, &str, &str); 8] = [
    ("`round_robin` alone", "round_robin", NO_HELP),
    ("`round_robin`", "round_robin", HELP),
    ("`random`", "random", HELP),
    ("`least_requests`", "least_requests", HELP),
    ("`peak_ewma`", "peak_ewma", HELP),
    ("`consistent_hash`", "{ consistent_hash: { on: { header: x-client } } }", HELP),
    ("`sticky`", "{ sticky: {} }", HELP),
    ("`peak_ewma`, no ejection", "peak_ewma", RETRIES),
];

fn main() {
    println!("| `balance` | success | failed | p50 | p99 | p99.9 | retries |");
    println!("| --- | ---:| ---:| ---:| ---:| ---:| ---:|");
    for (name, balance, settings) in ROWS {
        let mut runtime = runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        let told = runtime.block_on(run(balance, settings));
        println!("| {name} {told}");
    }
}

async fn run(balance: &str, settings: &str) -> Told {
    let upstream = upstream(balance, settings);
    let world = Rc::new(World::new(SEED));
    let clients: Vec<_> = (0..CLIENTS).map(|id| RefCell::new(headers(id))).collect();
    let simulation = Rc::new(Simulation { upstream, world, clients, ends: RefCell::default() });
    task::LocalSet::new().run_until(simulation.clone().drive()).await;
    let retries = simulation.upstream.retries();
    Told::of(simulation.ends.take(), retries)
}

fn upstream(balance: &str, settings: &str) -> Arc<Upstream> {
    let mut file = String::from("upstreams: { app: { health_check: off, backends: [");
    for index in 0..BACKENDS {
        write!(file, "10.0.0.{index}:80, ").unwrap();
    }
    write!(file, "], balance: {balance}, {settings} }} }}").unwrap();
    let mut problems = Problems::default();
    let Some(snapshot) = snapshot::compile(&file, &mut problems) else { panic!("{problems:?}") };
    snapshot.upstreams["app"].clone()
}

fn headers(id: usize) -> HeaderMap {
    HeaderMap::from_iter([(header::HeaderName::from_static("x-client"), HeaderValue::from(id))])
}

struct Simulation {
    upstream: Arc<Upstream>,
    world: Rc<World>,
    /// What each client sends along.
    clients: Vec<RefCell<HeaderMap>>,
    /// How requests ended, and after how long.
    ends: RefCell<Vec<(Outcome, Duration)>>,
}

impl Simulation {
    /// Sends requests until the time is over, and waits for their ends.
    async fn drive(self: Rc<Self>) {
        let judging = self.clone();
        let judge = task::spawn_local(async move { judging.upstream.judge_outliers().await });
        let (mut chance, start) = (fastrand::Rng::with_seed(SEED), Instant::now());
        let (mut due, mut requests) = (start, JoinSet::new());
        while due < start + TIME {
            time::sleep_until(due).await;
            while due <= Instant::now() {
                let (this, client) = (self.clone(), chance.usize(..CLIENTS));
                requests.spawn_local(async move { this.request(client).await });
                due += world::pause(&mut chance);
            }
            while requests.try_join_next().is_some() {}
        }
        while requests.join_next().await.is_some() {}
        judge.abort();
    }

    /// One request with its attempts, as the proxy makes them.
    async fn request(&self, client: usize) {
        let (upstream, start) = (&self.upstream, Instant::now());
        let headers = self.clients[client].borrow().clone();
        let hints = Hints { headers: Some(&headers), ..Hints::NONE };
        let (policy, mut attempts) = (upstream.retry_policy(), Attempts::default());
        upstream.count_request();
        let outcome = loop {
            let begun = Instant::now();
            let chosen = upstream.select(begun, &hints, |member| attempts.visit(member));
            let Some(in_flight) = chosen else {
                break attempts.last().unwrap_or(Outcome::Internal);
            };
            let member = in_flight.member().clone();
            let patience = policy.per_try.unwrap_or(Duration::from_secs(30));
            let answer = self.world.ask(index_of(member.state.name()));
            let outcome = time::timeout(patience, answer).await.unwrap_or(Outcome::Timeout);
            let now = Instant::now();
            upstream.report(&member, outcome, now);
            upstream.report_latency(&member, outcome, now - begun, now);
            drop(in_flight);
            let is_retried = match outcome {
                Outcome::Status(status) => {
                    let status = StatusCode::from_u16(status).unwrap();
                    policy.on.meets_answer(&Method::GET, status, &HeaderMap::new())
                }
                outcome => policy.on.meets(outcome),
            };
            if outcome.is_success()
                && let Some(cookie) = upstream.cookie(&hints, &member, false)
            {
                self.keep(client, &cookie);
            }
            attempts.record(member, outcome, Begun::at(begun).times(start, now));
            if !is_retried || policy.max < attempts.retries() || !upstream.may_retry(now) {
                break outcome;
            }
            time::sleep(policy.backoff.pause(attempts.retries())).await;
        };
        self.ends.borrow_mut().push((outcome, start.elapsed()));
    }

    fn keep(&self, client: usize, cookie: &HeaderValue) {
        let pair = cookie.to_str().unwrap().split(';').next().unwrap();
        let cookie = HeaderValue::from_str(pair).unwrap();
        self.clients[client].borrow_mut().insert(header::COOKIE, cookie);
    }
}

/// Which backend has the address `10.0.0.INDEX:80`.
fn index_of(name: &str) -> usize {
    let index = name.strip_prefix("10.0.0.").and_then(|rest| rest.strip_suffix(":80"));
    index.unwrap().parse().unwrap()
}

/// What a row tells.
struct Told {
    failed: usize,
    latencies: Vec<Duration>,
    retries: u64,
}

impl Told {
    fn of(ends: Vec<(Outcome, Duration)>, retries: u64) -> Self {
        let failed = ends.iter().filter(|(outcome, _)| !outcome.is_success()).count();
        let mut latencies: Vec<_> = ends.into_iter().map(|(_, took)| took).collect();
        latencies.sort_unstable();
        Self { failed, latencies, retries }
    }

    /// How long so many of a thousand requests took at most, in milliseconds; the clock has no
    /// finer ones.
    fn percentile(&self, of_a_thousand: usize) -> u128 {
        let index = self.latencies.len() * of_a_thousand / 1_000;
        self.latencies[index.min(self.latencies.len() - 1)].as_millis()
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, p999] = [500, 990, 999].map(|part| self.percentile(part));
        let share = |count: f64| count * 100.0 / self.latencies.len() as f64;
        let (failed, retries) = (share(self.failed as f64), share(self.retries as f64));
        write!(f, "| {:.2} % | {} | {p50} ms ", 100.0 - failed, self.failed)?;
        write!(f, "| {p99} ms | {p999} ms | {retries:.2} % |")
    }
}
