//! The file as the operator wrote it: Pingora's keys and ours side by side, each half strict.
//!
//! This room only gathers: every key belongs to the module that it configures. Each upstream,
//! listener and route is read on its own, so that one mistake does not hide another.

pub mod route;
pub mod server;

use std::{fs, io::Read, path::Path};

use pingora_core::server::configuration::ServerConf;

use crate::{
    config::route::RouteConfig,
    diagnostic::{Problem, Problems, Source, Span, nearest},
    downstream, observe, upstream,
    yaml::{self, Entry, Node, Short, Spanned, Value},
};

/// The keys of ours that stand at the top level.
const KEYS: [&str; 5] = ["access_log", "listeners", "routes", "trusted_proxies", "upstreams"];

/// A configuration as written. What could not be read is left out; its problems are told.
#[derive(Debug)]
pub struct File {
    /// Pingora's half, with Crestline's defaults.
    pub server: ServerConf,
    /// The access log.
    pub access_log: observe::access_log::config::Config,
    /// Networks whose `X-Forwarded-*` fields count.
    pub trusted_proxies: Vec<downstream::config::Network>,
    /// Where connections arrive.
    pub listeners: Vec<downstream::config::Config>,
    /// Groups of backends, by name, in the order written; `None` if there are some and they could
    /// not be read, so that nobody knows which names are defined.
    pub upstreams: Option<Vec<Named<upstream::config::Config>>>,
    /// Which requests go where; `None` if the key is absent, and within for one that could not
    /// be read.
    pub routes: Option<Vec<Option<RouteConfig>>>,
}

/// A part that has a name of its own in the file.
#[derive(Debug)]
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
            upstreams: Some(vec![Named { name, config: Some(backends) }]),
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
        let Halves { ours, pingoras, misspelt } = split(entries, problems);
        Some(Self {
            server: server::read(pingoras, root.span, problems),
            access_log: find(&ours, "access_log")
                .and_then(|node| yaml::read::<Short<_>>(node, "access_log", problems))
                .map_or_else(Default::default, |log| log.0),
            trusted_proxies: find(&ours, "trusted_proxies")
                .and_then(|node| yaml::read(node, "trusted_proxies", problems))
                .unwrap_or_default(),
            listeners: list(&ours, "listeners", problems).into_iter().flatten().flatten().collect(),
            upstreams: match find(&ours, "upstreams") {
                None if misspelt.contains(&"upstreams") => None,
                None => Some(Vec::new()),
                Some(node) => upstreams(node, problems),
            },
            routes: match find(&ours, "routes") {
                None => misspelt.contains(&"routes").then(|| vec![None]),
                Some(node) => Some(routes(node, problems)),
            },
        })
    }
}

/// The help line for a file without anything to do.
pub const SMALLEST: &str =
    "the smallest file is `upstreams: { app: { backends: [127.0.0.1:3031] } }`";

/// The entries of the top level.
struct Halves {
    ours: Vec<Entry>,
    pingoras: Vec<Entry>,
    /// The keys of ours that were probably meant by one that nobody knows.
    misspelt: Vec<&'static str>,
}

/// Parts our keys from Pingora's; a key that neither half knows is told here.
fn split(entries: Vec<Entry>, problems: &mut Problems) -> Halves {
    let pingoras = server::keys();
    let mut halves = Halves { ours: Vec::new(), pingoras: Vec::new(), misspelt: Vec::new() };
    for entry in entries {
        if KEYS.contains(&entry.key.as_str()) {
            halves.ours.push(entry);
        } else if pingoras.contains(&entry.key) {
            halves.pingoras.push(entry);
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
        problems.push(no_list(key, node.span));
        return None;
    };
    let elements = elements.iter().enumerate();
    let read = |(index, element)| yaml::read(element, &format!("{key}[{index}]"), problems);
    Some(elements.map(read).collect())
}

/// Reads the routes one by one; if they are no list, there is one that could not be read.
fn routes(node: &Node, problems: &mut Problems) -> Vec<Option<RouteConfig>> {
    let Value::Sequence(elements) = &node.value else {
        problems.push(no_list("routes", node.span));
        return vec![None];
    };
    let elements = elements.iter().enumerate();
    let read = |(index, it)| RouteConfig::read(it, &format!("routes[{index}]"), problems);
    elements.map(read).collect()
}

fn upstreams(node: &Node, problems: &mut Problems) -> Option<Vec<Named<upstream::config::Config>>> {
    let Value::Mapping(named) = &node.value else {
        let problem = Problem::error("`upstreams` is not a mapping from names to upstreams");
        problems.push(problem.at(node.span).help(SMALLEST));
        return None;
    };
    let read = |entry: &Entry| Named {
        name: Spanned { value: entry.key.clone(), span: entry.key_span },
        config: yaml::read(&entry.value, &format!("upstreams.{}", entry.key), problems),
    };
    Some(named.iter().map(read).collect())
}

fn no_list(key: &str, span: Span) -> Problem {
    let problem = Problem::error(format!("`{key}` is not a list")).at(span);
    problem.help("begin each of them with a `-`")
}
