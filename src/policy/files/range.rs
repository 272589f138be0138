//! Which part of a file is wanted (RFC 9110 §14).

use http::{
    HeaderMap,
    header::{IF_RANGE, RANGE},
};

use crate::policy::files::root::Entry;

/// A part, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    /// From one byte to another, both included.
    Part {
        first: u64,
        last: u64,
    },
    /// A part that there is not: `416`.
    Nothing,
}

/// Reads one range of bytes. Several, other units, and what is no range, are ignored (§14.2), and
/// so are all if the file is another one than the client has a part of (`If-Range`, §13.1.5).
pub(super) fn wanted(headers: &HeaderMap, entry: &Entry) -> Wanted {
    let Some(range) = headers.get(RANGE).and_then(|range| range.to_str().ok()) else {
        return Wanted::Whole;
    };
    if let Some(condition) = headers.get(IF_RANGE) {
        let is_same = condition == entry.tag || condition == entry.modified;
        if !is_same {
            return Wanted::Whole;
        }
    }
    part(range, entry.length).unwrap_or(Wanted::Whole)
}

fn part(range: &str, length: u64) -> Option<Wanted> {
    let (unit, range) = range.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || last.contains(',') {
        return None;
    }
    let number = |text: &str| {
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_plain.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let (first, last) = match (first.is_empty(), last.is_empty()) {
        (true, false) => match number(last)? {
            0 => return Some(Wanted::Nothing),
            count => (length.saturating_sub(count), length.checked_sub(1)),
        },
        (false, true) => (number(first)?, length.checked_sub(1)),
        (false, false) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            (first, length.checked_sub(1).map(|end| last.min(end)))
        }
        (true, true) => return None,
    };
    Some(match last {
        Some(last) if first <= last => Wanted::Part { first, last },
        _ => Wanted::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_within_the_file() {
        let of = |range: &str| part(range, 100);
        let is = |first, last| Some(Wanted::Part { first, last });
        assert_eq!(of("bytes=0-9"), is(0, 9));
        assert_eq!(of("bytes=90-"), is(90, 99));
        assert_eq!(of("bytes=90-1000"), is(90, 99));
        assert_eq!(of("bytes=-5"), is(95, 99));
        assert_eq!(of("bytes=-500"), is(0, 99));
        assert_eq!(of("Bytes= 0-0"), is(0, 0));
        assert_eq!(of("bytes=100-"), Some(Wanted::Nothing));
        assert_eq!(of("bytes=99999999999999999999999-"), Some(Wanted::Nothing));
        assert_eq!(of("bytes=-0"), Some(Wanted::Nothing));
        assert_eq!(part("bytes=0-", 0), Some(Wanted::Nothing));
        for ignored in ["bytes=5-4", "bytes=0-1,5-6", "lines=0-1", "bytes=a-b", "bytes=-", "bytes"]
        {
            assert_eq!(of(ignored), None, "{ignored}");
        }
    }
}
