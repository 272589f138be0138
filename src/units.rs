//! Quantities as the operator writes them: `250ms`, `64KiB`, `20%`, `100/s`.
//!
//! Each type parses from its text, prints back the same value, and reads from YAML.
//! A number without its unit is refused, so that no file can mean milliseconds where
//! we read seconds.
//!
//! A message of [`UnitError`] may hold a second line, `help: …`: the configuration
//! reader shows it as the help line of the problem.

mod notation;

use std::fmt::{self, Display, Formatter};
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time;

use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use self::notation::Notation;
pub use self::notation::UnitError;

/// A span of time, written with `us`, `ms`, `s`, `m`, `h` or `d`.
///
/// Its text is exact to the microsecond; what is finer is not printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String", example = &"5s", extend("pattern" = DURATION.pattern()))]
pub struct Duration(pub time::Duration);

/// A number of bytes, written with `B`, `KiB`, `MiB` or `GiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String", example = &"64KiB", extend("pattern" = BYTE_SIZE.pattern()))]
pub struct ByteSize(pub u64);

/// A whole percentage from `0%` to `100%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String", example = &"50%", extend("pattern" = "^0*(100|[0-9]{1,2})%$"))]
pub struct Percent(u8);

/// So many events in each period, such as `100/s` or `10/m`; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(with = "String", example = &"100/s", extend("pattern" = RATE.pattern()))]
pub struct Rate {
    /// The events allowed in one period.
    pub count: NonZeroU32,
    /// The period after which the count begins anew.
    pub per: Period,
}

/// The period of a [`Rate`]: `s`, `m` or `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// One second, `s`.
    Second,
    /// Sixty seconds, `m`.
    Minute,
    /// Sixty minutes, `h`.
    Hour,
}

const DURATION: Notation = Notation {
    wanted: "a duration",
    example: "a number and a unit, such as `250ms` or `5s`",
    range: "at most about 500000 years",
    likely: &["s", "ms"],
    units: &[
        ("us", 1),
        ("ms", 1_000),
        ("s", 1_000_000),
        ("m", 60_000_000),
        ("h", 3_600_000_000),
        ("d", 86_400_000_000),
    ],
};

const BYTE_SIZE: Notation = Notation {
    wanted: "a size",
    example: "a number and a unit, such as `64KiB`",
    range: "at most 16 EiB",
    likely: &["KiB", "B"],
    units: &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)],
};

const PERCENT: Notation = Notation {
    wanted: "a percentage",
    example: "a number from 0 to 100 and `%`, such as `20%`",
    range: "0% to 100%",
    likely: &["%"],
    units: &[("%", 1)],
};

const RATE: Notation = Notation {
    wanted: "a rate",
    example: "a number and a period, such as `100/s` or `10/m`",
    range: "1 to 4294967295 in each period",
    likely: &["/s", "/m"],
    units: &[("/s", 1), ("/m", 60), ("/h", 3_600)],
};

/// What the text of a quantity looks like that is not zero; for schemas, beside [`positive`].
pub const POSITIVE: &str = "[1-9]";

/// Reads a duration that must not be zero; for `deserialize_with`.
pub fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    longer_than_zero(Duration::deserialize(deserializer)?)
}

/// Refuses a time of zero.
pub fn longer_than_zero<E: Error>(duration: Duration) -> Result<Duration, E> {
    if duration.is_zero() {
        return Err(E::custom(format!(
            "`{duration}` is no time: it must be longer than zero\nhelp: write a time such as `5s`"
        )));
    }
    Ok(duration)
}

/// Reads a time that must be longer than zero, where there may be none.
pub fn lasting<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    positive(deserializer).map(Some)
}

/// Reads a number that must lie in a range.
pub fn in_range<'de, D, T>(deserializer: D, range: RangeInclusive<T>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + PartialOrd + Display,
{
    let number = T::deserialize(deserializer)?;
    if range.contains(&number) {
        return Ok(number);
    }
    let (first, last) = range.into_inner();
    Err(D::Error::custom(format!("`{number}` is out of range: {first} to {last}")))
}

impl Duration {
    /// The empty span of time.
    pub const ZERO: Self = Self(time::Duration::ZERO);

    /// Makes a duration of so many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(time::Duration::from_millis(millis))
    }

    /// Makes a duration of so many seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(time::Duration::from_secs(secs))
    }

    /// Is this no time at all?
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl ByteSize {
    /// Makes a size of so many KiB; a constant that does not fit fails to compile.
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib * (1 << 10))
    }

    /// Makes a size of so many MiB; a constant that does not fit fails to compile.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib * (1 << 20))
    }
}

impl Percent {
    /// Makes a percentage; a constant over 100 fails to compile.
    pub const fn new(percent: u8) -> Self {
        assert!(percent <= 100, "a percentage is at most 100");
        Self(percent)
    }

    /// Answers the number before the `%`, 0 to 100.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Answers the percentage as a part of one, 0.0 to 1.0.
    pub fn as_fraction(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl Rate {
    /// Makes a rate per second; a constant of zero fails to compile.
    pub const fn per_second(count: u32) -> Self {
        Self { count: NonZeroU32::new(count).expect("a rate is not zero"), per: Period::Second }
    }

    /// Makes a rate per minute; a constant of zero fails to compile.
    pub const fn per_minute(count: u32) -> Self {
        Self { count: NonZeroU32::new(count).expect("a rate is not zero"), per: Period::Minute }
    }

    /// Answers the average number of events in one second.
    pub fn events_per_second(self) -> f64 {
        f64::from(self.count.get()) / self.per.duration().as_secs_f64()
    }
}

impl Period {
    /// Answers how long the period lasts.
    pub const fn duration(self) -> time::Duration {
        match self {
            Self::Second => time::Duration::from_secs(1),
            Self::Minute => time::Duration::from_secs(60),
            Self::Hour => time::Duration::from_secs(3_600),
        }
    }
}

impl FromStr for Duration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        DURATION.total(text).map(|micros| Self(time::Duration::from_micros(micros)))
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        BYTE_SIZE.total(text).map(Self)
    }
}

impl FromStr for Percent {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let percent = PERCENT.total(text)?;
        let fits = u8::try_from(percent).ok().filter(|percent| *percent <= 100);
        fits.map(Self).ok_or_else(|| PERCENT.out_of_range(text))
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit, _) = RATE.split(text)?;
        let count = u32::try_from(number).ok().and_then(NonZeroU32::new);
        let per = match unit {
            "/s" => Period::Second,
            "/m" => Period::Minute,
            _ => Period::Hour,
        };
        count.map(|count| Self { count, per }).ok_or_else(|| RATE.out_of_range(text))
    }
}

impl Display for Duration {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.as_micros() {
            0 => f.write_str("0s"),
            micros => DURATION.print(f, micros),
        }
    }
}

impl Display for ByteSize {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        BYTE_SIZE.print(f, self.0.into())
    }
}

impl Display for Percent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl Display for Rate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let period = match self.per {
            Period::Second => "s",
            Period::Minute => "m",
            Period::Hour => "h",
        };
        write!(f, "{}/{period}", self.count)
    }
}

/// Reads a quantity from its text; a plain number arrives here as text, too.
struct Text<T>(&'static Notation, PhantomData<T>);

impl<T: FromStr<Err = UnitError>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.wanted)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! deserialize {
    ($($type:ty = $notation:ident,)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text(&$notation, PhantomData))
            }
        }
    )*};
}

deserialize! {
    Duration = DURATION,
    ByteSize = BYTE_SIZE,
    Percent = PERCENT,
    Rate = RATE,
}

#[cfg(test)]
mod tests;
