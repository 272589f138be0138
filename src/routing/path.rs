//! The one form of a request's path (RFC 3986 §6.2.2).
//!
//! Rules are matched against this form and the origin gets this form, so that no spelling of a
//! path walks around a rule: dot segments are gone, unreserved characters are decoded, and what
//! stays encoded has upper-case digits, because `%2f` and `%2F` are one path (§6.2.2.1) and a
//! rule or a cache must not see two.
//!
//! INVARIANT: nothing here splits or joins segments: `%2F` and `%5C` stay encoded, `//` stays two
//! slashes, and `;` is a character like any other.

use crate::reason::Reason;

use thiserror::Error;

/// A path in its one form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Canonical<'a> {
    /// It was in that form already, as nearly all are: nothing was allocated.
    AsIs(&'a str),
    /// It had to be rewritten.
    Rewritten(String),
}

impl Canonical<'_> {
    /// The canonical path.
    pub fn as_str(&self) -> &str {
        match self {
            Self::AsIs(path) => path,
            Self::Rewritten(path) => path,
        }
    }
}

/// Why a path has no canonical form; the answer is `400`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("the path does not begin with a slash")]
    NotRooted,
    /// Its dot segments lead out of the root.
    #[error("the path climbs above the root")]
    AboveRoot,
    /// It holds a backslash, which some origins take for a slash.
    #[error("the path holds a backslash")]
    Backslash,
    /// It holds `%00`, where some origins end it.
    #[error("the path holds an encoded NUL")]
    Nul,
    /// It holds a `#`, behind which some origins read nothing.
    #[error("the path holds a fragment")]
    Fragment,
    /// A `%` is not followed by two hexadecimal digits.
    #[error("the path holds a broken escape")]
    BrokenEscape,
    /// It holds a byte that no URI holds there: a control, a space, a `?`, or one above ASCII.
    #[error("the path holds an illegal byte")]
    IllegalByte,
}

impl PathError {
    /// The reason for logs and metrics.
    pub fn reason(self) -> Reason {
        match self {
            Self::NotRooted => Reason::PathNotRooted,
            Self::AboveRoot => Reason::PathAboveRoot,
            Self::Backslash => Reason::PathBackslash,
            Self::Nul => Reason::PathNul,
            Self::Fragment => Reason::PathFragment,
            Self::BrokenEscape => Reason::PathBrokenEscape,
            Self::IllegalByte => Reason::PathIllegalByte,
        }
    }
}

/// Brings a path, without its query, into its one form.
///
/// `*`, the target of `OPTIONS` for the whole server, is its own form.
pub fn canonicalize(path: &str) -> Result<Canonical<'_>, PathError> {
    let bytes = path.as_bytes();
    match bytes {
        b"*" => Ok(Canonical::AsIs(path)),
        [b'/', ..] => match first_change(bytes)? {
            None => Ok(Canonical::AsIs(path)),
            Some(segment) => rewrite(path, segment).map(Canonical::Rewritten),
        },
        _ => Err(PathError::NotRooted),
    }
}

/// Checks a query, which is forwarded untouched: visible ASCII without `#`, broken escapes or not.
///
/// HTTP/1 heads have been vetted for this; it is for the targets of HTTP/2.
pub fn check_query(query: &str) -> Result<(), PathError> {
    match query.bytes().find(|byte| !byte.is_ascii_graphic() || *byte == b'#') {
        None => Ok(()),
        Some(b'#') => Err(PathError::Fragment),
        Some(_) => Err(PathError::IllegalByte),
    }
}

/// Finds where the first segment begins that is not in canonical form.
fn first_change(path: &[u8]) -> Result<Option<usize>, PathError> {
    let mut segment = 1;
    let mut at = 1;
    loop {
        at += path[at..].iter().position(|byte| !is_plain(*byte)).unwrap_or(path.len() - at);
        match path.get(at) {
            None | Some(b'/') if is_dots(&path[segment..at]) => return Ok(Some(segment)),
            None => return Ok(None),
            Some(b'/') => {
                at += 1;
                segment = at;
            }
            Some(b'%') => {
                let byte = decode(&path[at..])?;
                if is_unreserved(byte) || path[at + 1..at + 3] != encode(byte) {
                    return Ok(Some(segment));
                }
                at += 3;
            }
            Some(byte) => return Err(refuse(*byte)),
        }
    }
}

/// Rewrites a path that is canonical up to a segment (RFC 3986 §5.2.4 in one pass).
#[cold]
fn rewrite(path: &str, segment: usize) -> Result<String, PathError> {
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(path.len());
    out.push_str(&path[..segment]);
    // Where the segment under way begins in `out`, right behind a slash.
    let mut segment = segment;
    let mut at = segment;
    loop {
        match bytes.get(at) {
            None => {
                remove_dots(&mut out, segment)?;
                return Ok(out);
            }
            Some(b'/') => {
                if !remove_dots(&mut out, segment)? {
                    out.push('/');
                }
                segment = out.len();
                at += 1;
            }
            Some(b'%') => {
                let byte = decode(&bytes[at..])?;
                if is_unreserved(byte) {
                    out.push(char::from(byte));
                } else {
                    out.push('%');
                    out.extend(encode(byte).map(char::from));
                }
                at += 3;
            }
            Some(&byte) if is_plain(byte) => {
                out.push(char::from(byte));
                at += 1;
            }
            Some(&byte) => return Err(refuse(byte)),
        }
    }
}

/// Takes the last segment away if it is `.`, and the one before it as well if it is `..`.
///
/// What stays ends in a slash then.
fn remove_dots(out: &mut String, segment: usize) -> Result<bool, PathError> {
    match &out[segment..] {
        "." => out.truncate(segment),
        ".." if segment == 1 => return Err(PathError::AboveRoot),
        ".." => {
            let parent = out[..segment - 1].rfind('/').map_or(0, |slash| slash + 1);
            out.truncate(parent);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn is_dots(segment: &[u8]) -> bool {
    matches!(segment, b"." | b"..")
}

/// Reads the escape at the beginning.
fn decode(bytes: &[u8]) -> Result<u8, PathError> {
    match bytes {
        [b'%', high, low, ..] => match digit(*high)? << 4 | digit(*low)? {
            0 => Err(PathError::Nul),
            byte => Ok(byte),
        },
        _ => Err(PathError::BrokenEscape),
    }
}

fn digit(byte: u8) -> Result<u8, PathError> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(PathError::BrokenEscape),
    }
}

fn encode(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

/// Tells whether a byte means the same encoded or not (RFC 3986 §2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Tells whether a byte stands for itself, inside of a segment.
fn is_plain(byte: u8) -> bool {
    PLAIN[usize::from(byte)]
}

const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        plain[byte as usize] = !matches!(byte, b'/' | b'%' | b'\\' | b'#' | b'?');
        byte += 1;
    }
    plain
};

fn refuse(byte: u8) -> PathError {
    match byte {
        b'\\' => PathError::Backslash,
        b'#' => PathError::Fragment,
        _ => PathError::IllegalByte,
    }
}

#[cfg(test)]
mod tests;
