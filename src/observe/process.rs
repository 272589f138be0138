//! Metrics of the process: what it is, what it uses, and what is in flight.

use std::{fs, time::SystemTime};

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

use crate::{
    drain::{Drain, State},
    metrics::{Family, Page},
    panics::Panics,
};

const BUILD: Family<1> =
    Family::gauge("crestline_build_info", "The program; its value is always 1", ["version"]);
const STATE: Family<1> = Family::gauge(
    "crestline_state_info",
    "Whether the process serves, drains, leaves or ends; its value is always 1",
    ["state"],
);
const CONNECTIONS: Family<0> = Family::gauge(
    "crestline_connections",
    "Connections of clients that are open, idle ones included",
    [],
);
const ACCEPTED: Family<0> = Family::counter(
    "crestline_connections_accepted_total",
    "Connections of clients that were let in",
    [],
);
const IN_FLIGHT: Family<0> = Family::gauge(
    "crestline_requests_in_flight",
    "Requests that are being answered, tunnels included",
    [],
);
const TUNNELS: Family<0> =
    Family::gauge("crestline_tunnels", "WebSockets and relayed connections that are open", []);
const PANICS: Family<1> = Family::counter(
    "crestline_panics_total",
    "Panics, which are mistakes in the program, by what they ended",
    ["ended"],
);
const PROCESSOR: Family<0> = Family::counter(
    "process_cpu_seconds_total",
    "Processor time that the process has used, user and system",
    [],
);
const RESIDENT: Family<0> =
    Family::gauge("process_resident_memory_bytes", "Memory that the process has in use", []);
const VIRTUAL: Family<0> =
    Family::gauge("process_virtual_memory_bytes", "Address space that the process has", []);
const FILES: Family<0> = Family::gauge("process_open_fds", "Open file descriptors", []);
const FILES_MAX: Family<0> =
    Family::gauge("process_max_fds", "File descriptors that the process may open", []);
const THREADS: Family<0> = Family::gauge("process_threads", "Threads of the process", []);
const STARTED: Family<0> = Family::gauge(
    "process_start_time_seconds",
    "When the process took charge, in seconds since 1970",
    [],
);

/// Writes what is known of the process, which took charge at a time.
pub fn collect(drain: &Drain, started: SystemTime, page: &mut Page) {
    page.family(&BUILD).add([env!("CARGO_PKG_VERSION")], true);
    let state: State = drain.state();
    page.family(&STATE).add([state.as_str()], true);
    let load = drain.load();
    page.family(&CONNECTIONS).add([], load.connections);
    page.family(&ACCEPTED).add([], drain.accepted());
    page.family(&IN_FLIGHT).add([], load.requests);
    page.family(&TUNNELS).add([], load.tunnels);
    let Panics { requests, tasks, others } = Panics::get();
    let mut panics = page.family(&PANICS);
    for (ended, count) in [("request", requests), ("task", tasks), ("other", others)] {
        panics.add([ended], count);
    }
    usage(page);
    page.family(&STARTED).add([], seconds(started));
}

/// A moment in seconds since 1970.
pub fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// What the system tells of the process. Where it tells nothing, nothing is said.
fn usage(page: &mut Page) {
    let used = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| Used::read(&stat));
    let (mut processor, ticks) = (page.family(&PROCESSOR), clock_ticks_per_second());
    if let Some(used) = &used {
        processor.add([], used.ticks as f64 / ticks as f64);
    }
    for (family, value) in [
        (&RESIDENT, used.as_ref().map(|used| used.resident_pages * page_size() as u64)),
        (&VIRTUAL, used.as_ref().map(|used| used.virtual_bytes)),
        (&THREADS, used.as_ref().map(|used| used.threads)),
        (&FILES, fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64)),
        (&FILES_MAX, getrlimit(Resource::Nofile).current),
    ] {
        let mut samples = page.family(family);
        if let Some(value) = value {
            samples.add([], value);
        }
    }
}

/// What Linux tells in `/proc/self/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Used {
    ticks: u64,
    threads: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Used {
    /// The name of the program, in parentheses, may hold spaces: what counts comes behind it.
    fn read(stat: &str) -> Option<Self> {
        let (_, behind) = stat.rsplit_once(") ")?;
        let words: Vec<&str> = behind.split(' ').collect();
        let number = |field: usize| words.get(field - 3)?.trim().parse::<u64>().ok(); // as in proc(5)
        Some(Self {
            ticks: number(14)? + number(15)?,
            threads: number(20)?,
            virtual_bytes: number(23)?,
            resident_pages: number(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_tells_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 100 23 16 17 18 19 4 21 22 8192 5 25\n";
        let used = Used { ticks: 123, threads: 4, virtual_bytes: 8192, resident_pages: 5 };
        assert_eq!(Used::read(stat), Some(used));
        assert_eq!(Used::read("7 (a) S 1"), None);
    }
}
