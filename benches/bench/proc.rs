//! Child processes: started on their cores, measured through `/proc`, never left behind.

use std::fs::{self, File};
use std::iter::Sum;
use std::ops::Add;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::time::Instant;

use crate::Result;

/// How long a child may take to leave after `SIGINT`, before it is killed.
const LEAVE: Duration = Duration::from_secs(2);

/// How often a wait looks whether it is over.
const TICK: Duration = Duration::from_millis(10);

/// Ticks per second in `/proc/PID/stat`: `USER_HZ`, the same on every Linux that matters here.
const TICKS_PER_SECOND: u32 = 100;

/// Set once by `watch_signals`, and by the first `SIGINT` or `SIGTERM` from then on.
static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Turns the first `SIGINT` or `SIGTERM` into an error of the wait that is under way, so that
/// every guard runs; the second one ends the process, and the kernel ends its children.
pub(crate) fn watch_signals() -> Result<()> {
    let stop = STOP.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(stop))?;
        signal_hook::flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}

/// Waits until `done` answers something; fails when `limit` has passed or a signal came.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut done: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = done()? {
            return Ok(answer);
        }
        if STOP.get().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Err("interrupted".into());
        }
        if deadline <= Instant::now() {
            return Err(format!("{what} took longer than {limit:?}").into());
        }
        thread::sleep(TICK);
    }
}

/// Sleeps, unless a signal comes.
pub(crate) fn pause(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    wait_for("a pause", time * 2, || Ok((end <= Instant::now()).then_some(())))
}

/// A child process, with all that descend from it; dropping it ends them.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts a command on the given cores; its output goes to two files in `folder`.
    ///
    /// `setpriv` sees to it that the child is told when this process dies, however it dies; it
    /// and `taskset` replace themselves by the command, so the child's id is the command's.
    pub(crate) fn start(command: &Command, cores: &str, folder: &Path) -> Result<Self> {
        let (stdout, stderr) = (folder.join("stdout"), folder.join("stderr"));
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "INT", "taskset", "--cpu-list", cores])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(append(&stdout)?)
            .stderr(append(&stderr)?)
            .spawn()
            .map_err(|error| format!("setpriv, from Debian's package `util-linux`: {error}"))?;
        Ok(Self { child, stdout, stderr })
    }

    /// Waits for the process to end by itself, and answers with its status and its output.
    pub(crate) fn finish(mut self, what: &str, limit: Duration) -> Result<(ExitStatus, String)> {
        let status = wait_for(what, limit, || Ok(self.child.try_wait()?))?;
        Ok((status, self.output()))
    }

    /// Fails, with what the process printed, when it has ended already.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("ended with {status}:\n{}", self.output()).into()),
        }
    }

    /// Answers with all that the process has printed.
    fn output(&self) -> String {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        read(&self.stdout) + &read(&self.stderr)
    }

    /// Reads the processor time that the process tree has used, ended children included.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let tree = tree(self.child.id())?;
        let ticks: u32 = tree.iter().map(|stat| stat.ticks).sum();
        Ok(Duration::from_secs(1) * ticks / TICKS_PER_SECOND)
    }

    /// Reads how much memory the process tree holds.
    pub(crate) fn memory(&self) -> Result<Memory> {
        tree(self.child.id())?.iter().map(|stat| Memory::of(stat.pid)).sum()
    }

    /// Asks the process to leave at once, and kills what has not left in time.
    fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        let deadline = Instant::now() + LEAVE;
        while Instant::now() < deadline {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(TICK);
        }
        for stat in tree(self.child.id())? {
            if let Some(pid) = i32::try_from(stat.pid).ok().and_then(Pid::from_raw) {
                kill_process(pid, Signal::KILL)?;
            }
        }
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("process {} may still be running: {error}", self.child.id());
        }
    }
}

/// Opens a file to append to, so that it can be emptied while it is being written.
fn append(path: &Path) -> Result<File> {
    Ok(File::options().create(true).append(true).open(path)?)
}

/// What `/proc/PID/stat` says about one process.
#[derive(Clone, Copy, Debug)]
struct Stat {
    pid: u32,
    parent: u32,
    /// User and system time, its own and that of the children it has waited for.
    ticks: u32,
}

impl Stat {
    /// Reads the line of one process; `None` when it is gone.
    fn of(pid: u32) -> Option<Self> {
        let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the name in parentheses and may hold anything; field 3 follows it.
        let (_, rest) = line.rsplit_once(") ")?;
        let fields: Vec<_> = rest.split(' ').collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u32>().ok();
        let ticks = number(14)? + number(15)? + number(16)? + number(17)?;
        Some(Self { pid, parent: number(4)?, ticks })
    }
}

/// Lists a process and all that descend from it.
fn tree(root: u32) -> Result<Vec<Stat>> {
    let mut others = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            others.extend(Stat::of(pid));
        }
    }
    let mut tree: Vec<_> = others.extract_if(.., |stat| stat.pid == root).collect();
    if tree.is_empty() {
        return Err(format!("process {root} is gone").into());
    }
    let mut next = 0;
    while let Some(&Stat { pid, .. }) = tree.get(next) {
        tree.extend(others.extract_if(.., |stat| stat.parent == pid));
        next += 1;
    }
    Ok(tree)
}

/// Resident memory of a process tree, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Every page that is in memory, shared ones in full.
    pub(crate) rss: u64,
    /// The same, with shared pages divided among those who share them.
    pub(crate) pss: u64,
}

impl Memory {
    fn of(pid: u32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = |key: &str| -> Option<u64> {
            let value = text.lines().find_map(|line| line.strip_prefix(key))?;
            value.trim().strip_suffix(" kB")?.parse().ok()
        };
        let memory = line("Rss:").zip(line("Pss:")).map(|(rss, pss)| Self { rss, pss });
        memory.ok_or_else(|| format!("/proc/{pid}/smaps_rollup has no Rss or Pss").into())
    }
}

impl Add for Memory {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { rss: self.rss + other.rss, pss: self.pss + other.pss }
    }
}

impl Sum for Memory {
    fn sum<I: Iterator<Item = Self>>(memories: I) -> Self {
        memories.fold(Self::default(), Add::add)
    }
}
