//! What a reload changed, in one line, and what it must not change.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::{
    config::{File, Named},
    diagnostic::{Problem, Problems},
    downstream::config::Address,
    units::{ByteSize, Duration},
    upstream::config::Config as UpstreamConfig,
};

/// The words for what a reload cannot do.
const WITH_AN_UPGRADE: &str = "this takes effect with: crestline upgrade";

/// What changed from one version to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The version that was in force.
    pub from: u64,
    /// The version that is in force now; the same if nothing changed.
    pub to: u64,
    /// The earlier version that it repeats, if it goes back to one.
    pub repeats: Option<u64>,
    /// What was added, changed and removed, each in a few words.
    pub changes: Vec<String>,
    /// What may not be as it was meant, as it is shown to people.
    pub warnings: String,
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, .. } = self;
        if from == to {
            return write!(f, "v{from}: nothing changed");
        }
        write!(f, "v{from} → v{to}")?;
        if let Some(earlier) = self.repeats {
            write!(f, " (as v{earlier})")?;
        }
        write!(f, ": {}", self.changes.join(", "))
    }
}

/// Lists what differs between two configurations; nothing if they are equal.
pub(super) fn changes(old: &File, new: &File) -> Vec<String> {
    let mut changes = upstreams(old, new);
    changes.extend(routes(old, new));
    let whole = [
        ("listeners", old.listeners != new.listeners),
        ("trusted_proxies", old.trusted_proxies != new.trusted_proxies),
        ("access_log", old.access_log != new.access_log),
        ("watch", old.watch != new.watch),
    ];
    let whole = whole.into_iter().filter(|(_, differs)| *differs);
    changes.extend(whole.map(|(key, _)| format!("{key} changed")));
    changes
}

fn upstreams(old: &File, new: &File) -> Vec<String> {
    let by_name = |file: &File| -> BTreeMap<String, Option<UpstreamConfig>> {
        let named = file.upstreams.iter();
        named.map(|Named { name, config }| (name.value.clone(), config.clone())).collect()
    };
    let changed = |name: &String, old: &Option<UpstreamConfig>, new: &Option<UpstreamConfig>| {
        let (Some(old), Some(new)) = (old, new) else { return format!("upstream {name} changed") };
        format!("upstream {name} {}", upstream(old, new))
    };
    compare("upstream", &by_name(old), &by_name(new), changed)
}

fn routes(old: &File, new: &File) -> Vec<String> {
    let by_name = |file: &File| -> BTreeMap<String, _> {
        let routes = file.routes.iter().flatten().flatten();
        routes.map(|route| (route.name.value.clone(), route.clone())).collect()
    };
    let (before, after) = (by_name(old), by_name(new));
    let mut changes =
        compare("route", &before, &after, |name, _, _| format!("route {name} changed"));
    let order = |file: &File| -> Vec<String> {
        let routes = file.routes.iter().flatten().flatten();
        routes.map(|route| route.name.value.clone()).collect()
    };
    if changes.is_empty() && order(old) != order(new) {
        changes.push("order of routes changed".to_owned());
    }
    if old.routes.is_some() != new.routes.is_some() {
        changes.push(format!("routes {}", if new.routes.is_some() { "added" } else { "removed" }));
    }
    changes
}

/// Names what is only in the one, only in the other, or different in both.
fn compare<T: PartialEq>(
    kind: &str,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    changed: impl Fn(&String, &T, &T) -> String,
) -> Vec<String> {
    let mut changes = Vec::new();
    for (name, now) in new {
        match old.get(name) {
            None => changes.push(format!("{kind} {name} added")),
            Some(before) if before != now => changes.push(changed(name, before, now)),
            Some(_) => {}
        }
    }
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    changes.extend(gone.map(|name| format!("{kind} {name} removed")));
    changes
}

/// `+1 backend -2 backends changed`: what differs between two forms of an upstream.
fn upstream(old: &UpstreamConfig, new: &UpstreamConfig) -> String {
    let addresses = |config: &UpstreamConfig| -> HashSet<String> {
        config.backends.iter().map(|backend| backend.address.to_string()).collect()
    };
    let (before, after) = (addresses(old), addresses(new));
    let mut words = Vec::new();
    for (sign, count) in
        [("+", after.difference(&before).count()), ("-", before.difference(&after).count())]
    {
        if 0 < count {
            words.push(format!("{sign}{count} backend{}", if count == 1 { "" } else { "s" }));
        }
    }
    let others = UpstreamConfig { backends: new.backends.clone(), ..old.clone() } != *new;
    if others || words.is_empty() {
        words.push("changed".to_owned());
    }
    words.join(" ")
}

/// Refuses what needs new sockets, or belongs to Pingora's server, which reads it once.
pub(super) fn check(old: &File, new: &File, problems: &mut Problems) {
    let mut refuse = |message: String, span| {
        let problem = Problem::error(message).help(WITH_AN_UPGRADE);
        problems.push(Problem { span, ..problem });
    };
    for (key, now) in new.server_values() {
        if old.server_values().get(&key) != Some(&now) {
            let span = new.server_keys.iter().find(|known| known.value == key);
            refuse(format!("`{key}` is changed"), span.map(|known| known.span));
        }
    }
    let listed = |file: &File| -> Vec<Address> {
        file.listeners.iter().map(|listener| listener.address.value.clone()).collect()
    };
    let (mut gone, mut added) = (listed(old), Vec::new());
    for listener in &new.listeners {
        match gone.iter().position(|address| *address == listener.address.value) {
            Some(index) => drop(gone.remove(index)),
            None => added.push(&listener.address),
        }
    }
    for address in added {
        refuse(format!("the listener `{}` is new", address.value), Some(address.span));
    }
    for address in gone {
        refuse(format!("the listener `{address}` is removed"), None);
    }
    if http2(old) != http2(new) {
        let h2c = new.listeners.iter().find(|listener| listener.h2c);
        let message = "`h2c`, or what bounds HTTP/2 (`idle`, `header_size`), is changed".to_owned();
        refuse(message, h2c.map(|listener| listener.address.span));
    }
}

/// What Pingora is told of HTTP/2 when the process starts: the widest of all listeners.
fn http2(file: &File) -> Option<(ByteSize, Duration)> {
    let h2c = || file.listeners.iter().filter(|listener| listener.h2c);
    let size = h2c().map(|listener| listener.limits.header_size.value).max()?;
    Some((size, h2c().map(|listener| listener.timeouts.idle).max()?))
}
