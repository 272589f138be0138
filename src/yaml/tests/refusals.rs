//! The exact messages for texts that are refused as a whole.

use super::*;

#[test]
fn a_key_written_twice_names_the_first_place() {
    wrong(
        "\
upstreams: {}
threads: 2
upstreams: {}
",
        "\
error: the key `upstreams` is written twice
 --> crestline.yaml:3:1
  |
3 | upstreams: {}
  | ^^^^^^^^^ first written on line 1
",
    );
}

#[test]
fn a_second_document_is_refused() {
    wrong(
        "\
threads: 1
---
threads: 2
",
        "\
error: a second document begins here
 --> crestline.yaml:2:1
  |
2 | ---
  | ^^^
  |
help: one file holds one document: remove the `---`
",
    );
}

#[test]
fn a_merge_key_is_refused() {
    wrong(
        "\
base: &base { retries: 3 }
app:
  <<: *base
",
        "\
error: merge keys (`<<`) are not supported
 --> crestline.yaml:3:3
  |
3 |   <<: *base
  |   ^^
  |
help: write the keys out, or share a whole value with an alias
",
    );
}

#[test]
fn a_tag_is_refused() {
    wrong(
        "\
threads: !env THREADS
",
        "\
error: the tag `!env` is not supported
 --> crestline.yaml:1:10
  |
1 | threads: !env THREADS
  |          ^^^^
  |
help: remove it; a text that looks like a number can stand in quotes
",
    );
}

#[test]
fn a_wildcard_needs_quotes() {
    wrong(
        "\
hosts: [*.example.com]
",
        "\
error: the alias repeats a value that is not defined above
 --> crestline.yaml:1:9
  |
1 | hosts: [*.example.com]
  |         ^
  |
help: a text that begins with `*` must be in quotes
",
    );
}

#[test]
fn a_tab_cannot_indent() {
    wrong(
        "\
upstreams:
\tapp: {}
",
        "\
error: a tab cannot indent
 --> crestline.yaml:2:1
  |
2 |     app: {}
  | ^
  |
help: YAML indents with spaces
",
    );
}

#[test]
fn a_template_is_not_a_value() {
    wrong(
        "\
threads: {{ threads }}
",
        "\
error: expected a word as key
 --> crestline.yaml:1:11
  |
1 | threads: {{ threads }}
  |           ^
  |
help: a text that begins with `{`, `[` or `:` must be in quotes
",
    );
}

#[test]
fn a_wrong_indentation_is_shown_at_its_line() {
    wrong(
        "\
a:
    b: 1
  c: 2
",
        "\
error: this line is indented like nothing above it
 --> crestline.yaml:3:3
  |
3 |   c: 2
  |   ^
  |
help: indent it as far as the line that it continues
",
    );
}

#[test]
fn an_open_bracket_is_shown_where_it_opens() {
    wrong(
        "\
threads: [1, 2
",
        "\
error: this `[` is never closed
 --> crestline.yaml:1:10
  |
1 | threads: [1, 2
  |          ^
",
    );
}

#[test]
fn a_variable_in_brackets_needs_quotes() {
    for text in ["a: [1, ${B}, 2]\n", "a: { b: ${B} }\n", "a: [x${B}]\n", "a: [${B:-1, 2}]\n"] {
        let problem = parse(text).unwrap_err();
        let span = problem.span.unwrap();
        let written = &text[span.start - 1..span.end - 1];
        assert_eq!(
            problem.message,
            format!("`{written}` must be in quotes between brackets or braces")
        );
        assert!(written.starts_with("${B") && written.ends_with('}'), "{written}");
    }
}
