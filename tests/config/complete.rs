//! One file with every key of ours, and the proof that it has every key.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crestline::{
    diagnostic::{Color, Problems, Source, render},
    snapshot,
    yaml::{self, Node, Value},
};

use super::folder;

fn complete() -> String {
    fs::read_to_string(folder().join("good_complete.yaml")).unwrap()
}

/// The problems of a text, and their help.
fn told(text: &str) -> Vec<(String, String)> {
    let mut problems = Problems::default();
    let _ = snapshot::compile(text, &mut problems);
    let told = problems.iter();
    told.map(|problem| (problem.message.clone(), problem.help.clone().unwrap_or_default()))
        .collect()
}

/// The mappings of a tree with their keys, by path; names and places in lists are left out.
///
/// `access` tells for each mapping its path and its first byte.
fn mappings<'a>(path: &str, node: &'a Node, access: &mut impl FnMut(String, &'a Node)) {
    match &node.value {
        Value::Sequence(items) => {
            for item in items {
                mappings(&format!("{path}[]"), item, access);
            }
        }
        Value::Mapping(entries) => {
            access(path.to_owned(), node);
            let is_named = path == ".upstreams";
            for entry in entries {
                let key = if is_named { "*" } else { entry.key.as_str() };
                mappings(&format!("{path}.{key}"), &entry.value, access);
            }
        }
        _ => {}
    }
}

/// The keys that stand in each kind of mapping, all mappings of that kind together.
fn keys(node: &Node) -> BTreeMap<String, BTreeSet<String>> {
    let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    mappings("", node, &mut |path, mapping| {
        let named = mapping.entries().iter().map(|entry| entry.key.clone());
        keys.entry(path).or_default().extend(named);
    });
    keys
}

/// The text with a key more at the beginning of a mapping.
fn with_odd_key(text: &str, mapping: &Node) -> Option<String> {
    let first = mapping.entries().first()?.key_span.start;
    let (before, after) = text.split_at(first);
    let line = before.rfind('\n').map_or(0, |newline| newline + 1);
    let indent = " ".repeat(first - line);
    let end = if text[mapping.span.start..].starts_with('{') { ", " } else { "\n" };
    let indent = if end == "\n" { indent.as_str() } else { "" };
    Some(format!("{before}zzz: 1{end}{indent}{after}"))
}

#[test]
fn one_file_has_every_key() {
    let text = complete();
    let tree = yaml::parse(&text).unwrap();
    let keys = keys(&tree);
    let mut proven = BTreeSet::new();
    mappings("", &tree, &mut |path, mapping| {
        let Some(odd) = with_odd_key(&text, mapping) else { return };
        let told = told(&odd);
        let unknown = told.iter().find(|(message, _)| message.starts_with("unknown key `zzz`"));
        // Names are free in some mappings, and a choice takes one key: neither lists its keys.
        let Some((_, help)) = unknown.filter(|_| !path.is_empty()) else { return };
        let known = help.strip_prefix("Known here: ").unwrap_or_else(|| panic!("{path}: {help}"));
        let known: BTreeSet<String> = known.split(", ").map(str::to_owned).collect();
        assert_eq!(keys[&path], known, "{path}");
        proven.insert(path);
    });
    let expected = [
        ".access_log",
        ".listeners[]",
        ".listeners[].limits",
        ".listeners[].timeouts",
        ".routes[]",
        ".routes[].match",
        ".routes[].policies[].request_headers",
        ".routes[].policies[].response_headers",
        ".upstreams.*",
        ".upstreams.*.backends[]",
        ".upstreams.*.ejection",
        ".upstreams.*.health_check",
        ".upstreams.*.health_check.http",
        ".upstreams.*.timeouts",
    ];
    assert_eq!(proven, expected.map(str::to_owned).into());
    let ours = ["access_log", "listeners", "routes", "trusted_proxies", "upstreams"];
    assert!(ours.iter().all(|key| keys[""].contains(*key)));
}

/// The example that ships with Crestline shows every key, some of them commented out with their
/// defaults, so that nobody has to guess one.
#[test]
fn the_annotated_example_shows_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/crestline.yaml");
    let Ok(text) = fs::read_to_string(path) else { return };
    for text in [text.clone(), uncommented(&text)] {
        let mut problems = Problems::default();
        let compiled = snapshot::compile(&text, &mut problems);
        let source = Source { name: "conf/crestline.yaml".to_owned(), text };
        assert!(compiled.is_some(), "{}", render(&problems, Some(&source), Color::Never));
    }

    let shown = keys(&yaml::parse(&uncommented(&text)).unwrap());
    for (path, mut keys) in keys(&yaml::parse(&complete()).unwrap()) {
        // Names of fields, parameters and upstreams are anybody's choice.
        let names = [".set", ".add", ".headers", ".query", ".upstreams"];
        if names.iter().any(|end| path.ends_with(end)) {
            continue;
        }
        keys.remove("tcp"); // its short form says the same
        // Requests and responses are edited alike: one of them may show how.
        let alike = path.replace("response_headers", "request_headers");
        for shown in [shown.get(&path), shown.get(&alike)].into_iter().flatten() {
            keys.retain(|key| !shown.contains(key));
        }
        assert!(keys.is_empty(), "not shown under `{path}`: {keys:?}");
    }
}

/// The text with the settings that are commented out, `# key: value`, put into force.
fn uncommented(text: &str) -> String {
    /// What is indented further explains a setting to its left.
    const INDENT_MAX: usize = 16;
    let is_setting = |comment: &str| {
        let (key, value) = comment.split_once(": ").unwrap_or_default();
        let is_key = |byte: u8| byte.is_ascii_lowercase() || b"_46".contains(&byte);
        !value.is_empty() && key.bytes().all(is_key)
    };
    let lines = text.lines().map(|line| match line.split_once("# ") {
        Some((indent, comment))
            if indent.trim().is_empty() && indent.len() <= INDENT_MAX && is_setting(comment) =>
        {
            format!("{indent}{comment}\n")
        }
        _ => format!("{line}\n"),
    });
    lines.collect()
}
