//! Problems with a place and a help line, shown the way rustc shows them.
//!
//! The configuration's reader and its compiler both push [`Problem`]s into one
//! [`Problems`], so that an operator sees all of them in one run; [`render`] makes the
//! text, and [`nearest`] and [`suggest`] find the word that was probably meant. What was
//! filled into the configuration from outside is kept out of all of it ([`Fills`]).

mod fills;
mod sources;

use std::fmt::Write as _;
use std::sync::Arc;

use annotate_snippets::renderer::Renderer;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Snippet};

pub use fills::{Fill, Fills};
use sources::Excerpt;
pub use sources::{Place, Sources};

/// So many words are listed before a help line says how many more there are.
const LISTED_MAX: usize = 12;

/// So many errors, and so many warnings, are kept; further ones are counted. A slip in a template
/// can make a hundred thousand, which nobody reads.
const KEPT_MAX: usize = 500;

/// A stretch of the [`Sources`], in bytes. The default is in no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

/// Whether a problem forbids the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// The configuration works, perhaps not as it was meant.
    Warning,
}

/// One thing that is wrong: what, where, and the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether it forbids the configuration.
    pub severity: Severity,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// Where; absent if the problem is with the file as a whole.
    pub span: Option<Span>,
    /// The words beside the carets.
    pub label: Option<String>,
    /// The next step.
    pub help: Option<String>,
}

/// All problems of one run.
///
/// INVARIANT: in order of place, those without a place first; no value that is hidden shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    sorted: Vec<Problem>,
    errors: usize,
    warnings: usize,
    hidden: Option<Arc<Fills>>,
}

/// Whether [`render`] colours its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// For a terminal.
    Always,
    /// For a file, a log or a test.
    Never,
}

/// Renders all problems, each with its line, carets and help; nothing for none.
///
/// A problem without a place is shown with the name of the first file, if there is any.
pub fn render(problems: &Problems, sources: &Sources, color: Color) -> String {
    let renderer = match color {
        Color::Always => Renderer::styled(),
        Color::Never => Renderer::plain(),
    };
    let nowhere = Sources::default();
    let omitted = problems.omitted();
    let all = problems.iter().map(|problem| (problem, sources));
    let all = all.chain(omitted.iter().map(|omitted| (omitted, &nowhere)));
    let texts: Vec<_> =
        all.map(|(problem, sources)| renderer.render(&report(problem, sources)) + "\n").collect();
    texts.join("\n")
}

/// Finds the candidate that was probably meant by `word`.
///
/// Case and the difference between `-` and `_` do not count; beyond that a third of the
/// letters may differ, but never all of them.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = plain(word);
    let letters = word.chars().count();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= (letters / 3).max(1))
        .filter(|(distance, _)| *distance < letters)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Writes the help line for a name that is not defined.
///
/// The answer reads ``did you mean `checkout`? Defined: api, assets, checkout``.
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    suggest_among("Defined", word, candidates)
}

/// Writes the help line for a word that is not among the candidates, listed under a
/// heading such as `Known here`.
pub fn suggest_among<'a>(
    heading: &str,
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    let mut names: Vec<_> = candidates.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return "none is defined".to_owned();
    }
    let mut help = match nearest(word, names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`? "),
        None => String::new(),
    };
    let listed = names.len().min(LISTED_MAX);
    let _ = write!(help, "{heading}: {}", names[..listed].join(", "));
    if listed < names.len() {
        let _ = write!(help, " and {} more", names.len() - listed);
    }
    help
}

impl Problem {
    /// Makes an error without a place.
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(Severity::Error, message.into())
    }

    /// Makes a warning without a place.
    pub fn warning(message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, message.into())
    }

    /// Says where; a span that is in no file says nothing.
    #[must_use]
    pub fn at(self, span: Span) -> Self {
        Self { span: (span != Span::default()).then_some(span), ..self }
    }

    /// Puts words beside the carets.
    #[must_use]
    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: Some(label.into()), ..self }
    }

    /// Names the next step.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    fn new(severity: Severity, message: String) -> Self {
        Self { severity, message, span: None, label: None, help: None }
    }
}

impl Problems {
    /// Adds a problem at its place, without the values that are hidden; beyond the bound, it is
    /// only counted.
    pub fn push(&mut self, problem: Problem) {
        let count = match problem.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if KEPT_MAX < *count {
            return;
        }
        let problem = match &self.hidden {
            Some(fills) => fills.redact(problem),
            None => problem,
        };
        let place = |problem: &Problem| problem.span.map(|span| span.start);
        let index = self.sorted.partition_point(|earlier| place(earlier) <= place(&problem));
        self.sorted.insert(index, problem);
    }

    /// Whether the next error will be kept, and not only counted.
    pub fn keeps_more(&self) -> bool {
        self.errors < KEPT_MAX
    }

    /// Keeps values that were filled in out of all problems, those that were told included.
    pub fn hide(&mut self, fills: Arc<Fills>) {
        let told = std::mem::take(&mut self.sorted);
        self.sorted = told.into_iter().map(|problem| fills.redact(problem)).collect();
        self.hidden = Some(fills);
    }

    /// Does one of them forbid the configuration?
    pub fn has_errors(&self) -> bool {
        0 < self.errors
    }

    /// Counts the errors, those that were not kept included.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Counts those that were kept, warnings included.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Walks through those that were kept, in order of place.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.sorted.iter()
    }

    /// What is told in the place of those that were not kept.
    fn omitted(&self) -> Vec<Problem> {
        let told = |count: usize, word: &str, problem: fn(String) -> Problem| {
            let more = count.checked_sub(KEPT_MAX).filter(|more| 0 < *more)?;
            let s = if more == 1 { " is" } else { "s are" };
            let problem = problem(format!("{more} more {word}{s} not shown"));
            Some(problem.help("many of one kind often have one cause: begin with the first"))
        };
        let errors = told(self.errors, "error", Problem::error);
        errors.into_iter().chain(told(self.warnings, "warning", Problem::warning)).collect()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

fn report<'a>(problem: &'a Problem, sources: &'a Sources) -> Vec<Group<'a>> {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(problem.message.as_str());
    let place = problem.span.and_then(|span| Some((sources.at(span)?, span)));
    let mut groups = vec![match (place, sources.first()) {
        (None, None) => Group::with_title(title),
        (None, Some(whole)) => title.element(Origin::path(whole.name.as_str())),
        (Some((source, span)), _) => {
            // The renderer would cut all of the text into lines, for each problem.
            let Excerpt { text, line, carets } = source.excerpt(span);
            let carets = AnnotationKind::Primary.span(carets).label(problem.label.as_deref());
            let snippet = Snippet::source(text).line_start(line).path(source.name.as_str());
            title.element(snippet.annotation(carets))
        }
    }];
    if let Some(help) = &problem.help {
        groups.push(Group::with_title(Level::HELP.secondary_title(help.as_str())));
    }
    groups
}

/// A word without what operators get wrong without noticing.
fn plain(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests;
