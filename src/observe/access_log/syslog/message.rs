//! A message of syslog (RFC 5424, §6): a head that machines read, and the line.

use std::{io::Write, process};

use rustix::system;

use crate::observe::access_log::frame::{Frame, Severity};

/// What stands where there is nothing to say (§6.1).
const NIL: &str = "-";
/// The longest name of a host (§6.1).
const HOST_MAX: usize = 255;

/// What is the same in all messages.
pub(super) struct Messages {
    facility: u8,
    /// ` HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA `
    middle: String,
    size_max: usize,
}

impl Messages {
    /// Messages of this process.
    pub(super) fn new(facility: u8, size_max: usize) -> Self {
        let name = system::uname();
        let host = host(&name.nodename().to_string_lossy());
        let middle = format!(" {host} crestline {} access {NIL} ", process::id());
        Self { facility, middle, size_max }
    }

    /// Makes the message of a line, which is cut off where it is too long; answers whether it was.
    pub(super) fn write(&self, frame: &Frame<'_>, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let severity: u8 = match frame.severity {
            Severity::Error => 3,
            Severity::Warning => 4,
            Severity::Info => 6,
        };
        let nanos = i128::try_from(frame.time.as_nanos()).unwrap_or_default();
        let time = jiff::Timestamp::from_nanosecond(nanos).unwrap_or_default();
        let head = write!(out, "<{}>1 {time:.6}{}", self.facility * 8 + severity, self.middle);
        debug_assert!(head.is_ok(), "memory takes every byte");
        let room = self.size_max.saturating_sub(out.len() - start);
        let line = frame.payload.strip_suffix(b"\n").unwrap_or(frame.payload);
        let shown = cut(line, room);
        out.extend_from_slice(shown);
        shown.len() < line.len()
    }
}

/// So much of a line as there is room for, to the end of a character.
fn cut(line: &[u8], room: usize) -> &[u8] {
    if line.len() <= room {
        return line;
    }
    let is_begun = |at: usize| (line[at] & 0b1100_0000) == 0b1000_0000;
    let end = (room.saturating_sub(3)..=room).rev().find(|end| !is_begun(*end));
    &line[..end.unwrap_or(room)]
}

/// The name of a host, of visible ASCII alone.
fn host(name: &str) -> String {
    let name: String = name.chars().filter(char::is_ascii_graphic).take(HOST_MAX).collect();
    if name.is_empty() { NIL.to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn message(severity: Severity, line: &str, size_max: usize) -> (String, bool) {
        let messages =
            Messages { facility: 16, middle: " host crestline 7 access - ".to_owned(), size_max };
        let mut out = Vec::new();
        let time = Duration::new(1_764_144_000, 123_456_789);
        let is_cut = messages.write(&Frame { severity, time, payload: line.as_bytes() }, &mut out);
        (String::from_utf8(out).unwrap(), is_cut)
    }

    #[test]
    fn a_message_has_all_that_the_rfc_wants() {
        let (text, is_cut) = message(Severity::Info, "a line", 480);
        assert_eq!(text, "<134>1 2025-11-26T08:00:00.123456Z host crestline 7 access - a line");
        assert!(!is_cut);
        assert!(message(Severity::Warning, "", 480).0.starts_with("<132>1 "));
        assert!(message(Severity::Error, "", 480).0.starts_with("<131>1 "));
    }

    #[test]
    fn a_long_line_is_cut_at_the_end_of_a_character() {
        let head = message(Severity::Info, "", 480).0.len();
        for (line, room, shown) in [
            ("aé", 3, "aé"),
            ("aé", 2, "a"),
            ("aé", 1, "a"),
            ("a😀b", 4, "a"),
            ("a😀b", 5, "a😀"),
            ("ab", 0, ""),
        ] {
            let (text, is_cut) = message(Severity::Info, line, head + room);
            assert_eq!((&text[head..], is_cut), (shown, shown != line), "{line} in {room}");
        }
    }

    #[test]
    fn a_host_is_named_in_visible_ascii_or_not_at_all() {
        assert_eq!(host("web-1.test"), "web-1.test");
        assert_eq!((host("a b\u{e9}"), host("")), ("ab".to_owned(), "-".to_owned()));
        assert_eq!(host(&"a".repeat(300)).len(), 255);
    }
}
