//! Upgrades in a row, under load, lose nothing: no request fails, no connection is refused, and
//! the listening socket is the same kernel object from the first process to the last.

mod held;
mod load;

use std::{
    env, fmt, fs, mem, path::PathBuf, process::Stdio, sync::atomic::Ordering::SeqCst,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{self, Instant},
};

use self::{
    held::Held,
    load::{Kind, Load, Size, Tally},
};
use crate::support::{Crestline, eventually};

/// What is done.
#[derive(Clone, Copy, Debug)]
struct Plan {
    upgrades: usize,
    load: Size,
    /// The upgrades are spread over this time; one after the other if it is short.
    lasts: Duration,
}

/// One process of the row.
enum Process {
    First(Crestline),
    Successor { child: Child, log: PathBuf },
}

/// The row, of which the last serves.
struct Row {
    address: String,
    folder: PathBuf,
    file: PathBuf,
    /// Of the listening socket.
    inode: u64,
    serving: Process,
    /// Those that are gone; the first has the folder.
    gone: Vec<Process>,
}

/// What a soak comes to, in one line.
struct Figures<'a> {
    plan: Plan,
    took: Duration,
    slowest_upgrade: Duration,
    tally: &'a Tally,
}

/// As many as take no longer than other tests do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_in_a_row_lose_nothing() {
    let pause = Duration::from_millis(5);
    let load = Size { keep_alive: 8, each: 4, http2: 2, streams: 4, pause };
    soak(Plan { upgrades: UPGRADES, load, lasts: Duration::ZERO }).await;
}

/// `make soak`: as many as `SOAK_UPGRADES` says, over `SOAK_SECONDS` at least.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: `make soak`"]
async fn many_upgrades_in_a_row_lose_nothing() {
    let number = |name: &str, otherwise: usize| match env::var(name) {
        Ok(number) => number.parse().unwrap_or_else(|_| panic!("{name} is a number: {number}")),
        Err(_) => otherwise,
    };
    let pause = Duration::from_millis(1);
    let load = Size { keep_alive: 32, each: 8, http2: 4, streams: 8, pause };
    let lasts = Duration::from_secs(number("SOAK_SECONDS", 0) as u64);
    soak(Plan { upgrades: number("SOAK_UPGRADES", 200), load, lasts }).await;
}

/// In the test of every day: Pingora's own way takes five seconds for each, and sleeps the whole
/// grace period.
const UPGRADES: usize = 3;
const GRACE_SECONDS: u64 = 1;

/// Runs a plan, tells its figures, and panics if anything was lost.
async fn soak(plan: Plan) {
    let (origin, gate) = held::origin();
    let mut row = Row::start(&format!(
        "
        listeners: [{{ address: \"127.0.0.1:0\", h2c: true }}]
        grace_period_seconds: {GRACE_SECONDS}
        access_log: off
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        "
    ))
    .await;
    let load = Load::start(&row.address, plan.load);
    load.goes_on().await;
    let start = Instant::now();
    let mut slowest_upgrade = Duration::ZERO;
    for number in 1..=plan.upgrades {
        let held = Held::begin(&row.address, number).await;
        let begun = Instant::now();
        let mut old = row.upgrade(number).await;
        row.lets_go(&old).await;
        slowest_upgrade = slowest_upgrade.max(begun.elapsed());
        gate.open(number);
        held.end().await;
        old.is_gone().await;
        row.gone.push(old);
        assert_eq!(row.listening(), [row.inode], "after {number} upgrades");
        load.goes_on().await;
        let part =
            u32::try_from(number).unwrap() * (plan.lasts / u32::try_from(plan.upgrades).unwrap());
        time::sleep_until(start + part).await;
    }
    let (took, tally) = (start.elapsed(), load.tally.clone());
    load.stop().await;
    println!("{}", Figures { plan, took, slowest_upgrade, tally: &tally });
    assert_eq!(tally.failures(), [].into(), "{row}");
}

impl Row {
    async fn start(yaml: &str) -> Self {
        let first = Crestline::start(yaml).await;
        let mut row = Self {
            address: first.address().to_owned(),
            folder: first.folder().to_owned(),
            file: first.file(),
            inode: 0,
            serving: Process::First(first),
            gone: Vec::new(),
        };
        // The successor is told the port that the system chose.
        let yaml = fs::read_to_string(&row.file).unwrap();
        fs::write(&row.file, yaml.replace("127.0.0.1:0", &row.address)).unwrap();
        let listening = row.listening();
        assert_eq!(listening.len(), 1, "one listening socket");
        row.inode = listening[0];
        row
    }

    /// Upgrades, and returns the old process, which finishes what it has begun.
    ///
    /// The one place that knows how: a new process with `-u`, and `SIGQUIT` to the old one.
    async fn upgrade(&mut self, number: usize) -> Process {
        let log = self.folder.join(format!("successor-{number}.log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_crestline"));
        command.arg("-u").arg("-c").arg(&self.file).stdin(Stdio::null()).kill_on_drop(true);
        let child = command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
        let socket = self.folder.join("upgrade.sock");
        eventually("the successor asks for the sockets", || socket.exists()).await;
        self.serving.signal(Signal::QUIT);
        let taken_over = format!("listener: {} taken over", self.address);
        let is_taken_over = || fs::read_to_string(&log).is_ok_and(|log| log.contains(&taken_over));
        eventually("the sockets are taken over", is_taken_over).await;
        mem::replace(&mut self.serving, Process::Successor { child, log })
    }

    /// Waits until a process has closed the listening socket.
    async fn lets_go(&self, old: &Process) {
        let folder = format!("/proc/{}/fd", old.id());
        let name = format!("socket:[{}]", self.inode);
        let is_held = || {
            let files = fs::read_dir(&folder).into_iter().flatten().flatten();
            let mut links = files.filter_map(|file| fs::read_link(file.path()).ok());
            links.any(|link| link.as_os_str() == name.as_str())
        };
        eventually("the old process lets go of its listener", || !is_held()).await;
    }

    /// The kernel objects that listen at the address.
    fn listening(&self) -> Vec<u64> {
        let port = self.address.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        let local = format!("0100007F:{port:04X}");
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let listening = rows.filter(|row| row.get(1) == Some(&local.as_str()) && row[3] == "0A");
        listening.map(|row| row[9].parse().unwrap()).collect()
    }
}

/// What the last process logged, for a failure.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.serving {
            Process::First(first) => write!(f, "{}", first.log_with("").join("\n")),
            Process::Successor { log, .. } => {
                write!(f, "the last process:\n{}", fs::read_to_string(log).unwrap_or_default())
            }
        }
    }
}

impl Process {
    fn id(&self) -> u32 {
        match self {
            Self::First(first) => first.id(),
            Self::Successor { child, .. } => child.id().expect("it runs"),
        }
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Waits until it has ended.
    async fn is_gone(&mut self) {
        eventually("the end of the old process", || match self {
            Self::First(first) => !first.is_running(),
            Self::Successor { child, .. } => child.try_wait().unwrap().is_some(),
        })
        .await;
    }
}

impl fmt::Display for Figures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, took, slowest_upgrade, tally } = self;
        let answers = Kind::ALL.map(|kind| tally.answers(kind));
        let kinds = Kind::ALL.map(|kind| format!("{kind} {}", tally.answers(kind)));
        let failures: usize = tally.failures().values().sum();
        write!(
            f,
            "soak: {} upgrades in {took:.1?}, each with a download, an upload and a WebSocket open; \
             {} requests ({}) on {} connections; {failures} failures, {} streams sent again; \
             slowest answer {:.0?}, slowest upgrade {slowest_upgrade:.1?}",
            plan.upgrades,
            answers.iter().sum::<usize>(),
            kinds.join(", "),
            tally.connections.load(SeqCst),
            tally.again.load(SeqCst),
            tally.slowest(),
        )
    }
}
