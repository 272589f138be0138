//! The tables: Markdown that also reads well in a terminal.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::idle::IDLE_CONNECTIONS;
use crate::load::Sample;
use crate::measure::Footprint;
use crate::proxies::BARE;
use crate::scenario::Scenario;

/// Prints what one scenario cost each proxy, as medians over the rounds, beside the bare balancer
/// or, where that is left out, beside the first.
pub(crate) fn speed(scenario: Scenario, names: &[&str], samples: &[Vec<Sample>]) -> String {
    let bare = names.iter().position(|name| *name == BARE);
    let (yardstick, beside) =
        (&samples[bare.unwrap_or(0)], bare.map_or("beside it", |_| "beside bare"));
    let unit = scenario.unit();
    let (cpu, rate) = (format!("CPU µs/{unit}"), format!("{unit}s/s"));
    let mut rows = vec![
        ["proxy", &cpu, "min–max", beside, "95 %", &rate, "p50", "p99", "errors"]
            .map(str::to_owned),
    ];
    for (name, samples) in names.iter().zip(samples) {
        let all = |figure: fn(&Sample) -> f64| samples.iter().map(figure).collect::<Vec<_>>();
        let cpu = all(|sample| sample.cpu);
        let ratios = ratios(samples, yardstick);
        rows.push([
            (*name).to_owned(),
            format!("{:.1}", median(&cpu)),
            format!("{:.1}–{:.1}", least(&cpu), greatest(&cpu)),
            format!("{:.2}×", median(&ratios)),
            interval(&ratios),
            format!("{:.0}", median(&all(|sample| sample.requests_per_second))),
            milliseconds(median(&all(|sample| sample.latency_p50))),
            milliseconds(median(&all(|sample| sample.latency_p99))),
            format!("{}", all(|sample| sample.errors).iter().sum::<f64>()),
        ]);
    }
    markdown(&rows) + &groups(names, samples)
}

/// Names the groups that were agreed on in handshakes.
fn groups(names: &[&str], samples: &[Vec<Sample>]) -> String {
    let of = |samples: &[Sample]| {
        let all: BTreeSet<_> = samples.iter().flat_map(|sample| &sample.groups).copied().collect();
        all.into_iter().collect::<Vec<_>>().join(" and ")
    };
    let known = names.iter().zip(samples).map(|(name, samples)| (name, of(samples)));
    let known: Vec<_> = known.filter(|(_, groups)| !groups.is_empty()).collect();
    if known.is_empty() {
        return String::new();
    }
    let list: Vec<_> = known.iter().map(|(name, groups)| format!("{name} {groups}")).collect();
    format!("\nGroups: {}.\n", list.join(", "))
}

/// Prints the memory of each proxy.
pub(crate) fn memory(footprints: &[(&str, Footprint)]) -> String {
    let idle_title = format!("with {IDLE_CONNECTIONS} idle");
    let mut rows = vec![
        [
            "proxy",
            "at rest: RSS",
            "PSS",
            "after load: RSS",
            "PSS",
            &idle_title,
            "per idle connection",
        ]
        .map(str::to_owned),
    ];
    for (name, footprint) in footprints {
        let Footprint { at_rest, loaded, before_idle, with_idle } = footprint;
        let grown = with_idle.rss as f64 - before_idle.rss as f64;
        rows.push([
            (*name).to_owned(),
            mebibytes(at_rest.rss),
            mebibytes(at_rest.pss),
            mebibytes(loaded.rss),
            mebibytes(loaded.pss),
            mebibytes(with_idle.rss),
            format!("{:.1} KiB", grown / IDLE_CONNECTIONS as f64),
        ]);
    }
    markdown(&rows)
}

/// Relates processor time to the yardstick's, round by round: neighbours in time share what
/// else the machine did, so this wavers less than the medians do.
fn ratios(samples: &[Sample], yardstick: &[Sample]) -> Vec<f64> {
    samples.iter().zip(yardstick).map(|(own, other)| own.cpu / other.cpu).collect()
}

/// Between which figures the median lies in 95 of 100 such runs, by the order of the rounds'
/// figures alone; nothing where there are too few to say.
fn interval(figures: &[f64]) -> String {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let margin = (sorted.len() * 384 / 100).isqrt() + 1; // 1.96 deviations, twice
    let Some(below) = (sorted.len().saturating_sub(margin) / 2).checked_sub(1) else {
        return String::new();
    };
    format!("{:.2}–{:.2}", sorted[below], sorted[sorted.len() - 1 - below])
}

fn milliseconds(micros: f64) -> String {
    format!("{:.2} ms", micros / 1e3)
}

fn mebibytes(kibibytes: u64) -> String {
    format!("{:.1} MiB", kibibytes as f64 / 1024.0)
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.len() / 2;
    f64::midpoint(sorted[upper], sorted[(sorted.len() - 1) / 2])
}

fn least(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::INFINITY, f64::min)
}

fn greatest(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(0.0, f64::max)
}

/// Lays rows out as a Markdown table, the first one as its head, numbers to the right.
fn markdown<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let cell =
                if column == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") };
            write!(text, "| {cell} ").expect("a String takes every write");
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.into_iter().enumerate() {
                let line = "-".repeat(width);
                let side = if column == 0 { ' ' } else { ':' };
                write!(text, "| {line}{side}").expect("a String takes every write");
            }
            text.push_str("|\n");
        }
    }
    text
}
