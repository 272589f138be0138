//! What the YAML parser stumbles over, in an operator's words.

use serde_saphyr::granit_parser::{ErrorKind, ScanError};

use crate::diagnostic::{Problem, Span};

/// Says what is wrong with a text, and what was usually meant; `first` is the place of its
/// first byte.
pub(super) fn syntax_problem(error: &ScanError, text: &str, first: usize) -> Problem {
    let mut start = error.marker().byte_offset().unwrap_or_default().min(text.len());
    if is_about_a_tab(error.kind()) {
        // The parser stands at the value before the tab, or just after it.
        let line = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        start = text[line..].find('\t').map_or(start, |tab| line + tab);
    }
    if let Some(length) = bare_variable(text, start) {
        let place = Span { start: first + start - 1, end: first + start + length };
        let written = &text[start - 1..start + length];
        return Problem::error(format!("`{written}` must be in quotes between brackets or braces"))
            .at(place)
            .help("a number needs a line of its own, since quotes make it a text");
    }
    describe(error.kind()).at(Span { start: first + start, end: first + start })
}

/// The length of the braces of a `${…}` that the parser took for a mapping.
fn bare_variable(text: &str, start: usize) -> Option<usize> {
    let (before, after) = text.split_at_checked(start)?;
    let line = after.lines().next()?;
    (before.ends_with('$') && line.starts_with('{')).then(|| line.find('}').map(|end| end + 1))?
}

fn is_about_a_tab(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabAtBlockScalarStart
            | ErrorKind::TabInIndentation
            | ErrorKind::TabInPlainScalar
    )
}

fn describe(kind: &ErrorKind) -> Problem {
    match kind {
        kind if is_about_a_tab(kind) => {
            Problem::error("a tab cannot indent").help("YAML indents with spaces")
        }
        ErrorKind::UnknownAnchor => {
            Problem::error("the alias repeats a value that is not defined above")
                .help("a text that begins with `*` must be in quotes")
        }
        ErrorKind::MissingAnchorOrAliasName => {
            Problem::error("this sign begins an alias or anchor")
                .help("a text that begins with `*` or `&` must be in quotes")
        }
        ErrorKind::ExpectedFlowMappingSeparator | ErrorKind::ExpectedFlowSequenceSeparator => {
            Problem::error("a comma or the end of the brackets is missing here")
                .help("a text that holds a bracket or a comma must be in quotes")
        }
        ErrorKind::UnexpectedCharacter { character } => {
            let shown = character.escape_default();
            Problem::error(format!("a plain text cannot begin with `{shown}`"))
                .help("put the text in quotes")
        }
        ErrorKind::MappingValueNotAllowed => Problem::error("a key cannot stand here")
            .help("check the indentation; a text that holds `: ` must be in quotes"),
        ErrorKind::InvalidColonPlacement => Problem::error("a key cannot stand here")
            .help("is a bracket or a quote above not closed?"),
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::ExpectedBlockSequenceEntry => {
            Problem::error("this line is indented like nothing above it")
                .help("indent it as far as the line that it continues")
        }
        ErrorKind::InvalidTrailingSingleQuotedScalar
        | ErrorKind::InvalidTrailingDoubleQuotedScalar => {
            Problem::error("nothing may follow a quoted text").help("put the whole text in quotes")
        }
        ErrorKind::UnknownQuotedScalarEscape => Problem::error("unknown escape in a quoted text")
            .help("in single quotes a backslash stands for itself"),
        ErrorKind::UnclosedFlowCollection { open } => {
            Problem::error(format!("this `{open}` is never closed"))
        }
        ErrorKind::UnclosedQuotedScalar => Problem::error("this quote is never closed"),
        ErrorKind::MisplacedFlowCollectionEnd => Problem::error("this bracket closes nothing"),
        kind => Problem::error(format!("not valid YAML: {kind}")),
    }
}
