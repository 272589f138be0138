//! The byte classes of HTTP/1, as tables.
//!
//! Both guards of this floor ask here, so a trailer line is judged as a field line is.

/// A byte of a token (RFC 9110 §5.6.2): methods and field names.
pub(crate) const TOKEN: u8 = 1;
/// A byte of a field value (RFC 9110 §5.5): visible, SP, HTAB or above ASCII.
pub(crate) const VALUE: u8 = 2;
/// A byte of a request target before its `?`.
pub(crate) const PATH: u8 = 4;
/// A byte of a request target after its `?`.
pub(crate) const QUERY: u8 = 8;

/// Tells whether a byte belongs to a class.
pub(crate) const fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// Counts the bytes of the class at the beginning, one by one: for names and targets.
pub(crate) fn run(bytes: &[u8], class: u8) -> usize {
    bytes.iter().position(|byte| !is(*byte, class)).unwrap_or(bytes.len())
}

/// Counts the bytes at the beginning that a field value may hold, eight at a time.
pub(crate) fn value_run(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let found = controls(u64::from_le_bytes(*word));
        if found != 0 {
            // The table has the last word, because the only control byte allowed is the HTAB.
            let at = i * 8 + found.trailing_zeros() as usize / 8;
            return at + run(&bytes[at..], VALUE);
        }
    }
    words.len() * 8 + run(rest, VALUE)
}

/// Reads decimal digits and nothing else: no sign, no blank, no list, no overflow.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

/// Marks the bytes of a word that are below 0x20 or are 0x7F, in their highest bits.
///
/// A borrow can mark a byte wrongly, but only above one that is marked rightly: the lowest mark is true.
const fn controls(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES * 0x80;
    let del = word ^ (ONES * 0x7F);
    let low = word.wrapping_sub(ONES * 0x20) & !word;
    let zero = del.wrapping_sub(ONES) & !del;
    (low | zero) & HIGH
}

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0u8;
    loop {
        classes[byte as usize] = classes_of(byte);
        if byte == u8::MAX {
            break;
        }
        byte += 1;
    }
    classes
};

const fn classes_of(byte: u8) -> u8 {
    let token = byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-')
        || matches!(byte, b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
    let value = matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    // What browsers leave unescaped passes: `"`, `^`, `{`, `|`, `}` in a path, and the backslash
    // and the backtick in a query as well (WHATWG URL §1.3). Those that they escape are also those
    // that the `http` crate refuses when Pingora builds its `Uri`, without saying why. httparse
    // alone would take every byte from 0x21 on.
    let target = byte.is_ascii_graphic() && !matches!(byte, b'#' | b'<' | b'>');
    let path = target && !matches!(byte, b'?' | b'\\' | b'`');
    let query = target && byte != b'"';
    (token as u8 * TOKEN) | (value as u8 * VALUE) | (path as u8 * PATH) | (query as u8 * QUERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_at_a_time_agrees_with_one_by_one() {
        for odd in 0..=u8::MAX {
            for length in 0..40 {
                for at in 0..length {
                    let mut bytes = [b'v'; 40];
                    bytes[at] = odd;
                    let bytes = &bytes[..length];
                    assert_eq!(value_run(bytes), run(bytes, VALUE), "{odd:#04x} at {at}");
                }
            }
        }
    }

    #[test]
    fn neighbours_do_not_hide_each_other() {
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                let bytes = [b'v', first, second, b'v', b'v', second, first, b'v'];
                assert_eq!(value_run(&bytes), run(&bytes, VALUE), "{bytes:?}");
            }
        }
    }
}
