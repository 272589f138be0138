//! The parts of the top level: Pingora's and ours, and the elements of a list one by one.

use crate::{
    config::{server, source::Loaded},
    diagnostic::{Problem, Problems, nearest},
    yaml::{Entry, Node, Value},
};

/// The keys of ours that stand at the top level.
pub(super) const KEYS: [&str; 18] = [
    "access_log",
    "acme",
    "admin",
    "allow_faults",
    "cache",
    "dns",
    "include",
    "lame_duck",
    "limits",
    "listeners",
    "overload",
    "process_log",
    "routes",
    "traces",
    "trusted_proxies",
    "upstreams",
    "watch",
    "zone",
];

/// The entries of the top level.
pub(super) struct Halves<'a> {
    pub(super) ours: Vec<&'a Entry>,
    pub(super) pingoras: Vec<Entry>,
    /// The keys of ours that were probably meant by one that nobody knows.
    pub(super) misspelt: Vec<&'static str>,
}

/// Parts our keys from Pingora's; a key that neither half knows is told here.
pub(super) fn split<'a>(entries: &'a [Entry], problems: &mut Problems) -> Halves<'a> {
    let pingoras = server::keys();
    let mut halves = Halves { ours: Vec::new(), pingoras: Vec::new(), misspelt: Vec::new() };
    for entry in entries {
        if KEYS.contains(&entry.key.as_str()) {
            halves.ours.push(entry);
        } else if pingoras.contains(&entry.key) {
            halves.pingoras.push(entry.clone());
        } else {
            let known = KEYS.iter().copied().chain(pingoras.iter().map(String::as_str));
            let meant = nearest(&entry.key, known);
            halves.misspelt.extend(KEYS.iter().filter(|key| meant == Some(**key)));
            let meant = meant.map_or(String::new(), |key| format!("did you mean `{key}`? "));
            let help = format!("{meant}Known here: {}, and Pingora's own keys", KEYS.join(", "));
            let problem = Problem::error(format!("unknown key `{}`", entry.key));
            problems.push(problem.at(entry.key_span).help(help));
        }
    }
    halves
}

/// Finds what stands under a key.
pub(super) fn find<'a>(entries: &[&'a Entry], key: &str) -> Option<&'a Node> {
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
}

/// Reads the elements of a list one by one; `None` stands for one that could not be read.
///
/// In messages, they are counted from the beginning of their file.
pub(super) fn list<T>(
    loaded: &Loaded,
    entries: &[&Entry],
    key: &str,
    problems: &mut Problems,
    read_one: impl Fn(&Node, &str, &mut Problems) -> Option<T>,
) -> Option<Vec<Option<T>>> {
    let node = find(entries, key)?;
    let Value::Sequence(elements) = &node.value else {
        if node.value != Value::Unfilled {
            problems.push(wrong_kind(key, node));
        }
        return None;
    };
    let (mut read, mut index, mut last) = (Vec::new(), 0, node.span);
    for element in elements {
        if !loaded.sources.share_a_file(last, element.span) {
            index = 0;
        }
        last = element.span;
        read.push(read_one(element, &format!("{key}[{index}]"), problems));
        index += 1;
    }
    Some(read)
}

/// What is wrong with a value under a key of the top level that holds one kind of value.
pub(super) fn wrong_kind(key: &str, value: &Node) -> Problem {
    let (expected, help) = match key {
        "upstreams" => (
            "a mapping from names to upstreams",
            "name each one, as in `upstreams: { app: { backends: [127.0.0.1:3031] } }`",
        ),
        _ => ("a list", "put a hyphen before each item"),
    };
    Problem::error(format!("`{key}` is not {expected}")).at(value.span).help(help)
}
