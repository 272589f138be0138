//! From text to tree.
//!
//! The parser's events are gathered recursively. Depth and the size of what aliases copy
//! are bounded, so that no text of a few lines can fill the memory or the stack. Of YAML's
//! rarer features, tags, merge keys, keys that are not words and further documents are
//! refused: each has a plainer way to write the same thing.
//!
//! Values are filled in here ([`Filling`]), because an event still knows whether its text
//! was in quotes, and because what an alias copies is counted when it is filled in already.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{
    Event, Parser, ScalarStyle, Span as EventSpan, StrInput, options,
};

use super::fill::Filling;
use super::node::{Entry, Node, Value};
use super::syntax::syntax_problem;
use crate::diagnostic::{Problem, Sources, Span};

/// Lists and mappings may lie this deep in one another.
const DEPTH_MAX: usize = 64;

/// Anchors and aliases together may copy this many values and bytes of text.
const COPIED_MAX: usize = 1 << 18;

/// Parses a text that is a configuration of its own; nothing is filled in.
pub fn parse(text: &str) -> Result<Node, Problem> {
    parse_file(text, Sources::FIRST, None)
}

/// Parses a text that holds at most one document; an empty one is [`Value::Null`].
///
/// `start` is the place of its first byte among the [`Sources`]. Values that cannot be
/// filled in are told to `filling`, and stand in the tree as [`Value::Unfilled`].
pub fn parse_file(
    text: &str,
    start: usize,
    filling: Option<&mut Filling<'_>>,
) -> Result<Node, Problem> {
    let options = options! { emit_comments: false };
    let events = Parser::new_from_str_with_options(text, options);
    let anchors = HashMap::new();
    Tree { text, start, events, filling, anchors, copied: 0, visible: start }.document()
}

struct Tree<'t, 'f, 'v> {
    text: &'t str,
    /// The place of the first byte.
    start: usize,
    events: Parser<'t, StrInput<'t>>,
    /// Absent where nothing is filled in, as in keys.
    filling: Option<&'f mut Filling<'v>>,
    /// Every anchored node that is complete.
    anchors: HashMap<usize, Node>,
    /// The weight of all copies made for aliases.
    copied: usize,
    /// The end of the last visible character taken.
    visible: usize,
}

impl<'t> Tree<'t, '_, '_> {
    fn document(mut self) -> Result<Node, Problem> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(..) if root.is_some() => {
                    return Err(Problem::error("a second document begins here")
                        .at(span)
                        .help("one file holds one document: remove the `---`"));
                }
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => root = Some(self.node(event, span, 0)?),
            }
        }
        let beginning = Span { start: self.start, end: self.start };
        Ok(root.unwrap_or_else(|| Node::plain(beginning, String::new())))
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Problem> {
        let end = self.start + self.text.len();
        let Some(next) = self.events.next_event() else {
            return Ok((Event::StreamEnd, Span { start: end, end }));
        };
        let (event, span) = next.map_err(|error| syntax_problem(&error, self.text, self.start))?;
        if let Some(tag) = event.tag() {
            let place = self.bytes(span.tag_span().unwrap_or(span));
            let tag = tag.original();
            let help = match tag.as_ref() {
                "!" => "a text that begins with `!` must be in quotes",
                _ => "remove it; a text that looks like a number can stand in quotes",
            };
            let problem = Problem::error(format!("the tag `{tag}` is not supported"));
            return Err(problem.at(place).help(help));
        }
        let span = self.bytes(span);
        if span.start < span.end {
            self.visible = span.end;
        }
        Ok((event, span))
    }

    /// Reads one node, of which the first event has been taken.
    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Problem> {
        if DEPTH_MAX < depth {
            return Err(too_deep(span));
        }
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                (self.scalar(text.into_owned(), style, span), anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.sequence(span, depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.mapping(span, depth)?, anchor),
            Event::Alias(target) => (self.repeat(target, span, depth)?, 0),
            _ => return Err(Problem::error("expected a value").at(span)),
        };
        if anchor != 0 {
            let copy = self.copy(&node, span)?;
            self.anchors.insert(anchor, copy);
        }
        Ok(node)
    }

    fn sequence(&mut self, start: Span, depth: usize) -> Result<Node, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, end) => {
                    let span = self.around(start, end);
                    return Ok(Node { span, value: Value::Sequence(items), raw: None });
                }
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, start: Span, depth: usize) -> Result<Node, Problem> {
        let mut entries = Vec::new();
        let mut first_places = HashMap::new();
        loop {
            let (event, key_span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                let span = self.around(start, key_span);
                return Ok(Node { span, value: Value::Mapping(entries), raw: None });
            }
            let key = self.key(event, key_span, depth)?;
            if let Some(first) = first_places.insert(key.clone(), key_span) {
                let line = self.text[..first.start - self.start].matches('\n').count() + 1;
                return Err(Problem::error(format!("the key `{key}` is written twice"))
                    .at(key_span)
                    .label(format!("first written on line {line}")));
            }
            let (event, span) = self.next()?;
            let mut value = self.node(event, span, depth + 1)?;
            if span.start == span.end && matches!(value.value, Value::Null) {
                value.span = key_span;
            }
            entries.push(Entry { key, key_span, value });
        }
    }

    fn key(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<String, Problem> {
        if &self.text[span.start - self.start..span.end - self.start] == "<<" {
            return Err(Problem::error("merge keys (`<<`) are not supported")
                .at(span)
                .help("write the keys out, or share a whole value with an alias"));
        }
        let filling = self.filling.take();
        let node = self.node(event, span, depth + 1);
        self.filling = filling;
        let node = node?;
        self.check_key(&node, span)?;
        match node.text().or(node.raw.as_deref()) {
            Some(key) if !key.is_empty() => Ok(key.to_owned()),
            _ => Err(Problem::error("expected a word as key")
                .at(span)
                .help("a text that begins with `{`, `[` or `:` must be in quotes")),
        }
    }

    /// Refuses a key that looks as if it were filled in, and one that is, by an alias.
    fn check_key(&mut self, key: &Node, span: Span) -> Result<(), Problem> {
        let Some(filling) = &mut self.filling else { return Ok(()) };
        let problem =
            || Problem::error("a key cannot be filled in").at(span).help("write the key out");
        if filling.has_filled(key.span) || key.value == Value::Unfilled {
            return Err(problem());
        }
        if key.text().is_some_and(|text| text.contains("${")) {
            filling.tell(problem());
        }
        Ok(())
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, span: Span) -> Node {
        let is_plain = matches!(style, ScalarStyle::Plain);
        // The parser writes `~` for a value that is absent.
        let text = if is_plain && span.start == span.end { String::new() } else { text };
        let text = match &mut self.filling {
            Some(filling) => filling.fill(text, span),
            None => Some(text),
        };
        match text {
            None => Node { span, value: Value::Unfilled, raw: None },
            Some(text) if is_plain => Node::plain(span, text),
            Some(text) => Node { span, value: Value::String(text), raw: None },
        }
    }

    /// Answers the value that an alias stands for.
    fn repeat(&mut self, target: usize, span: Span, depth: usize) -> Result<Node, Problem> {
        let Some(node) = self.anchors.remove(&target) else {
            return Err(
                Problem::error("the alias stands inside the value that it repeats").at(span)
            );
        };
        if DEPTH_MAX < depth + measure(&node).1 {
            return Err(too_deep(span));
        }
        let copy = self.copy(&node, span);
        self.anchors.insert(target, node);
        copy
    }

    /// Copies a node for an anchor or an alias, within the bound for all copies.
    fn copy(&mut self, node: &Node, span: Span) -> Result<Node, Problem> {
        self.copied += measure(node).0;
        if COPIED_MAX < self.copied {
            return Err(Problem::error("the aliases repeat too much")
                .at(span)
                .label(format!("beyond {COPIED_MAX} values and bytes of text in all")));
        }
        Ok(node.clone())
    }

    /// The bytes of a list or mapping; in block style, up to its last visible character.
    fn around(&self, start: Span, end: Span) -> Span {
        let is_flow = start.start < start.end;
        Span {
            start: start.start,
            end: if is_flow { end.end } else { self.visible.max(start.start) },
        }
    }

    /// The place of an event, without the line breaks that end a block scalar.
    fn bytes(&self, span: EventSpan) -> Span {
        let range = span.byte_range().unwrap_or_default();
        let visible = self.text.get(range.clone()).unwrap_or_default().trim_end().len();
        let start = self.start + range.start;
        Span { start, end: start + visible }
    }
}

/// Counts the values and bytes of a tree, and its levels.
fn measure(node: &Node) -> (usize, usize) {
    match &node.value {
        Value::Sequence(items) => total(items.iter().map(measure)),
        Value::Mapping(entries) => total(entries.iter().map(|entry| {
            let (weight, height) = measure(&entry.value);
            (weight + entry.key.len(), height)
        })),
        _ => (1 + node.text().map_or(0, str::len), 0),
    }
}

fn total(parts: impl Iterator<Item = (usize, usize)>) -> (usize, usize) {
    parts.fold((1, 0), |whole, part| (whole.0 + part.0, whole.1.max(part.1 + 1)))
}

fn too_deep(span: Span) -> Problem {
    Problem::error(format!("more than {DEPTH_MAX} lists and mappings in one another")).at(span)
}
