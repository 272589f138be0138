//! The clients: wrk for load, and connections that only wait.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::proc::{Process, wait_for};
use crate::proxies::Site;
use crate::{Result, folder, machine};

/// Connections that wrk keeps busy.
pub(crate) const BUSY_CONNECTIONS: usize = 64;

/// Connections that wait while memory is read.
pub(crate) const IDLE_CONNECTIONS: usize = 2_000;

/// What wrk may take beyond its measured time: starting, and reading the last answers.
const SLACK: Duration = Duration::from_secs(15);

/// A single request has this long; on loopback even a loaded proxy answers in milliseconds.
const ANSWER: Duration = Duration::from_secs(5);

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

/// One kind of request, repeated as fast as it is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scenario {
    Small,
    Close,
    Body,
}

impl Scenario {
    /// Every scenario, in the order in which they are measured.
    pub(crate) const ALL: [Self; 3] = [Self::Small, Self::Close, Self::Body];

    /// Names the scenario in flags and in progress lines.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Close => "close",
            Self::Body => "body",
        }
    }

    /// Names the scenario above its table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Small => "Small requests, keep-alive",
            Self::Close => "Small requests, `Connection: close`",
            Self::Body => "100 KiB bodies, keep-alive",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Small | Self::Close => "/",
            Self::Body => "/large",
        }
    }

    fn headers(self) -> &'static [&'static str] {
        match self {
            Self::Small | Self::Body => &[],
            Self::Close => &["-H", "Connection: close"],
        }
    }
}

/// What wrk saw in one run.
#[derive(Debug)]
pub(crate) struct Load {
    requests: f64,
    seconds: f64,
    latency_p50: f64,
    latency_p99: f64,
    errors: f64,
}

/// Runs wrk against one address.
pub(crate) fn run(
    scenario: Scenario,
    address: SocketAddr,
    seconds: u64,
    site: &Site<'_>,
) -> Result<Load> {
    let folder = folder(site.folder, "wrk")?;
    let script = folder.path().join("report.lua");
    fs::write(&script, REPORT)?;
    let threads = site.cores.others_count.min(4);

    let mut command = Command::new(machine::find("wrk").ok_or("wrk is gone")?);
    command
        .args(["--threads", &threads.to_string(), "--timeout", "5s", "--latency"])
        .args(["--connections", &BUSY_CONNECTIONS.to_string()])
        .args(["--duration", &format!("{seconds}s"), "--script"])
        .arg(script)
        .args(scenario.headers())
        .arg(format!("http://{address}{}", scenario.path()));
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
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:6.1} µs, {:6.0}/s", self.cpu, self.requests_per_second)?;
        if 0.0 < self.errors { write!(f, ", {} errors", self.errors) } else { Ok(()) }
    }
}

/// Waits until a server that was just started answers as all of them have to: with the right
/// bodies, and with the injected header when it is a proxy.
pub(crate) fn check(
    process: &mut Process,
    address: SocketAddr,
    header: Option<&str>,
) -> Result<()> {
    let limit = Duration::from_secs(15);
    let small = wait_for("starting", limit, || {
        process.check()?;
        Ok(get(address, "/").ok().filter(|answer| answer.starts_with("HTTP/1.1 200 ")))
    })?;
    let large = get(address, "/large")?;
    let injected = header.is_none_or(|header| small.to_ascii_lowercase().contains(header));
    if !small.ends_with(SMALL_BODY) || large.len() < LARGE_BODY || !injected {
        return Err(format!("a wrong answer, or a short one:\n{small}").into());
    }
    Ok(())
}

/// Asks once, on a connection of its own, and answers with head and body.
fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    Ok(stream)
}

/// Keep-alive connections that have made one request each and now wait.
#[derive(Debug)]
pub(crate) struct Idle(Vec<TcpStream>);

impl Idle {
    /// Opens them one after another, each when the one before has its answer.
    pub(crate) fn open(address: SocketAddr, count: usize) -> Result<Self> {
        let mut streams = Vec::with_capacity(count);
        for _ in 0..count {
            let mut stream = connect(address)?;
            stream.write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
            let mut answer = Vec::new();
            while !answer.ends_with(SMALL_BODY.as_bytes()) {
                let mut piece = [0; 2048];
                let length = stream.read(&mut piece)?;
                if length == 0 {
                    return Err("a connection that was to stay idle was closed".into());
                }
                answer.extend_from_slice(&piece[..length]);
            }
            streams.push(stream);
        }
        Ok(Self(streams))
    }

    /// Fails when the proxy has closed any of them meanwhile: its memory would not count.
    pub(crate) fn check(self) -> Result<()> {
        for stream in self.0 {
            stream.set_nonblocking(true)?;
            let waits = stream.peek(&mut [0]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
            if !waits {
                return Err("a connection that was to stay idle was closed".into());
            }
        }
        Ok(())
    }
}
