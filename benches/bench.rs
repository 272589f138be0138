//! `make bench`: Crestline and other proxies side by side, on one machine.
//!
//! Starts three origins, then Crestline, a bare Pingora balancer (`bare.rs`), nginx and
//! `HAProxy`; loads each proxy in turn, and prints Markdown tables.
//! The yardstick is processor time of the proxy's own processes per request, because throughput
//! on a shared machine wavers. The proxy under test has the first cores to itself; origins,
//! load generator and this driver share the others.

#[path = "bench/measure.rs"]
mod measure;

#[path = "bench/proxies.rs"]
mod proxies;

#[path = "bench/setup.rs"]
mod setup;

#[path = "bench/variant.rs"]
mod variant;

#[path = "bench/certificate.rs"]
mod certificate;

#[path = "bench/scenario.rs"]
mod scenario;

#[path = "bench/load.rs"]
mod load;

#[path = "bench/h2load.rs"]
mod h2load;

#[path = "bench/handshake.rs"]
mod handshake;

#[path = "bench/idle.rs"]
mod idle;

#[path = "bench/proc.rs"]
mod proc;

#[path = "bench/machine.rs"]
mod machine;

#[path = "bench/table.rs"]
mod table;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use structopt::StructOpt;

use crate::certificate::Certificate;
use crate::load::BUSY_CONNECTIONS;
use crate::machine::Cores;
use crate::proxies::{Kind, Origins, Proxy, Site};
use crate::scenario::Scenario;
use crate::variant::Variant;

/// What every fallible function here answers: an error is for a person to read.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What `--only` takes: the scenarios, and memory.
const MEASUREMENTS: [&str; 9] =
    ["small", "close", "body", "tls", "http2", "handshake", "hybrid", "resumed", "memory"];

/// Measures Crestline beside other proxies and prints Markdown tables.
#[derive(StructOpt)]
#[structopt(name = "bench")]
struct Flags {
    /// Crestline's binary [default: the one built beside this driver]
    #[structopt(long, value_name = "PATH")]
    crestline: Option<PathBuf>,
    /// The bare Pingora balancer's binary [default: the one built beside this driver]
    #[structopt(long, value_name = "PATH")]
    bare: Option<PathBuf>,
    /// Rounds; each measures every proxy once in every scenario
    #[structopt(long, default_value = "5")]
    rounds: usize,
    /// Seconds of load in each measurement
    #[structopt(long, default_value = "5")]
    seconds: u64,
    /// Worker threads of each proxy
    #[structopt(long, default_value = "1")]
    threads: usize,
    /// Measures only this (may be repeated)
    #[structopt(long, number_of_values = 1, possible_values = &MEASUREMENTS)]
    only: Vec<String>,
    /// Measures Crestline set up in this way as well (may be repeated)
    #[structopt(long, number_of_values = 1, possible_values = &Variant::KEYS)]
    variant: Vec<Variant>,
    /// Leaves the other proxies out, and sets the variants beside the plain Crestline
    #[structopt(long)]
    alone: bool,
}

impl Flags {
    fn wants(&self, measurement: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == measurement)
    }

    /// Finds the proxies to measure; one that is missing is named on stderr and left out.
    fn proxies(&self) -> Result<Vec<Proxy>> {
        let examples = std::env::current_exe()?;
        let examples = examples.parent().ok_or("this program lies in no folder")?;
        let built = |flag: &Option<PathBuf>, path: &str| {
            let path = flag.clone().unwrap_or_else(|| examples.join(path));
            if path.is_file() { Ok(path) } else { Err(format!("{} is not built", path.display())) }
        };
        let packaged = |name: &str| {
            machine::find(name).ok_or_else(|| format!("Debian's package `{name}` is not installed"))
        };

        let crestline =
            |variant| (Kind::Crestline(variant), built(&self.crestline, "../crestline"));
        let variants = self.variant.iter().copied();
        let mut found: Vec<_> =
            std::iter::once(Variant::Plain).chain(variants).map(crestline).collect();
        if !self.alone {
            found.extend([
                (Kind::Bare, built(&self.bare, "bare")),
                (Kind::Nginx, packaged("nginx")),
                (Kind::Haproxy, packaged("haproxy")),
            ]);
        }

        let mut proxies = Vec::new();
        for (kind, program) in found {
            match program {
                Ok(program) => proxies.push(Proxy { kind, program }),
                Err(reason) => eprintln!("skipped: {}: {reason}", kind.name()),
            }
        }
        Ok(proxies)
    }
}

fn main() -> ExitCode {
    match run(&Flags::from_args()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<()> {
    if flags.rounds == 0 || flags.seconds == 0 || flags.threads == 0 {
        return Err("--rounds, --seconds and --threads are at least 1".into());
    }
    proc::watch_signals()?;
    machine::raise_open_files()?;
    let cores = Cores::share(flags.threads)?;
    let proxies = flags.proxies()?;

    let folder = tempfile::Builder::new().prefix("crestline-bench-").tempdir()?;
    println!("{}", machine::describe(&proxies, &cores, folder.path())?);
    let Flags { rounds, seconds, threads, .. } = flags;
    println!(
        "Worker threads: {threads}. Rounds: {rounds} of {seconds} s. Connections: {BUSY_CONNECTIONS}.\n"
    );
    let origins = Origins::start(folder.path(), &cores)?;
    let certificate = Certificate::make(folder.path())?;
    let site = Site {
        folder: folder.path(),
        cores: &cores,
        threads: flags.threads,
        origins: origins.addresses,
        certificate: &certificate,
    };

    let scenarios: Vec<_> = Scenario::ALL.into_iter().filter(|s| flags.wants(s.key())).collect();
    if !scenarios.is_empty() {
        measure::speed(flags.rounds, flags.seconds, &scenarios, &proxies, &site)?;
    }
    if flags.wants("memory") {
        measure::memory(flags.seconds, &proxies, &site)?;
    }
    Ok(())
}

/// Makes a folder below `parent` for the files of one process; it goes when the value goes.
fn folder(parent: &Path, name: &str) -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(parent)?)
}
