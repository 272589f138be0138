//! The table beside its definition: a scan of all rules in their order.

use http::{HeaderMap, HeaderName, Method};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::routing::{cover::covered, method::MethodName, wanted::Wanted};

/// A rule of a host, a path, and conditions: methods in capitals, `name: wanted`, `?name: wanted`.
fn rule(host: Option<&str>, path: &str, conditions: &[&str]) -> Rule {
    let mut rule = Rule {
        host: host.map(|host| host.parse().unwrap()),
        path: path.parse().unwrap(),
        ..Rule::any()
    };
    let mut methods: Vec<Method> = Vec::new();
    for condition in conditions {
        let Some((name, wanted)) = condition.split_once(": ") else {
            methods.push(condition.parse::<MethodName>().unwrap().0);
            continue;
        };
        let wanted: Wanted = wanted.parse().unwrap();
        match name.strip_prefix('?') {
            Some(name) => rule.query.push((name.to_owned(), wanted)),
            None => rule.headers.push((name.parse().unwrap(), wanted)),
        }
    }
    rule.methods = (!methods.is_empty()).then(|| methods.into_iter().collect());
    rule
}

/// Rules in the order of a file, each with its place as its route.
fn table(rules: impl IntoIterator<Item = Rule>) -> Table<usize> {
    let rules = rules.into_iter().enumerate();
    Table::new(rules.map(|(index, rule)| (Rule { index, ..rule }, index)).collect())
}

/// A request that owns its parts.
#[derive(Clone, Debug)]
struct Request {
    host: String,
    target: String,
    method: Method,
    headers: HeaderMap,
}

impl Request {
    /// `GET b.test /path?query` and fields.
    fn new(line: &str, fields: &[(&str, &str)]) -> Self {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap().to_owned();
        let method = word().parse().unwrap();
        let field = |(name, value): &(&str, &str)| -> (HeaderName, _) {
            (name.parse().unwrap(), value.parse().unwrap())
        };
        let headers = fields.iter().map(field).collect();
        Self { method, host: word(), target: word(), headers }
    }

    fn parts(&self) -> RequestParts<'_> {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let Self { host, method, headers, .. } = self;
        RequestParts { host, path, method, headers, query }
    }
}

#[track_caller]
fn finds(table: &Table<usize>, line: &str, fields: &[(&str, &str)], expected: Option<usize>) {
    let request = Request::new(line, fields);
    let expected = expected.as_ref().map_or(Found::Nothing, Found::Route);
    assert_eq!(table.find(&request.parts()), expected, "{line} {fields:?}");
}

#[test]
fn the_most_specific_host_and_path_take_the_request() {
    let table = table([
        rule(None, "/", &[]),
        rule(None, "/api/", &[]),
        rule(None, "= /api/v1", &[]),
        rule(Some("*.test"), "/", &[]),
        rule(Some("*.a.test"), "/", &[]),
        rule(Some("b.a.test"), "/only/", &[]),
    ]);
    for (line, expected) in [
        ("GET x /", 0),
        ("GET x /apix", 0),
        ("GET x /api", 1),
        ("GET x /api/", 1),
        ("GET x /api/v1/", 1),
        ("GET x /api/v1", 2),
        ("GET c.test /api", 3),
        ("GET test /", 0),
        ("GET c.a.test /", 4),
        ("GET b.a.test /only/this", 5),
        ("GET b.a.test /other", 4),
    ] {
        finds(&table, line, &[], Some(expected));
    }
}

#[test]
fn expressions_come_after_prefixes_in_the_order_of_the_file() {
    let table = table([
        rule(None, "~ ^/v[0-9]+/", &[]),
        rule(None, "~ /x$", &[]),
        rule(None, "/v1/", &[]),
        rule(Some("a.test"), "~ z", &[]),
        rule(Some("a.test"), "~ ^/v", &["POST"]),
    ]);
    finds(&table, "GET b /v2/x", &[], Some(0));
    finds(&table, "GET b /w/x", &[], Some(1));
    finds(&table, "GET b /v1/x", &[], Some(2));
    finds(&table, "GET a.test /v1/z", &[], Some(3));
    finds(&table, "POST a.test /v1/x", &[], Some(4));
    finds(&table, "GET a.test /v1/x", &[], Some(2));
    finds(&table, "GET b /none", &[], None);
    finds(&table, "OPTIONS b *", &[], None);
}

#[test]
fn of_one_path_the_rule_with_the_most_conditions_is_asked_first() {
    let table = table([
        rule(None, "/", &[]),
        rule(None, "/", &["?page: 2"]),
        rule(None, "/", &["?page: 2", "?all: *"]),
        rule(None, "/", &["x-a: 1"]),
        rule(None, "/", &["x-a: *", "x-b: 2"]),
        rule(None, "/", &["GET", "POST"]),
        rule(None, "/", &["HEAD"]),
        rule(None, "/", &["x-a: ~ ^[0-9]$"]),
    ]);
    finds(&table, "PUT a /", &[], Some(0));
    finds(&table, "PUT a /?page=2", &[], Some(1));
    finds(&table, "PUT a /?all&page=%32", &[], Some(2));
    finds(&table, "PUT a /?page=2", &[("x-a", "1")], Some(3));
    finds(&table, "PUT a /", &[("x-a", "1"), ("x-b", "2")], Some(4));
    finds(&table, "GET a /?page=2", &[("x-a", "1"), ("x-b", "2")], Some(5));
    finds(&table, "HEAD a /", &[], Some(6));
    finds(&table, "PUT a /", &[("x-a", "x"), ("X-A", "3")], Some(7));
}

#[test]
fn a_request_that_lacks_only_the_method_is_told_which_would_do() {
    let table = table([
        rule(None, "/", &["DELETE"]),
        rule(None, "/a", &["POST"]),
        rule(None, "/a", &["GET", "?x: *"]),
        rule(None, "/a", &["PUT", "x-a: *"]),
        rule(Some("*.test"), "/b", &["PATCH"]),
        rule(None, "/b", &["PURGE"]),
    ]);
    let allowed = |line: &str, fields| {
        let request = Request::new(line, fields);
        assert_eq!(table.find(&request.parts()), Found::OtherMethods, "{line}");
        table.allowed(&request.parts()).to_str().unwrap().to_owned()
    };
    assert_eq!(allowed("OPTIONS a.test /a", &[]), "DELETE, POST");
    assert_eq!(allowed("get a.test /a", &[]), "DELETE, POST");
    assert_eq!(allowed("OPTIONS a.test /a?x", &[]), "DELETE, GET, HEAD, POST");
    assert_eq!(allowed("OPTIONS a.test /a", &[("x-a", "")]), "DELETE, POST, PUT");
    assert_eq!(allowed("GET a.test /b", &[]), "DELETE, PATCH, PURGE");
    finds(&table, "PURGE a.test /b", &[], Some(5));
    finds(&table, "DELETE a.test /b", &[], Some(0));
}

#[test]
fn every_rule_tells_what_fails_first_and_the_nearest_stands_first() {
    let table = table([
        rule(Some("b.test"), "/", &[]),
        rule(Some("*.b.test"), "/", &[]),
        rule(None, "/api/", &["x-version: 2", "GET"]),
        rule(None, "/api/", &["POST", "DELETE"]),
        rule(None, "/api/", &["x-version: ~ ^[3-9]$"]),
        rule(None, "/api/", &["x-debug: *"]),
        rule(None, "/api/", &["x-version: !"]),
        rule(None, "/api/", &["?page: 2"]),
        rule(None, "= /api", &[]),
        rule(None, "/other/", &[]),
        rule(None, "~ ^/v", &[]),
    ]);
    let request =
        Request::new("GET a.test /api/x?page=1&page=%00", &[("x-version", "1"), ("X-Version", "")]);
    let told: Vec<_> =
        table.explain(&request.parts()).iter().map(|judged| judged.verdict.to_string()).collect();
    assert_eq!(
        told,
        [
            "method is GET, not DELETE or POST",
            "parameter page is `1` and 1 more, wanted `2`",
            "header x-version is `1` and 1 more, wanted `2`",
            "header x-version is `1` and 1 more, wanted `~ ^[3-9]$`",
            "header x-debug is absent, wanted any value",
            "header x-version is `1` and 1 more, wanted none",
            "path is not /api",
            "path is not below /other/",
            "path does not match `~ ^/v`",
            "host is a.test, not b.test",
            "host is a.test, not *.b.test",
        ]
    );
    let hostless = Request::new("GET  /", &[]);
    let nearest = table.explain(&hostless.parts());
    assert_eq!(nearest.last().unwrap().verdict.to_string(), "host is missing, wanted *.b.test");
}

/// The rule that takes all requests of one of two, by their places, if there is such a rule.
fn covering(rules: [Rule; 2]) -> Option<(usize, usize)> {
    let rules: Vec<Rule> = table(rules).routes().iter().map(|(rule, _)| rule.clone()).collect();
    let pair = covered(&rules).next().map(|covered| (covered.rule.index, covered.by.index));
    assert!(covered(&rules).count() <= 1);
    pair
}

#[test]
fn a_rule_that_another_takes_everything_from_is_found() {
    let any = |path, conditions| rule(None, path, conditions);
    let second_is_covered = [
        [any("/", &[]), any("/", &[])],
        [any("/", &[]), any("~ x", &[])],
        [any("/", &[]), any("~ ^/v", &["GET", "x-a: 1"])],
        [any("/api", &[]), any("~ ^/api/v[0-9]", &[])],
        [any("/api", &[]), any("~ ^/api$", &[])],
        [any("= /api", &[]), any("~ ^/api$", &[])],
        [any("~ x", &[]), any("~ x", &["GET"])],
        [any("~ x", &["GET", "POST"]), any("~ x", &["HEAD"])],
        [any("/", &["GET"]), any("/", &["HEAD", "GET"])],
        [any("/", &["x-a: *"]), any("/", &["x-a: 1"])],
        [any("/", &["x-a: ~ ^[0-9]$"]), any("/", &["x-a: 1"])],
        [any("/", &["?a: *"]), any("/", &["?a: 1"])],
    ];
    for [first, second] in second_is_covered {
        let told = format!("{first} | {second}");
        assert_eq!(covering([first, second]), Some((1, 0)), "{told}");
    }
    let none_is_covered = [
        [any("~ x", &["GET"]), any("~ x", &[])],
        [any("/api", &[]), any("~ ^/api[0-9]", &[])],
        [any("/api", &[]), any("~ ^/apis$", &[])],
        [any("/api", &[]), any("~ /api/v", &[])],
        [any("/api/v1", &[]), any("~ ^/api/", &[])],
        [any("/", &[]), any("~ ^\\*$", &[])],
        [any("/", &["GET"]), any("~ x", &[])],
        [any("/", &[]), any("/", &["GET"])],
        [any("/", &["x-a: 1"]), any("/", &["x-a: *"])],
        [any("/", &["x-a: 1"]), any("/", &["x-b: 1"])],
        [any("/", &["x-a: 1"]), any("/", &["?x-a: 1"])],
        [any("/", &[]), rule(Some("a.test"), "~ x", &[])],
        [rule(Some("a.test"), "/", &[]), any("~ x", &[])],
    ];
    for [first, second] in none_is_covered {
        let told = format!("{first} | {second}");
        assert_eq!(covering([first, second]), None, "{told}");
    }
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let host = option::of(prop_oneof!["(\\*\\.)?[ab](\\.[ab]){0,2}", Just("*.b".into())]);
    let expressions = vec!["~ a", "~ ^/a/", "~ b$", "~ ^/a/b$", "~ ^/[ab]/"];
    let path = prop_oneof![
        4 => "(= )?(/[ab]{0,2}){1,3}",
        2 => select(expressions).prop_map(str::to_owned),
    ];
    let wanted = || select(vec!["1", "~ ^[12]$", "*", "!", "= "]);
    let conditions = (
        option::weighted(0.3, vec(select(vec!["GET", "HEAD", "POST", "PUT"]), 1..4)),
        option::weighted(0.3, wanted()),
        option::weighted(0.2, wanted()),
        option::weighted(0.3, wanted()),
        option::weighted(0.2, wanted()),
    );
    (host, path, conditions).prop_map(|(host, path, (methods, x_a, x_b, a, b))| {
        let mut conditions: Vec<String> =
            methods.into_iter().flatten().map(str::to_owned).collect();
        for (name, wanted) in [("x-a", x_a), ("x-b", x_b), ("?a", a), ("?b", b)] {
            conditions.extend(wanted.map(|wanted| format!("{name}: {wanted}")));
        }
        let conditions: Vec<&str> = conditions.iter().map(String::as_str).collect();
        rule(host.as_deref(), &path, &conditions)
    })
}

fn any_request() -> impl Strategy<Value = Request> {
    let target = "(/[ab]{0,2}){1,4}(\\?([ab](=[12]?)?|%61=%31)(&[ab]=[123])?)?";
    let fields = vec((select(vec!["x-a", "x-b"]), select(vec!["", "1", "2", "3"])), 0..3);
    let method = select(vec!["GET", "HEAD", "POST", "PUT", "PURGE"]);
    (method, "[ab](\\.[ab]){0,3}", target, fields).prop_map(|(method, host, target, fields)| {
        Request::new(&format!("{method} {host} {target}"), &fields)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// The table agrees with a scan of all rules in their order, and so does the explanation.
    #[test]
    fn the_table_agrees_with_a_linear_scan(
        rules in vec(any_rule(), 0..24),
        request in any_request(),
    ) {
        let table = table(rules);
        let mut rules: Vec<&Rule> = table.routes().iter().map(|(rule, _)| rule).collect();
        rules.sort();
        let parts = request.parts();
        let takes = rules.iter().find(|rule| rule.matches(&parts));
        let other = |rule: &&Rule| matches!(rule.verdict(&parts), Verdict::Method(..));
        let methods: Methods = rules.iter().copied().filter(other)
            .flat_map(|rule| rule.methods.iter().flat_map(Methods::iter).cloned()).collect();

        let explained = table.explain(&parts);
        match table.find(&parts) {
            Found::Route(found) => {
                prop_assert_eq!(Some(*found), takes.map(|rule| rule.index));
                prop_assert!(explained[0].verdict.is_match());
                prop_assert_eq!(explained[0].route, found);
            }
            Found::OtherMethods => {
                prop_assert!(takes.is_none() && !methods.is_empty());
                prop_assert_eq!(table.allowed(&parts), methods.to_allow());
                prop_assert!(matches!(explained[0].verdict, Verdict::Method(..)));
            }
            Found::Nothing => prop_assert!(takes.is_none() && methods.is_empty()),
        }
    }

    /// A rule that is said to take all requests of another takes each of them, and comes first.
    #[test]
    fn a_covered_rule_is_never_found(
        rules in vec(any_rule(), 0..24),
        requests in vec(any_request(), 1..20),
    ) {
        let table = table(rules);
        let rules: Vec<Rule> = table.routes().iter().map(|(rule, _)| rule.clone()).collect();
        for covered in covered(&rules) {
            for request in &requests {
                let parts = request.parts();
                prop_assert!(!covered.rule.matches(&parts) || covered.by.matches(&parts));
                prop_assert_ne!(table.find(&parts), Found::Route(&covered.rule.index));
            }
        }
    }
}
