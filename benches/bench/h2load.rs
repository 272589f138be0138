//! Load over HTTP/2, by h2load.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::certificate::NAME;
use crate::load::{Load, SLACK};
use crate::proc::Process;
use crate::proxies::Site;
use crate::scenario::Scenario;
use crate::{Result, folder, machine};

/// Connections that h2load keeps busy, and requests at the same time on each.
const CONNECTIONS: usize = 8;
const STREAMS: usize = 8;

/// Runs h2load against one address.
pub(crate) fn run(
    scenario: Scenario,
    address: SocketAddr,
    seconds: u64,
    site: &Site<'_>,
) -> Result<Load> {
    let folder = folder(site.folder, "h2load")?;
    let log = folder.path().join("requests");
    let threads = site.cores.others_count.min(4);
    let mut command = Command::new(machine::find("h2load").ok_or("h2load is gone")?);
    command
        .args(["--threads", &threads.to_string(), "--duration", &seconds.to_string()])
        .args(["--clients", &CONNECTIONS.to_string()])
        .args(["--max-concurrent-streams", &STREAMS.to_string()])
        .arg(format!("--log-file={}", log.display()))
        .args(["--header", &format!(":authority: {NAME}")])
        .arg(format!("https://{address}{}", scenario.path()));
    let process = Process::start(&command, &site.cores.others, folder.path())?;
    let (_, output) = process.finish("h2load", Duration::from_secs(seconds) + SLACK)?;
    let is_http2 = output.contains("Application protocol: h2");
    let load = parse(&output, &log, seconds)?.filter(|_| is_http2);
    load.ok_or_else(|| format!("h2load gave no result:\n{output}").into())
}

/// Reads what h2load printed, and what it noted of each request: when it began, its status, and
/// how many microseconds it took.
fn parse(output: &str, log: &Path, seconds: u64) -> Result<Option<Load>> {
    let line = |start| output.lines().find_map(|line| line.strip_prefix(start));
    let count = |line: &str, word: &str| -> Option<f64> {
        let part = line.split(", ").find(|part| part.ends_with(word))?;
        part.trim().split(' ').next()?.parse().ok()
    };
    let Some(requests) = line("requests: ") else { return Ok(None) };
    let log = fs::read_to_string(log)?;
    let mut micros: Vec<f64> =
        log.lines().filter_map(|line| line.rsplit('\t').next()?.parse().ok()).collect();
    micros.sort_by(f64::total_cmp);
    let percentile = |percent: usize| {
        let last = micros.len().checked_sub(1)?;
        micros.get(last * percent / 100).copied()
    };
    let load = || {
        Some(Load {
            requests: count(requests, "succeeded").filter(|requests| 0.0 < *requests)?,
            seconds: seconds as f64,
            latency_p50: percentile(50)?,
            latency_p99: percentile(99)?,
            errors: count(requests, "failed")?, // those that were refused, or broke, included
            groups: BTreeSet::new(),
        })
    };
    Ok(load())
}
