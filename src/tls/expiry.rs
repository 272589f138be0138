//! What comes to an end while the process runs, and when that is told.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// From here on it is told that a certificate expires.
pub(super) const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// A moment in seconds since 1970, as certificates tell it.
pub(super) fn at(seconds: i64) -> SystemTime {
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    SystemTime::UNIX_EPOCH.checked_add(seconds).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The day of a moment, as people write it.
pub(super) fn day(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let at = jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or(i64::MAX));
    at.unwrap_or(jiff::Timestamp::MAX).strftime("%Y-%m-%d").to_string()
}

/// Whole days from one moment to another; negative if that is past.
pub(super) fn days(from: SystemTime, to: SystemTime) -> i64 {
    let whole = |span: Duration| i64::try_from(span.as_secs() / DAY.as_secs()).unwrap_or(i64::MAX);
    match to.duration_since(from) {
        Ok(left) => whole(left),
        Err(past) => -whole(past.duration()) - 1,
    }
}

/// Something that an operator is told once a day for as long as it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reminder {
    /// What it is about; the same every day.
    pub about: String,
    /// What is told.
    pub message: String,
    /// Not before; what is told when a file is read is not repeated on that day.
    from: SystemTime,
}

impl Reminder {
    /// A reminder of what is true from `since` on, of something that was `read` at a time, when it
    /// was told if it was true already.
    pub(super) fn new(about: String, message: String, since: SystemTime, read: SystemTime) -> Self {
        let from = if since <= read { read + DAY } else { since };
        Self { about, message, from }
    }
}

/// Remembers when what was told.
#[derive(Debug, Default)]
pub struct Reminders {
    told: HashMap<String, SystemTime>,
}

impl Reminders {
    /// What is to be told now, of all that could be; each at most once a day.
    pub fn due(&mut self, all: Vec<Reminder>, now: SystemTime) -> Vec<String> {
        self.told.retain(|about, _| all.iter().any(|reminder| reminder.about == *about));
        let mut due = Vec::new();
        for Reminder { about, message, from } in all {
            let next = self.told.get(&about).map_or(from, |told| *told + DAY);
            if next <= now {
                self.told.insert(about, now);
                due.push(message);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;
    const HOUR: Duration = Duration::from_secs(60 * 60);

    fn reminder(about: &str, since: u32, read: u32) -> Reminder {
        let (since, read) = (START + since * HOUR, START + read * HOUR);
        Reminder::new(about.to_owned(), format!("{about} ends"), since, read)
    }

    /// The hours at which something is told that is looked at every hour for so many days.
    fn hours(since: u32, read: u32, days: u32) -> Vec<u32> {
        let mut reminders = Reminders::default();
        let told = |hour: &u32| {
            let twice = vec![reminder("a", since, read), reminder("a", since, read)];
            reminders.due(twice, START + *hour * HOUR) == ["a ends"]
        };
        (read..days * 24).filter(told).collect()
    }

    #[test]
    fn a_line_a_day_is_told_from_the_moment_on_or_a_day_after_it_was_read() {
        assert_eq!(hours(30, 0, 4), [30, 54, 78]);
        assert_eq!(hours(0, 5, 4), [29, 53, 77], "it was told when it was read");
        assert_eq!(hours(1_000, 0, 4), [0; 0]);
    }

    #[test]
    fn what_is_renewed_is_told_no_more_and_others_are() {
        let mut reminders = Reminders::default();
        let (old, new, other) = (reminder("a", 10, 0), reminder("a", 90, 0), reminder("b", 0, 0));
        let mut due = |all: &[&Reminder], hour: u32| {
            reminders.due(all.iter().map(|one| (*one).clone()).collect(), START + hour * HOUR)
        };
        assert_eq!(due(&[&old, &other], 24), ["a ends", "b ends"]);
        assert_eq!(due(&[&other], 30), [""; 0]);
        assert_eq!(due(&[&new, &other], 49), ["b ends"]);
        assert_eq!(due(&[&new, &other], 90), ["a ends", "b ends"]);
    }

    #[test]
    fn days_are_whole_ones() {
        let days = |hours: u32| days(START + 48 * HOUR, START + hours * HOUR);
        assert_eq!([days(72), days(71), days(48), days(47), days(23)], [1, 0, 0, -1, -2]);
        assert_eq!(day(START + 25 * HOUR), "1970-01-02");
    }
}
