//! The orders to remove answers, beside the answers on the disk, so that they hold after a start.
//!
//! A line of JSON for each, forced to the disk before whoever ordered is told that it is done.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    cache::orders::{KNOWN_MAX, Known, Order},
    folder,
};

/// It is written anew when it has so many lines.
const LINES_MAX: usize = 2 * KNOWN_MAX;

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// The time of the last order that is not known any more.
    Forgotten(u64),
    /// An order.
    Order(Order),
}

/// The file.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    lines: usize,
}

impl Journal {
    /// What the file of an earlier process tells; nothing if there is none.
    ///
    /// # Errors
    /// If it cannot be read, or is no such file. A last line that was cut off was told to nobody.
    pub(super) fn read(path: &Path) -> io::Result<Known> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(why) if why.kind() == ErrorKind::NotFound => return Ok(Known::default()),
            Err(why) => return Err(why),
        };
        let mut known = Known::default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            match serde_json::from_str(line)? {
                Line::Forgotten(at) => known.forgotten = known.forgotten.max(at),
                Line::Order(order) => known.orders.push_back(order),
            }
        }
        Ok(known)
    }

    /// Begins the file anew with what is known.
    ///
    /// # Errors
    /// If it cannot be written; then what was there stays.
    pub(super) fn begin(path: PathBuf, known: &Known) -> io::Result<Self> {
        let mut text = line(&Line::Forgotten(known.forgotten))?;
        for order in &known.orders {
            text.extend(line(&Line::Order(order.clone()))?);
        }
        let file = folder::replace(&path, &text)?;
        Ok(Self { path, file, lines: known.orders.len() + 1 })
    }

    /// Adds an order; `all` are written anew if there are too many.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn add(&mut self, order: &Order, all: impl FnOnce() -> Known) -> io::Result<()> {
        if LINES_MAX <= self.lines {
            *self = Self::begin(self.path.clone(), &all())?;
            return Ok(());
        }
        self.file.write_all(&line(&Line::Order(order.clone()))?)?;
        self.file.sync_data()?;
        self.lines += 1;
        Ok(())
    }
}

fn line(line: &Line) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;
    use crate::cache::Purge;

    fn order(at: u64) -> Order {
        Order { at, purge: Purge { tag: Some(format!("t{at}")), ..Purge::default() } }
    }

    #[test]
    fn what_was_written_is_read_again_but_for_a_line_that_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("purges");
        assert!(Journal::read(&path).unwrap().orders.is_empty());
        let known = Known { orders: [order(5)].into(), forgotten: 3 };
        let mut journal = Journal::begin(path.clone(), &known).unwrap();
        journal.add(&order(7), Known::default).unwrap();
        drop(journal);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"order\":{\"at\":9").unwrap();
        let known = Journal::read(&path).unwrap();
        assert_eq!((known.forgotten, known.orders), (3, [order(5), order(7)].into()));
    }

    #[test]
    fn a_file_that_is_no_such_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("purges");
        fs::write(&path, "what\n").unwrap();
        assert!(Journal::read(&path).is_err());
    }

    #[test]
    fn a_long_file_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("purges");
        let mut journal = Journal::begin(path.clone(), &Known::default()).unwrap();
        journal.lines = LINES_MAX;
        let all = || Known { orders: [order(8), order(9)].into(), forgotten: 7 };
        journal.add(&order(9), all).unwrap();
        assert_eq!(Journal::read(&path).unwrap().orders.len(), 2);
        journal.add(&order(10), all).unwrap();
        assert_eq!(Journal::read(&path).unwrap().orders.len(), 3);
    }
}
