//! That the patterns of the schema are never narrower than the types that read a value.
//!
//! Each kind of value is spoilt in every place by every odd letter. Where the program still reads
//! it, an editor must not mark it.

use crestline::{
    config::{File, Loaded},
    diagnostic::Problems,
};
use serde_json::{Value, json};

use super::verdicts::Editor;

/// Letters that mean something in one value or another.
const LETTERS: &str = "0a9Zé:./%*+=~ #?_-[]@,;\\\"\t\u{1}";

/// A value in the smallest file in which it may stand.
type Slot = fn(&str) -> Value;

/// Kinds of values, with good ones to spoil.
const KINDS: [(Slot, &[&str]); 20] = [
    (|text| json!({ "trusted_proxies": [text] }), &["10.0.0.0/8", "2001:db8::/32", "::1"]),
    (
        |text| json!({ "listeners": [{ "address": text }] }),
        &["0.0.0.0:80", "[::]:80", "[fe80::1%2]:80", "unix:/run/a"],
    ),
    (
        |text| json!({ "listeners": [{ "address": "[::]:80", "timeouts": { "idle": text } }] }),
        &["5s", "250ms", "010us"],
    ),
    (
        |text| json!({ "access_log": { "otlp": { "endpoint": text } } }),
        &["http://127.0.0.1:4318", "https://a.test/b", "unix:/run/a"],
    ),
    (
        |text| json!({ "access_log": { "syslog": text } }),
        &["udp://127.0.0.1:514", "tcp://[::1]:601", "tcp://a.test:1", "unix:/dev/log"],
    ),
    (
        |text| upstream(&json!({ "backends": [text] })),
        &["127.0.0.1:80", "[::1]:80", "a-b.test.:80", "unix:/run/a b"],
    ),
    (|text| health(&json!({ "path": text })), &["/", "/a?b=c%20d"]),
    (
        |text| health(&json!({ "host": text })),
        &["a.test", "a.test:80", "[::1]:80", "a_b", "a!$&'()*+,;=b"],
    ),
    (|text| health(&json!({ "expect": [text] })), &["204", "200 - 299"]),
    (|text| health(&json!({ "headers": { "x-a": text } })), &["", "a b", "é"]),
    (|text| health(&json!({ "headers": { text: "a" } })), &["x-a", "x!#$%&'*+.^_`|~"]),
    (
        |text| upstream(&json!({ "backends": ["a:80"], "ejection": { "max_ejected": text } })),
        &["0%", "100%", "007%"],
    ),
    (|text| route("match", &json!({ "hosts": [text] })), &["a.test", "*.a_b.test.", "[::1]"]),
    (|text| route("match", &json!({ "path": text })), &["/", "/a%2Fb/", "=/a", "=  /a"]),
    (|text| route("policies", &json!([{ "body_limit": text }])), &["10MiB", "1B"]),
    (
        |text| route("policies", &json!([{ "ip": [text, "deny all"] }])),
        &["allow 10.0.0.0/8", "deny  unix"],
    ),
    (
        |text| route("policies", &json!([{ "content_type": [text] }])),
        &["application/json", "image/*"],
    ),
    (
        |text| route("policies", &json!([{ "cors": { "origins": [text] } }])),
        &["*", "https://a.test:8443", "http://*.a.test"],
    ),
    (
        |text| route("policies", &json!([{ "error_pages": { text: { "body": "a" } } }])),
        &["404", "5xx", "500-504"],
    ),
    (|text| route("host", &json!({ "replace": text })), &["a.test", "a.test:80"]),
];

fn upstream(config: &Value) -> Value {
    json!({ "upstreams": { "app": config } })
}

fn health(http: &Value) -> Value {
    upstream(&json!({ "backends": ["a:80"], "health_check": { "http": http } }))
}

fn route(key: &str, value: &Value) -> Value {
    json!({ "routes": [{ "name": "a", key: value, "upstream": "app" }] })
}

fn is_read(file: &Value) -> bool {
    let mut problems = Problems::default();
    let loaded = Loaded::of(&file.to_string(), &mut problems);
    File::read(&loaded, &mut problems).is_some() && !problems.has_errors()
}

/// The text with one letter more, less, or other, in every place.
fn spoilt(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let mut spoilt = vec![text.to_owned()];
    for at in 0..=letters.len() {
        let (before, after) = letters.split_at(at);
        let with = |middle: &str, after: &[char]| {
            before.iter().copied().chain(middle.chars()).chain(after.iter().copied()).collect()
        };
        if !after.is_empty() {
            spoilt.push(with("", &after[1..]));
        }
        for letter in LETTERS.chars().map(String::from) {
            spoilt.push(with(&letter, after));
            if !after.is_empty() {
                spoilt.push(with(&letter, &after[1..]));
            }
        }
    }
    spoilt
}

#[test]
fn what_the_program_reads_is_right_in_an_editor() {
    let (editor, mut marked) = (Editor::new(), Vec::new());
    for (slot, goods) in KINDS {
        for good in goods {
            assert!(is_read(&slot(good)), "to begin with, this is good: {}", slot(good));
            let files = spoilt(good).into_iter().map(|text| slot(&text));
            marked.extend(files.filter(|file| editor.judge(file).is_err() && is_read(file)));
        }
    }
    assert!(marked.is_empty(), "good, and marked by an editor: {marked:#?}");
}
