//! The load: wrk for HTTP/1, others for what wrk cannot do, and what all of them saw.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::proc::Process;
use crate::proxies::{Running, Site};
use crate::scenario::Scenario;
use crate::{Result, folder, h2load, handshake, machine};

/// Connections that wrk keeps busy.
pub(crate) const BUSY_CONNECTIONS: usize = 64;

/// What a load generator may take beyond its measured time: starting, and reading the last answers.
pub(crate) const SLACK: Duration = Duration::from_secs(15);

/// The small body that the origins send.
pub(crate) const SMALL_BODY: &str = "hello, def!";

/// The size of the large body that the origins send.
pub(crate) const LARGE_BODY: usize = 100 * 1024;

/// Prints wrk's result as numbers in a fixed order, times in microseconds.
const REPORT: &str = r#"
done = function(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format("result %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), failed))
end
"#;

/// What the clients saw in one run; times in microseconds.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) requests: f64,
    pub(crate) seconds: f64,
    pub(crate) latency_p50: f64,
    pub(crate) latency_p99: f64,
    pub(crate) errors: f64,
    /// Where handshakes are made: the groups that were agreed on.
    pub(crate) groups: BTreeSet<&'static str>,
}

/// Loads one proxy for some seconds.
pub(crate) fn run(
    scenario: Scenario,
    proxy: &Running,
    seconds: u64,
    site: &Site<'_>,
) -> Result<Load> {
    let address = if scenario.is_encrypted() { proxy.tls_address } else { proxy.address };
    match scenario {
        Scenario::Handshakes(kind) => handshake::run(kind, address, seconds, site.certificate),
        Scenario::Http2 => h2load::run(scenario, address, seconds, site),
        _ => wrk(scenario, address, seconds, site),
    }
}

/// Runs wrk against one address.
fn wrk(scenario: Scenario, address: SocketAddr, seconds: u64, site: &Site<'_>) -> Result<Load> {
    let folder = folder(site.folder, "wrk")?;
    let script = folder.path().join("report.lua");
    fs::write(&script, REPORT)?;
    let threads = site.cores.others_count.min(4);
    let scheme = if scenario.is_encrypted() { "https" } else { "http" };

    let mut command = Command::new(machine::find("wrk").ok_or("wrk is gone")?);
    command
        .args(["--threads", &threads.to_string(), "--timeout", "5s", "--latency"])
        .args(["--connections", &BUSY_CONNECTIONS.to_string()])
        .args(["--duration", &format!("{seconds}s"), "--script"])
        .arg(script)
        .args(scenario.headers())
        .arg(format!("{scheme}://{address}{}", scenario.path()));
    let process = Process::start(&command, &site.cores.others, folder.path())?;
    let (_, output) = process.finish("wrk", Duration::from_secs(seconds) + SLACK)?;
    Load::parse(&output).ok_or_else(|| format!("wrk gave no result:\n{output}").into())
}

impl Load {
    fn parse(output: &str) -> Option<Self> {
        let result = output.lines().find_map(|line| line.strip_prefix("result "))?;
        let mut numbers = result.split(' ').map_while(|number| number.parse::<f64>().ok());
        Some(Self {
            requests: numbers.next().filter(|requests| 0.0 < *requests)?,
            seconds: numbers.next()? / 1e6,
            latency_p50: numbers.next()?,
            latency_p99: numbers.next()?,
            errors: numbers.next()?,
            groups: BTreeSet::new(),
        })
    }
}

/// One measurement of one proxy; times in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Processor time of the proxy's process tree per completed request.
    pub(crate) cpu: f64,
    pub(crate) requests_per_second: f64,
    pub(crate) latency_p50: f64,
    pub(crate) latency_p99: f64,
    /// Answers over 399, and sockets that failed or timed out.
    pub(crate) errors: f64,
    /// Where handshakes are made: the groups that were agreed on.
    pub(crate) groups: BTreeSet<&'static str>,
}

impl Sample {
    /// Relates the processor time of a run to what was done in it.
    pub(crate) fn new(cpu: Duration, load: &Load) -> Self {
        Self {
            cpu: cpu.as_secs_f64() * 1e6 / load.requests,
            requests_per_second: load.requests / load.seconds,
            latency_p50: load.latency_p50,
            latency_p99: load.latency_p99,
            errors: load.errors,
            groups: load.groups.clone(),
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:6.1} µs, {:6.0}/s", self.cpu, self.requests_per_second)?;
        if 0.0 < self.errors { write!(f, ", {} errors", self.errors) } else { Ok(()) }
    }
}
