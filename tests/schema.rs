//! The schema and the manual: that they ship as the types tell them, and that both are true.
//!
//! To write `conf/crestline.schema.json`, `docs/configuration.md` and `docs/policies.md` anew after a
//! key or a comment has changed, run
//!
//! ```text
//! UPDATE_EXPECTED=1 cargo test --test integration schema::
//! ```

mod comments;
mod forms;
mod keys;
mod verdicts;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crestline::{config::schema, yaml};
use serde_json::Value;

use crate::support::Crestline;

/// The first line of every example, by which an editor finds the schema.
const MODELINE: &str = "# yaml-language-server: $schema=./crestline.schema.json";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The examples that ship with Crestline.
fn examples() -> Vec<PathBuf> {
    let files = fs::read_dir(root().join("conf")).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// A text as an editor sees it: its values as JSON, variables and all.
fn parsed(text: &str) -> Result<Value, String> {
    yaml::parse(text).map(|node| node.to_json()).map_err(|problem| problem.message)
}

/// Follows a reference into the definitions, and tells their name.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> (Option<&'a str>, &'a Value) {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => {
            let name = reference.strip_prefix("#/$defs/").unwrap();
            (Some(name), &root["$defs"][name])
        }
        None => (None, schema),
    }
}

/// The schemas of what may stand behind names of anybody's choice.
fn named(schema: &Value) -> impl Iterator<Item = &Value> {
    let any = schema.get("additionalProperties").filter(|any| any.is_object());
    let patterns = schema.get("patternProperties").and_then(Value::as_object);
    any.into_iter().chain(patterns.into_iter().flat_map(serde_json::Map::values))
}

fn choices(schema: &Value) -> impl Iterator<Item = &Value> {
    schema.get("anyOf").and_then(Value::as_array).into_iter().flatten()
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

#[test]
fn the_schema_and_the_manual_that_ship_are_those_of_the_types() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let printed = [
        ("conf/crestline.schema.json", schema::editors()),
        ("docs/configuration.md", schema::manual()),
        ("docs/policies.md", schema::policies()),
    ];
    for (name, text) in printed {
        let path = root().join(name);
        if update {
            fs::write(path, text).unwrap();
        } else {
            let shipped = fs::read_to_string(path).unwrap_or_default();
            assert!(shipped == text, "{name} is not what the types tell: {HOW_TO_UPDATE}");
        }
    }
}

#[test]
fn every_link_of_the_manual_leads_to_a_heading() {
    let manual = schema::manual();
    let headings: Vec<String> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("## ").or(line.strip_prefix("### ")))
        .map(|heading| {
            let kept = heading.to_lowercase().replace(' ', "-");
            kept.chars().filter(|kept| kept.is_alphanumeric() || "-_".contains(*kept)).collect()
        })
        .collect();
    let links: Vec<&str> = manual
        .match_indices("](#")
        .map(|(at, open)| manual[at + open.len()..].split(')').next().unwrap())
        .collect();
    assert!(20 < links.len());
    for link in links {
        let led = headings.iter().filter(|heading| *heading == link).count();
        assert_eq!(led, 1, "#{link} leads to {led} headings of {headings:?}");
    }
}

const HOW_TO_UPDATE: &str = "run `UPDATE_EXPECTED=1 cargo test --test integration schema::`";

#[tokio::test]
async fn the_program_prints_both() {
    let schema = Crestline::run(&["schema"]).await;
    assert_eq!((schema.code, schema.stderr.as_str()), (Some(0), ""));
    assert_eq!(schema.stdout, schema::editors());
    let manual = Crestline::run(&["schema", "--markdown"]).await;
    assert_eq!((manual.code, manual.stderr.as_str()), (Some(0), ""));
    assert_eq!(manual.stdout, schema::manual());
    let policies = Crestline::run(&["schema", "--policies"]).await;
    assert_eq!((policies.code, policies.stderr.as_str()), (Some(0), ""));
    assert_eq!(policies.stdout, schema::policies());
}

#[tokio::test]
async fn printing_the_schema_with_odd_arguments_is_wrong_usage() {
    let odd: [&[&str]; 6] = [
        &["schema", "crestline.yaml"],
        &["schema", "--json"],
        &["schema", "--markdown", "--markdown"],
        &["-c", "crestline.yaml", "schema"],
        &["-d", "schema"],
        &["--backends=127.0.0.1:1", "schema"],
    ];
    for arguments in odd {
        let finished = Crestline::run(arguments).await;
        assert_eq!(finished.code, Some(64), "{arguments:?}: {}", finished.stderr);
        assert!(!finished.stderr.is_empty() && finished.stdout.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn every_example_is_good_and_tells_editors_where_the_schema_is() {
    for path in examples() {
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().next(), Some(MODELINE), "{}", path.display());
        let finished = Crestline::run(&["check", path.to_str().unwrap()]).await;
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    }
}
