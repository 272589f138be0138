//! Clients that hold connections and give nothing: others are answered, and nothing is left.
//!
//! The attacks are those of slowhttptest. `make attack` runs the same with more connections
//! (`ATTACK_CONNECTIONS`), and tells how long a client that behaves waits meanwhile. Whatever else
//! the machine does falls on calm and attack alike: they are timed in turns, and compared in pairs.
//! The tool opens its connections at a bounded rate with the least priority, and the origin is a
//! process of its own, so that the proxy alone is what others may wait for.

use std::{env, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{self, Instant},
};

use crate::support::{Client, Crestline, PATIENCE, get, soon};

/// An attack: its name, and what slowhttptest is told. All else is its own default: a line of a
/// head or a piece of a body every ten seconds, windows of 1 to 512 bytes of which five are read
/// every second.
struct Attack {
    name: &'static str,
    flags: &'static [&'static str],
}

const ATTACKS: [Attack; 4] = [
    Attack { name: "slow header", flags: &["-H"] },
    Attack { name: "slow body", flags: &["-B"] },
    Attack { name: "slow read", flags: &["-X"] },
    Attack { name: "idle", flags: &["-H", "-i", "240"] },
];

/// What one connection may take at most, in KiB: a buffer of 64 KiB in which an answer waits for its
/// client, others that were used for a moment, and what it needs itself.
const MEMORY_EACH: u64 = 400;
/// What an allocator of several threads may keep beyond that, in KiB.
const MEMORY_KEPT: u64 = 16 * 1024;
/// A test that others run beside must not fail for what they do: this is far from what is aimed at.
const TIMES_CALM: u32 = 20;
const BUSY_MACHINE: Duration = Duration::from_secs(5);
/// Times that end an attack within the few seconds of a small run.
const HURRIED: &str = "timeouts: { header: 2s, body: 2s, write: 2s }";

struct Size {
    connections: u32,
    seconds: u32,
    rounds: usize,
    /// How many connections are opened each second.
    rate: u32,
    /// How many seconds lie between two pieces of a head or a body, where the attack sets none.
    every: u32,
    /// What the listener is told; by default nothing, so that it has the times that operators have.
    timeouts: &'static str,
}

impl Size {
    fn of_this_run() -> Self {
        let number = |name: &str| env::var(name).ok().map(|text| text.parse().expect("a number"));
        let rounds = number("ATTACK_ROUNDS").unwrap_or(3) as usize;
        let rate = number("ATTACK_RATE").unwrap_or(200); // as in the examples of its manual
        let every = number("ATTACK_EVERY").unwrap_or(10);
        let few = Self { connections: 200, seconds: 4, rounds: 1, rate, every, timeouts: HURRIED };
        match number("ATTACK_CONNECTIONS") {
            // All are held for half a minute once they are there.
            Some(connections) => {
                let seconds = connections / rate + 30;
                Self { connections, seconds, rounds, timeouts: "", ..few }
            }
            None => few,
        }
    }

    fn start(&self, attack: &Attack, url: &str) -> Child {
        let Self { connections, seconds, rate, every, .. } = self;
        let mut tool = Command::new("nice");
        tool.args(["-n", "19", "slowhttptest", "-i", &every.to_string()]).args(attack.flags);
        tool.args(["-c", &connections.to_string(), "-r", &rate.to_string()]);
        tool.args(["-l", &seconds.to_string(), "-p", "30", "-u", url]).kill_on_drop(true);
        tool.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        tool.spawn().expect("slowhttptest is installed: make setup")
    }
}

/// The origin, which ends with this.
struct Origin {
    port: String,
    _process: Child,
}

impl Origin {
    async fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/origin.py");
        let mut process = Command::new("/usr/bin/python3");
        process.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = process.spawn().expect("python3 is installed: make setup");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = soon("a port", lines.next_line()).await.unwrap().expect("a port");
        Self { port, _process: process }
    }
}

/// How long clients that behave wait for their answers.
#[derive(Default)]
struct Waits {
    /// For those of the origin.
    through: Vec<Duration>,
    /// For those that the proxy gives alone: what its own threads make others wait.
    alone: Vec<Duration>,
}

impl Waits {
    /// Asks again and again, until it is enough.
    async fn measure(proxy: &Crestline, mut enough: impl FnMut() -> bool) -> Self {
        let (mut client, mut waits) = (proxy.client().await, Self::default());
        while !enough() || waits.through.is_empty() {
            let start = Instant::now();
            assert_eq!(client.exchange(get("/")).await.text(), "hello");
            waits.through.push(start.elapsed());
            let start = Instant::now();
            assert_eq!(client.exchange(get("/nowhere")).await.status, 404);
            waits.alone.push(start.elapsed());
            if waits.through.len() % 50 == 0 {
                client = fresh(proxy).await; // new clients are served as well
            }
            time::sleep(Duration::from_millis(2)).await;
        }
        waits.through.sort_unstable();
        waits.alone.sort_unstable();
        waits
    }
}

async fn fresh(proxy: &Crestline) -> Client {
    let mut client = proxy.client().await;
    assert_eq!(client.exchange(get("/")).await.text(), "hello");
    client
}

fn percentile(sorted: &[Duration], hundredths: usize) -> Duration {
    sorted[(sorted.len() * hundredths / 100).min(sorted.len() - 1)]
}

/// What one round of an attack came to.
#[derive(Clone, Copy)]
struct Round {
    calm: Duration,
    attacked: Duration,
    alone_calm: Duration,
    alone_attacked: Duration,
    processor: Duration,
    memory: u64,
}

async fn round(proxy: &Crestline, size: &Size, attack: &Attack) -> Round {
    let (start, memory) = (Instant::now(), proxy.memory());
    let pause = Duration::from_secs(u64::from(size.seconds).min(8) / 2);
    let calm = Waits::measure(proxy, || pause < start.elapsed()).await;
    let path = if attack.name == "slow read" { "/large" } else { "/" };
    let processor = proxy.processor();
    let mut tool = size.start(attack, &proxy.url(path));
    let mut most = memory;
    let attacked = Waits::measure(proxy, || {
        most = most.max(proxy.memory());
        tool.try_wait().unwrap().is_some()
    });
    let attacked = attacked.await;
    let (processor, memory) = (proxy.processor().saturating_sub(processor), most - memory);
    let most = u64::from(size.connections) * MEMORY_EACH + MEMORY_KEPT;
    assert!(memory < most, "{}: {memory} KiB", attack.name);
    is_calm_again(proxy, attack.name).await;
    Round {
        calm: percentile(&calm.through, 99),
        attacked: percentile(&attacked.through, 99),
        alone_calm: percentile(&calm.alone, 99),
        alone_attacked: percentile(&attacked.alone, 99),
        processor,
        memory,
    }
}

/// The value in the middle.
fn median<T: Ord + Copy>(rounds: &[Round], of: impl Fn(&Round) -> T) -> T {
    let mut values: Vec<T> = rounds.iter().map(of).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

#[tokio::test]
async fn slow_and_idle_clients_keep_nobody_waiting_and_leave_nothing_behind() {
    let (size, origin) = (Size::of_this_run(), Origin::start().await);
    let proxy = Crestline::start(&format!(
        "
        listeners:
          - address: \"127.0.0.1:0\"
            {}
        upstreams: {{ app: {{ backends: [\"127.0.0.1:{}\"] }} }}
        routes:
          - {{ name: small, match: {{ path: = / }}, upstream: app }}
          - {{ name: large, match: {{ path: = /large }}, upstream: app }}
        ",
        size.timeouts, origin.port
    ))
    .await;
    for attack in &ATTACKS {
        let mut rounds = Vec::new();
        for _ in 0..size.rounds {
            rounds.push(round(&proxy, &size, attack).await);
        }
        let (calm, attacked) = (median(&rounds, |r| r.calm), median(&rounds, |r| r.attacked));
        let percent = median(&rounds, |r| r.attacked.as_micros() * 100 / r.calm.as_micros().max(1));
        println!(
            "{:12} p99 {calm:.1?} → {attacked:.1?} (median ratio {percent} %), \
             by the proxy alone {:.1?} → {:.1?}, its processor {:.2?}, memory +{} KiB",
            attack.name,
            median(&rounds, |r| r.alone_calm),
            median(&rounds, |r| r.alone_attacked),
            median(&rounds, |r| r.processor),
            median(&rounds, |r| r.memory),
        );
        assert!(attacked < calm * TIMES_CALM + BUSY_MACHINE, "{}: {attacked:?}", attack.name);
    }
    println!("refused: {}", proxy.status().await["refused"]);
    assert!(0 < proxy.refused("header_timeout").await);
}

/// Waits until nothing of an attack is left.
async fn is_calm_again(proxy: &Crestline, name: &str) {
    let start = Instant::now();
    while proxy.status().await["in_flight"]["connections"] != 0 {
        assert!(start.elapsed() < PATIENCE, "{name}: {}", proxy.status().await["in_flight"]);
        time::sleep(Duration::from_millis(50)).await;
    }
}
