//! What was filled in does not show.

use proptest::prelude::{Strategy, prop_assert, proptest};

use super::*;

/// The place of the value in every test.
const PLACE: Span = Span { start: 8, end: 16 };
/// Another place.
const ELSEWHERE: Span = Span { start: 2, end: 3 };
const HELP: &str = "it is not shown here, because it may be a secret";

fn fills(value: &str) -> Arc<Fills> {
    let sources = Sources::of("crestline.yaml", "header: ${TOKEN}\nupstream: checkout\n");
    let fill = Fill { written: "${TOKEN}".to_owned(), value: value.to_owned(), span: PLACE };
    Arc::new(Fills::new(vec![fill], sources))
}

fn redacted(value: &str, problem: Problem) -> Problem {
    let mut problems = Problems::default();
    problems.hide(fills(value));
    problems.push(problem);
    problems.iter().next().unwrap().clone()
}

/// The message and the help that are left of these.
fn left(value: &str, span: Span, message: &str, help: &str) -> (String, Option<String>) {
    let problem = redacted(value, Problem::error(message).at(span).help(help));
    (problem.message, problem.help)
}

#[test]
fn a_quoted_value_turns_into_what_was_written() {
    let message = "`hunter2` is no address";
    let help = "write `hunter2:80`, or the port that the backend listens on";
    assert_eq!(
        left("hunter2", PLACE, message, help),
        (
            "`${TOKEN}` is no address".to_owned(),
            Some("write `${TOKEN}:80`, or the port that the backend listens on".to_owned())
        )
    );
}

#[test]
fn a_short_value_is_hidden_at_its_place_and_a_long_one_everywhere() {
    let quoted = |value: &str, span| left(value, span, &format!("`{value}s` is wrong"), "").0;
    assert_eq!(quoted("1234567", ELSEWHERE), "`1234567s` is wrong");
    assert_eq!(quoted("1234567", PLACE), "`${TOKEN}s` is wrong");
    assert_eq!(quoted("12345678", ELSEWHERE), "`${TOKEN}s` is wrong");
    let without_place = redacted("12345678", Problem::error("`12345678` is wrong"));
    assert_eq!(without_place.message, "`${TOKEN}` is wrong");
}

#[test]
fn a_short_value_is_no_part_of_other_words() {
    let help = "write `10s` or `10ms`, not `100s`; an address such as `127.0.10.1:80`";
    let (message, help) = left("10", PLACE, "`10` has no unit", help);
    assert_eq!(message, "`${TOKEN}` has no unit");
    let expected = "write `${TOKEN}s` or `${TOKEN}ms`, not `100s`; an address such as \
                    `127.0.${TOKEN}.1:80`";
    assert_eq!(help.as_deref(), Some(expected));
}

#[test]
fn a_value_that_shows_outside_of_quotes_takes_the_message_with_it() {
    let generic = ("the value of `${TOKEN}` does not fit".to_owned(), Some(HELP.to_owned()));
    for (value, message, help) in [
        ("0", "`threads` is 0, and must be at least 1", "set it to 0"),
        ("hunter2hunter2", "invalid: hunter2hunter2", "hunter2hunter2 is odd"),
        ("Hunter2.Example", "no host: hunter2.example", "hunter2.example is odd"),
        ("hunter2hunter2:80", "`hunter2hunter2` has no port", "write `2hunter2:80`"),
        ("one`two`three", "`one`two`three` is wrong", "write `one`two`three`"),
        ("sec\nhelp: ret", "`sec", "ret` is wrong"),
        ("first line\nsecond line", "`second line` is wrong", "join `first line`"),
    ] {
        assert_eq!(left(value, PLACE, message, help), generic, "{value:?}");
    }
}

#[test]
fn an_escaped_or_cut_value_is_known_again() {
    let line_break = left("bad\ntoken", PLACE, "`bad\\ntoken` is no value of a field", "mend it");
    assert_eq!(line_break.0, "`${TOKEN}` is no value of a field");
    let long = "x".repeat(99);
    let cut = left(&long, PLACE, &format!("expected a number, found `{}…`", "x".repeat(60)), "");
    assert_eq!(cut.0, "expected a number, found `${TOKEN}`");
    let lines = left("ab\ncd", PLACE, "expected a number, found `ab…`", "");
    assert_eq!(lines.0, "expected a number, found `${TOKEN}`");
}

#[test]
fn a_short_value_that_is_all_of_a_quote_is_hidden_everywhere_unless_it_stands_in_the_file() {
    let message = |value: &str| left(value, ELSEWHERE, &format!("no `{value}` here"), "").0;
    assert_eq!(message("shop"), "no `${TOKEN}` here");
    assert_eq!(message("stream"), "no `stream` here");
}

/// A value may be an ordinary word, and messages are full of those.
#[test]
fn what_stands_in_the_file_is_no_secret_elsewhere() {
    let help = "Defined: api, assets, checkout";
    let elsewhere = left("checkout", ELSEWHERE, "`x` sends to upstream `y`", help);
    assert_eq!(elsewhere.1.as_deref(), Some(help));
    let here = left("checkout", PLACE, "`x` sends to upstream `y`", help);
    assert_eq!(here, ("`x` sends to upstream `y`".to_owned(), None));
    let typo = left("chekkout", PLACE, "upstream `chekkout` is not defined", help);
    assert_eq!(typo, ("upstream `${TOKEN}` is not defined".to_owned(), Some(help.to_owned())));
}

#[test]
fn an_unknown_label_is_left_out() {
    let problem = Problem::error("wrong").at(PLACE).label("in `routes[0].name`");
    assert_eq!(redacted("hunter2", problem.clone()).label, problem.label);
    assert_eq!(redacted("routes", problem).label.as_deref(), Some("in `${TOKEN}[0].name`"));
    let outside = Problem::error("wrong").at(PLACE).label("hunter2");
    assert_eq!(redacted("hunter2", outside).label, None);
}

#[test]
fn problems_that_were_told_before_are_redacted_as_well() {
    let mut problems = Problems::default();
    problems.push(Problem::error("`hunter2` is wrong").at(PLACE));
    problems.hide(fills("hunter2"));
    assert_eq!(problems.iter().next().unwrap().message, "`${TOKEN}` is wrong");
}

#[test]
fn a_blank_value_is_nowhere() {
    for value in ["", " ", "\n"] {
        let problem = Problem::error("a value is wrong").at(PLACE).help("mend it");
        assert_eq!(redacted(value, problem.clone()), problem, "{value:?}");
    }
}

#[test]
fn what_is_written_for_debugging_holds_no_value() {
    assert!(!format!("{:?}", fills("hunter2")).contains("hunter2"));
}

/// Values without a letter of the words around them, long enough not to come up by chance.
fn value() -> impl Strategy<Value = String> {
    "[qxzQXZ`\n:789]{4,20}"
}

proptest! {
    #[test]
    fn no_value_shows_at_its_place(value in value(), before in "[a-c `]{0,9}", after in "[a-c `]{0,9}") {
        let message = format!("{before}{value}{after}");
        let problem = Problem::error(&message).at(PLACE).help(&message).label(message.clone());
        let problem = redacted(&value, problem);
        for text in [Some(problem.message), problem.help, problem.label].into_iter().flatten() {
            prop_assert!(value.trim().is_empty() || !text.contains(&value), "{text}");
        }
    }
}
