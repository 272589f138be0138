//! Pingora's half of the file: all keys of its `ServerConf`, read strictly.
//!
//! Pingora itself ignores keys that it does not know, and has keys that do nothing in this
//! program. Both are refused here, because no key may be accepted that does nothing.

pub mod keys;

use std::{collections::BTreeSet, net::IpAddr, num::NonZero, thread};

use pingora_core::server::configuration::ServerConf;

use crate::{
    config::server::keys::{DAEMONS, IDLE, KEYS, Takes, Version},
    diagnostic::{Problem, Problems, Span},
    yaml::{self, Entry, Node, Value},
};

/// Where the process that serves leaves its id.
const PID_FILE: &str = "/run/crestline/crestline.pid";
/// Where listening sockets are handed to a successor.
const UPGRADE_SOCK: &str = "/run/crestline/upgrade.sock";
/// How long requests in flight may take to finish at a stop or an upgrade.
const GRACE_PERIOD_SECONDS: u64 = 30;

/// The names of all keys that Pingora knows.
pub fn keys() -> BTreeSet<String> {
    let names = KEYS.iter().map(|key| key.name).chain(IDLE.map(|(name, _)| name));
    names.map(str::to_owned).collect()
}

/// The configuration of Pingora's server without a file.
pub fn defaults() -> ServerConf {
    ServerConf {
        pid_file: PID_FILE.to_owned(),
        upgrade_sock: UPGRADE_SOCK.to_owned(),
        threads: thread::available_parallelism().map_or(1, NonZero::get),
        grace_period_seconds: Some(GRACE_PERIOD_SECONDS),
        work_stealing: false,
        ..ServerConf::default()
    }
}

/// The addresses that connections to origins are made from; none for any.
pub fn sources(conf: &ServerConf) -> impl Iterator<Item = IpAddr> {
    let written = conf.client_bind_to_ipv4.iter().chain(&conf.client_bind_to_ipv6);
    written.filter_map(|address| address.parse().ok())
}

/// Reads Pingora's keys, with our defaults for those that are absent.
pub fn read(entries: Vec<Entry>, span: Span, problems: &mut Problems) -> ServerConf {
    let has = |key: &str| entries.iter().any(|entry| entry.key == key);
    let defaults = defaults();
    let (pid_file, upgrade_sock, threads, grace_period, work_stealing) = (
        has("pid_file"),
        has("upgrade_sock"),
        has("threads"),
        has("grace_period_seconds"),
        has("work_stealing"),
    );
    let is_on = |entry: &Entry| entry.key == "daemon" && entry.value.value != Value::Bool(false);
    let is_daemon = entries.iter().any(is_on);
    for entry in &entries {
        check(entry, is_daemon, problems);
    }
    check_offload(&entries, problems);
    let node = Node { span, value: Value::Mapping(entries), raw: None };
    let Some(mut conf) = yaml::read::<ServerConf>(&node, "", problems) else { return defaults };
    if !pid_file {
        conf.pid_file = defaults.pid_file;
    }
    if !upgrade_sock {
        conf.upgrade_sock = defaults.upgrade_sock;
    }
    if !threads {
        conf.threads = defaults.threads;
    }
    if !grace_period {
        conf.grace_period_seconds = defaults.grace_period_seconds;
    }
    if !work_stealing {
        conf.work_stealing = defaults.work_stealing;
    }
    conf.validate().unwrap_or_else(|why| {
        // What it refuses today was told with its place; this is for what it may refuse one day.
        if !problems.has_errors() {
            problems.push(Problem::error(format!("Pingora refuses this configuration: {why}")));
        }
        self::defaults()
    })
}

/// What Pingora would accept and then panic over, ignore, or misuse.
fn check(entry: &Entry, is_daemon: bool, problems: &mut Problems) {
    let Entry { key, key_span, value } = entry;
    if let Some((_, reason)) = IDLE.iter().find(|(idle, _)| idle == key) {
        let problem = Problem::error(format!("`{key}` would do nothing: {reason}"));
        problems.push(problem.at(*key_span).help("remove it"));
    }
    match (keys::find(key).map(|key| &key.takes), &value.value) {
        (Some(Takes::AtLeastOne(instead)), Value::Int(0)) => {
            let problem = Problem::error(format!("`{key}` is 0, and must be at least 1"));
            problems.push(problem.at(value.span).help(*instead));
        }
        (Some(Takes::Addresses(version)), Value::Sequence(list)) => {
            for element in list {
                check_address(element, *version, problems);
            }
        }
        _ => {}
    }
    if DAEMONS.contains(&key.as_str()) && !is_daemon {
        let message = format!("`{key}` takes effect only for a daemon");
        let help = "set `daemon: true` or start with `-d`, or leave it to the service manager";
        problems.push(Problem::warning(message).at(*key_span).help(help));
    }
}

/// Pingora panics over an address of the other version.
fn check_address(element: &Node, version: Version, problems: &mut Problems) {
    let text = element.text().unwrap_or_default();
    let address = text.parse::<IpAddr>();
    if address.is_ok_and(|address| address.is_ipv4() == (version == Version::V4)) {
        return;
    }
    let problem = Problem::error(format!("`{text}` is no {} address", version.name()));
    let help = format!("write an address such as `{}`", version.example());
    problems.push(problem.at(element.span).help(help));
}

/// Pingora offloads connecting only if both of these say how.
fn check_offload(entries: &[Entry], problems: &mut Problems) {
    const PAIR: [&str; 2] =
        ["upstream_connect_offload_threadpools", "upstream_connect_offload_thread_per_pool"];
    let find = |key: &str| entries.iter().find(|entry| entry.key == key);
    let (alone, other) = match (find(PAIR[0]), find(PAIR[1])) {
        (Some(alone), None) => (alone, PAIR[1]),
        (None, Some(alone)) => (alone, PAIR[0]),
        _ => return,
    };
    let problem = Problem::error(format!("`{}` would do nothing without `{other}`", alone.key));
    problems.push(problem.at(alone.key_span).help("set both, or neither"));
}
