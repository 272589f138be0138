//! Several files in one space of bytes.

use super::*;

fn place(sources: &Sources, start: usize) -> Option<String> {
    sources.place(Span { start, end: start }).map(|place| place.to_string())
}

#[test]
fn a_span_says_which_file_it_is_in() {
    let mut sources = Sources::default();
    let main = sources.add("main.yaml", "a: ü\nb: 2\n");
    let empty = sources.add("conf.d/empty.yaml", "");
    let last = sources.add("conf.d/last.yaml", "c: 3");
    assert_eq!((main, empty, last), (1, 13, 14));
    assert_eq!((sources.text(main), sources.text(last)), ("a: ü\nb: 2\n", "c: 3"));

    let places = [
        (0, None),
        (main, Some("main.yaml:1:1")),
        (main + 6, Some("main.yaml:2:1")),
        (main + 11, Some("main.yaml:3:1")),
        (empty, Some("conf.d/empty.yaml:1:1")),
        (last + 3, Some("conf.d/last.yaml:1:4")),
        (last + 4, Some("conf.d/last.yaml:1:5")),
        (last + 5, None),
        (usize::MAX, None),
    ];
    for (start, expected) in places {
        assert_eq!(place(&sources, start).as_deref(), expected, "{start}");
    }
}

#[test]
fn a_column_counts_characters_and_a_sentence_needs_none() {
    let start = span_of("\"ä\"");
    let sources = source();
    let place = sources.place(start).unwrap();
    assert_eq!((place.line, place.column), (4, 12));
    assert_eq!(place.to_line(), "conf/crestline.yaml:4");
}

#[test]
fn no_place_is_no_place() {
    assert_eq!(Problem::error("wrong").at(Span::default()).span, None);
    let nowhere = Problem { span: Some(Span::default()), ..Problem::error("wrong") };
    assert_eq!(rendered(nowhere), "error: wrong\n--> conf/crestline.yaml\n");
    assert_eq!(source().place(Span::default()), None);
}

#[test]
fn problems_of_several_files_stand_in_the_order_of_the_files() {
    let mut sources = Sources::of("main.yaml", "a: 1\n");
    let included = sources.add("conf.d/b.yaml", "\nb: 2\n");
    let mut problems = Problems::default();
    problems.push(Problem::error("second").at(Span { start: included + 4, end: included + 5 }));
    problems.push(Problem::error("first").at(Span { start: 4, end: 5 }));
    assert_eq!(
        render(&problems, &sources, Color::Never),
        "\
error: first
 --> main.yaml:1:4
  |
1 | a: 1
  |    ^

error: second
 --> conf.d/b.yaml:2:4
  |
2 | b: 2
  |    ^
"
    );
}
