//! Several trees become one, as if the files had been one.
//!
//! Lists are joined, the main file's items first, and so are mappings, key by key. What
//! cannot be joined is refused: no file overrules another.

use super::{Problem, Problems, Sources, Span, include::KEY as INCLUDE};
use crate::{
    config::{
        parts::{KEYS, wrong_kind},
        server,
    },
    yaml::{Entry, Node, Value},
};

/// The keys whose lists are joined.
const LISTS: [&str; 3] = ["listeners", "routes", "trusted_proxies"];

/// The keys whose mappings are joined.
const MAPPINGS: [&str; 2] = ["access_log", "upstreams"];

/// Joins included parts to the main tree; answers whether nothing was left out.
pub(super) fn join(
    main: &mut Node,
    parts: Vec<Node>,
    sources: &Sources,
    problems: &mut Problems,
) -> bool {
    let Value::Mapping(entries) = &mut main.value else { return true };
    let mut joined = Joined { entries, sources, problems, is_whole: true };
    for part in parts {
        joined.part(part);
    }
    joined.is_whole
}

struct Joined<'a> {
    entries: &'a mut Vec<Entry>,
    sources: &'a Sources,
    problems: &'a mut Problems,
    is_whole: bool,
}

impl Joined<'_> {
    fn part(&mut self, part: Node) {
        match part.value {
            Value::Mapping(entries) => entries.into_iter().for_each(|entry| self.entry(entry)),
            // A file of comments alone, perhaps all that was in it.
            Value::Null => {}
            Value::Unfilled => self.is_whole = false,
            _ => {
                let problem = Problem::error("this file is not a mapping").at(part.span);
                self.leave_out(problem.help("an included file has the keys of the main file"));
            }
        }
    }

    fn entry(&mut self, entry: Entry) {
        let key = entry.key.as_str();
        if key == INCLUDE {
            let problem = Problem::error("`include` stands in an included file");
            let help = "list all files in the main file";
            return self.leave_out(problem.at(entry.key_span).help(help));
        }
        let Some(index) = self.entries.iter().position(|first| first.key == key) else {
            return self.entries.push(entry);
        };
        if !KEYS.contains(&key) && !server::keys().contains(key) {
            // Nobody knows it: that is told of each.
            return self.entries.push(entry);
        }
        let is_list = LISTS.contains(&key);
        let is_joined = is_list || MAPPINGS.contains(&key);
        let first = &mut self.entries[index];
        match (&mut first.value.value, entry.value.value) {
            (Value::Sequence(items), Value::Sequence(more)) if is_list => items.extend(more),
            (Value::Mapping(all), Value::Mapping(more)) if is_joined && !is_list => {
                let all = std::mem::take(all);
                let all = self.keys(&entry.key, all, more);
                self.entries[index].value.value = Value::Mapping(all);
            }
            (Value::Unfilled, _) | (_, Value::Unfilled) if is_joined => self.is_whole = false,
            (_, value) if is_list || key == "upstreams" => {
                self.mismatch(index, Entry { value: Node { value, ..entry.value }, ..entry });
            }
            _ => {
                let first = self.line_of(self.entries[index].key_span);
                let problem = Problem::error(format!("the key `{key}` is written twice"));
                let problem = problem.at(entry.key_span).label(format!("first written in {first}"));
                self.leave_out(problem.help("it may stand in one file only: remove one of them"));
            }
        }
    }

    /// Joins two mappings under a key.
    fn keys(&mut self, key: &str, mut all: Vec<Entry>, more: Vec<Entry>) -> Vec<Entry> {
        let is_upstream = key == "upstreams";
        for entry in more {
            let first = all.iter().find(|first| first.key == entry.key);
            if let Some(first) = first.map(|first| self.line_of(first.key_span)) {
                let name = &entry.key;
                let (message, label, help) = if is_upstream {
                    let message = format!("upstream `{name}` is defined twice");
                    (message, format!("first in {first}"), "rename or remove one of them")
                } else {
                    let message = format!("the key `{name}` of `{key}` is written twice");
                    (message, format!("first written in {first}"), "remove one of them")
                };
                let problem = Problem::error(message).at(entry.key_span).label(label);
                self.leave_out(problem.help(help));
                if !is_upstream {
                    continue;
                }
                // Upstreams are read one by one, and the second may have problems, too.
            }
            all.push(entry);
        }
        all
    }

    /// Tells which of two values cannot be joined, and keeps the other.
    fn mismatch(&mut self, index: usize, second: Entry) {
        let fits = |value: &Value| match value {
            Value::Sequence(_) => LISTS.contains(&second.key.as_str()),
            Value::Mapping(_) => MAPPINGS.contains(&second.key.as_str()),
            _ => false,
        };
        let wrong = if fits(&self.entries[index].value.value) || !fits(&second.value.value) {
            second
        } else {
            std::mem::replace(&mut self.entries[index], second)
        };
        self.leave_out(wrong_kind(&wrong.key, &wrong.value));
    }

    fn line_of(&self, span: Span) -> String {
        self.sources.place(span).map_or_else(String::new, |place| place.to_line())
    }

    fn leave_out(&mut self, problem: Problem) {
        self.is_whole = false;
        self.problems.push(problem);
    }
}
