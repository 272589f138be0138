//! Clients that hold connections and give nothing: others are answered, and nothing is left.
//!
//! The attacks are those of slowhttptest. `make attack` runs the same with more connections
//! (`ATTACK_CONNECTIONS`), and tells how long a client that behaves waits meanwhile.

use std::{env, fs, process::Stdio, time::Duration};

use tokio::{
    process::{Child, Command},
    time::{self, Instant},
};

use crate::support::{Client, Crestline, Origin, PATIENCE, get};

/// An attack: its name, what slowhttptest is told, and where it asks.
struct Attack {
    name: &'static str,
    flags: &'static [&'static str],
}

const ATTACKS: [Attack; 4] = [
    Attack { name: "slow header", flags: &["-H", "-i", "1"] },
    Attack { name: "slow body", flags: &["-B", "-i", "1", "-s", "8192"] },
    // Windows of 512 bytes, of which 5 are read every second.
    Attack { name: "slow read", flags: &["-X", "-n", "1", "-z", "5", "-w", "512", "-y", "1024"] },
    Attack { name: "idle", flags: &["-H", "-i", "240"] },
];

/// What one connection may take at most, in KiB: several of Pingora's buffers of 64 KiB, where an
/// answer waits for its client.
const MEMORY_EACH: u64 = 512;
/// What an allocator of several threads may keep beyond that, in KiB.
const MEMORY_KEPT: u64 = 16 * 1024;

struct Size {
    connections: u32,
    seconds: u32,
}

impl Size {
    fn of_this_run() -> Self {
        let connections = env::var("ATTACK_CONNECTIONS").ok();
        let connections = connections.map(|many| many.parse().expect("a number of connections"));
        match connections {
            Some(connections) => Self { connections, seconds: 20 },
            None => Self { connections: 200, seconds: 4 },
        }
    }

    fn start(&self, attack: &Attack, url: &str) -> Child {
        let Self { connections, seconds } = self;
        let mut tool = Command::new("slowhttptest");
        let per_second = (connections / 2).to_string();
        tool.args(attack.flags).args(["-c", &connections.to_string(), "-r", &per_second]);
        tool.args(["-l", &seconds.to_string(), "-p", "30", "-u", url]).kill_on_drop(true);
        tool.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        tool.spawn().expect("slowhttptest is installed: make setup")
    }
}

/// How long a client that behaves waits for each of its answers, until an attack is over.
async fn behave(proxy: &Crestline, mut until: impl FnMut() -> bool) -> Vec<Duration> {
    let (mut client, mut waits) = (proxy.client().await, Vec::new());
    while !until() {
        let start = Instant::now();
        assert_eq!(client.exchange(get("/")).await.text(), "hello");
        waits.push(start.elapsed());
        if waits.len() % 50 == 0 {
            client = fresh(proxy).await; // new clients are served as well
        }
        time::sleep(Duration::from_millis(2)).await;
    }
    waits
}

async fn fresh(proxy: &Crestline) -> Client {
    let mut client = proxy.client().await;
    assert_eq!(client.exchange(get("/")).await.text(), "hello");
    client
}

fn percentile(waits: &mut [Duration], share: f64) -> Duration {
    waits.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let index = (waits.len() as f64 * share) as usize;
    waits[index.min(waits.len() - 1)]
}

/// Memory that a process has in use, in KiB.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_and_idle_clients_keep_nobody_waiting_and_leave_nothing_behind() {
    let size = Size::of_this_run();
    let origin = Origin::with(async |mut exchange| {
        let is_large = exchange.request.target == "/large";
        exchange.body().await;
        let body = if is_large { vec![b'x'; 1_000_000] } else { b"hello".to_vec() };
        exchange.reply(body).await
    });
    let proxy = Crestline::start(&format!(
        "
        listeners:
          - address: \"127.0.0.1:0\"
            timeouts: {{ header: 2s, body: 2s, write: 2s }}
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        "
    ))
    .await;
    let calm = Instant::now();
    let mut before = behave(&proxy, || Duration::from_secs(2) < calm.elapsed()).await;
    let p99 = percentile(&mut before, 0.99);
    println!("{:12} p50 {:?}, p99 {p99:?}", "calm", percentile(&mut before, 0.5));
    let memory_before = memory(proxy.id());
    for attack in &ATTACKS {
        let path = if attack.name == "slow read" { "/large" } else { "/" };
        let mut tool = size.start(attack, &proxy.url(path));
        let mut waits = behave(&proxy, || tool.try_wait().unwrap().is_some()).await;
        let p99 = percentile(&mut waits, 0.99);
        let (p50, grown) =
            (percentile(&mut waits, 0.5), memory(proxy.id()).saturating_sub(memory_before));
        println!("{:12} p50 {p50:?}, p99 {p99:?}, memory +{grown} KiB", attack.name);
        let most = u64::from(size.connections) * MEMORY_EACH + MEMORY_KEPT;
        assert!(grown < most, "{}: {grown} KiB", attack.name);
        is_calm_again(&proxy, attack.name).await;
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
