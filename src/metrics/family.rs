//! What a metric is called, what it says, and what its labels are.

/// What becomes of the values of a metric over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They only grow, until the process ends.
    Counter,
    /// They go up and down.
    Gauge,
    /// So many durations up to each of [`super::BOUNDS`], and their sum.
    Histogram,
}

impl Kind {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// All samples of one name, told apart by `L` labels.
///
/// A `const` beside the code that owns the values.
#[derive(Clone, Copy, Debug)]
pub struct Family<const L: usize> {
    pub(super) description: Description,
    pub(super) labels: [&'static str; L],
}

/// A family without its samples, for the manual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its name: `crestline_<noun>_<unit>`, in base units; with `_total` at the end of a counter.
    pub name: &'static str,
    /// What becomes of its values.
    pub kind: Kind,
    /// What it says, in one sentence without a full stop.
    pub help: &'static str,
}

impl<const L: usize> Family<L> {
    /// A family of counters, whose name ends in `_total`.
    pub const fn counter(
        name: &'static str,
        help: &'static str,
        labels: [&'static str; L],
    ) -> Self {
        Self { description: Description { name, kind: Kind::Counter, help }, labels }
    }

    /// A family of gauges.
    pub const fn gauge(name: &'static str, help: &'static str, labels: [&'static str; L]) -> Self {
        Self { description: Description { name, kind: Kind::Gauge, help }, labels }
    }

    /// A family of histograms of durations, whose name ends in `_seconds`.
    pub const fn durations(
        name: &'static str,
        help: &'static str,
        labels: [&'static str; L],
    ) -> Self {
        Self { description: Description { name, kind: Kind::Histogram, help }, labels }
    }
}
