//! Which route takes a request: each kind of condition, their order, and `405` with `Allow`.

use std::fmt::Write as _;

use crate::support::{Answer, Crestline, Origin, curl};

/// Starts a proxy with routes that tell their names: `name`, then what stands under `match:`.
async fn start(origin: &Origin, routes: &[(&str, &str)]) -> Crestline {
    let mut yaml = format!(
        "upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
listeners: [{{ address: \"127.0.0.1:0\", h2c: true }}]
routes:
"
    );
    for (name, matches) in routes {
        let _ = write!(
            yaml,
            "  - {{ name: {name}, match: {{ {matches} }}, upstream: app,
      policies: [{{ response_headers: {{ set: {{ x-route: {name} }} }} }}] }}\n"
        );
    }
    Crestline::start(&yaml).await
}

/// Sends `METHOD host /path` and fields, each with its line end.
async fn ask(proxy: &Crestline, line: &str, fields: &str) -> Answer {
    let [method, host, target] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let mut client = proxy.client().await;
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).await;
    if method == "HEAD" { client.head().await } else { client.answer().await }
}

/// Asserts which route takes a request; its status if none does.
async fn takes(proxy: &Crestline, line: &str, fields: &str, expected: &str) {
    let answer = ask(proxy, line, fields).await;
    let status = answer.status.to_string();
    assert_eq!(answer.get("x-route").unwrap_or(&status), expected, "{line} {fields:?}");
}

#[tokio::test]
async fn hosts_are_matched_without_case_and_port() {
    let origin = Origin::replying("hello");
    let proxy = start(
        &origin,
        &[
            ("exact", "hosts: [Shop.test]"),
            ("wildcard", "hosts: ['*.shop.test']"),
            ("longer", "hosts: ['*.eu.shop.test']"),
            ("literal", "hosts: ['[2001:DB8::1]', 192.0.2.1]"),
            ("any", "path: /any"),
        ],
    )
    .await;

    for (host, expected) in [
        ("shop.test", "exact"),
        ("SHOP.test:8080", "exact"),
        ("shop.test.", "exact"),
        ("a.Shop.test", "wildcard"),
        ("a.b.shop.test:80", "wildcard"),
        ("a.eu.shop.test", "longer"),
        ("eu.shop.test", "wildcard"),
        ("[2001:db8::1]", "literal"),
        ("[2001:DB8:0:0::1]:8443", "literal"),
        ("192.0.2.1:80", "literal"),
        ("[2001:db8::2]", "404"),
        ("myshop.test", "404"),
    ] {
        takes(&proxy, &format!("GET {host} /"), "", expected).await;
    }
    takes(&proxy, "GET other.test /any", "", "any").await;
    takes(&proxy, "GET shop.test /any", "", "exact").await;
}

#[tokio::test]
async fn an_exact_path_comes_before_prefixes_and_they_before_expressions() {
    let origin = Origin::replying("hello");
    let proxy = start(
        &origin,
        &[
            ("second", "path: '~ ^/v[0-9]+/'"),
            ("third", "path: '~ /x$'"),
            ("prefix", "path: /v1/"),
            ("exact", "path: = /v1/exact"),
            ("last", "path: '~ ^/'"),
        ],
    )
    .await;

    for (path, expected) in [
        ("/v1/exact", "exact"),
        ("/v1/exact/not", "prefix"),
        ("/v1", "prefix"),
        ("/v2/x", "second"),
        ("/%762/x", "second"),
        ("/y/../v2/", "second"),
        ("/y/x?z", "third"),
        ("/v12", "last"),
    ] {
        takes(&proxy, &format!("GET a.test {path}"), "", expected).await;
    }
}

#[tokio::test]
async fn methods_are_matched_and_get_takes_head() {
    let origin = Origin::replying("hello");
    let proxy = start(
        &origin,
        &[("reads", "methods: [GET]"), ("writes", "methods: [POST, PURGE]"), ("rest", "path: /")],
    )
    .await;

    for (method, expected) in [
        ("GET", "reads"),
        ("HEAD", "reads"),
        ("POST", "writes"),
        ("PURGE", "writes"),
        ("PUT", "rest"),
        ("get", "rest"),
    ] {
        takes(&proxy, &format!("{method} a.test /"), "", expected).await;
    }
}

#[tokio::test]
async fn headers_are_matched_by_any_of_their_values() {
    let origin = Origin::replying("hello");
    let proxy = start(
        &origin,
        &[
            ("equal", "path: /equal, headers: { X-Version: '2' }"),
            ("sign", "path: /sign, headers: { x-version: '= *' }"),
            ("regex", "path: /regex, headers: { accept: '~ ^application/([a-z]+[+])?json' }"),
            ("present", "path: /present, headers: { authorization: '*' }"),
            ("absent", "path: /absent, headers: { x-debug: '!' }"),
            ("all", "path: /all, headers: { x-a: 1, x-b: '*', x-c: '!' }"),
            ("bytes", "path: /bytes, headers: { x-name: 'é' }"),
        ],
    )
    .await;

    for (path, fields, expected) in [
        ("/equal", "x-version: 2\r\n", "equal"),
        ("/equal", "X-VERSION:  2 \r\n", "equal"),
        ("/equal", "x-version: 1\r\nx-version: 2\r\n", "equal"),
        ("/equal", "x-version: 22\r\n", "404"),
        ("/equal", "", "404"),
        ("/sign", "x-version: *\r\n", "sign"),
        ("/sign", "x-version: 1\r\n", "404"),
        ("/regex", "accept: text/html\r\naccept: application/problem+json\r\n", "regex"),
        ("/regex", "accept: text/html, application/json\r\n", "404"),
        ("/present", "authorization: Basic x\r\n", "present"),
        ("/present", "", "404"),
        ("/absent", "", "absent"),
        ("/absent", "x-debug:\r\n", "404"),
        ("/all", "x-a: 1\r\nx-b: 2\r\n", "all"),
        ("/all", "x-a: 1\r\nx-b: 2\r\nx-c: 3\r\n", "404"),
        ("/bytes", "x-name: é\r\n", "bytes"),
        ("/bytes", "x-name: e\r\n", "404"),
    ] {
        takes(&proxy, &format!("GET a.test {path}"), fields, expected).await;
    }
}

#[tokio::test]
async fn queries_are_matched_decoded() {
    let origin = Origin::replying("hello");
    let proxy = start(
        &origin,
        &[
            ("equal", "path: /equal, query: { page: 2 }"),
            ("encoded", "path: /encoded, query: { 'a b': 'c&d é' }"),
            ("regex", "path: /regex, query: { page: '~ ^[0-9]+$' }"),
            ("present", "path: /present, query: { debug: '*' }"),
            ("absent", "path: /absent, query: { debug: '!' }"),
        ],
    )
    .await;

    for (target, expected) in [
        ("/equal?page=2", "equal"),
        ("/equal?x&page=1&page=2", "equal"),
        ("/equal?p%61ge=%32", "equal"),
        ("/equal?Page=2", "404"),
        ("/equal?page=22", "404"),
        ("/equal", "404"),
        ("/encoded?a+b=c%26d+%C3%A9", "encoded"),
        ("/encoded?a%20b=c%26d%20%c3%a9", "encoded"),
        ("/encoded?a+b=c&d+%C3%A9", "404"),
        ("/regex?page=12", "regex"),
        ("/regex?page=12x", "404"),
        ("/present?debug", "present"),
        ("/present?debug=", "present"),
        ("/present?bug", "404"),
        ("/absent?", "absent"),
        ("/absent?%64ebug", "404"),
    ] {
        takes(&proxy, &format!("GET a.test {target}"), "", expected).await;
    }
    assert_eq!(origin.last().target, "/absent?", "the query is forwarded as it was sent");
}

#[tokio::test]
async fn of_one_path_the_route_with_the_most_conditions_comes_first() {
    let origin = Origin::replying("hello");
    let proxy = start(
        &origin,
        &[
            ("plain", "path: /"),
            ("query", "query: { q: '*' }"),
            ("header", "headers: { x-a: '*' }"),
            ("headers", "headers: { x-a: '*', x-b: '*' }"),
            ("method", "methods: [GET, PUT]"),
            ("get", "methods: [GET]"),
            ("path", "path: /path"),
        ],
    )
    .await;

    let (a, b) = ("x-a: 1\r\n", "x-b: 1\r\n");
    takes(&proxy, "POST a.test /", "", "plain").await;
    takes(&proxy, "POST a.test /?q", "", "query").await;
    takes(&proxy, "POST a.test /?q", a, "header").await;
    takes(&proxy, "POST a.test /?q", &format!("{a}{b}"), "headers").await;
    takes(&proxy, "PUT a.test /?q", &format!("{a}{b}"), "method").await;
    takes(&proxy, "GET a.test /?q", &format!("{a}{b}"), "get").await;
    takes(&proxy, "GET a.test /path?q", &format!("{a}{b}"), "path").await;
}

const OTHER_METHODS: [(&str, &str); 5] = [
    ("reads", "path: /api, methods: [GET]"),
    ("writes", "path: /api/, methods: [POST, PUT], headers: { x-token: '*' }"),
    ("host", "hosts: [a.test], path: '~ ^/api', methods: [DELETE]"),
    ("narrow", "path: /both/, methods: [GET]"),
    ("wide", "path: '~ ^/both', methods: [POST]"),
];

#[tokio::test]
async fn a_path_with_other_methods_gets_405_with_the_methods_that_it_has() {
    let origin = Origin::replying("hello");
    let proxy = start(&origin, &OTHER_METHODS).await;

    for (line, fields, allowed) in [
        ("POST b.test /api/x", "", "GET, HEAD"),
        ("PATCH b.test /api/x", "x-token: 1\r\n", "GET, HEAD, POST, PUT"),
        ("OPTIONS a.test /api/x", "", "DELETE, GET, HEAD"),
        ("DELETE b.test /api/x", "", "GET, HEAD"),
        ("PUT b.test /both/x", "", "GET, HEAD, POST"),
    ] {
        let answer = ask(&proxy, line, fields).await;
        assert_eq!((answer.status, answer.get("allow")), (405, Some(allowed)), "{line}");
    }
    let line = &proxy.access_log(5).await[0];
    assert_eq!((&line["status"], &line["reason"]), (&405.into(), &"method_not_allowed".into()));
    assert_eq!(line["route"], serde_json::Value::Null);

    takes(&proxy, "POST b.test /both/x", "", "wide").await;
    takes(&proxy, "PUT b.test /api/x", "x-token: 1\r\n", "writes").await;
    takes(&proxy, "GET a.test /api/x", "", "reads").await;
    takes(&proxy, "GET a.test /nothing", "", "404").await;
    assert_eq!(origin.count(), 3);

    let mut client = proxy.client().await;
    for _ in 0..2 {
        let answer = client.exchange("PUT /api HTTP/1.1\r\nHost: b.test\r\n\r\n").await;
        assert_eq!(answer.status, 405, "on one connection");
    }
}

/// The same conditions hold over HTTP/2, whose host is no field.
#[tokio::test]
async fn http_2_is_matched_alike() {
    let origin = Origin::replying("hello");
    let proxy = start(
        &origin,
        &[
            &OTHER_METHODS[..],
            &[("all", "hosts: ['*.test'], headers: { x-a: 1 }, query: { q: 2 }")],
        ]
        .concat(),
    )
    .await;

    for (method, target, allowed) in [
        ("OPTIONS", "/api/x", Some("DELETE, GET, HEAD")),
        ("TRACE", "/api/x", Some("GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH")),
        ("GET", "/other?q=%32", None),
    ] {
        let (host, port) = ("A.test", proxy.address().rsplit_once(':').unwrap().1);
        let resolve = format!("{host}:{port}:127.0.0.1");
        let url = format!("http://{host}:{port}{target}");
        let output = curl(&[
            "--http2-prior-knowledge",
            "--include",
            "--resolve",
            &resolve,
            "--request",
            method,
            "--header",
            "x-a: 1",
            &url,
        ])
        .await;
        let text = String::from_utf8(output.stdout).unwrap();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.map(str::trim)
        };
        assert_eq!(field("allow"), allowed, "{text}");
        assert_eq!(text.starts_with("HTTP/2 405"), allowed.is_some(), "{text}");
        assert_eq!(field("x-route"), allowed.is_none().then_some("all"), "{text}");
    }
}
