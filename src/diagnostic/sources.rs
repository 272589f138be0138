//! The texts that places refer to: files one after another in one space of bytes.
//!
//! As in a compiler's source map, a [`Span`] alone says which file it is in, and places of
//! several files can be put in order: the file that was added first stands first.

use std::fmt::{self, Display, Formatter};
use std::ops::Range;
use std::sync::Arc;

use memchr::memmem;

use super::Span;

/// The files of one configuration. Cloning shares the texts.
///
/// INVARIANT: in order of their first bytes, with a gap of one byte between two, so that the
/// end of a text is not the beginning of the next. Byte 0 is in none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    files: Vec<Arc<Source>>,
}

/// One text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// What it is called, usually its path.
    pub(super) name: String,
    /// The text itself.
    pub(super) text: String,
    start: usize,
}

/// The line that a problem shows.
pub(super) struct Excerpt<'a> {
    /// With its line break.
    pub(super) text: &'a str,
    /// Its number, from 1.
    pub(super) line: usize,
    /// The bytes of it that are pointed at.
    pub(super) carets: Range<usize>,
}

/// A place as people write it: `conf/crestline.yaml:41:17`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The name of the file.
    pub name: &'a str,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
}

impl Sources {
    /// The place of the first byte of the first file.
    pub const FIRST: usize = 1;

    /// The sources of a configuration that is one text.
    pub fn of(name: impl Into<String>, text: impl Into<String>) -> Self {
        let mut sources = Self::default();
        sources.add(name, text);
        sources
    }

    /// Adds a text after all others, and answers where its first byte is.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> usize {
        let start = self.files.last().map_or(Self::FIRST, |last| last.end() + 1);
        self.files.push(Arc::new(Source { name: name.into(), text: text.into(), start }));
        start
    }

    /// Finds the place where a span begins; `None` if that is in no file.
    pub fn place(&self, span: Span) -> Option<Place<'_>> {
        let source = self.at(span)?;
        let Excerpt { text, line, carets } = source.excerpt(span);
        let column = text[..carets.start].chars().count() + 1;
        Some(Place { name: &source.name, line, column })
    }

    /// The text that begins at a byte which [`Sources::add`] answered.
    pub fn text(&self, start: usize) -> &str {
        self.at(Span { start, end: start }).map_or("", |source| &source.text)
    }

    /// All texts in their order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|source| source.text.as_str())
    }

    /// Are both in the same file?
    pub fn share_a_file(&self, one: Span, other: Span) -> bool {
        self.index(one) == self.index(other)
    }

    /// Does this stand in any of the texts?
    pub(super) fn contain(&self, text: &[u8]) -> bool {
        let finder = memmem::Finder::new(text);
        self.files.iter().any(|source| finder.find(source.text.as_bytes()).is_some())
    }

    /// The file that was added first, which stands for the whole.
    pub(super) fn first(&self) -> Option<&Source> {
        self.files.first().map(AsRef::as_ref)
    }

    /// The file in which a span begins.
    pub(super) fn at(&self, span: Span) -> Option<&Source> {
        self.index(span).map(|index| self.files[index].as_ref())
    }

    fn index(&self, span: Span) -> Option<usize> {
        let after = self.files.partition_point(|source| source.start <= span.start);
        let index = after.checked_sub(1)?;
        (span.start <= self.files[index].end()).then_some(index)
    }
}

impl Source {
    /// Cuts a span to its first line, where the carets go, and the text to that line.
    pub(super) fn excerpt(&self, span: Span) -> Excerpt<'_> {
        let start = self.boundary(span.start);
        let end = self.boundary(span.end).max(start);
        let (before, behind) = self.text.split_at(start);
        let first = before.rfind('\n').map_or(0, |newline| newline + 1);
        let last = behind.find('\n').map_or(self.text.len(), |newline| start + newline + 1);
        let pointed_at = self.text[start..end].lines().next().map_or(0, |it| it.trim_end().len());
        Excerpt {
            text: &self.text[first..last],
            line: memchr::memchr_iter(b'\n', before.as_bytes()).count() + 1,
            carets: start - first..start - first + pointed_at,
        }
    }

    /// The byte after the last.
    fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Makes a place one in the text, at the start of a character.
    fn boundary(&self, place: usize) -> usize {
        let mut offset = place.saturating_sub(self.start).min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

impl Place<'_> {
    /// Writes the place without its column, for a sentence: `conf.d/a.yaml:3`.
    pub fn to_line(&self) -> String {
        format!("{}:{}", self.name, self.line)
    }
}

impl Display for Place<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.name, self.line, self.column)
    }
}
