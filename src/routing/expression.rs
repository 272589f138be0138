//! Regular expressions that a route names: searched in linear time, of bounded size.
//!
//! One is known by its text: two of the same text are equal. It is searched for in bytes, since a
//! field may hold any, and anywhere in them unless `^` and `$` say otherwise.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::{
    ParserBuilder,
    hir::{Hir, HirKind, Literal, Look},
};

/// What one may take when it is compiled.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// A regular expression.
#[derive(Clone)]
pub struct Expression(Arc<Parts>);

struct Parts {
    text: String,
    beginning: Option<Beginning>,
    regex: Regex,
    /// One for each thread, made when it first asks: a regex keeps its working memory in a pool,
    /// which takes a lock for all threads but the first.
    copies: Box<[OnceLock<Regex>]>,
}

/// How every text begins that an expression matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// These letters.
    pub text: String,
    /// Whether they are all that there is.
    pub is_whole: bool,
}

/// Why a text is no expression that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// There is nothing.
    #[error("there is no regular expression behind the `~`\nhelp: write one: `~ ^/v[0-9]+/`")]
    Empty,
    /// It is misspelt, or asks for what cannot be had in linear time.
    #[error("`{0}` is no regular expression: {1}\nhelp: {2}")]
    Syntax(String, String, String),
    /// It takes too much memory.
    #[error(
        "`{0}` is too large: compiled, it takes more than 1 MiB\nhelp: count to less in `{{…}}`, and write `[0-9]` for `\\d` and `[0-9A-Za-z_]` for `\\w`"
    )]
    TooLarge(String),
}

impl FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        if text.is_empty() {
            return Err(ExpressionError::Empty);
        }
        let syntax = ParserBuilder::new().utf8(false).build().parse(text);
        let syntax = syntax.map_err(|error| misspelt(text, &error))?;
        let regex = RegexBuilder::new(text).size_limit(COMPILED_BYTES_MAX).build();
        // Its syntax is right, so that its size is all that can be wrong.
        let regex = regex.map_err(|_| ExpressionError::TooLarge(text.to_owned()))?;
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self(Arc::new(Parts {
            text: text.to_owned(),
            beginning: beginning(&syntax),
            regex,
            copies: (0..threads).map(|_| OnceLock::new()).collect(),
        })))
    }
}

/// Says in words what is wrong, and where.
fn misspelt(text: &str, error: &regex_syntax::Error) -> ExpressionError {
    let (why, span) = match error {
        regex_syntax::Error::Parse(error) => (error.kind().to_string(), *error.span()),
        regex_syntax::Error::Translate(error) => (error.kind().to_string(), *error.span()),
        error => {
            let help = "write it shorter".to_owned();
            return ExpressionError::Syntax(text.to_owned(), error.to_string(), help);
        }
    };
    let is_slow = why.starts_with("look-around") || why.starts_with("backreferences");
    let next = match text.get(span.start.offset..).unwrap_or_default() {
        rest if is_slow => format!("do without `{rest}`: it could not be searched in linear time"),
        "" => "mend its end".to_owned(),
        rest => format!("mend it at `{rest}`; a sign that stands for itself has a `\\` before it"),
    };
    ExpressionError::Syntax(text.to_owned(), why, next)
}

/// Finds the letters between `^` and the first thing that is no letter.
fn beginning(syntax: &Hir) -> Option<Beginning> {
    let HirKind::Concat(parts) = syntax.kind() else { return None };
    let [start, letters, rest @ ..] = parts.as_slice() else { return None };
    let is_anchor = |part: &Hir, look| matches!(part.kind(), HirKind::Look(it) if *it == look);
    match letters.kind() {
        HirKind::Literal(Literal(bytes)) if is_anchor(start, Look::Start) => Some(Beginning {
            text: String::from_utf8_lossy(bytes).into_owned(),
            is_whole: matches!(rest, [end] if is_anchor(end, Look::End)),
        }),
        _ => None,
    }
}

impl Expression {
    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// How every text begins that it matches; `None` if that is left open.
    pub fn beginning(&self) -> Option<&Beginning> {
        self.0.beginning.as_ref()
    }

    /// Whether it is found in a text.
    pub fn is_match(&self, text: &[u8]) -> bool {
        let parts = &*self.0;
        let copy = &parts.copies[seat() % parts.copies.len()];
        copy.get_or_init(|| parts.regex.clone()).is_match(text)
    }
}

/// The number of this thread, among those that have ever searched.
fn seat() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SEAT: usize = NEXT.fetch_add(1, Relaxed);
    }
    SEAT.with(|seat| *seat)
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Expression {}

impl PartialOrd for Expression {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Expression {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Expression {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(text: &str) -> Expression {
        text.parse().unwrap()
    }

    #[test]
    fn an_expression_is_found_anywhere_unless_it_is_anchored() {
        assert!(expression("v[0-9]+").is_match(b"/api/v12"));
        assert!(!expression("^v[0-9]+").is_match(b"/api/v12"));
        assert!(expression("^.$").is_match("ä".as_bytes()), "letters, not bytes");
        assert!(expression("b$").is_match(b"\xFFb"), "bytes that are no text");
    }

    #[test]
    fn a_mistake_is_told_in_words_and_with_its_place() {
        for (text, why, place) in [
            ("^/v[0-9+/", "unclosed character class", "`[0-9+/`"),
            ("(/a", "unclosed group", "`(/a`"),
            ("a)", "unopened group", "`)`"),
            ("*a", "repetition operator missing expression", "`*a`"),
            ("a(?=b)", "look-around, including look-ahead and look-behind, is not supported", ""),
            (r"(a)\1", "backreferences are not supported", r"`\1`"),
            (r"\p{Nope}", "Unicode property not found", r"`\p{Nope}`"),
        ] {
            let told = text.parse::<Expression>().unwrap_err().to_string();
            assert!(told.contains(why), "{told}");
            assert!(told.split_once("\nhelp: ").unwrap().1.contains(place), "{told}");
        }
        assert_eq!("".parse::<Expression>().unwrap_err(), ExpressionError::Empty);
    }

    #[test]
    fn a_size_has_a_bound() {
        let error = r"\w{500}".parse::<Expression>().unwrap_err();
        assert_eq!(error, ExpressionError::TooLarge(r"\w{500}".to_owned()));
    }

    #[test]
    fn the_letters_after_the_anchor_are_the_beginning() {
        let known = |text: &str| {
            let beginning = expression(text).beginning().cloned();
            beginning.map(|Beginning { text, is_whole }| (text, is_whole))
        };
        let some = |text: &str, is_whole| Some((text.to_owned(), is_whole));
        assert_eq!(known("^/v[0-9]+/"), some("/v", false));
        assert_eq!(known("^/a/b$"), some("/a/b", true));
        assert_eq!(known(r"^/a\.b?"), some("/a.", false));
        assert_eq!(known("^/a|/b"), None);
        assert_eq!(known("/a"), None);
        assert_eq!(known("^(?i)/a"), some("/", false));
        assert_eq!(known("^/a*"), some("/", false));
    }

    #[test]
    fn many_threads_search_at_once() {
        let expression = expression("^/v[0-9]+/");
        thread::scope(|scope| {
            for number in 0..32 {
                let expression = &expression;
                scope.spawn(move || {
                    assert!(expression.is_match(format!("/v{number}/x").as_bytes()));
                    assert!(!expression.is_match(b"/w"));
                });
            }
        });
    }
}
