//! The manual: the schema as tables for people, in Markdown.
//!
//! Each mapping is a section, under the path at which it first stands; what is one value is
//! explained at the end. Links lead from a key to the section of what it takes.

mod words;

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::config::{
    schema::{defaults, types},
    server::keys,
};
use words::{Words, field, is_choice, is_mapping, resolve};

const INTRODUCTION: &str = "\
# Configuration

One file in YAML. A key that is not on this page is refused, and so is one that would do nothing;
`crestline check FILE` tells all problems at once, each with its line and the next step.

Quantities carry units: `250ms`, `64KiB`, `20%`. In the headings, `NAME` stands for a name of your
choice and `[]` for each element of a list.

This page is printed by `crestline schema --markdown`. `crestline schema` prints the same as a JSON
Schema, with which an editor completes keys and marks mistakes while you type.
";

const POLICIES: &str = "\
# Policies

What may happen to a request on its route, and to its answer: a list under `policies` of a route.
Requests pass in the order written, answers in the reverse order; an answer of Crestline's own
passes the policies that its request had come to. All are off unless a route names them.

```yaml
routes:
  - name: api
    policies:
      - ip: [allow 10.0.0.0/8, deny all]
      - rate_limit: { rates: [100/s, 10000/h] }
      - request_headers: { set: { x-client: \"{client}\" } }
    upstream: app
```

**When something is away or wrong.** Who may ask is decided in doubt against the client, how much
in doubt for it: policies of access fail closed, limits fail open. A file that cannot be read
refuses the configuration that names it, and what is in force stays. What policies know, such as
counts, outlives a reload that leaves a route its name; an upgrade begins anew.

**Whom they see.** Paths are compared in their canonical form, and the client is the one that
trusted proxies tell, so that no spelling and no field of a client walks around a rule.

`conf/policies.yaml` shows every policy at work. This page is printed by
`crestline schema --policies`.
";

/// Prints what policies there are, each with its keys.
pub fn policies() -> String {
    let schema = types();
    let mut manual = Manual { schema: &schema, sections: Vec::new(), values: Vec::new() };
    manual.visit_definition("policies[]", "Policy", &schema["$defs"]["Policy"]);
    let words = Words { schema: &schema, anchors: manual.anchors() };
    let mut text = POLICIES.to_owned();
    for mapping in &manual.sections {
        section(&mut text, &mapping.title(), field(mapping.schema, "description"));
        mapping.print(&mut text, &words);
    }
    section(&mut text, "Values", "What is written as one value.");
    for (name, value) in &manual.values {
        explain(&mut text, name, value);
    }
    text
}

/// Prints the manual.
pub fn manual() -> String {
    let schema = types();
    let mut manual = Manual { schema: &schema, sections: Vec::new(), values: Vec::new() };
    let keys = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    for (key, property) in &keys {
        manual.visit(key, property);
    }
    let (pingoras, ours): (Map<_, _>, Map<_, _>) = keys
        .iter()
        .map(|(key, property)| (key.clone(), property.clone()))
        .partition(|(key, _): &(String, Value)| keys::find(key).is_some());
    let words = Words { schema: &schema, anchors: manual.anchors() };
    let mut text = INTRODUCTION.to_owned();
    section(&mut text, "Crestline's keys", "They stand at the top level of the file.");
    table(&mut text, &words, &ours, &[]);
    for mapping in &manual.sections {
        section(&mut text, &mapping.title(), field(mapping.schema, "description"));
        mapping.print(&mut text, &words);
    }
    section(&mut text, "Pingora's keys", "They stand at the top level of the file, too.");
    table(&mut text, &words, &pingoras, &[]);
    section(&mut text, "Values", "What is written as one value.");
    for (name, value) in &manual.values {
        explain(&mut text, name, value);
    }
    text
}

/// What was found on a walk through the schema, in the order in which an operator meets it.
struct Manual<'a> {
    schema: &'a Value,
    sections: Vec<Mapping<'a>>,
    values: Vec<(&'a str, &'a Value)>,
}

/// A mapping with keys of its own.
struct Mapping<'a> {
    name: &'a str,
    schema: &'a Value,
    /// Where it may stand.
    paths: Vec<String>,
}

impl<'a> Manual<'a> {
    fn visit(&mut self, path: &str, schema: &'a Value) {
        if let Some((name, definition)) = resolve(self.schema, schema) {
            return self.visit_definition(path, name, definition);
        }
        self.visit_parts(path, schema);
    }

    fn visit_definition(&mut self, path: &str, name: &'a str, schema: &'a Value) {
        if is_mapping(schema) || is_choice(schema) {
            if let Some(known) = self.sections.iter_mut().find(|known| known.name == name) {
                known.paths.push(path.to_owned());
                return;
            }
            self.sections.push(Mapping { name, schema, paths: vec![path.to_owned()] });
        } else if words::is_one_value(schema)
            && !self.values.iter().any(|(known, _)| *known == name)
        {
            self.values.push((name, schema));
        }
        self.visit_parts(path, schema);
    }

    fn visit_parts(&mut self, path: &str, schema: &'a Value) {
        for choice in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
            self.visit(path, choice);
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        for (key, property) in properties.into_iter().flatten() {
            self.visit(&format!("{path}.{key}"), property);
        }
        if let Some(items) = schema.get("items") {
            self.visit(&format!("{path}[]"), items);
        }
        if let Some(named) = words::named(schema) {
            self.visit(&format!("{path}.NAME"), named);
        }
    }

    /// The sections' anchors, by the name of the definition.
    fn anchors(&self) -> Vec<(&'a str, String)> {
        self.sections.iter().map(|mapping| (mapping.name, anchor(&mapping.title()))).collect()
    }
}

impl Mapping<'_> {
    fn title(&self) -> String {
        let paths: Vec<_> = self.paths.iter().map(|path| format!("`{path}`")).collect();
        paths.join(", ")
    }

    fn print(&self, text: &mut String, words: &Words<'_>) {
        let required = words::required(self.schema);
        if let Some(properties) = self.schema.get("properties").and_then(Value::as_object) {
            table(text, words, properties, &required);
        } else {
            text.push_str("\nOne of these keys:\n");
            table(text, words, &words::choices(self.schema), &required);
        }
    }
}

fn section(text: &mut String, title: &str, introduction: &str) {
    let _ = write!(text, "\n## {title}\n\n{introduction}\n");
}

/// A row for each key.
fn table(text: &mut String, words: &Words<'_>, properties: &Map<String, Value>, required: &[&str]) {
    let mut rows = vec![["key", "takes", "default", "meaning"].map(str::to_owned).to_vec()];
    for (key, property) in properties {
        let (meaning, default) = defaults::split(field(property, "description"));
        let default = if required.contains(&key.as_str()) { Some("required") } else { default };
        rows.push(vec![
            format!("`{key}`"),
            words.takes(property),
            default.unwrap_or_default().to_owned(),
            format!("{meaning}{}", words.meanings(property)),
        ]);
    }
    if rows[1..].iter().all(|row| row[2].is_empty()) {
        for row in &mut rows {
            row.remove(2);
        }
    }
    lay_out(text, &rows);
}

/// Pads all columns but the last, so that the text is a table before it is rendered, too.
fn lay_out(text: &mut String, rows: &[Vec<String>]) {
    let escaped = |row: &Vec<String>| row.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let mut rows: Vec<Vec<String>> = rows.iter().map(escaped).collect();
    let last = rows[0].len() - 1;
    let width = |column: usize| {
        let cells = if column == last { &rows[..1] } else { &rows[..] };
        cells.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..=last).map(width).collect();
    rows.insert(1, widths.iter().map(|width| "-".repeat(*width)).collect());
    text.push('\n');
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(text, "| {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}

/// A kind of value: what it is, and how it is written.
fn explain(text: &mut String, name: &str, schema: &Value) {
    let examples = schema.get("examples").and_then(Value::as_array);
    let examples: Vec<_> = examples.into_iter().flatten().map(words::shown).collect();
    let description = field(schema, "description");
    let name = words::noun(name);
    let _ = write!(text, "\n### {name}\n\n{description}\n\nFor example {}.\n", examples.join(", "));
}

/// The anchor that readers of Markdown make of a heading.
fn anchor(heading: &str) -> String {
    let keep = |letter: char| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        letter => letter.is_alphanumeric().then(|| letter.to_ascii_lowercase()),
    };
    heading.chars().filter_map(keep).collect()
}
