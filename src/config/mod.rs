//! The file as the operator wrote it: Pingora's keys and ours side by side, each half strict.
//!
//! This room only gathers: every key belongs to the module that it configures. Each upstream,
//! listener and route is read on its own, so that one mistake does not hide another.

pub mod route;
pub mod schema;
pub mod server;

use std::{collections::BTreeMap, fs, io::Read, path::Path};

use pingora_core::server::configuration::ServerConf;
use schemars::JsonSchema;

use crate::{
    config::route::RouteConfig,
    diagnostic::{Problem, Problems, Source, Span, nearest},
    downstream, observe, upstream,
    yaml::{self, Entry, Node, Short, Spanned, Value},
};

/// The keys of ours that stand at the top level.
const KEYS: [&str; 5] = ["access_log", "listeners", "routes", "trusted_proxies", "upstreams"];

/// A configuration as written. What could not be read is left out; its problems are told.
///
/// The attributes tell the schema how a part is written where that is not how it is kept.
#[derive(Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields, title = "The configuration of Crestline")]
#[schemars(description = "Pingora's keys and Crestline's, side by side.")]
pub struct File {
    /// Pingora's half, with Crestline's defaults.
    #[schemars(flatten, with = "server::keys::Keys")]
    pub server: ServerConf,
    /// Networks whose `X-Forwarded-*` and `X-Request-Id` fields count: the proxies in front of
    /// this one. Default: `[]`, no one's.
    #[schemars(default)]
    pub trusted_proxies: Vec<downstream::config::Network>,
    /// One line for each request. Default: `{}`.
    #[schemars(default, with = "Short<observe::access_log::config::Config>")]
    pub access_log: observe::access_log::config::Config,
    /// Where connections arrive. Default: one listener, at `0.0.0.0:8080`.
    #[schemars(default)]
    pub listeners: Vec<downstream::config::Config>,
    /// Groups of backends, by name, in the order written. Default: none, and a file needs one.
    #[schemars(default, with = "BTreeMap<String, upstream::config::Config>")]
    pub upstreams: Vec<Named<upstream::config::Config>>,
    /// Which requests go where. The most specific host comes first, then the most specific path.
    /// Default: everything goes to the one upstream.
    // `None` if the key is absent, and within for one that could not be read.
    #[schemars(default, with = "Vec<RouteConfig>")]
    pub routes: Option<Vec<Option<RouteConfig>>>,
}

/// A part that has a name of its own in the file.
#[derive(Debug, PartialEq)]
pub struct Named<T> {
    /// The name.
    pub name: Spanned<String>,
    /// The part; `None` if it could not be read, so that references to it still resolve.
    pub config: Option<T>,
}

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Reads the file at a path.
///
/// # Errors
/// If it cannot be read, is no text, or is larger than 16 MiB.
pub fn load(path: &Path) -> Result<Source, Problem> {
    let name = path.display().to_string();
    let unreadable = |why: std::io::Error| {
        let help = "check the path and its permissions";
        Problem::error(format!("cannot read `{name}`: {why}")).help(help)
    };
    let file = fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if FILE_BYTES_MAX < bytes.len() as u64 {
        return Err(Problem::error(format!("`{name}` is larger than 16 MiB")));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source { name, text }),
        Err(why) => {
            let at = why.utf8_error().valid_up_to();
            let line = 1 + memchr::memchr_iter(b'\n', &why.as_bytes()[..at]).count();
            let message = format!("`{name}` is not UTF-8: byte {at}, in line {line}, breaks it");
            Err(Problem::error(message).help("save the file as UTF-8"))
        }
    }
}

impl File {
    /// A configuration of one upstream behind one listener, all else by default.
    pub fn of(listener: downstream::config::Address, backends: upstream::config::Config) -> Self {
        let name = Spanned::new("default".to_owned());
        Self {
            server: server::defaults(),
            access_log: observe::access_log::config::Config::default(),
            trusted_proxies: Vec::new(),
            listeners: vec![downstream::config::Config::at(listener)],
            upstreams: vec![Named { name, config: Some(backends) }],
            routes: None,
        }
    }

    /// Reads a text; all that is wrong with its form goes to `problems`.
    pub fn read(text: &str, problems: &mut Problems) -> Option<Self> {
        let root = match yaml::parse(text) {
            Ok(root) => root,
            Err(problem) => {
                problems.push(problem);
                return None;
            }
        };
        let entries = match root.value {
            Value::Mapping(entries) => entries,
            Value::Null => {
                problems.push(Problem::error("the configuration is empty").help(SMALLEST));
                return None;
            }
            _ => {
                let problem = Problem::error("the configuration is not a mapping").at(root.span);
                problems.push(problem.help(SMALLEST));
                return None;
            }
        };
        let (ours, pingoras) = split(entries, problems);
        Some(Self {
            server: server::read(pingoras, root.span, problems),
            access_log: find(&ours, "access_log")
                .and_then(|node| yaml::read::<Short<_>>(node, "access_log", problems))
                .map_or_else(Default::default, |log| log.0),
            trusted_proxies: find(&ours, "trusted_proxies")
                .and_then(|node| yaml::read(node, "trusted_proxies", problems))
                .unwrap_or_default(),
            listeners: list(&ours, "listeners", problems).into_iter().flatten().flatten().collect(),
            upstreams: upstreams(&ours, problems),
            routes: list(&ours, "routes", problems),
        })
    }
}

/// The help line for a file without anything to do.
pub const SMALLEST: &str =
    "the smallest file is `upstreams: { app: { backends: [127.0.0.1:3031] } }`";

/// Parts our keys from Pingora's; a key that neither half knows is told here.
fn split(entries: Vec<Entry>, problems: &mut Problems) -> (Vec<Entry>, Vec<Entry>) {
    let pingoras = server::keys();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for entry in entries {
        if KEYS.contains(&entry.key.as_str()) {
            ours.push(entry);
        } else if pingoras.contains(&entry.key) {
            theirs.push(entry);
        } else {
            let known = KEYS.iter().copied().chain(pingoras.iter().map(String::as_str));
            let meant = nearest(&entry.key, known);
            let meant = meant.map_or(String::new(), |key| format!("did you mean `{key}`? "));
            let help = format!("{meant}Known here: {}, and Pingora's own keys", KEYS.join(", "));
            let problem = Problem::error(format!("unknown key `{}`", entry.key));
            problems.push(problem.at(entry.key_span).help(help));
        }
    }
    (ours, theirs)
}

fn find<'a>(entries: &'a [Entry], key: &str) -> Option<&'a Node> {
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
}

/// Reads the elements of a list one by one; `None` stands for one that could not be read.
fn list<T: serde::de::DeserializeOwned>(
    entries: &[Entry],
    key: &str,
    problems: &mut Problems,
) -> Option<Vec<Option<T>>> {
    let node = find(entries, key)?;
    let Value::Sequence(elements) = &node.value else {
        problems.push(wrong(key, "a list", node.span));
        return None;
    };
    let elements = elements.iter().enumerate();
    let read = |(index, element)| yaml::read(element, &format!("{key}[{index}]"), problems);
    Some(elements.map(read).collect())
}

fn upstreams(entries: &[Entry], problems: &mut Problems) -> Vec<Named<upstream::config::Config>> {
    let Some(node) = find(entries, "upstreams") else { return Vec::new() };
    let Value::Mapping(named) = &node.value else {
        problems.push(wrong("upstreams", "a mapping from names to upstreams", node.span));
        return Vec::new();
    };
    let named = named.iter();
    let read = |entry: &Entry| Named {
        name: Spanned { value: entry.key.clone(), span: entry.key_span },
        config: yaml::read(&entry.value, &format!("upstreams.{}", entry.key), problems),
    };
    named.map(read).collect()
}

fn wrong(key: &str, expected: &str, span: Span) -> Problem {
    Problem::error(format!("`{key}` is not {expected}")).at(span)
}
