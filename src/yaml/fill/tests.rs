//! What is filled in, what stays as it is, and what cannot be filled in.

use std::collections::BTreeMap;

use super::*;
use crate::diagnostic::Sources;
use crate::yaml::{Node, Value, parse_file};

/// Variables and files by name; one that is named `broken` is.
struct Known(BTreeMap<&'static str, String>);

impl Values for Known {
    fn variable(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match name {
            "broken" => Err(Problem::error("`broken` is broken")),
            name => Ok(self.0.get(name).cloned()),
        }
    }

    fn file(&mut self, path: &str) -> Result<String, Problem> {
        self.0.get(path).cloned().ok_or_else(|| Problem::error(format!("cannot read `{path}`")))
    }
}

fn known() -> Known {
    let pairs = [
        ("N", "4"),
        ("HOST", "shop.test"),
        ("EMPTY", ""),
        ("OFF", "null"),
        ("LIST", "[a, b]"),
        ("LINES", "one\nkey: two"),
        ("/run/token", "s3cret"),
        ("FULL", "x"),
    ];
    Known(pairs.map(|(name, value)| (name, value.to_owned())).into())
}

/// The tree of a text, and the problems that came up, each with the value where it is told.
fn filled(text: &str) -> (Node, Vec<(String, String)>) {
    let mut known = known();
    let mut filling = Filling::new(&mut known);
    let node = parse_file(text, Sources::FIRST, Some(&mut filling)).unwrap();
    let told = filling.take_problems().into_iter().map(|problem| {
        let span = problem.span.unwrap();
        (problem.message, text[span.start - 1..span.end - 1].to_owned())
    });
    (node, told.collect())
}

/// The value under the key `a`, in a text without problems.
#[track_caller]
fn value(text: &str) -> Value {
    let (node, problems) = filled(text);
    assert_eq!(problems, []);
    node.get("a").unwrap().value.value.clone()
}

#[track_caller]
fn text(yaml: &str, expected: &str) {
    assert_eq!(value(yaml), Value::String(expected.to_owned()), "{yaml}");
}

#[test]
fn several_values_stand_in_one_text() {
    text("a: http://${HOST}:${N}/${N}", "http://shop.test:4/4");
    text("a: Bearer ${file:/run/token}", "Bearer s3cret");
    text("a: 'it is ${HOST}'", "it is shop.test");
    text("a: |\n  x ${HOST}\n  y\n", "x shop.test\ny\n");
    text("a: \"${NONE:-a default, with: all}\"", "a default, with: all");
    text("a: \"${EMPTY:-for an empty one}\"", "for an empty one");
    text("a: '${EMPTY}'", "");
    text("a: '${NONE:-}'", "");
    text("a: '${HOST:-unused}'", "shop.test");
}

#[test]
fn a_dollar_is_a_dollar() {
    for same in ["$", "$HOST", "$ {HOST}", "a$b", "$$", "{HOST}"] {
        text(&format!("a: '{same}'"), same);
    }
    text("a: '$${HOST}'", "${HOST}");
    text("a: '$$${HOST}'", "$${HOST}");
    text("a: '${N}$${N}${N}'", "4${N}4");
    text("a: '$${'", "${");
}

/// A number that is filled in is a number, and nothing that is filled in is more than a value.
#[test]
fn a_plain_value_is_read_anew_and_a_quoted_one_stays_a_text() {
    assert_eq!(value("a: ${N}"), Value::Int(4));
    assert_eq!(value("a: ${N}2"), Value::Int(42));
    assert_eq!(value("a: ${NONE:-true}"), Value::Bool(true));
    assert_eq!(value("a: ${OFF}"), Value::Null);
    assert_eq!(value("a: ${EMPTY}"), Value::Null);
    text("a: '${N}'", "4");
    text("a: \"${OFF}\"", "null");
    text("a: ${LIST}", "[a, b]");
    text("a: ${LINES}", "one\nkey: two");
}

#[test]
fn comments_and_texts_alone_are_not_filled_in() {
    assert_eq!(value("# ${NONE}\na: 1 # ${\n"), Value::Int(1));
    let node = crate::yaml::parse("a: ${N}").unwrap();
    assert_eq!(node.get("a").unwrap().value.text(), Some("${N}"));
}

#[test]
fn a_key_is_never_filled_in() {
    let told = vec![("a key cannot be filled in".to_owned(), "${N}".to_owned())];
    assert_eq!(filled("${N}: 1\nb: 2\n").1, told);
    let mut known = known();
    let mut filling = Filling::new(&mut known);
    let by_alias = parse_file("a: &a ${HOST}\n*a : 2\n", 1, Some(&mut filling)).unwrap_err();
    assert_eq!(by_alias.message, "a key cannot be filled in");
}

#[test]
fn all_that_cannot_be_filled_in_is_told_at_its_value() {
    let yaml = "a: ${NONE}
b: ['${', '${}', '${1A}', '${A-b}', '${A:b}', '${ A}']
c: x ${NONE} ${N} ${OTHER}
d: '${A:-${B}}'
e: ${file:/none}
f: ${file:}
g: ${broken}
h: ${N}
";
    let (node, told) = filled(yaml);
    let told: Vec<_> = told.iter().map(|(what, at)| format!("{at} | {what}")).collect();
    assert_eq!(
        told,
        [
            "${NONE} | the environment variable `NONE` is not set",
            "'${' | `${` has no `}` at its end",
            "'${}' | `${}` names no variable",
            "'${1A}' | `${1A}` names no variable",
            "'${A-b}' | `${A-b}` names no variable",
            "'${A:b}' | `${A:b}` names no variable",
            "'${ A}' | `${ A}` names no variable",
            "x ${NONE} ${N} ${OTHER} | the environment variable `NONE` is not set",
            "x ${NONE} ${N} ${OTHER} | the environment variable `OTHER` is not set",
            "'${A:-${B}}' | `${A:-${B}` holds another `${`",
            "${file:/none} | cannot read `/none`",
            "${file:} | `${file:}` names no file",
            "${broken} | `broken` is broken",
        ]
    );
    assert_eq!(node.get("a").unwrap().value.value, Value::Unfilled);
    assert_eq!(node.get("h").unwrap().value.value, Value::Int(4));
}

#[test]
fn what_could_not_be_filled_in_has_no_other_problem() {
    #[derive(serde::Deserialize)]
    #[expect(dead_code, reason = "only its form is looked at")]
    struct Wanted {
        n: u16,
        list: Vec<u16>,
        word: Option<String>,
    }
    let mut problems = crate::diagnostic::Problems::default();
    for yaml in ["{ n: '${X}', list: [1] }", "{ n: 1, list: ['${X}'], word: 2 }", "'${X}'"] {
        let (node, told) = filled(yaml);
        assert_eq!(told.len(), 1);
        assert!(crate::yaml::read::<Wanted>(&node, "", &mut problems).is_none());
    }
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn what_comes_from_outside_is_recorded_with_its_place() {
    let mut known = known();
    let mut filling = Filling::new(&mut known);
    let yaml = "a: ${HOST:-x}:${N}\nb: ${NONE:-80}\nc: ${file:/run/token}\n";
    parse_file(yaml, 100, Some(&mut filling)).unwrap();
    let fills = filling.into_fills().into_iter();
    let fills: Vec<_> =
        fills.map(|fill| (fill.written, fill.value, fill.span.start, fill.span.end)).collect();
    let fill =
        |written: &str, value: &str, start, end| (written.to_owned(), value.to_owned(), start, end);
    assert_eq!(
        fills,
        [
            fill("${HOST:-x}", "shop.test", 103, 118),
            fill("${N}", "4", 103, 118),
            fill("${HOST:-x}:${N}", "shop.test:4", 103, 118),
            fill("${file:/run/token}", "s3cret", 137, 155),
        ]
    );
}

#[test]
fn what_is_filled_in_has_a_bound_that_is_told_once() {
    let mut known = Known([("FULL", "x".repeat(64 << 10))].into());
    let mut filling = Filling::new(&mut known);
    let node = parse_file(&"- ${FULL}\n".repeat(200), 1, Some(&mut filling)).unwrap();
    let told: Vec<_> = filling.take_problems().into_iter().map(|it| it.message).collect();
    assert_eq!(told, ["more than 4 MiB are filled in"]);
    let Value::Sequence(items) = node.value else { panic!("a list") };
    let filled = items.iter().filter(|item| item.value != Value::Unfilled).count();
    assert_eq!((items.len(), filled), (200, 63));
}

#[test]
fn what_aliases_copy_is_counted_as_filled_in() {
    let mut known = Known([("FULL", "x".repeat(64 << 10))].into());
    let mut filling = Filling::new(&mut known);
    let yaml = format!("- &a ${{FULL}}\n{}", "- *a\n".repeat(10));
    let problem = parse_file(&yaml, 1, Some(&mut filling)).unwrap_err();
    assert_eq!(problem.message, "the aliases repeat too much");
}
