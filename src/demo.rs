//! `crestline demo`: three origins and the proxy in one process.
//!
//! With `--chaos`, an origin dies and returns every few seconds while clients send requests and
//! count what fails.

mod chaos;
mod origin;

use std::{io, net::SocketAddr, sync::Arc, thread, time::Duration};

use structopt::StructOpt;
use tokio::runtime;

use crate::{
    control::Provenance,
    demo::origin::Origin,
    diagnostic::{Problem, Problems},
    server::{self, Start},
    snapshot,
    upstream::Upstream,
};

/// How many origins there are.
const ORIGINS: u16 = 3;

/// The options of `crestline demo`.
#[derive(Clone, Copy, Debug, StructOpt)]
pub struct Options {
    /// Kills and revives an origin every few seconds while clients count failures
    #[structopt(long)]
    chaos: bool,
    /// The proxy's port; 0 lets the system choose
    #[structopt(long, default_value = "8080")]
    port: u16,
    /// The port of the first origin; 0 lets the system choose
    #[structopt(long, default_value = "8888")]
    origins: u16,
}

/// Why the demonstration cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// An origin's port cannot be bound.
    #[error("origin cannot listen on {0}: {1}")]
    Origin(SocketAddr, io::Error),
    /// The proxy's port cannot be bound.
    #[error(transparent)]
    Proxy(#[from] server::StartError),
    /// The built-in configuration is wrong.
    #[error("the built-in configuration is wrong: {0}")]
    Config(String),
    /// A thread or runtime cannot be started.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

/// Runs until a signal ends the process.
///
/// # Errors
/// If a port is taken.
pub fn run(options: Options) -> Result<(), DemoError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let origins = runtime.block_on(async { start_origins(options.origins) })?;
    let snapshot = {
        let mut problems = Problems::default();
        let text = configuration(options.port, &origins);
        let compiled = snapshot::compile(&text, &mut problems);
        let wrong = || problems.iter().map(|problem: &Problem| problem.message.clone()).collect();
        compiled.ok_or_else(|| DemoError::Config(wrong()))?
    };
    let upstream = snapshot.upstreams.values().next().cloned();
    let prepared = server::prepare(snapshot, Provenance::default(), Start::default())?;
    let proxy = prepared.addresses().first().copied();
    if let (Some(proxy), Some(upstream)) = (proxy, upstream) {
        announce(proxy, &origins);
        beside(runtime, options, proxy, origins, upstream)?;
    }
    prepared.run();
    Ok(())
}

fn start_origins(first: u16) -> Result<Vec<Origin>, DemoError> {
    let mut origins = Vec::new();
    for index in 0..ORIGINS {
        let port = if first == 0 { 0 } else { first.saturating_add(index) };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let origin = Origin::start(address);
        origins.push(origin.map_err(|why| DemoError::Origin(address, why))?);
    }
    Ok(origins)
}

fn configuration(port: u16, origins: &[Origin]) -> String {
    let backends: Vec<String> = origins.iter().map(|origin| origin.address().to_string()).collect();
    format!(
        "threads: 2
access_log: off
grace_period_seconds: 0
listeners: [{{ address: \"127.0.0.1:{port}\" }}]
upstreams:
  origins:
    backends: [{}]
    health_check: {{ http: {{ path: /hello/check }}, every: 500ms }}
routes:
  - name: hello
    policies: [{{ response_headers: {{ set: {{ key1: value1 }} }} }}]
    upstream: origins
",
        backends.join(", ")
    )
}

fn announce(proxy: SocketAddr, origins: &[Origin]) {
    let addresses: Vec<String> =
        origins.iter().map(|origin| origin.address().to_string()).collect();
    println!("Three origins listen on {}.", addresses.join(", "));
    println!("The proxy listens on {proxy}. Try:");
    println!();
    println!("  curl -i http://{proxy}/hello/def              # hello, def! and key1: value1");
    println!("  for i in 1 2 3; do curl -si http://{proxy}/hello/$i | grep x-origin; done");
    println!(
        "  curl -i http://{}/hello/def              # an origin, without the proxy",
        addresses[0]
    );
    println!();
    println!("Changes of health are logged here. Ctrl-C ends it.");
}

/// Keeps the origins alive, and sets chaos loose, on a thread of its own.
fn beside(
    runtime: runtime::Runtime,
    options: Options,
    proxy: SocketAddr,
    origins: Vec<Origin>,
    upstream: Arc<Upstream>,
) -> io::Result<()> {
    thread::Builder::new().name("demo".to_owned()).spawn(move || {
        runtime.block_on(async move {
            if options.chaos {
                chaos::run(proxy, origins, &upstream).await;
            } else {
                loop {
                    tokio::time::sleep(Duration::from_secs(3600)).await;
                }
            }
        });
    })?;
    Ok(())
}
