//! Problems as an operator sees them, and the words that were probably meant.

mod fills;
mod sources;

use super::*;

const TEXT: &str = "routes:\n  - name: shop\n    upstream: chekout # ü\n    größe: \"ä\" \n";

fn source() -> Sources {
    Sources::of("conf/crestline.yaml", TEXT)
}

fn span_of(text: &str) -> Span {
    let start = Sources::FIRST + TEXT.find(text).unwrap();
    Span { start, end: start + text.len() }
}

fn rendered(problem: Problem) -> String {
    let mut problems = Problems::default();
    problems.push(problem);
    render(&problems, &source(), Color::Never)
}

#[test]
fn a_problem_shows_its_line_its_carets_and_its_help() {
    let problem = Problem::error("route `shop` sends to upstream `chekout`, which is not defined")
        .at(span_of("chekout"))
        .help(suggest("chekout", ["checkout", "api", "assets"]));
    assert_eq!(
        rendered(problem),
        "\
error: route `shop` sends to upstream `chekout`, which is not defined
 --> conf/crestline.yaml:3:15
  |
3 |     upstream: chekout # ü
  |               ^^^^^^^
  |
help: did you mean `checkout`? Defined: api, assets, checkout
"
    );
}

#[test]
fn a_problem_with_the_whole_file_names_the_file() {
    let problem = Problem::warning("no upstream is defined");
    let expected = "warning: no upstream is defined\n--> conf/crestline.yaml\n";
    assert_eq!(rendered(problem.clone()), expected);
    let mut problems = Problems::default();
    problems.push(problem);
    assert!(!problems.has_errors());
    let text = render(&problems, &Sources::default(), Color::Never);
    assert_eq!(text, "warning: no upstream is defined\n");
}

#[test]
fn carets_stay_on_the_first_line_and_beside_their_label() {
    let value = span_of("shop\n    upstream: chekout");
    assert_eq!(
        rendered(Problem::error("wrong").at(value).label("in `routes[0]`")),
        "\
error: wrong
 --> conf/crestline.yaml:2:11
  |
2 |   - name: shop
  |           ^^^^ in `routes[0]`
"
    );
}

#[test]
fn no_place_makes_rendering_panic() {
    let bytes = TEXT.len() + 3;
    for (start, end) in (0..bytes).flat_map(|start| (0..bytes).map(move |end| (start, end))) {
        let text = rendered(Problem::error("wrong").at(Span { start, end }));
        let text = text.strip_prefix("error: wrong\n").unwrap().trim_start();
        assert!(text.starts_with("--> conf/crestline.yaml"), "{start}..{end}: {text}");
    }
}

#[test]
fn columns_count_characters() {
    let shown = rendered(Problem::error("wrong").at(span_of("\"ä\"")));
    assert!(shown.contains("conf/crestline.yaml:4:12"), "{shown}");
}

#[test]
fn problems_stand_in_order_of_place() {
    let mut problems = Problems::default();
    problems.push(Problem::error("third").at(Span { start: 9, end: 10 }));
    problems.push(Problem::error("second").at(Span { start: 2, end: 3 }));
    problems.push(Problem::error("first"));
    problems.push(Problem::error("fourth").at(Span { start: 9, end: 12 }));
    let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(messages, ["first", "second", "third", "fourth"]);
    assert!(problems.has_errors());
}

/// A long text with as many problems as lines would take hours, if each problem cost a look at
/// the text.
#[test]
fn what_nobody_reads_is_counted() {
    let text = "x: 1\n".repeat(1 << 20);
    let sources = Sources::of("long.yaml", text.as_str());
    let mut problems = Problems::default();
    problems.push(Problem::warning("odd"));
    for line in (0..1 << 20).rev() {
        let start = Sources::FIRST + line * 5;
        problems.push(Problem::error("wrong").at(Span { start, end: start + 1 }));
    }
    assert_eq!((problems.errors(), problems.len()), (1 << 20, KEPT_MAX + 1));
    assert!(!problems.keeps_more());
    let shown = render(&problems, &sources, Color::Never);
    let last = "
error: wrong
       --> long.yaml:1048576:1
        |
1048576 | x: 1
        | ^

error: 1048076 more errors are not shown
 |
help: many of one kind often have one cause: begin with the first
";
    assert!(shown.ends_with(last), "{}", &shown[shown.len() - 300..]);
    assert_eq!(shown.matches("error: wrong").count(), KEPT_MAX);
    assert!(shown.starts_with("warning: odd"));
}

#[test]
fn colour_is_only_for_terminals() {
    let mut problems = Problems::default();
    problems.push(Problem::error("wrong").at(span_of("shop")).help("mend it"));
    assert!(render(&problems, &source(), Color::Always).contains('\u{1b}'));
    assert!(!render(&problems, &source(), Color::Never).contains('\u{1b}'));
}

#[test]
fn the_nearest_word_is_near() {
    let keys = ["health_check", "path", "host", "off"];
    assert_eq!(nearest("helth_check", keys), Some("health_check"));
    assert_eq!(nearest("Health-Check", keys), Some("health_check"));
    assert_eq!(nearest("hots", keys), Some("host"));
    assert_eq!(nearest("OFF", keys), Some("off"));
    assert_eq!(nearest("colour", keys), None);
    assert_eq!(nearest("x", ["y"]), None);
    assert_eq!(nearest("", keys), None);
}

#[test]
fn a_long_list_of_names_is_cut() {
    let names: Vec<_> = (10..30).map(|n| format!("name{n}")).collect();
    let help = suggest("other", names.iter().map(String::as_str));
    assert!(help.starts_with("Defined: name10, name11, "), "{help}");
    assert!(help.ends_with("name21 and 8 more"), "{help}");
    assert_eq!(suggest("other", []), "none is defined");
}
