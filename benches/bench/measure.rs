//! The measurements: rounds of load for speed, and fresh processes for memory.

use std::time::Duration;

use crate::idle::{IDLE_CONNECTIONS, Idle};
use crate::load::{self, Sample};
use crate::proc::{self, Memory};
use crate::proxies::{Proxy, Running, Site};
use crate::scenario::Scenario;
use crate::{Result, table};

/// Seconds of load before the first round, so that no proxy is measured cold.
const WARM_UP: u64 = 2;

/// Allocators return what they freed a little later; memory is read after this pause.
const SETTLE: Duration = Duration::from_secs(1);

/// Loads every proxy in every scenario, round by round, and prints a table for each scenario.
///
/// All proxies run from beginning to end; the order in which they take their turns rotates, so
/// that none of them always follows the same neighbour.
pub(crate) fn speed(
    rounds: usize,
    seconds: u64,
    scenarios: &[Scenario],
    proxies: &[Proxy],
    site: &Site<'_>,
) -> Result<()> {
    let running = proxies.iter().map(|proxy| proxy.start(site)).collect::<Result<Vec<_>>>()?;
    for &scenario in scenarios {
        for proxy in &running {
            sample(proxy, scenario, WARM_UP, site)?;
        }
    }

    let mut samples = vec![vec![Vec::with_capacity(rounds); running.len()]; scenarios.len()];
    for round in 0..rounds {
        for (scenario, samples) in scenarios.iter().zip(&mut samples) {
            for turn in 0..running.len() {
                let turn = (turn + round) % running.len();
                let sample = sample(&running[turn], *scenario, seconds, site)?;
                eprintln!(
                    "round {}/{} {:9} {:24} {}",
                    round + 1,
                    rounds,
                    scenario.key(),
                    running[turn].name,
                    sample,
                );
                samples[turn].push(sample);
            }
        }
    }

    let names: Vec<_> = running.iter().map(|proxy| proxy.name).collect();
    for (scenario, samples) in scenarios.iter().zip(&samples) {
        println!("### {}\n\n{}", scenario.title(), table::speed(*scenario, &names, samples));
    }
    Ok(())
}

/// Loads one proxy for some seconds, reading its processor time before and after.
fn sample(proxy: &Running, scenario: Scenario, seconds: u64, site: &Site<'_>) -> Result<Sample> {
    let before = proxy.process.cpu()?;
    let load = load::run(scenario, proxy, seconds, site)?;
    let cpu = proxy.process.cpu()?.saturating_sub(before);
    proxy.forget_logs()?;
    Ok(Sample::new(cpu, &load))
}

/// Reads the memory of every proxy, alone on the machine, and prints the table.
pub(crate) fn memory(seconds: u64, proxies: &[Proxy], site: &Site<'_>) -> Result<()> {
    let mut rows = Vec::with_capacity(proxies.len());
    for proxy in proxies {
        let footprint = Footprint::of(proxy, seconds, site)?;
        eprintln!("memory {:24} {footprint:?}", proxy.kind.name());
        rows.push((proxy.kind.name(), footprint));
    }
    println!("### Memory\n\n{}", table::memory(&rows));
    Ok(())
}

/// The memory of one proxy in the states that an operator plans for.
#[derive(Debug)]
pub(crate) struct Footprint {
    pub(crate) at_rest: Memory,
    pub(crate) loaded: Memory,
    pub(crate) before_idle: Memory,
    pub(crate) with_idle: Memory,
}

impl Footprint {
    /// Starts the proxy twice, because memory that a load has left behind would hide what idle
    /// connections need.
    fn of(proxy: &Proxy, seconds: u64, site: &Site<'_>) -> Result<Self> {
        let running = proxy.start(site)?;
        proc::pause(SETTLE)?;
        let at_rest = running.process.memory()?;
        load::run(Scenario::Small, &running, seconds, site)?;
        let loaded = running.process.memory()?;
        drop(running);

        let running = proxy.start(site)?;
        drop(Idle::open(running.address, 16)?);
        proc::pause(SETTLE)?;
        let before_idle = running.process.memory()?;
        let idle = Idle::open(running.address, IDLE_CONNECTIONS)?;
        proc::pause(SETTLE)?;
        let with_idle = running.process.memory()?;
        idle.check()?;
        Ok(Self { at_rest, loaded, before_idle, with_idle })
    }
}
