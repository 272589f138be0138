//! What a reload changed, in one line, and what it must not change.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    config::{File, Named},
    diagnostic::{Problem, Problems},
    downstream::config::{Address, Config as Listener},
    policy::Policies,
    snapshot::Snapshot,
    upstream::config::Config as UpstreamConfig,
};

/// The words for what a reload cannot do.
const WITH_AN_UPGRADE: &str = "this takes effect with: crestline upgrade";

/// The same, for what an open socket keeps whoever has it.
const WITH_A_RESTART: &str = "this takes effect with a restart: the open socket cannot change it";

/// So many changes are told in a line; programs get all of them.
const TOLD_MAX: usize = 50;

/// What changed from one version to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
        let told = self.changes.len().min(TOLD_MAX);
        write!(f, ": {}", self.changes[..told].join(", "))?;
        match self.changes.len() - told {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Lists what differs between two configurations; nothing if they are equal.
pub(super) fn changes(old: &File, new: &File) -> Vec<String> {
    let mut changes = upstreams(old, new);
    changes.extend(routes(old, new));
    let whole = [
        ("listeners", old.listeners != new.listeners),
        ("trusted_proxies", old.trusted_proxies != new.trusted_proxies),
        ("limits", old.limits != new.limits),
        ("cache", old.cache != new.cache),
        ("overload", old.overload != new.overload),
        ("allow_faults", old.allow_faults != new.allow_faults),
        ("process_log", old.process_log != new.process_log),
        ("access_log", old.access_log != new.access_log),
        ("traces", old.traces != new.traces),
        ("acme", old.acme != new.acme),
        ("admin", old.admin != new.admin),
        ("dns", old.dns != new.dns),
        ("lame_duck", old.lame_duck != new.lame_duck),
        ("watch", old.watch != new.watch),
    ];
    let whole = whole.into_iter().filter(|(_, differs)| *differs);
    changes.extend(whole.map(|(key, _)| format!("{key} changed")));
    changes
}

/// Lists the listeners, and the upstreams, whose certificates differ from before, with the files
/// that they are in; those of upstreams whose configuration changed as well are told already.
pub(super) fn certificates(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let kept = |address| old.listeners.iter().find(|listener| listener.address == address);
    let changed = new.listeners.iter().filter(|now| {
        let before = kept(now.address.clone()).and_then(|before| before.tls.as_ref());
        let (Some(before), Some(now)) = (before, &now.tls) else { return false };
        !before.now().is_same(&now.now())
    });
    let listeners =
        changed.map(|listener| format!("certificates of listener {} changed", listener.address));
    let differs = |name: &String| {
        let link = |snapshot: &Snapshot| snapshot.upstreams.get(name).cloned();
        let (Some(before), Some(now)) = (link(old), link(new)) else { return false };
        before.link() != now.link() && old.written(name) == new.written(name)
    };
    let upstreams = new.upstreams.keys().filter(|name| differs(name));
    let admin = old.admin.as_ref().zip(new.admin.as_ref());
    let admin = admin.filter(|_| old.file.admin == new.file.admin).into_iter();
    let admin = admin.flat_map(|(before, now)| {
        let token = (!before.has_token_of(now)).then_some("token");
        token.into_iter().chain((!before.has_certificates_of(now)).then_some("certificates"))
    });
    listeners
        .chain(upstreams.map(|name| format!("certificates of upstream {name} changed")))
        .chain(admin.map(|what| format!("{what} of admin changed")))
        .collect()
}

/// Lists the routes whose policies read files that hold something else than before.
pub(super) fn files(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let by_name = |snapshot: &Snapshot| -> BTreeMap<String, Arc<Policies>> {
        let routes = snapshot.routes.routes().iter();
        routes.map(|(_, route)| (route.name.clone(), route.policies.clone())).collect()
    };
    let before = by_name(old);
    let changed = by_name(new)
        .into_iter()
        .filter(|(name, now)| before.get(name).is_some_and(|before| !before.read_the_same(now)));
    changed.map(|(name, _)| format!("files of route {name} changed")).collect()
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
    let place = |file: &File| file.admin.as_ref().map(|admin| admin.address.value);
    if place(old) != place(new) {
        let span = new.admin.as_ref().map(|admin| admin.address.span);
        refuse("the address of `admin` is changed".to_owned(), span);
    }
    sockets(old, new, problems);
    let mut refuse = |message: String, span| {
        let problem = Problem::error(message).help(WITH_AN_UPGRADE);
        problems.push(Problem { span, ..problem });
    };
    if old.http2_bounds() != new.http2_bounds() {
        let speaker = new.listeners.iter().find(|listener| listener.speaks_http2());
        let message =
            "what bounds HTTP/2 (`idle`, `header_size` of listeners that speak it) is changed";
        refuse(message.to_owned(), speaker.map(|listener| listener.address.span));
    }
}

/// Refuses what sockets are told when they are opened.
fn sockets(old: &File, new: &File, problems: &mut Problems) {
    let mut before: Vec<_> = old.listeners.iter().collect();
    for now in &new.listeners {
        let same = |old: &&Listener| old.address == now.address;
        let Some(index) = before.iter().position(same) else { continue };
        let (old, new) = (&before.remove(index).socket, &now.socket);
        if old == new {
            continue;
        }
        let is_fixed = old.ipv6_only != new.ipv6_only || old.reuse_port != new.reuse_port;
        let message = format!("`socket` of the listener `{}` is changed", now.address);
        let help = if is_fixed { WITH_A_RESTART } else { WITH_AN_UPGRADE };
        problems.push(Problem::error(message).at(now.address.span).help(help));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::source::Loaded, diagnostic::Severity};

    const APP: &str = "upstreams: { app: { backends: [127.0.0.1:1] } }\n";

    fn file(text: &str) -> File {
        let mut problems = Problems::default();
        let loaded = Loaded::of(text, &mut problems);
        let file = File::read(&loaded, &mut problems).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        file
    }

    /// What a change to the smallest file is told as.
    fn told(more: &str) -> String {
        let (old, new) = (file(APP), file(&format!("{APP}{more}")));
        assert_eq!(changes(&old, &old), [""; 0]);
        changes(&old, &new).join(", ")
    }

    /// What a change of an upstream is told as.
    fn of_upstream(old: &str, new: &str) -> String {
        let [old, new] = [old, new].map(|app| file(&format!("upstreams: {{ app: {{ {app} }} }}")));
        changes(&old, &new).join(", ")
    }

    #[test]
    fn each_part_of_a_file_is_told_by_its_name() {
        let cases = [
            ("", ""),
            ("# a comment\n", ""),
            ("watch: false\ntrusted_proxies: []\n", ""),
            ("watch: true\n", "watch changed"),
            ("trusted_proxies: [10.0.0.0/8]\n", "trusted_proxies changed"),
            ("limits: { connections: 9 }\n", "limits changed"),
            ("overload: { memory: off }\n", "overload changed"),
            ("allow_faults: true\n", "allow_faults changed"),
            ("process_log: { format: json }\n", "process_log changed"),
            ("access_log: off\n", "access_log changed"),
            ("access_log: { format: combined }\n", "access_log changed"),
            ("traces: { otlp: { endpoint: http://127.0.0.1:4318 } }\n", "traces changed"),
            (
                "listeners: [{ address: \"0.0.0.0:8080\", limits: { header_fields: 9 } }]\n",
                "listeners changed",
            ),
            ("routes: []\n", "routes added"),
            ("routes: [{ name: a, upstream: app }]\n", "route a added, routes added"),
        ];
        for (more, expected) in cases {
            assert_eq!(told(more), expected, "{more}");
        }
    }

    #[test]
    fn backends_are_counted() {
        let one = "backends: [127.0.0.1:1]";
        let cases = [
            ("backends: [127.0.0.1:1, 127.0.0.1:2]", "upstream app +1 backend"),
            ("backends: [127.0.0.1:2, 127.0.0.1:3]", "upstream app +2 backends -1 backend"),
            ("backends: [{ address: 127.0.0.1:1, weight: 2 }]", "upstream app changed"),
            ("backends: [localhost:1], retries: 0", "upstream app +1 backend -1 backend changed"),
            ("backends: [127.0.0.1:1], health_check: off", "upstream app changed"),
            ("backends: [127.0.0.1:1], retries: 3", ""),
        ];
        for (new, expected) in cases {
            assert_eq!(of_upstream(one, new), expected, "{new}");
        }
    }

    #[test]
    fn routes_are_told_apart_by_name() {
        let route = |name: &str, more: &str| format!("{{ name: {name}, upstream: app{more} }}");
        let with = |routes: &[String]| file(&format!("{APP}routes: [{}]", routes.join(", ")));
        let (a, b) = (route("a", ", match: { path: /a }"), route("b", ""));
        let old = with(&[a.clone(), b.clone()]);
        let cases = [
            (vec![b.clone(), a.clone()], "order of routes changed"),
            (vec![a.clone()], "route b removed"),
            (vec![a.clone(), route("b", ", via: true")], "route b changed"),
            (vec![a, route("c", "")], "route c added, route b removed"),
        ];
        for (new, expected) in cases {
            assert_eq!(changes(&old, &with(&new)).join(", "), expected);
        }
    }

    #[test]
    fn a_receipt_reads_as_a_line() {
        let changes = vec!["upstream app +1 backend".to_owned(), "route shop changed".to_owned()];
        let mut receipt =
            Receipt { from: 17, to: 18, repeats: None, changes, warnings: String::new() };
        assert_eq!(receipt.to_string(), "v17 → v18: upstream app +1 backend, route shop changed");
        receipt.repeats = Some(3);
        assert!(receipt.to_string().starts_with("v17 → v18 (as v3): upstream"));
        receipt.changes = (0..100_000).map(|route| format!("route {route} added")).collect();
        let line = receipt.to_string();
        assert!(line.ends_with(", route 49 added and 99950 more"), "{}", line.len());
        receipt.to = 17;
        assert_eq!(receipt.to_string(), "v17: nothing changed");
    }

    #[test]
    fn what_a_socket_is_told_is_refused_with_the_way_to_change_it() {
        let with = |socket: &str| {
            let listener = format!("{{ address: \"[::]:1\", socket: {{ {socket} }} }}");
            file(&format!("{APP}listeners: [{listener}]\n"))
        };
        let help = |old: &str, new: &str| {
            let mut problems = Problems::default();
            check(&with(old), &with(new), &mut problems);
            let all: Vec<_> = problems.iter().map(|problem| problem.help.clone()).collect();
            all.into_iter().flatten().collect::<Vec<_>>()
        };
        assert_eq!(help("backlog: 65535", ""), [""; 0]);
        assert_eq!(help("", "backlog: 100"), [WITH_AN_UPGRADE]);
        assert_eq!(help("dscp: 1", "dscp: 2"), [WITH_AN_UPGRADE]);
        assert_eq!(help("", "ipv6_only: true, dscp: 2"), [WITH_A_RESTART]);
        assert_eq!(help("reuse_port: true", ""), [WITH_A_RESTART]);
    }

    /// What the listeners of one file and of another are refused for.
    fn refused(old: &str, new: &str) -> Vec<String> {
        let mut problems = Problems::default();
        check(&file(&format!("{APP}{old}")), &file(&format!("{APP}{new}")), &mut problems);
        let all = problems.iter();
        all.map(|problem| {
            assert_eq!(problem.severity, Severity::Error);
            assert_eq!(problem.help.as_deref(), Some(WITH_AN_UPGRADE));
            problem.message.clone()
        })
        .collect()
    }

    #[test]
    fn what_pingora_reads_once_is_refused() {
        assert_eq!(refused("threads: 2\n", "threads: 2\n"), [""; 0]);
        assert_eq!(refused("threads: 2\n", "threads: 3\n"), ["`threads` is changed"]);
        let seconds = "grace_period_seconds: 7\n";
        assert_eq!(refused(seconds, ""), ["`grace_period_seconds` is changed"]);
        let moved = refused("", "pid_file: /run/a.pid\nupgrade_sock: /run/a.sock\n");
        assert_eq!(moved, ["`pid_file` is changed", "`upgrade_sock` is changed"]);
    }

    #[test]
    fn sockets_and_what_http2_is_told_at_the_start_are_refused() {
        let listeners = |list: &[&str]| format!("listeners: [{}]\n", list.join(", "));
        let (a, b) = ("{ address: \"127.0.0.1:1\" }", "{ address: \"127.0.0.1:2\" }");
        let h2c = |more: &str| format!("{{ address: \"127.0.0.1:3\", h2c: true{more} }}");
        let (two, turned) = (listeners(&[a, b]), listeners(&[b, a]));
        assert_eq!(refused(&two, &turned), [""; 0]);
        assert_eq!(refused(&two, &listeners(&[a])), ["the listener `127.0.0.1:2` is removed"]);
        assert_eq!(refused(&listeners(&[a]), &two), ["the listener `127.0.0.1:2` is new"]);
        assert_eq!(
            refused(&listeners(&[a]), &listeners(&[b])),
            ["the listener `127.0.0.1:1` is removed", "the listener `127.0.0.1:2` is new"]
        );

        let http2 =
            ["what bounds HTTP/2 (`idle`, `header_size` of listeners that speak it) is changed"];
        let short = h2c(", timeouts: { idle: 5s }");
        let with = |more: &str| listeners(&[a, &h2c(more)]);
        assert_eq!(refused(&with(""), &with(", timeouts: { header: 5s }")), [""; 0]);
        assert_eq!(refused(&with(""), &listeners(&[a, &short])), http2);
        let on_too = listeners(&["{ address: \"127.0.0.1:1\", h2c: true }", &h2c("")]);
        assert_eq!(refused(&with(""), &on_too), [""; 0], "another one already speaks it");
        let off = |more: &str| listeners(&[a, &format!("{{ address: \"127.0.0.1:3\"{more} }}")]);
        assert_eq!(refused(&with(""), &off("")), [""; 0], "no bound differs");
        assert_eq!(refused(&off(""), &with("")), [""; 0]);
        assert_eq!(refused(&off(", timeouts: { idle: 5s }"), &off("")), [""; 0], "nor here");
        assert_eq!(refused(&off(""), &listeners(&[a, &short])), http2);
    }
}
