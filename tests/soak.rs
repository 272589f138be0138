//! Upgrades in a row, under load, lose nothing: no request fails, no connection is refused, and
//! the listening socket is the same kernel object from the first process to the last.

mod held;
mod load;

use std::{collections::BTreeSet, env, fmt, fs, sync::atomic::Ordering::SeqCst, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::Child,
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
    upgrades: u32,
    load: Size,
    /// The upgrades are spread over this time; one after the other if it is short.
    lasts: Duration,
}

/// The row, of which the last process serves.
struct Row {
    first: Crestline,
    /// The process that serves.
    serving: u32,
    /// All that ever did.
    processes: BTreeSet<u32>,
    /// The one that was started by hand; it ends with this.
    by_hand: Option<Child>,
    /// Of the listening socket.
    inode: u64,
}

/// What a soak comes to, in one line.
struct Figures<'a> {
    plan: Plan,
    took: Duration,
    slowest_upgrade: Duration,
    tally: &'a Tally,
}

/// Twenty of them; `make soak` makes it as many as `SOAK_UPGRADES` says, over `SOAK_SECONDS` at
/// least, under more load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_in_a_row_lose_nothing() {
    let number = |name: &str| {
        let number = env::var(name).ok()?;
        Some(number.parse::<u32>().unwrap_or_else(|_| panic!("{name} is a number: {number}")))
    };
    let asked = number("SOAK_UPGRADES");
    let load = if asked.is_some() {
        let pause = Duration::from_millis(1);
        Size { keep_alive: 32, each: 8, http2: 4, streams: 8, pause }
    } else {
        let pause = Duration::from_millis(5);
        Size { keep_alive: 8, each: 4, http2: 2, streams: 4, pause }
    };
    let lasts = Duration::from_secs(number("SOAK_SECONDS").unwrap_or(0).into());
    soak(Plan { upgrades: asked.unwrap_or(20), load, lasts }).await;
}

/// Longer than anything here takes on any machine: nothing is ever cut off.
const GRACE_SECONDS: u64 = 300;

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
    let load = Load::start(row.first.address(), plan.load);
    load.goes_on().await;
    let start = Instant::now();
    let mut slowest_upgrade = Duration::ZERO;
    for number in 1..=plan.upgrades {
        let held = Held::begin(row.first.address(), number).await;
        let begun = Instant::now();
        // Once in the row, the way of those who have it in their scripts.
        let old = if number == 2 { row.upgrade_by_hand().await } else { row.upgrade().await };
        row.lets_go(old).await;
        slowest_upgrade = slowest_upgrade.max(begun.elapsed());
        gate.open(number);
        held.end().await;
        eventually("the end of the old process", || !row.first.is_of_this_test(old)).await;
        assert_eq!(row.listening(), [row.inode], "after {number} upgrades");
        load.goes_on().await;
        time::sleep_until(start + plan.lasts / plan.upgrades * number).await;
    }
    let (took, tally) = (start.elapsed(), load.tally.clone());
    load.stop().await;
    println!("{}", Figures { plan, took, slowest_upgrade, tally: &tally });
    assert_eq!(tally.failures(), [].into());
    assert_eq!(row.processes.len() as u64, u64::from(plan.upgrades) + 1, "each is another one");
}

impl Row {
    async fn start(yaml: &str) -> Self {
        let first = Crestline::start(yaml).await;
        let serving = first.id();
        let processes = [serving].into();
        let mut row = Self { first, serving, processes, by_hand: None, inode: 0 };
        let listening = row.listening();
        assert_eq!(listening.len(), 1, "one listening socket");
        row.inode = listening[0];
        row
    }

    /// Upgrades; the old process, which finishes what it has begun.
    async fn upgrade(&mut self) -> u32 {
        let told = self.first.command(&["upgrade"]).await;
        assert_eq!(told.code, Some(0), "{}", told.stderr);
        let new = self.first.in_force().expect("a process in force");
        self.serves(new)
    }

    /// The same without the command: a new process with `-u`, and `SIGQUIT` to the old one.
    async fn upgrade_by_hand(&mut self) -> u32 {
        let new = self.first.beside(&["-u"]);
        let pid = new.id().expect("it runs");
        self.by_hand = Some(new);
        let socket = self.first.folder().join("upgrade.sock");
        eventually("the successor asks for the sockets", || socket.exists()).await;
        let serving = Pid::from_raw(i32::try_from(self.serving).unwrap()).unwrap();
        kill_process(serving, Signal::QUIT).unwrap();
        eventually("the successor serves", || self.first.in_force() == Some(pid)).await;
        self.serves(pid)
    }

    fn serves(&mut self, new: u32) -> u32 {
        self.processes.insert(new);
        std::mem::replace(&mut self.serving, new)
    }

    /// Waits until a process has closed the listening socket.
    async fn lets_go(&self, old: u32) {
        let folder = format!("/proc/{old}/fd");
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
        let port = self.first.address().rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        let local = format!("0100007F:{port:04X}");
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let listening = rows.filter(|row| row.get(1) == Some(&local.as_str()) && row[3] == "0A");
        listening.map(|row| row[9].parse().unwrap()).collect()
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
