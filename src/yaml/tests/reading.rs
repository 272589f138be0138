//! How types are read: what is accepted, and what is found in one run.

use std::fmt::{self, Formatter};

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::*;

const GOOD: &str = "
upstreams:
  app:
    backends:
      - 127.0.0.1:3031
      - { address: 127.0.0.1:3032, weight: 2 }
    health_check: { http: { path: /healthz }, every: 5s }
    balance: { hash: { key: path } }
    timeout: 250ms
  other: { backends: [], health_check: off, balance: least_requests, max_ejected: 50% }
routes:
  - upstream: app
    policies:
      - deny
      - rate_limit: 100/s
      - request_headers: { set: { x-version: 1.10, x-on: true }, remove: [server] }
error_pages: { 404: nowhere }
";

#[test]
fn a_right_file_is_read_whole() {
    let file: File = right(GOOD);
    let app = &file.upstreams["app"];
    assert_eq!(*app.backends[0], "127.0.0.1:3031".parse().unwrap());
    assert_eq!(app.backends[1].weight.get(), 2);
    assert_eq!(app.balance, Balance::Hash { key: "path".to_owned() });
    assert_eq!(app.timeout, Some(Duration::from_millis(250)));
    let other = &file.upstreams["other"];
    assert!(other.health_check.as_ref().unwrap().off);
    assert_eq!(other.balance, Balance::LeastRequests);
    assert_eq!(file.error_pages[&404], "nowhere");
}

#[test]
fn a_number_or_boolean_is_a_text_as_written() {
    let file: File = right(GOOD);
    let Policy::RequestHeaders(headers) = &file.routes[0].policies[2] else {
        panic!("{:?}", file.routes[0].policies[2]);
    };
    assert_eq!(headers.set["x-version"], "1.10");
    assert_eq!(headers.set["x-on"], "true");
}

#[test]
fn a_spanned_value_knows_its_place_and_compares_without_it() {
    let file: File = right(GOOD);
    let upstream = &file.routes[0].upstream;
    assert_eq!(&GOOD[upstream.span.start - 1..upstream.span.end - 1], "app");
    assert_eq!(*upstream, Spanned::new("app".to_owned()));
    assert_eq!(upstream.len(), 3);
}

#[test]
fn a_key_can_be_spanned() {
    let map: BTreeMap<Spanned<String>, u8> = right("  é: 1\n");
    let key = map.keys().next().unwrap();
    assert_eq!((key.as_str(), key.span.start, key.span.end), ("é", 3, 5));
}

#[test]
fn absent_and_null_are_none() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Options {
        a: Option<u8>,
        b: Option<Vec<u8>>,
        c: Option<()>,
        d: Option<Spanned<bool>>,
    }
    let options: Options = right("a: ~\nb:\nd: true\n");
    let d = Some(Spanned::new(true));
    assert_eq!((options.a, options.b, options.c, options.d), (None, None, None, d));
}

#[test]
fn numbers_keep_to_their_types() {
    let numbers: (u64, i8, f32, f64, u8) = right("[18446744073709551615, -128, 1, 1.5, 0x1f]");
    assert_eq!(numbers, (u64::MAX, -128, 1.0, 1.5, 31));
    let wrong = |text: &str| attempt::<(i8,)>(text).1.lines().next().unwrap().to_owned();
    assert_eq!(wrong("[128]"), "error: `128` is out of range: -128 to 127");
    assert_eq!(wrong("[1.5]"), "error: expected a whole number, found `1.5`");
    assert_eq!(wrong("[1, 2]"), "error: expected a list of 1, found one of 2");
    assert_eq!(wrong("[0660]"), "error: `0660` begins with a zero");
}

#[test]
fn an_empty_file_is_an_empty_mapping() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Lenient {
        #[serde(default)]
        threads: u8,
    }
    assert_eq!(right::<Lenient>("# nothing\n"), Lenient { threads: 0 });
}

#[test]
fn what_remains_without_unknown_keys_is_answered() {
    let (file, problems) = attempt::<File>("upstreams: {}\nthread: 4\n");
    assert_eq!(file.unwrap().threads, None);
    assert!(problems.starts_with("error: unknown key `thread`\n"));
}

#[test]
fn every_broken_value_is_told_and_nothing_that_follows_from_it() {
    let (file, problems) = attempt::<File>(
        "
upstreams:
  app:
    backends: [nowhere, { address: 1 }, { weight: 1 }]
    timeout: 5
    balance: [x]
    retrys: 3
routes:
  - { upstrem: app }
  - { upstream: [app], policies: [deny, { request_headers: { set: { a: [] } } }] }
threads: -1
",
    );
    assert_eq!(file, None);
    let errors: Vec<_> = problems.lines().filter(|line| line.starts_with("error")).collect();
    assert_eq!(
        errors,
        [
            "error: invalid socket address syntax",
            "error: invalid socket address syntax",
            "error: missing key `address` in `upstreams.app.backends[2]`",
            "error: `5` has no unit: write `5s` or `5ms`",
            "error: expected a word or a mapping with one key, found a list",
            "error: unknown key `retrys` in `upstreams.app`",
            "error: unknown key `upstrem` in `routes[0]`",
            "error: expected a text, found a list",
            "error: expected a text, found a list",
            "error: `-1` is out of range: 0 to 65535",
        ]
    );
}

#[test]
fn a_check_of_the_whole_is_not_blamed_for_a_part_that_was_left_out() {
    #[derive(Debug, Deserialize)]
    #[serde(try_from = "Vec<u8>")]
    struct NotEmpty(Vec<u8>);

    impl TryFrom<Vec<u8>> for NotEmpty {
        type Error = &'static str;

        fn try_from(items: Vec<u8>) -> Result<Self, &'static str> {
            if items.is_empty() {
                return Err("at least one is needed\nhelp: write `[1]`");
            }
            Ok(Self(items))
        }
    }

    assert_eq!(right::<NotEmpty>("[1]").0, [1]);
    let problems = attempt::<BTreeMap<String, NotEmpty>>("a: [x]\nb: []\nc: [1]\n").1;
    assert_eq!(
        problems,
        "\
error: expected a whole number, found `x`
 --> crestline.yaml:1:5
  |
1 | a: [x]
  |     ^ in `a[0]`

error: at least one is needed
 --> crestline.yaml:2:4
  |
2 | b: []
  |    ^^ in `b`
  |
help: write `[1]`
"
    );
}

/// A type whose author wrote the visitor by hand: a word, or a mapping.
#[derive(Debug, PartialEq)]
struct ByHand<T>(Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ByHand<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrMapping<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for WordOrMapping<T> {
            type Value = ByHand<T>;

            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("a word or a mapping")
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<ByHand<T>, E> {
                Ok(ByHand(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ByHand<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|full| ByHand(Some(full)))
            }
        }

        deserializer.deserialize_any(WordOrMapping(std::marker::PhantomData))
    }
}

#[test]
fn a_visitor_by_hand_is_as_strict() {
    assert_eq!(right::<ByHand<Headers>>("word").0, None);
    let errors = |text: &str| {
        let problems = attempt::<Vec<ByHand<Headers>>>(text).1;
        let is_told = |line: &&str| line.starts_with("error") || line.starts_with("help");
        problems.lines().filter(is_told).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        errors("- { sett: {}, add: {}, remove: x }\n- 5\n"),
        [
            "error: unknown key `sett` in `[0]`",
            "help: did you mean `set`? Known here: remove, set",
            "error: unknown key `add` in `[0]`",
            "help: Known here: remove, set",
            "error: expected a list, found `x`",
            "help: put it in brackets: `[…]`",
            "error: expected a word or a mapping, found `5`",
        ]
    );
}

#[test]
fn an_unknown_key_is_refused_even_where_the_type_would_ignore_it() {
    let problems = attempt::<ByHand<HttpCheck>>("path: /\nhots: x\n").1;
    assert!(problems.starts_with("error: unknown key `hots`\n"), "{problems}");
}

#[test]
fn a_hundred_broken_values_are_enough() {
    let text = "- x\n".repeat(150);
    let (list, problems) = attempt::<Vec<u8>>(&text);
    assert_eq!(list, None);
    assert_eq!(problems.matches("error").count(), 100);
}
