//! A page of metrics, in Prometheus' text format 0.0.4 or as `OpenMetrics` 1.0.
//!
//! The two differ in little: `OpenMetrics` names a counter's family without `_total`, escapes
//! quotes in help, and ends with a word of its own.

use std::fmt::Write as _;

use crate::metrics::{
    durations::{BOUNDS, Reading},
    exemplar::Exemplars,
    family::{Description, Family, Kind},
};

/// How a page is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Prometheus' text format 0.0.4.
    #[default]
    Prometheus,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

impl Form {
    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The form that an `Accept` field asks for: `OpenMetrics` where it is named with at least the
    /// weight of plain text. Prometheus itself names both.
    pub fn asked_for(accept: &str) -> Self {
        let weight = |wanted: &[&str]| {
            let ranges = accept.split(',').filter_map(|range| {
                let mut words = range.split(';').map(str::trim);
                let media = words.next()?;
                if !wanted.iter().any(|wanted| media.eq_ignore_ascii_case(wanted)) {
                    return None;
                }
                let version = words.clone().find_map(|word| word.strip_prefix("version="));
                if version.is_some_and(|version| !["0.0.1", "1.0.0", "0.0.4"].contains(&version)) {
                    return None;
                }
                let weight = words.find_map(|word| word.strip_prefix("q="));
                Some(weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
            });
            ranges.fold(0.0, f64::max)
        };
        let open = weight(&["application/openmetrics-text"]);
        if 0.0 < open && weight(&["text/plain", "text/*", "*/*"]) <= open {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }
}

/// A number on a page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A whole one.
    Whole(u64),
    /// Another one.
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Whole(value.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

/// A page that is being written.
#[derive(Debug, Default)]
pub struct Page {
    form: Form,
    text: String,
    described: Vec<(Description, Vec<&'static str>)>,
    /// The labels of the sample at hand, written once.
    labels: String,
}

/// The samples of one family, to be added to its page.
#[derive(Debug)]
pub struct Samples<'a, const L: usize> {
    page: &'a mut Page,
    family: &'a Family<L>,
}

impl Page {
    /// A page with nothing on it.
    pub fn new(form: Form) -> Self {
        Self { form, ..Self::default() }
    }

    /// Begins a family: once on a page, and also if there is nothing to tell, so that the manual
    /// knows of it.
    pub fn family<'a, const L: usize>(&'a mut self, family: &'a Family<L>) -> Samples<'a, L> {
        let Family { description, labels } = family;
        let Description { name, kind, help } = *description;
        debug_assert!(self.described.iter().all(|(known, _)| known.name != name), "{name} twice");
        self.described.push((*description, labels.to_vec()));
        let named = match (self.form, kind) {
            (Form::OpenMetrics, Kind::Counter) => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let is_quoted = self.form == Form::OpenMetrics;
        self.text.extend(["# HELP ", named, " "]);
        escape(&mut self.text, help, is_quoted);
        self.text.extend(["\n# TYPE ", named, " ", kind.as_str(), "\n"]);
        Samples { page: self, family }
    }

    /// The families on it, with their labels, in their order.
    pub fn described(&self) -> &[(Description, Vec<&'static str>)] {
        &self.described
    }

    /// The whole page.
    pub fn finish(mut self) -> String {
        if self.form == Form::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

impl<const L: usize> Samples<'_, L> {
    /// Adds the value of a counter or a gauge.
    pub fn add(&mut self, labels: [&str; L], value: impl Into<Value>) {
        debug_assert_ne!(self.family.description.kind, Kind::Histogram);
        self.with(labels);
        let Page { text, labels, .. } = &mut *self.page;
        text.push_str(self.family.description.name);
        if !labels.is_empty() {
            text.extend(["{", labels, "}"]);
        }
        end(text, value.into());
    }

    /// Adds a histogram.
    pub fn durations(&mut self, labels: [&str; L], read: &Reading) {
        self.durations_with(labels, read, None);
    }

    /// The same, with exemplars where the form has them: `OpenMetrics` alone does.
    pub fn durations_with(
        &mut self,
        labels: [&str; L],
        read: &Reading,
        exemplars: Option<&Exemplars>,
    ) {
        debug_assert_eq!(self.family.description.kind, Kind::Histogram);
        self.with(labels);
        let Page { form, text, labels, .. } = &mut *self.page;
        let exemplars = exemplars.filter(|_| *form == Form::OpenMetrics);
        let exemplars = exemplars.map(Exemplars::read).unwrap_or_default();
        let name = self.family.description.name;
        let (before, open, close) = if labels.is_empty() { ("", "", "") } else { (",", "{", "}") };
        let mut count = 0;
        let bounds = BOUNDS.iter().map(|(_, bound)| *bound).chain(["+Inf"]);
        for ((bound, more), exemplar) in bounds.zip(read.buckets).zip(exemplars) {
            count += more;
            text.extend([name, "_bucket{", labels, before, "le=\"", bound, "\"} "]);
            text.push_str(itoa::Buffer::new().format(count));
            if let Some(exemplar) = exemplar {
                exemplar.write(text);
            }
            text.push('\n');
        }
        text.extend([name, "_sum", open, labels, close]);
        end(text, read.sum.as_secs_f64().into());
        text.extend([name, "_count", open, labels, close]);
        end(text, count.into());
    }

    /// Writes the labels of the sample at hand.
    fn with(&mut self, values: [&str; L]) {
        let labels = &mut self.page.labels;
        labels.clear();
        for (name, value) in self.family.labels.iter().zip(values) {
            if !labels.is_empty() {
                labels.push(',');
            }
            labels.extend([name, "=\""]);
            escape(labels, value, true);
            labels.push('"');
        }
    }
}

fn end(text: &mut String, value: Value) {
    text.push(' ');
    match value {
        Value::Whole(value) => text.push_str(itoa::Buffer::new().format(value)),
        Value::Real(value) => {
            let written = write!(text, "{value}");
            debug_assert!(written.is_ok(), "memory takes every number");
        }
    }
    text.push('\n');
}

/// Backslashes, line feeds and, if asked for, quotes.
pub(super) fn escape(text: &mut String, value: &str, quotes: bool) {
    let special = |letter: &char| matches!(letter, '\\' | '\n') || (quotes && *letter == '"');
    if !value.chars().any(|letter| special(&letter)) {
        return text.push_str(value);
    }
    for letter in value.chars() {
        match letter {
            '\n' => text.push_str("\\n"),
            letter if special(&letter) => text.extend(['\\', letter]),
            letter => text.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Durations;

    const APPLES: Family<1> = Family::counter("apples_total", "All \"apples\" \\ eaten", ["kind"]);
    const HEAT: Family<0> = Family::gauge("heat_celsius", "How hot it is", []);
    const NAPS: Family<1> = Family::durations("nap_seconds", "How long cats sleep", ["cat"]);

    fn page(form: Form) -> String {
        let mut page = Page::new(form);
        let mut apples = page.family(&APPLES);
        apples.add(["red"], 3u64);
        apples.add(["a\"b\\c\nd"], 0u64);
        page.family(&HEAT).add([], 36.5);
        let naps = Durations::<1>::default();
        naps.record(0, Duration::from_millis(7));
        naps.record(0, Duration::from_secs(90));
        page.family(&NAPS).durations(["Tom"], &naps.read(0));
        page.finish()
    }

    #[test]
    fn prometheus_reads_it() {
        let page = page(Form::Prometheus);
        let lines: Vec<_> = page.lines().collect();
        assert_eq!(
            lines[..6],
            [
                "# HELP apples_total All \"apples\" \\\\ eaten",
                "# TYPE apples_total counter",
                "apples_total{kind=\"red\"} 3",
                "apples_total{kind=\"a\\\"b\\\\c\\nd\"} 0",
                "# HELP heat_celsius How hot it is",
                "# TYPE heat_celsius gauge",
            ]
        );
        assert_eq!(lines[6], "heat_celsius 36.5");
        assert!(lines.contains(&"nap_seconds_bucket{cat=\"Tom\",le=\"0.005\"} 0"));
        assert!(lines.contains(&"nap_seconds_bucket{cat=\"Tom\",le=\"0.01\"} 1"));
        let last = [
            "nap_seconds_bucket{cat=\"Tom\",le=\"60.0\"} 1",
            "nap_seconds_bucket{cat=\"Tom\",le=\"+Inf\"} 2",
            "nap_seconds_sum{cat=\"Tom\"} 90.007",
            "nap_seconds_count{cat=\"Tom\"} 2",
        ];
        assert_eq!(lines[lines.len() - 4..], last);
    }

    #[test]
    fn open_metrics_names_the_family_of_a_counter_without_its_end() {
        let page = page(Form::OpenMetrics);
        assert!(
            page.starts_with("# HELP apples All \\\"apples\\\" \\\\ eaten\n# TYPE apples counter")
        );
        assert!(page.contains("\napples_total{kind=\"red\"} 3\n"));
        assert!(page.ends_with("nap_seconds_count{cat=\"Tom\"} 2\n# EOF\n"));
    }

    #[test]
    fn open_metrics_is_written_for_whom_it_suits() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,\
                          text/plain;version=0.0.4;q=0.4,*/*;q=0.2";
        for accept in
            [prometheus, "application/openmetrics-text", "application/openmetrics-text, */*;q=0.1"]
        {
            assert_eq!(Form::asked_for(accept), Form::OpenMetrics, "{accept}");
        }
        let plain = [
            "",
            "*/*",
            "text/plain",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0.2,text/plain;q=0.3",
        ];
        for accept in plain {
            assert_eq!(Form::asked_for(accept), Form::Prometheus, "{accept}");
        }
    }
}
