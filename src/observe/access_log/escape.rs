//! Values in words that cannot end a line, fake a field, or move a terminal's cursor.

use std::{io::Write, net::IpAddr, time::Duration};

/// Appends a number.
pub(super) fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a number of so many digits at least.
pub(super) fn padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value);
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(digits.len())));
    out.extend_from_slice(digits.as_bytes());
}

/// Appends milliseconds with three decimals.
pub(super) fn millis(out: &mut Vec<u8>, value: Duration) {
    let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    number(out, micros / 1_000);
    out.push(b'.');
    padded(out, micros % 1_000, 3);
}

/// Appends the address of a client.
pub(super) fn client(out: &mut Vec<u8>, client: Option<IpAddr>) {
    match client {
        Some(IpAddr::V4(address)) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                out.extend_from_slice(if index == 0 { b"" } else { b"." });
                number(out, u64::from(octet));
            }
        }
        Some(IpAddr::V6(address)) => {
            let written = write!(out, "{address}");
            debug_assert!(written.is_ok(), "memory takes every byte");
        }
        None => out.extend_from_slice(b"unix"),
    }
}

/// Appends the inside of a text in quotes, as JSON has it.
pub(super) fn json(out: &mut Vec<u8>, value: &[u8]) {
    if is_plain(value) {
        out.extend_from_slice(value);
    } else {
        escape_json(out, value);
    }
}

/// Whether nothing has to be escaped. It looks at all bytes, so that many are looked at at once.
fn is_plain(value: &[u8]) -> bool {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    value.iter().fold(true, |all, byte| all & is_plain(byte))
}

/// Bytes that are no UTF-8 are shown as U+FFFD: JSON cannot hold them. All control characters are
/// escaped, those of C1 as well, which JSON would allow and some terminals obey.
fn escape_json(out: &mut Vec<u8>, value: &[u8]) {
    for letter in String::from_utf8_lossy(value).chars() {
        let written = match letter {
            '"' | '\\' => write!(out, "\\{letter}"),
            letter if letter.is_control() => write!(out, "\\u{:04x}", u32::from(letter)),
            letter => write!(out, "{letter}"),
        };
        debug_assert!(written.is_ok(), "memory takes every byte");
    }
}

/// As nginx escapes: quotes, backslashes, and all that is not visible ASCII become `\xHH`.
pub(super) fn hex(out: &mut Vec<u8>, value: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value {
        if matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\') {
            out.push(*byte);
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            out.extend_from_slice(&[b'\\', b'x', HEX[high], HEX[low]]);
        }
    }
}
