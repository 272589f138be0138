//! The time of a line.

use std::{cell::RefCell, time::SystemTime};

use crate::observe::access_log::escape::padded;

/// The form of a time.
#[derive(Clone, Copy)]
pub(super) enum Stamp {
    /// `2026-11-22T18:03:51.042Z`
    Iso,
    /// `22/Nov/2026:18:03:51 +0000`
    Apache,
}

/// The text of a second is made once for each thread and second.
struct Second {
    unix: u64,
    iso: String,
    apache: String,
}

thread_local!(static SECOND: RefCell<Second> = const {
    RefCell::new(Second { unix: 0, iso: String::new(), apache: String::new() })
});

impl Stamp {
    /// Appends the time that it is.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        SECOND.with_borrow_mut(|second| {
            if second.unix != now.as_secs() || second.iso.is_empty() {
                *second = Second::new(now.as_secs());
            }
            match self {
                Self::Apache => out.extend_from_slice(second.apache.as_bytes()),
                Self::Iso => {
                    out.extend_from_slice(second.iso.as_bytes());
                    out.push(b'.');
                    padded(out, u64::from(now.subsec_millis()), 3);
                    out.push(b'Z');
                }
            }
        });
    }
}

impl Second {
    fn new(unix: u64) -> Self {
        let seconds = i64::try_from(unix).unwrap_or(i64::MAX);
        let at = jiff::Timestamp::from_second(seconds).unwrap_or_default();
        Self {
            unix,
            iso: at.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
            apache: at.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
        }
    }
}
