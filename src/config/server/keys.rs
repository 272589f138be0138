//! All keys of Pingora's `ServerConf`: what each takes, what it means, and what holds without it.
//!
//! Pingora's types tell none of this, so it stands here once: the checks, the schema and the
//! manual are made of these tables, and a test holds them against what Pingora reads.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

/// A key of Pingora's that does something here.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What may stand there.
    pub takes: Takes,
    /// What it means, and its default.
    pub meaning: &'static str,
}

/// What a key of Pingora's takes.
pub enum Takes {
    /// `true` or `false`.
    Switch,
    /// A text.
    Text,
    /// A whole number, zero included.
    Number,
    /// A whole number, or nothing at all.
    NumberOrNull,
    /// A whole number above zero; Pingora's own type refuses zero.
    NonZero,
    /// A whole number above zero. Pingora would take zero and panic over it, or do nothing; the
    /// text says what to do instead.
    AtLeastOne(&'static str),
    /// Addresses of IPv4, or of IPv6.
    Addresses(Version),
}

/// The version of an address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The keys that do something here, in the order of the manual.
pub const KEYS: [Key; 24] = {
    use Takes::{Addresses, AtLeastOne, NonZero, Number, NumberOrNull, Switch, Text};
    const fn key(name: &'static str, takes: Takes, meaning: &'static str) -> Key {
        Key { name, takes, meaning }
    }
    [
        key(
            "threads",
            AtLeastOne("leave it out to use all cores"),
            "Worker threads. Default: the number of cores.",
        ),
        key(
            "work_stealing",
            Switch,
            "Whether idle threads take work from busy ones. Default: `false`.",
        ),
        key(
            "listener_tasks_per_fd",
            AtLeastOne("leave it out to use one"),
            "Accept loops for each listener. Default: `1`.",
        ),
        key(
            "upstream_keepalive_pool_size",
            Number,
            "Idle connections to origins that are kept, for each thread. Default: `128`.",
        ),
        key(
            "max_retries",
            AtLeastOne("it counts attempts, so 1 means no retry; see `retries` of an upstream"),
            "Attempts for each request that Pingora makes at most, whatever the `retries` of the \
             upstream. Default: `16`.",
        ),
        key(
            "pid_file",
            Text,
            "Where the process that serves writes its id; its admin socket lies beside it. Default: \
             `/run/crestline/crestline.pid`.",
        ),
        key(
            "upgrade_sock",
            Text,
            "Where a successor waits for the listening sockets, in a folder in which nobody else may \
             write. Default: `/run/crestline/upgrade.sock`.",
        ),
        key(
            "grace_period_seconds",
            Number,
            "Seconds for what is in flight at a stop or an upgrade, at most. Default: `30`.",
        ),
        key(
            "graceful_shutdown_timeout_seconds",
            Number,
            "Seconds for WebSockets to be closed after that. Default: Pingora's, 5.",
        ),
        key(
            "client_bind_to_ipv4",
            Addresses(Version::V4),
            "Source addresses toward origins. Default: `[]`, any.",
        ),
        key(
            "client_bind_to_ipv6",
            Addresses(Version::V6),
            "Source addresses toward origins. Default: `[]`, any.",
        ),
        key(
            "upstream_connect_offload_threadpools",
            AtLeastOne(WITHOUT_OFFLOAD),
            "Pools of threads that only make connections to origins. Default: none; workers do it.",
        ),
        key(
            "upstream_connect_offload_thread_per_pool",
            AtLeastOne(WITHOUT_OFFLOAD),
            "Threads in each of these pools. Default: none; workers do it.",
        ),
        key(
            "max_blocking_threads",
            AtLeastOne("leave it out to let the runtime choose"),
            "Threads for work that blocks, at most, in each runtime. Default: the runtime's, 512.",
        ),
        key(
            "blocking_threads_ttl_seconds",
            Number,
            "Seconds that such a thread is kept idle. Default: the runtime's, 10.",
        ),
        key(
            "fast_timeout_to_tokio_threshold_seconds",
            NumberOrNull,
            "Timeouts of more seconds use a finer and dearer timer; with `null` none does. \
             Default: `900`.",
        ),
        key("daemon", Switch, "Whether to run in the background, as with `-d`. Default: `false`."),
        key(
            "daemon_wait_for_ready",
            Switch,
            "Whether starting a daemon returns only when it is ready to take over sockets. \
             Default: `false`.",
        ),
        key(
            "daemon_ready_timeout_seconds",
            NonZero,
            "Seconds that starting a daemon waits for that. Default: Pingora's, 600.",
        ),
        key(
            "daemon_notify_timeout_seconds",
            NonZero,
            "Seconds that a daemon tries to say that it is ready. Default: Pingora's, 60.",
        ),
        key(
            "error_log",
            Text,
            "The file that a daemon's process log goes to. Default: standard error.",
        ),
        key("user", Text, "The user that a daemon changes to. Default: the one that starts it."),
        key("group", Text, "The group that a daemon changes to. Default: the one that starts it."),
        key(
            "working_directory",
            Text,
            "The folder that a daemon changes to. Default: the one in which it is started.",
        ),
    ]
};

const WITHOUT_OFFLOAD: &str = "leave both out to make connections on the worker threads";

/// Keys that Pingora reads and that do nothing here, each with the reason.
pub const IDLE: [(&str, &str); 11] = [
    ("version", "the version of the file means nothing to Pingora"),
    ("ca_file", "each upstream names those whom it trusts, under `tls.ca`"),
    ("upstream_debug_ssl_keylog", "the keys of connections are never written down"),
    ("downstream_tls_offload_threadpools", "handshakes with clients are made by the workers"),
    ("downstream_tls_offload_thread_per_pool", "handshakes with clients are made by the workers"),
    ("runtime_enable_alt_timer", NO_TOKIO_UNSTABLE),
    ("runtime_metrics_poll_time_histogram", NO_TOKIO_UNSTABLE),
    ("runtime_metrics_poll_time_histogram_scale", NO_TOKIO_UNSTABLE),
    ("runtime_metrics_poll_time_histogram_resolution_micros", NO_TOKIO_UNSTABLE),
    ("runtime_metrics_poll_time_histogram_buckets", NO_TOKIO_UNSTABLE),
    ("upgrade_sock_connect_accept_max_retries", "Pingora 0.9 does not look at it"),
];

const NO_TOKIO_UNSTABLE: &str = "this program is not built with tokio_unstable";

/// Keys that take effect only for a daemon.
pub const DAEMONS: [&str; 5] =
    ["error_log", "user", "group", "working_directory", "daemon_wait_for_ready"];

/// Finds a key that does something here.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

impl Takes {
    fn schema(&self) -> Schema {
        match self {
            Self::Switch => json_schema!({ "type": "boolean" }),
            Self::Text => json_schema!({ "type": "string" }),
            Self::Number => json_schema!({ "type": "integer", "minimum": 0 }),
            Self::NumberOrNull => json_schema!({
                "anyOf": [{ "type": "integer", "minimum": 0 }, { "const": null }],
            }),
            Self::NonZero | Self::AtLeastOne(_) => {
                json_schema!({ "type": "integer", "minimum": 1 })
            }
            Self::Addresses(version) => {
                json_schema!({
                    "type": "array",
                    "items": { "type": "string", "format": version.format() },
                })
            }
        }
    }
}

impl Version {
    /// The version as it is written: `IPv4`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// An address to imitate.
    pub fn example(self) -> &'static str {
        match self {
            Self::V4 => "192.0.2.1",
            Self::V6 => "2001:db8::1",
        }
    }

    fn format(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// Pingora's half of the file, as far as schemas are concerned.
pub struct Keys;

impl JsonSchema for Keys {
    fn schema_name() -> Cow<'static, str> {
        "Pingora".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let property = |key: &Key| {
            let mut schema = key.takes.schema();
            schema.insert("description".to_owned(), key.meaning.into());
            (key.name.to_owned(), Value::from(schema))
        };
        let properties: Map<String, Value> = KEYS.iter().map(property).collect();
        json_schema!({ "type": "object", "properties": properties })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use pingora_core::server::configuration::ServerConf;

    use super::*;

    #[test]
    fn the_tables_name_all_keys_that_pingora_reads_and_no_other() {
        let Ok(Value::Object(known)) = serde_json::to_value(ServerConf::default()) else {
            panic!("a mapping");
        };
        let known: BTreeSet<&str> = known.keys().map(String::as_str).collect();
        let names = KEYS.iter().map(|key| key.name).chain(IDLE.map(|(name, _)| name));
        let named: BTreeSet<&str> = names.clone().collect();
        assert_eq!(named, known, "left: these tables; right: Pingora's ServerConf");
        assert_eq!(named.len(), names.count(), "each key stands in one table, once");
        assert!(DAEMONS.iter().all(|name| find(name).is_some()));
    }
}
