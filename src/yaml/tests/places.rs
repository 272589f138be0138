//! What a tree knows of the bytes it came from.

use std::fmt::Write as _;

use proptest::prelude::proptest;

use super::super::{Node, Value, parse};
use super::*;
use crate::diagnostic::{Sources, Span};

/// Every key and every value with its text, from top to bottom.
fn outline(text: &str) -> Vec<&str> {
    fn walk<'t>(text: &'t str, node: &Node, outline: &mut Vec<&'t str>) {
        let slice = |span: Span| &text[span.start - Sources::FIRST..span.end - Sources::FIRST];
        outline.push(slice(node.span));
        if let Value::Sequence(items) = &node.value {
            for item in items {
                walk(text, item, outline);
            }
        }
        for entry in node.entries() {
            outline.push(slice(entry.key_span));
            walk(text, &entry.value, outline);
        }
    }
    let mut parts = Vec::new();
    walk(text, &parse(text).unwrap(), &mut parts);
    parts
}

fn message(text: &str) -> String {
    parse(text).unwrap_err().message
}

#[test]
fn block_style_has_exact_places() {
    let text = "# é\nname: shop   # ü\nlist:\n- a\n-   b: 'c'\n    d: |\n      é\n\nlast: 5s\n\n";
    let list = "- a\n-   b: 'c'\n    d: |\n      é";
    let inner = "b: 'c'\n    d: |\n      é";
    assert_eq!(
        outline(text),
        [
            &text[5..text.len() - 2],
            "name",
            "shop",
            "list",
            &list[2..],
            "a",
            inner,
            "b",
            "'c'",
            "d",
            "é",
            "last",
            "5s",
        ]
    );
}

#[test]
fn flow_style_has_exact_places() {
    assert_eq!(
        outline("é: { ü: [ä, \"ö\"] , x: }\n"),
        [
            "é: { ü: [ä, \"ö\"] , x: }",
            "é",
            "{ ü: [ä, \"ö\"] , x: }",
            "ü",
            "[ä, \"ö\"]",
            "ä",
            "\"ö\"",
            "x",
            "x"
        ]
    );
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_do_not_move_places() {
    assert_eq!(
        outline("\u{feff}a: 1\r\nb:\r\n  - 2\r\n"),
        ["a: 1\r\nb:\r\n  - 2", "a", "1", "b", "- 2", "2"]
    );
}

#[test]
fn an_empty_text_is_nothing() {
    for text in ["", "\n", "# only a comment\n", "---\n", "---\n...\n"] {
        assert_eq!(parse(text).unwrap().value, Value::Null, "{text:?}");
    }
}

#[test]
fn an_alias_repeats_a_value_with_its_place() {
    let node = parse("a: &x [1, {b: 2}]\nc: *x\n").unwrap();
    assert_eq!(node.get("a").unwrap().value, node.get("c").unwrap().value);
}

#[test]
fn a_number_can_be_a_key() {
    let node = parse("404: x\n1.10: y\ntrue: z\n").unwrap();
    let keys: Vec<_> = node.entries().iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["404", "1.10", "true"]);
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        writeln!(text, "a{level}: &a{level} [{aliases}]").unwrap();
    }
    assert_eq!(message(&text), "the aliases repeat too much");
}

#[test]
fn a_chain_of_aliases_cannot_grow_too_deep() {
    let mut text = "a0: &a0 [x]\n".to_owned();
    for level in 1..100 {
        writeln!(text, "a{level}: &a{level} [*a{}]", level - 1).unwrap();
    }
    assert_eq!(message(&text), "more than 64 lists and mappings in one another");
    let brackets = format!("{}{}", "[".repeat(70), "]".repeat(70));
    assert_eq!(message(&brackets), "more than 64 lists and mappings in one another");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[-a-c:{}\\[\\]\"'&*!|>#%~,? \\n\\té0-9]{0,60}") {
        let _ = attempt::<File>(&text);
        let _ = attempt::<Policy>(&text);
    }

    #[test]
    fn places_lie_in_the_text(text in "([a-cé ]{1,3}(: |:\\n|\\n|- |\\{|\\}|, )){0,12}") {
        if parse(&text).is_ok() {
            outline(&text);
        }
    }
}
