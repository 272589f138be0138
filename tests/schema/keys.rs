//! That every key is shown and tried: the schema is walked beside the files.

use std::{collections::BTreeSet, fs};

use crestline::{
    config::schema,
    diagnostic::{Color, Problem, Problems, Severity, Sources, render},
    snapshot,
};
use serde_json::Value;

use super::{choices, examples, named, parsed, properties, resolve, root};

/// A key by the mapping that it belongs to, such as `Upstream.retries`.
type Keys = BTreeSet<String>;

/// The name of the outermost mapping.
const TOP: &str = "top level";

/// All keys of a schema.
fn keys(root: &Value, name: &str, schema: &Value, found: &mut Keys) {
    let (definition, schema) = resolve(root, schema);
    let name = definition.unwrap_or(name);
    for (key, property) in properties(schema) {
        if found.insert(format!("{name}.{key}")) {
            keys(root, &format!("{name}.{key}"), property, found);
        }
    }
    for part in choices(schema).chain(named(schema)).chain(schema.get("items")) {
        keys(root, name, part, found);
    }
}

/// Those keys that stand in a file.
fn used(root: &Value, name: &str, schema: &Value, file: &Value, found: &mut Keys) {
    let (definition, schema) = resolve(root, schema);
    let name = definition.unwrap_or(name);
    let is_own = |key: &str| schema["properties"].get(key).is_some();
    for (key, value) in file.as_object().into_iter().flatten() {
        if is_own(key) {
            found.insert(format!("{name}.{key}"));
            used(root, &format!("{name}.{key}"), &schema["properties"][key], value, found);
        } else {
            named(schema).for_each(|schema| used(root, name, schema, value, found));
        }
    }
    for item in file.as_array().into_iter().flatten() {
        schema.get("items").into_iter().for_each(|items| used(root, name, items, item, found));
    }
    choices(schema).for_each(|choice| used(root, name, choice, file, found));
}

fn all() -> Keys {
    let (schema, mut found) = (schema::types(), Keys::new());
    keys(&schema, TOP, &schema, &mut found);
    assert!(found.contains("Upstream.retries") && found.contains("FieldEdits.set"), "{found:?}");
    found
}

fn used_in(text: &str) -> Keys {
    let (schema, mut found) = (schema::types(), Keys::new());
    used(&schema, TOP, &schema, &parsed(text).unwrap(), &mut found);
    found
}

#[test]
fn every_key_is_tried_in_a_file_that_is_checked() {
    let complete = root().join("tests/config/good_complete.yaml");
    let tried: Keys = examples()
        .into_iter()
        .chain([complete])
        .flat_map(|path| used_in(&fs::read_to_string(path).unwrap()))
        .collect();
    let untried: Vec<_> = all().difference(&tried).cloned().collect();
    assert!(
        untried.is_empty(),
        "in no file that is checked: {untried:?}; add them to tests/config/good_complete.yaml"
    );
}

/// The examples that ship with Crestline show every key, some of them commented out with their
/// defaults, so that nobody has to guess one.
#[test]
fn the_annotated_example_shows_every_key() {
    let text = fs::read_to_string(root().join("conf/crestline.yaml")).unwrap();
    for text in [text.clone(), uncommented(&text)] {
        let mut problems = Problems::default();
        let compiled = snapshot::compile(&text, &mut problems);
        let sources = Sources::of("conf/crestline.yaml", text);
        // Its certificates are examples, and those that are commented out are not there.
        let is_missing = |problem: &Problem| {
            problem.message.starts_with("cannot read `/etc/crestline/example.")
                || problem.message.starts_with("`/var/lib/crestline/acme` cannot keep certificates")
        };
        let is_warning = |problem: &Problem| problem.severity == Severity::Warning;
        let is_good = compiled.is_some()
            || problems.iter().all(|problem| is_warning(problem) || is_missing(problem));
        assert!(is_good, "{}", render(&problems, &sources, Color::Never));
    }
    let mut shown = used_in(&uncommented(&text));
    for more in ["policies", "syslog", "traces"] {
        let more = fs::read_to_string(root().join(format!("conf/{more}.yaml"))).unwrap();
        shown.extend(used_in(&more));
    }
    let otlp = fs::read_to_string(root().join("conf/otlp.yaml")).unwrap();
    shown.extend(used_in(&uncommented(&otlp)));
    let hidden: Vec<_> = all().difference(&shown).cloned().collect();
    // Its short form says the same.
    assert_eq!(hidden, ["HealthCheck.tcp"], "left: not shown in conf/crestline.yaml");
}

/// The text with the settings that are commented out, `# key: value`, put into force.
fn uncommented(text: &str) -> String {
    /// What is indented further explains a setting to its left.
    const INDENT_MAX: usize = 16;
    let is_setting = |comment: &str| {
        let (key, value) = comment.split_once(": ").unwrap_or_default();
        let is_key = |byte: u8| byte.is_ascii_lowercase() || b"_246".contains(&byte);
        !value.is_empty() && key.bytes().all(is_key)
    };
    let lines = text.lines().map(|line| match line.split_once("# ") {
        Some((indent, comment))
            if indent.trim().is_empty() && indent.len() <= INDENT_MAX && is_setting(comment) =>
        {
            format!("{indent}{comment}\n")
        }
        _ => format!("{line}\n"),
    });
    lines.collect()
}
