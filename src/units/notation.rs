//! A number and its unit: what all quantities share.

use std::fmt::{self, Formatter};

use thiserror::Error;

/// Why a text is not the quantity that was wanted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    /// The text does not begin with a number.
    #[error("`{text}` is not {wanted}\nhelp: write {example}")]
    NotANumber {
        /// The text as written.
        text: String,
        /// What was wanted, with its article.
        wanted: &'static str,
        /// Right texts to imitate.
        example: &'static str,
    },
    /// The number has a fraction.
    #[error("`{text}` is not a whole number\nhelp: use a smaller unit, or round it")]
    Fraction {
        /// The text as written.
        text: String,
    },
    /// The number stands alone.
    #[error("`{text}` has no unit: write {}", hints(text, units))]
    NoUnit {
        /// The text as written.
        text: String,
        /// The units most likely meant.
        units: &'static [&'static str],
    },
    /// The unit is none of ours.
    #[error("`{text}` has an unknown unit `{unit}`\nhelp: {help}")]
    UnknownUnit {
        /// The text as written.
        text: String,
        /// The part of it that is not known.
        unit: String,
        /// The unit to write instead.
        help: String,
    },
    /// The value does not fit.
    #[error("`{text}` is out of range: {range}")]
    OutOfRange {
        /// The text as written.
        text: String,
        /// The values that do fit.
        range: &'static str,
    },
}

/// How one kind of quantity is written.
pub(super) struct Notation {
    pub(super) wanted: &'static str,
    pub(super) example: &'static str,
    pub(super) range: &'static str,
    /// The units to offer when none was written.
    pub(super) likely: &'static [&'static str],
    /// Every unit and its size, from small to large.
    pub(super) units: &'static [(&'static str, u64)],
}

impl Notation {
    /// Reads a text as a number of the smallest units.
    pub(super) fn total(&self, text: &str) -> Result<u64, UnitError> {
        let (number, _, size) = self.split(text)?;
        number.checked_mul(size).ok_or_else(|| self.out_of_range(text))
    }

    /// What such a text looks like, as a regular expression for schemas.
    pub(super) fn pattern(&self) -> String {
        let units: Vec<_> = self.units.iter().map(|(name, _)| *name).collect();
        format!("^[0-9]+({})$", units.join("|"))
    }

    /// Takes a text apart: its number, its unit, and the size of that unit.
    pub(super) fn split(&self, text: &str) -> Result<(u64, &'static str, u64), UnitError> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let text = text.to_owned();
        if number.is_empty() {
            return Err(UnitError::NotANumber { text, wanted: self.wanted, example: self.example });
        }
        if unit.is_empty() {
            return Err(UnitError::NoUnit { text, units: self.likely });
        }
        if unit.starts_with('.') {
            return Err(UnitError::Fraction { text });
        }
        let Some(&(name, size)) = self.units.iter().find(|(name, _)| *name == unit) else {
            let unit = unit.to_owned();
            let help = self.help(number, &unit);
            return Err(UnitError::UnknownUnit { text, unit, help });
        };
        number.parse().map(|number| (number, name, size)).map_err(|_| self.out_of_range(&text))
    }

    /// Prints a number of the smallest units in the largest unit that divides it.
    pub(super) fn print(&self, f: &mut Formatter<'_>, total: u128) -> fmt::Result {
        let divides = |size: u64| total != 0 && total.is_multiple_of(size.into());
        let (name, size) =
            self.units.iter().rev().find(|(_, size)| divides(*size)).unwrap_or(&self.units[0]);
        write!(f, "{}{name}", total / u128::from(*size))
    }

    /// Names the unit that was probably meant, or else all of them.
    fn help(&self, number: &str, unit: &str) -> String {
        let same = self.units.iter().find(|(name, _)| stem(name) == stem(unit));
        same.map_or_else(
            || {
                let names: Vec<_> = self.units.iter().map(|(name, _)| *name).collect();
                format!("write one number and one of: {}", names.join(", "))
            },
            |(name, _)| format!("write `{number}{name}`"),
        )
    }

    pub(super) fn out_of_range(&self, text: &str) -> UnitError {
        UnitError::OutOfRange { text: text.to_owned(), range: self.range }
    }
}

/// What `KiB`, `KB`, `kb` and `K` have in common: `k`.
fn stem(unit: &str) -> String {
    let lower = unit.trim().to_ascii_lowercase();
    lower.trim_end_matches('b').trim_end_matches('i').to_owned()
}

fn hints(number: &str, units: &[&str]) -> String {
    let texts: Vec<_> = units.iter().map(|unit| format!("`{number}{unit}`")).collect();
    texts.join(" or ")
}
