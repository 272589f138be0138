//! What finding a route costs, in a table of 10,000 routes over 1,000 hosts.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot begin says so by panicking")]

use std::{hint::black_box, time::Duration};

use crestline::routing::{
    host::RequestHost, method::Methods, path::canonicalize, request::RequestParts, rule::Rule,
    table::Table,
};
use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

const HOSTS: usize = 1_000;

/// Ten routes for each host: paths alone, prefixes one in another, conditions, an expression.
fn rules_of(host: &str) -> Vec<Rule> {
    let rule = |path: &str| Rule {
        host: Some(host.parse().unwrap()),
        path: path.parse().unwrap(),
        ..Rule::any()
    };
    let version =
        |wanted: &str| vec![(HeaderName::from_static("x-version"), wanted.parse().unwrap())];
    vec![
        rule("= /"),
        rule("= /healthz"),
        rule("/api/"),
        rule("/api/v1/users/"),
        rule("/assets/"),
        Rule { methods: Some(Methods::from_iter([Method::POST])), ..rule("/upload/") },
        Rule { headers: version("2"), ..rule("/versioned/") },
        Rule { headers: version("~ ^[3-9]$"), ..rule("/versioned/") },
        Rule { query: vec![("page".to_owned(), "2".parse().unwrap())], ..rule("/list/") },
        rule("~ ^/v[0-9]+/"),
    ]
}

fn table() -> Table<usize> {
    let hosts = (0..HOSTS).map(|host| match host % 10 {
        0 => format!("*.shop-{host}.example.com"),
        _ => format!("shop-{host}.example.com"),
    });
    let rules = hosts.flat_map(|host| rules_of(&host)).enumerate();
    Table::new(rules.map(|(index, rule)| (Rule { index, ..rule }, index)).collect())
}

fn routing(criterion: &mut Criterion) {
    let table = table();
    assert_eq!(table.routes().len(), 10_000);
    let mut group = criterion.benchmark_group("find");
    for (name, request) in [
        ("exact path", "GET shop-555.example.com /healthz"),
        ("prefix", "GET shop-555.example.com /api/v1/users/17/orders/4"),
        ("wildcard host", "GET a.b.shop-500.example.com /assets/app.js"),
        ("method", "POST shop-555.example.com /upload/file"),
        ("header", "GET shop-555.example.com /versioned/x"),
        ("query", "GET shop-555.example.com /list/x?sort=up&page=2"),
        ("expression", "GET shop-555.example.com /v12/things"),
        ("405", "GET shop-555.example.com /upload/file"),
        ("404", "GET shop-555.example.com /nothing/here"),
        ("404, unknown host", "GET www.example.org /nothing/here"),
    ] {
        let words: Vec<&str> = request.split(' ').collect();
        let (path, query) = words[2].split_once('?').unwrap_or((words[2], ""));
        let method: Method = words[0].parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", HeaderValue::from_static("bench"));
        headers.insert("x-version", HeaderValue::from_static("4"));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                // What a request costs in all: its host and its path are brought into form as well.
                let host = RequestHost::new(black_box(words[1]));
                let path = canonicalize(black_box(path)).unwrap();
                let (host, path) = (host.as_str(), path.as_str());
                let request =
                    RequestParts { host, path, method: &method, headers: &headers, query };
                black_box(table.find(&request));
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = routing
}
criterion_main!(benches);
