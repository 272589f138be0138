//! Pingora's half of the file: all keys of its `ServerConf`, read strictly.
//!
//! Pingora itself ignores keys that it does not know, and has keys that do nothing in this
//! program. Both are refused here, because no key may be accepted that does nothing.

use std::{collections::BTreeSet, net::IpAddr, num::NonZero, thread};

use pingora_core::server::configuration::ServerConf;

use crate::{
    diagnostic::{Problem, Problems, Span},
    yaml::{self, Entry, Node, Value},
};

/// Where Pingora leaves its process id when it runs as a daemon.
const PID_FILE: &str = "/run/crestline/crestline.pid";
/// Where listening sockets are handed to a successor.
const UPGRADE_SOCK: &str = "/run/crestline/upgrade.sock";
/// How long requests in flight may take to finish at a stop or an upgrade.
const GRACE_PERIOD_SECONDS: u64 = 30;

/// Keys that Pingora reads and that do nothing here, each with the reason.
const IDLE_KEYS: [(&str, &str); 8] = [
    ("version", "the version of the file means nothing to Pingora"),
    ("ca_file", "connections to origins are plaintext in this version"),
    ("upstream_debug_ssl_keylog", "connections to origins are plaintext in this version"),
    ("downstream_tls_offload_threadpools", "listeners are plaintext in this version"),
    ("downstream_tls_offload_thread_per_pool", "listeners are plaintext in this version"),
    ("runtime_enable_alt_timer", "this program is not built with tokio_unstable"),
    ("runtime_metrics_poll_time_histogram", "this program is not built with tokio_unstable"),
    ("upgrade_sock_connect_accept_max_retries", "Pingora 0.9 does not look at it"),
];

/// The names of all keys that Pingora knows.
pub fn keys() -> BTreeSet<String> {
    match serde_json::to_value(ServerConf::default()) {
        Ok(serde_json::Value::Object(keys)) => keys.into_iter().map(|(key, _)| key).collect(),
        _ => BTreeSet::new(),
    }
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
    // One entry stands for the histogram and all its details.
    let idle = |idle: &str| idle == key || (idle.ends_with("histogram") && key.starts_with(idle));
    if let Some((_, reason)) = IDLE_KEYS.iter().find(|(key, _)| idle(key)) {
        let problem = Problem::error(format!("`{key}` would do nothing: {reason}"));
        problems.push(problem.at(*key_span).help("remove it"));
    }
    let at_least_one = ["threads", "listener_tasks_per_fd", "max_retries", "max_blocking_threads"];
    if at_least_one.contains(&key.as_str()) && value.value == Value::Int(0) {
        let help = match key.as_str() {
            "threads" => "leave it out to use all cores",
            "max_retries" => {
                "it counts attempts, so 1 means no retry; see `retries` of an upstream"
            }
            "listener_tasks_per_fd" => "leave it out to use one",
            _ => "leave it out to let the runtime choose",
        };
        let problem = Problem::error(format!("`{key}` is 0, and must be at least 1"));
        problems.push(problem.at(value.span).help(help));
    }
    if let ("client_bind_to_ipv4" | "client_bind_to_ipv6", Value::Sequence(list)) =
        (key.as_str(), &value.value)
    {
        let wants_v4 = key.ends_with('4');
        for element in list {
            let address = element.text().and_then(|text| text.parse::<IpAddr>().ok());
            if address.is_none_or(|address| address.is_ipv4() != wants_v4) {
                let text = element.text().unwrap_or_default();
                let version = if wants_v4 { "IPv4" } else { "IPv6" };
                let problem = Problem::error(format!("`{text}` is no {version} address"));
                problems.push(problem.at(element.span));
            }
        }
    }
    let daemons = ["error_log", "user", "group", "working_directory", "daemon_wait_for_ready"];
    if daemons.contains(&key.as_str()) && !is_daemon {
        let message = format!("`{key}` takes effect only for a daemon");
        let help = "set `daemon: true` or start with `-d`, or leave it to the service manager";
        problems.push(Problem::warning(message).at(*key_span).help(help));
    }
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
