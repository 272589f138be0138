//! What was filled into the configuration from outside, and is never printed back.
//!
//! A value from the environment or a file may be a secret, and messages like to quote what
//! they found. So what goes into [`Problems`](super::Problems) is redacted there, whoever
//! wrote it: a quoted value turns into what stands in the file, such as `${TOKEN}`, and a
//! text in which the value still shows is not shown at all.
//!
//! What stands in the configuration as written is no secret, since problems show its lines.
//! That keeps the messages about everything else whole when a value is an ordinary word.

use std::collections::HashSet;
use std::fmt::{self, Debug, Formatter};

use super::{Problem, Sources, Span};

/// A value of so many bytes is looked for in all problems, a shorter one in those at its
/// place, and elsewhere only where it is all that is quoted: short words come up by chance.
/// A fragment as long is as telling as the whole.
const TELLING: usize = 8;

/// A quoted text of so many bytes that is a fragment of a value is taken for one. A shorter
/// value counts only where it is a word of its own: `1` does not stand in `127`.
const QUOTED_TELLING: usize = 4;

/// What is written for a value that stands in a message in no way that is known.
const HELP: &str = "it is not shown here, because it may be a secret";

/// One value that was filled in.
#[derive(Clone, PartialEq, Eq)]
pub struct Fill {
    /// What stands in the file: `${TOKEN}`.
    pub written: String,
    /// What was filled in for it.
    pub value: String,
    /// The whole value that it is in.
    pub span: Span,
}

/// All values that were filled into a configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fills {
    longest_first: Vec<Known>,
    /// What is written there is no secret.
    sources: Sources,
}

/// A fill with all that it may look like in a message.
#[derive(PartialEq, Eq)]
struct Known {
    fill: Fill,
    /// In lower case: as it is, and escaped for people.
    forms: Vec<String>,
}

/// A fill that may show in a certain problem.
#[derive(Clone, Copy)]
struct Suspect<'a> {
    known: &'a Known,
    is_at_its_place: bool,
}

/// A part of a text that was looked through.
enum Piece<'t> {
    /// Nothing was found there.
    Kept(&'t str),
    /// A value stood there.
    Written(&'t str),
}

impl Fills {
    /// Prepares the values for being looked for. `sources` are all texts of the configuration.
    pub fn new(fills: Vec<Fill>, sources: Sources) -> Self {
        let mut longest_first: Vec<_> = fills
            .into_iter()
            .filter(|fill| !fill.value.trim().is_empty())
            .map(Known::new)
            .collect();
        longest_first.sort_by(|one, other| {
            let key = |known: &Known| (known.fill.value.len(), known.fill.written.len());
            key(other).cmp(&key(one)).then_with(|| one.fill.value.cmp(&other.fill.value))
        });
        Self { longest_first, sources }
    }

    /// What was filled in, longest first. For comparing alone: it may be secret.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.longest_first.iter().map(|known| known.fill.value.as_str())
    }

    /// Takes out of a problem what was filled in.
    #[must_use]
    pub fn redact(&self, problem: Problem) -> Problem {
        let suspects = self.suspects(problem.span);
        if suspects.is_empty() {
            return problem;
        }
        // A message and its help may be two halves of one text, cut inside a value.
        let help = problem.help.as_deref().unwrap_or_default();
        let whole = format!("{}\nhelp: {help}", problem.message);
        let is_cut = |suspect: &&Suspect<'_>| suspect.has("\nhelp: ") && suspect.shows(&whole);
        let message = match suspects.iter().find(is_cut) {
            Some(suspect) => Err(*suspect),
            None => self.text(&problem.message, &suspects),
        };
        let kept = |text: &String| self.text(text, &suspects).ok();
        let help = problem.help.as_ref().filter(|_| !suspects.iter().any(|it| is_cut(&it)));
        let (label, help) = (problem.label.as_ref().and_then(kept), help.and_then(kept));
        match message {
            Ok(message) => Problem { message, label, help, ..problem },
            Err(suspect) => Problem {
                message: format!("the value of `{}` does not fit", suspect.known.fill.written),
                label,
                help: help.or(Some(HELP.to_owned())),
                ..problem
            },
        }
    }

    /// Puts what was written in the place of the values in a text, which was made of what stands
    /// at a place.
    pub fn as_written(&self, text: &str, place: Option<Span>) -> String {
        let suspects = self.suspects(place);
        let mut written = String::with_capacity(text.len());
        for piece in self.replaced(text, &suspects) {
            match piece {
                Piece::Written(fill) => written.push_str(fill),
                Piece::Kept(kept) => {
                    let showing = |it: &&Suspect<'_>| self.gives_away(**it, kept, true);
                    if let Some(suspect) = suspects.iter().find(showing) {
                        return suspect.known.fill.written.clone();
                    }
                    written.push_str(kept);
                }
            }
        }
        written
    }

    /// The values that may show in a problem at a place, the longest first.
    fn suspects(&self, span: Option<Span>) -> Vec<Suspect<'_>> {
        let suspects = self.longest_first.iter().map(|known| {
            let is_at_its_place = span.is_some_and(|span| overlap(span, known.fill.span));
            Suspect { known, is_at_its_place }
        });
        let mut suspects: Vec<_> = suspects.collect();
        suspects.dedup_by(|later, earlier| {
            let same = later.known.fill.value == earlier.known.fill.value;
            if same && later.is_at_its_place && !earlier.is_at_its_place {
                *earlier = *later;
            }
            same
        });
        suspects
    }

    /// Puts what was written in the place of values in quotes; an error if one still shows.
    fn text<'a>(&self, text: &str, suspects: &[Suspect<'a>]) -> Result<String, Suspect<'a>> {
        // The value's own backticks would end the quotes that it stands in.
        let ends_quotes = |it: &&Suspect<'a>| it.has("`") && self.gives_away(**it, text, false);
        if let Some(suspect) = suspects.iter().find(ends_quotes) {
            return Err(*suspect);
        }
        let ticks = text.matches('`').count();
        let mut redacted = String::with_capacity(text.len());
        for (index, part) in text.split('`').enumerate() {
            let is_quoted = index % 2 == 1 && index < ticks;
            redacted.push_str(if index == 0 { "" } else { "`" });
            let pieces =
                if is_quoted { self.replaced(part, suspects) } else { vec![Piece::Kept(part)] };
            for piece in pieces {
                match piece {
                    Piece::Written(written) => redacted.push_str(written),
                    Piece::Kept(kept) => {
                        let showing = |it: &&Suspect<'a>| self.gives_away(**it, kept, is_quoted);
                        if let Some(suspect) = suspects.iter().find(showing) {
                            return Err(*suspect);
                        }
                        redacted.push_str(kept);
                    }
                }
            }
        }
        Ok(redacted)
    }

    /// A quoted text, with what was written in the place of the values.
    fn replaced<'t, 'a: 't>(&self, quoted: &'t str, suspects: &[Suspect<'a>]) -> Vec<Piece<'t>> {
        if let Some(suspect) = suspects.iter().find(|it| it.is_cut_to(quoted)) {
            return vec![Piece::Written(&suspect.known.fill.written)];
        }
        let mut pieces = vec![Piece::Kept(quoted)];
        for suspect in suspects {
            let by_chance = !suspect.is_at_its_place && !suspect.is_telling();
            if by_chance && (!suspect.is_all_of(quoted) || self.is_public(*suspect)) {
                continue;
            }
            let mut parted = Vec::with_capacity(pieces.len());
            for piece in pieces {
                match piece {
                    Piece::Kept(text) => suspect.part(text, &mut parted),
                    written @ Piece::Written(_) => parted.push(written),
                }
            }
            pieces = parted;
        }
        pieces
    }

    /// Does the value stand in the configuration as written?
    fn is_public(&self, suspect: Suspect<'_>) -> bool {
        self.sources.contain(suspect.known.fill.value.as_bytes())
    }

    /// Does a text hold a value, or enough of it?
    fn gives_away(&self, suspect: Suspect<'_>, text: &str, is_quoted: bool) -> bool {
        // A backtick does not come up by chance.
        if !suspect.is_at_its_place && !suspect.is_telling() && !suspect.has("`") {
            return false;
        }
        if suspect.shows(text) {
            return suspect.is_at_its_place || !self.is_public(suspect);
        }
        if !suspect.is_at_its_place {
            return false;
        }
        let lower = text.to_ascii_lowercase();
        let is_public = |fragment: &[u8]| self.sources.contain(fragment);
        // A short value without one of its ends, such as the `660` of `0660`, tells all of it.
        let telling = TELLING.min(suspect.known.fill.value.len().max(QUOTED_TELLING) - 1);
        let windows: HashSet<&[u8]> = lower.as_bytes().windows(telling).collect();
        suspect.known.forms.iter().any(|form| {
            let fragment = |window: &[u8]| windows.contains(window) && !is_public(window);
            form.as_bytes().windows(telling).any(fragment)
                || is_quoted
                    && QUOTED_TELLING <= lower.len()
                    && form.contains(&lower)
                    && !is_public(text.as_bytes())
        })
    }
}

impl Known {
    fn new(fill: Fill) -> Self {
        let value = &fill.value;
        let escaped = [value.escape_debug().to_string(), value.escape_default().to_string()];
        let mut forms = vec![value.to_ascii_lowercase()];
        for form in escaped.map(|form| form.to_ascii_lowercase()) {
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
        Self { fill, forms }
    }

    /// The first place of the value in a text.
    fn find(&self, text: &str) -> Option<(usize, usize)> {
        let lower = text.to_ascii_lowercase();
        let places = self.forms.iter().filter_map(|form| {
            let mut places = lower.match_indices(form.as_str());
            let is_whole =
                |at| QUOTED_TELLING <= form.len() || is_a_word(&lower, at, at + form.len());
            places.find(|(at, _)| is_whole(*at)).map(|(at, _)| (at, at + form.len()))
        });
        places.min()
    }
}

impl<'a> Suspect<'a> {
    fn is_telling(self) -> bool {
        TELLING <= self.known.fill.value.len()
    }

    fn has(self, text: &str) -> bool {
        self.known.fill.value.contains(text)
    }

    fn shows(self, text: &str) -> bool {
        self.known.find(text).is_some()
    }

    fn is_all_of(self, text: &str) -> bool {
        self.known.find(text) == Some((0, text.len()))
    }

    /// Is this how messages cut the value: the beginning of its first line, and `…`?
    fn is_cut_to(self, text: &str) -> bool {
        let first_line = self.known.forms[0].lines().next().unwrap_or_default();
        let is_beginning = |stem: &str| first_line.starts_with(&stem.to_ascii_lowercase());
        text.strip_suffix('…').is_some_and(|stem| !stem.is_empty() && is_beginning(stem))
    }

    /// Parts a text where the value stands in it.
    fn part<'t>(self, mut text: &'t str, pieces: &mut Vec<Piece<'t>>)
    where
        'a: 't,
    {
        while let Some((start, end)) = self.known.find(text) {
            pieces.push(Piece::Kept(&text[..start]));
            pieces.push(Piece::Written(&self.known.fill.written));
            text = &text[end..];
        }
        pieces.push(Piece::Kept(text));
    }
}

/// Does a part of a text stand for itself, as `5` in `5s`, and not as in `15`?
fn is_a_word(text: &str, start: usize, end: usize) -> bool {
    let kind = |letter: Option<char>| match letter {
        Some(letter) if letter.is_ascii_digit() => 1,
        Some(letter) if letter.is_alphanumeric() => 2,
        _ => 0,
    };
    let parts = |one, other| one != other || one == 0;
    let (before, inside, after) = (&text[..start], &text[start..end], &text[end..]);
    parts(kind(before.chars().next_back()), kind(inside.chars().next()))
        && parts(kind(inside.chars().next_back()), kind(after.chars().next()))
}

/// Do two places share a byte, or the place between two?
fn overlap(one: Span, other: Span) -> bool {
    let end = |span: Span| span.end.max(span.start + 1);
    one.start < end(other) && other.start < end(one)
}

impl Debug for Known {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.fill.fmt(f)
    }
}

/// Without the value, so that no log shows it either.
impl Debug for Fill {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fill").field("written", &self.written).finish_non_exhaustive()
    }
}
