//! The machine: its cores and who gets them, its programs and their versions.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::idle::IDLE_CONNECTIONS;
use crate::proc::Process;
use crate::proxies::Proxy;
use crate::{Result, folder};

/// A program that prints its version has this long.
const VERSION: Duration = Duration::from_secs(5);

/// Which cores the proxy under test runs on, and which ones all the rest; lists for `taskset`.
#[derive(Debug)]
pub(crate) struct Cores {
    pub(crate) proxy: String,
    pub(crate) others: String,
    /// How many cores the load generator shares with the origins.
    pub(crate) others_count: usize,
}

impl Cores {
    /// Gives one core to each thread of a proxy and the others to the rest, this process
    /// included; when none would be left, all share all.
    pub(crate) fn share(threads: usize) -> Result<Self> {
        let all = allowed_cores()?;
        let list =
            |cores: &[usize]| cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let (proxy, others) = if threads < all.len() {
            all.split_at(threads)
        } else {
            eprintln!(
                "no core is left for the load, it shares those of the proxy: figures will waver"
            );
            (&all[..], &all[..])
        };
        let cores = Self { proxy: list(proxy), others: list(others), others_count: others.len() };

        let own = std::process::id().to_string();
        let pinned = Command::new("taskset")
            .args(["--all-tasks", "--pid", "--cpu-list", &cores.others, &own])
            .output()
            .map_err(|error| format!("taskset, from Debian's package `util-linux`: {error}"))?;
        if !pinned.status.success() {
            return Err(String::from_utf8_lossy(&pinned.stderr).into());
        }
        Ok(cores)
    }
}

/// Reads the cores that this process may use, which a container can have narrowed.
fn allowed_cores() -> Result<Vec<usize>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .ok_or("/proc/self/status has no Cpus_allowed_list")?;
    let mut cores = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cores.extend(first.parse::<usize>()?..=last.parse()?);
    }
    Ok(cores)
}

/// Raises the limit of open files, which children inherit, as high as it goes.
pub(crate) fn raise_open_files() -> Result<()> {
    let needed = 2 * IDLE_CONNECTIONS as u64;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        return Err(format!("the hard limit of open files (ulimit -Hn) is under {needed}").into());
    }
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(())
}

/// Finds a program on the path, or where Debian puts servers.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/bin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Names the machine and the versions of all that takes part, in one line.
pub(crate) fn describe(proxies: &[Proxy], cores: &Cores, parent: &Path) -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |model| model.trim_start_matches([' ', '\t', ':']));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut line = format!(
        "{} cores of {model}, Linux {}; proxy on core {}, origins and load on {}",
        allowed_cores_count(cores),
        kernel.trim(),
        cores.proxy,
        cores.others,
    );

    let mut versions = vec![format!("Pingora {}", pingora_version()?)];
    for proxy in proxies {
        if let Some(flag) = proxy.kind.version_flag() {
            versions.push(version(&proxy.program, flag, cores, parent)?);
        }
    }
    versions.dedup();
    let wrk = find("wrk").ok_or("wrk is missing; Debian's package `wrk` has it")?;
    versions.push(version(&wrk, "-v", cores, parent)?);
    let h2load = find("h2load").ok_or("h2load is missing; Debian's `nghttp2-client` has it")?;
    versions.push(version(&h2load, "--version", cores, parent)?);
    for version in versions {
        write!(line, "; {version}")?;
    }
    Ok(line + ".")
}

fn allowed_cores_count(cores: &Cores) -> usize {
    let shared = cores.proxy == cores.others;
    cores.others_count + if shared { 0 } else { cores.proxy.split(',').count() }
}

/// Asks a program for its version, and shortens the answer to name and number.
fn version(program: &Path, flag: &str, cores: &Cores, parent: &Path) -> Result<String> {
    let folder = folder(parent, "version")?;
    let mut command = Command::new(program);
    command.arg(flag);
    let process = Process::start(&command, &cores.others, folder.path())?;
    let (_, output) = process.finish(&format!("{} {flag}", program.display()), VERSION)?;
    let line = output.lines().next().unwrap_or_default();
    let line = line.strip_prefix("nginx version: ").unwrap_or(line);
    let words = line.split(' ').take_while(|word| !word.starts_with('['));
    Ok(words.take(3).collect::<Vec<_>>().join(" "))
}

/// Reads which Pingora was built in, from the lock file beside the sources.
fn pingora_version() -> Result<String> {
    let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock"))?;
    let (_, after) = lock.split_once("name = \"pingora\"\nversion = \"").ok_or("no Pingora")?;
    Ok(after.chars().take_while(|c| *c != '"').collect())
}
