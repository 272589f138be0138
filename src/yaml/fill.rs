//! `${NAME}`, `${NAME:-default}` and `${file:PATH}` inside values.
//!
//! Values are filled in while the text becomes a tree, after the parser has told keys,
//! comments and structure apart: nothing that is filled in can add a key or a line. What
//! came from outside is recorded as [`Fill`]s, so that no message shows it.

use crate::diagnostic::{Fill, Problem, Span};

/// So many bytes may be filled in, what they stand for included. Variables that are used
/// over and over cannot make a small text fill the memory.
const FILLED_MAX: usize = 4 << 20;

/// What is shown of a text that is not filled in right, and of one that was.
const SHOWN_MAX: usize = 60;

/// The forms that there are.
const FORMS: &str =
    "write `${NAME}`, `${NAME:-default}` or `${file:PATH}`, or `$${` for the two characters `${`";

/// Answers what stands behind `${…}`. A problem of its own is told at the value.
pub trait Values {
    /// The environment variable of this name; `None` if it is not set.
    fn variable(&mut self, name: &str) -> Result<Option<String>, Problem>;

    /// The text of the file at this path.
    fn file(&mut self, path: &str) -> Result<String, Problem>;
}

/// Fills in the values of one configuration, which may be many texts.
pub struct Filling<'v> {
    values: &'v mut dyn Values,
    fills: Vec<Fill>,
    problems: Vec<Problem>,
    /// Counts what was filled in, up to [`FILLED_MAX`].
    filled: usize,
}

/// A part of a value.
#[derive(Debug, PartialEq, Eq)]
enum Part<'t> {
    /// Stands for itself.
    Text(&'t str),
    /// Stands for something else: all of it, and what it names.
    Named { written: &'t str, name: Name<'t> },
    /// Neither, with the reason.
    Broken(String),
}

#[derive(Debug, PartialEq, Eq)]
enum Name<'t> {
    Variable { name: &'t str, default: Option<&'t str> },
    File(&'t str),
}

impl<'v> Filling<'v> {
    /// Begins with nothing filled in.
    pub fn new(values: &'v mut dyn Values) -> Self {
        Self { values, fills: Vec::new(), problems: Vec::new(), filled: 0 }
    }

    /// Takes the problems that came up since the last time.
    pub fn take_problems(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.problems)
    }

    /// Answers a text that was made of the value at a place, as it is written there.
    pub fn as_written(&self, span: Span, text: &str) -> String {
        let mut fills: Vec<_> =
            self.fills.iter().filter(|it| it.span == span && !it.value.is_empty()).collect();
        fills.sort_by_key(|fill| std::cmp::Reverse(fill.value.len()));
        let hide = |text: String, fill: &&Fill| text.replace(&fill.value, &fill.written);
        fills.iter().fold(text.to_owned(), hide)
    }

    /// The record of all that was filled in.
    pub fn into_fills(self) -> Vec<Fill> {
        self.fills
    }

    /// Was something filled into the value at this place?
    pub(super) fn has_filled(&self, span: Span) -> bool {
        // They were recorded in order of place.
        self.fills.binary_search_by_key(&span.start, |fill| fill.span.start).is_ok()
    }

    /// Tells a problem that does not end the reading.
    pub(super) fn tell(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Fills in the value that stands at a place; `None` if that is impossible, and told.
    pub(super) fn fill(&mut self, text: String, span: Span) -> Option<String> {
        if !text.contains("${") {
            return Some(text);
        }
        let (mut filled, mut is_whole, recorded) = (String::new(), true, self.fills.len());
        for part in parts(&text) {
            match self.part(part, span) {
                Ok(part) => filled.push_str(&part),
                Err(problem) => {
                    is_whole = false;
                    self.problems.extend(problem.map(|problem| problem.at(span)));
                }
            }
        }
        let is_recorded = self.fills[recorded..].last().is_none_or(|fill| fill.value == filled);
        if is_whole && !is_recorded {
            self.fills.push(Fill { written: cut(&text), value: filled.clone(), span });
        }
        is_whole.then_some(filled)
    }

    /// Answers what a part stands for, or why it stands for nothing; `None` if that was told.
    fn part(&mut self, part: Part<'_>, span: Span) -> Result<String, Option<Problem>> {
        let (written, name) = match part {
            Part::Text(text) => return Ok(text.to_owned()),
            Part::Broken(why) => return Err(Some(Problem::error(why).help(FORMS))),
            Part::Named { written, name } => (written, name),
        };
        let value = match name {
            Name::File(path) => self.values.file(path)?,
            Name::Variable { name, default } => match (self.values.variable(name)?, default) {
                (None, None) => return Err(Some(not_set(name))),
                // As in a shell, an empty one counts as not set where there is a default.
                (None, Some(default)) => return self.count(written, default.to_owned()),
                (Some(value), Some(default)) if value.is_empty() => {
                    return self.count(written, default.to_owned());
                }
                (Some(value), _) => value,
            },
        };
        self.fills.push(Fill { written: cut(written), value: value.clone(), span });
        self.count(written, value)
    }

    /// Counts a value; the first one beyond the bound is told.
    fn count(&mut self, written: &str, value: String) -> Result<String, Option<Problem>> {
        let is_first = self.filled <= FILLED_MAX;
        self.filled = self.filled.saturating_add(written.len() + value.len());
        if self.filled <= FILLED_MAX {
            return Ok(value);
        }
        let mebibytes = FILLED_MAX >> 20;
        let problem = Problem::error(format!("more than {mebibytes} MiB are filled in"));
        Err(is_first.then(|| problem.help("share a value with an alias, or write it out")))
    }
}

fn not_set(name: &str) -> Problem {
    Problem::error(format!("the environment variable `{name}` is not set"))
        .help(format!("set it, or write `${{{name}:-default}}`"))
}

/// Cuts a value into what stands for itself and what stands for something else.
fn parts(text: &str) -> Vec<Part<'_>> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            parts.extend([Part::Text(before), Part::Text("${")]);
            rest = &rest[at + 2..];
            continue;
        }
        parts.push(Part::Text(&rest[..at]));
        rest = &rest[at..];
        let Some(end) = rest.find('}') else {
            parts.push(Part::Broken(format!("`{}` has no `}}` at its end", cut(rest))));
            return parts;
        };
        let (written, after) = rest.split_at(end + 1);
        parts.push(named(written));
        rest = after;
    }
    parts.push(Part::Text(rest));
    parts
}

/// Reads one `${…}`.
fn named(written: &str) -> Part<'_> {
    let inside = &written[2..written.len() - 1];
    let name = match (inside.split_once(":-"), inside.strip_prefix("file:")) {
        _ if inside.contains("${") => {
            return Part::Broken(format!("`{}` holds another `${{`", cut(written)));
        }
        (Some((name, default)), _) if is_name(name) => {
            Name::Variable { name, default: Some(default) }
        }
        (_, Some("")) => return Part::Broken("`${file:}` names no file".to_owned()),
        (_, Some(path)) => Name::File(path),
        _ if is_name(inside) => Name::Variable { name: inside, default: None },
        _ => return Part::Broken(format!("`{}` names no variable", cut(written))),
    };
    Part::Named { written, name }
}

/// Is this the name of a variable, as POSIX has it?
fn is_name(text: &str) -> bool {
    !text.starts_with(|first: char| first.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What is shown of a text that may be long.
fn cut(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let shown: String = line.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() { shown + "…" } else { shown }
}

#[cfg(test)]
mod tests;
