//! Rows 53 to 55 of the fault table, then the properties against a slow reference.

use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Takes a path that must change, or must not if both are equal.
#[track_caller]
fn becomes(path: &str, canonical: &str) {
    let expected = if path == canonical {
        Canonical::AsIs(path)
    } else {
        Canonical::Rewritten(canonical.to_owned())
    };
    assert_eq!(canonicalize(path), Ok(expected), "{path}");
}

#[test]
fn an_ordinary_path_stays_where_it_is() {
    for path in [
        "/",
        "//",
        "/a",
        "/a/",
        "/a/b.html",
        "/.well-known/acme",
        "/..a/...",
        "/a./b..",
        "/a..",
        "/a%2Fb%5Cc%20d%25",
        "/~u/-_.!$&'()*+,;=:@",
        "/[a]{b}|^`\"<>",
        "*",
    ] {
        becomes(path, path);
    }
}

// Row 53.
#[test]
fn dot_segments_are_removed() {
    for (path, canonical) in [
        ("/a/../b", "/b"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/.%2E/b", "/b"),
        ("//a//b", "//a//b"),
        ("/a;x/../b", "/b"),
        ("/a/..;x/b", "/a/..;x/b"),
        ("/.", "/"),
        ("/./", "/"),
        ("/%2e", "/"),
        ("/a/.", "/a/"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/b/../..", "/"),
        ("/a/b/../../c/./d", "/c/d"),
        ("/a//../b", "/a/b"),
        ("//..", "/"),
        ("//../a", "/a"),
        ("/a/b/c/./../../g", "/a/g"),
    ] {
        becomes(path, canonical);
    }
}

// Row 54.
#[test]
fn a_path_that_climbs_above_the_root_is_refused() {
    for path in ["/..", "/../", "/../../etc/passwd", "/a/../..", "/a/../../a", "/%2e%2e", "/./.."] {
        assert_eq!(canonicalize(path), Err(PathError::AboveRoot), "{path}");
    }
}

// Row 55.
#[test]
fn encoded_slashes_stay_encoded_and_do_not_split_segments() {
    becomes("/%2f..%2f", "/%2F..%2F");
    becomes("/a%2f../b", "/a%2F../b");
    becomes("/a%5c..%5cb", "/a%5C..%5Cb");
    becomes("/..%2F..%2Fetc", "/..%2F..%2Fetc");
}

// Row 55.
#[test]
fn a_path_with_a_backslash_a_nul_a_fragment_or_a_broken_escape_is_refused() {
    for (path, error) in [
        ("/\\..\\", PathError::Backslash),
        ("/%00", PathError::Nul),
        ("/a%00.html", PathError::Nul),
        ("/%zz", PathError::BrokenEscape),
        ("/%", PathError::BrokenEscape),
        ("/%4", PathError::BrokenEscape),
        ("/%%41", PathError::BrokenEscape),
        ("/%+1", PathError::BrokenEscape),
        ("/#frag", PathError::Fragment),
        ("/a?b", PathError::IllegalByte),
        ("/a b", PathError::IllegalByte),
        ("/a\tb", PathError::IllegalByte),
        ("/ä", PathError::IllegalByte),
        ("", PathError::NotRooted),
        ("a/b", PathError::NotRooted),
        ("**", PathError::NotRooted),
    ] {
        assert_eq!(canonicalize(path), Err(error), "{path:?}");
        if path.starts_with('/') {
            let rewritten = format!("/%41{path}");
            assert_eq!(canonicalize(&rewritten), Err(error), "{rewritten:?}");
        }
    }
}

#[test]
fn unreserved_characters_are_decoded_once_and_digits_are_upper_case() {
    becomes("/%41%7e%2D%5f%39", "/A~-_9");
    becomes("/%c3%a4%3a%2b", "/%C3%A4%3A%2B");
    becomes("/%252e%252e/a", "/%252e%252e/a");
    becomes("/%2541", "/%2541");
    becomes("/%25%34%31", "/%2541");
}

#[test]
fn every_error_has_a_word_of_its_own() {
    use PathError::{AboveRoot, Backslash, BrokenEscape, Fragment, IllegalByte, NotRooted, Nul};
    let all = [NotRooted, AboveRoot, Backslash, Nul, Fragment, BrokenEscape, IllegalByte];
    for (i, error) in all.iter().enumerate() {
        assert!(error.reason().as_str().starts_with("path_"));
        assert!(all[..i].iter().all(|other| other.reason() != error.reason()));
    }
}

#[test]
fn a_query_may_hold_broken_escapes_but_no_illegal_bytes() {
    assert_eq!(check_query("a=%zz&b=/../%00\\[]{}|?"), Ok(()));
    assert_eq!(check_query("a#b"), Err(PathError::Fragment));
    for query in ["a b", "a\r\nb", "ä", "\x7F"] {
        assert_eq!(check_query(query), Err(PathError::IllegalByte), "{query:?}");
    }
}

/// Decodes everything first, then splits, then walks the segments.
fn reference(path: &str) -> Option<String> {
    let legal = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\#?".contains(&byte));
    let mut pieces = path.split('%');
    let mut decoded = pieces.next()?.to_owned();
    for piece in pieces {
        let byte = u8::from_str_radix(piece.get(..2)?.trim_start_matches('+'), 16).ok()?;
        if piece.as_bytes()[0] == b'+' || byte == 0 {
            return None;
        }
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            decoded.push(char::from(byte));
        } else {
            let _ = write!(decoded, "%{byte:02X}");
        }
        decoded.push_str(&piece[2..]);
    }
    let segments: Vec<_> = decoded.strip_prefix('/')?.split('/').collect();
    let mut kept = Vec::new();
    for (i, segment) in segments.iter().enumerate() {
        let is_last = i + 1 == segments.len();
        match *segment {
            ".." if kept.pop().is_none() => return None,
            "." | ".." if is_last => kept.push(""),
            "." | ".." => {}
            segment => kept.push(segment),
        }
    }
    legal.then(|| format!("/{}", kept.join("/")))
}

fn paths() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        30 => prop::sample::select(vec![
            "/", "/", "/", ".", "..", "/..", "/.", "a", "%2e", "%2E", "%2f", "%5C", "%41", "%7e", "%c3", "%25",
            ";x", "bc",
        ]),
        1 => prop::sample::select(vec!["%", "%0", "%00", "\\", "#", "?", " ", "ä", "%zz", "%+4", "\0"]),
    ];
    vec(piece, 0..16).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn it_agrees_with_a_slow_reference(path in paths()) {
        let canonical = canonicalize(&path).ok().map(|canonical| canonical.as_str().to_owned());
        prop_assert_eq!(canonical, reference(&path));
    }

    #[test]
    fn the_canonical_form_is_its_own_and_has_no_dot_segments(path in paths()) {
        let Ok(canonical) = canonicalize(&path) else { return Ok(()) };
        let text = canonical.as_str();
        prop_assert_eq!(canonicalize(text), Ok(Canonical::AsIs(text)));
        prop_assert!(text.split('/').all(|segment| segment != "." && segment != ".."));
        prop_assert_eq!(matches!(canonical, Canonical::AsIs(_)), text == path);
    }

    #[test]
    fn no_text_makes_it_panic(path in "\\PC{0,40}") {
        let _ = canonicalize(&path);
        let _ = canonicalize(&format!("/{path}"));
    }
}
