//! The reference of all metrics, made of a page.

use std::fmt::Write as _;

use crate::metrics::{family::Description, page::Page};

const HEAD: &str = "\
# Metrics

What stands at `/metrics`, made of the program itself by `crestline metrics --markdown`.
Names and help texts are the same there.
Values of labels come from the configuration, or from a list in the program; never from a request.

A family without any value yet is named all the same.
As OpenMetrics (by the `Accept` field), buckets of `crestline_request_duration_seconds` have exemplars: `request_id`, and `trace_id` of a request that is [traced](traces.md), of the last one that is traced, or that [the recorder](requests.md) keeps.
Counters begin at 0 when the process does; a reload does not change them, and after an upgrade the new process counts anew.
";

/// Describes all families of a page, as Markdown.
pub fn manual(page: &Page) -> String {
    let mut text =
        format!("{HEAD}\n| name | kind | labels | what it says |\n| --- | --- | --- | --- |\n");
    for (Description { name, kind, help }, labels) in page.described() {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        let help = help.replace('|', "\\|");
        let written = writeln!(text, "| `{name}` | {} | {labels} | {help} |", kind.as_str());
        debug_assert!(written.is_ok(), "memory takes every letter");
    }
    text
}
