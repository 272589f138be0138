//! What Crestline's own code allocates for a request: nothing.
//!
//! A binary of its own, under a counting allocator. Pingora's allocations (its `select` builds a
//! set, each of its async hooks a boxed future) are not ours and not counted here: each part of
//! ours is measured on its own, as the path calls it.

#[path = "allocations/kept.rs"]
mod kept;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use allocation_counter::measure;
use crestline::{
    acme::challenges::Challenges,
    diagnostic::Problems,
    downstream::connection::Connection,
    http1::{
        chunked::ChunkGuard,
        head::{HeadReader, Limits},
    },
    observe::request_id,
    policy::{
        body::BodyFilters,
        contract::{Facts, Flow, Notes, Request, Response},
        identity::Identity as Who,
    },
    routing::{
        host::RequestHost,
        path::{Canonical, canonicalize},
        request::RequestParts,
        table::Found,
    },
    snapshot::{self, Snapshot, Split},
    tls::identity::Identity,
    upstream::{
        Visit,
        backend::{Availability, InFlight, Probe},
        balance::{
            hints::Hints, least_requests::LeastRequests, peak_ewma::PeakEwma, pool::Pool,
            random::Random,
        },
        load::Admission,
        outcome::Outcome,
    },
};
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, header::ACCEPT};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_load_balancing::selection::{BackendIter as _, BackendSelection as _};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::time::Instant;

const FILE: &str = "
upstreams:
  app:
    backends: [127.0.0.1:3031, 127.0.0.1:3032, 127.0.0.1:3033]
    health_check: off
    ejection: { failure_share: 50%, latency_factor: 3 }
  bounded:
    backends: [127.0.0.1:3041, 127.0.0.1:3042]
    health_check: off
    max_requests: 2
    max_connections: 4
    queue: { max: 10 }
  adaptive:
    backends: [127.0.0.1:3043]
    health_check: off
    max_requests: adaptive
routes:
  - name: any
    match: { methods: [GET, POST, HEAD] }
    upstream: app
  - name: shop
    match: { hosts: [shop.test, '*.shop.test'], path: /api/ }
    policies:
      - request_headers: { set: { x-edge: crestline } }
      - body_limit: 1MiB
      - rate_limit: { by: [client, header.x-tenant, host], rates: [1000/s, 100000/h] }
      - concurrency_limit: { by: [cookie.user, query.user], max: 10 }
      - geo: { country: tests/geo/country.mmdb, rules: [deny country:DE, allow all] }
      - concurrency_limit: { by: [geo.country, geo.continent], max: 10 }
      - compression: {}
    upstream: app
  - name: conditions
    match:
      hosts: [conditions.test]
      path: '~ ^/v[0-9]+/(a|b)'
      methods: [GET, PURGE]
      headers: { accept: '~ json$', x-plain: '= 2', x-any: '*', x-none: '!' }
      query: { page: '~ ^[0-9]+$', plain: '2', any: '*', none: '!' }
    upstream: app
  - name: exact
    match: { hosts: [conditions.test], path: = /exact, methods: [POST] }
    upstream: app
  - name: only
    match: { hosts: ['*.only.test'], path: /only/, headers: { x-plain: '2' } }
    upstream: app
  - name: split
    match: { hosts: [split.test] }
    upstream:
      split: [{ name: app, weight: 1 }, { name: bounded, weight: 1 }, { name: adaptive, weight: 1 }]
      key: { header: x-user }
access_log: off
";

const HEAD: &[u8] = b"GET /api/v1/things?page=2 HTTP/1.1\r\nHost: www.shop.test\r\n\
    User-Agent: test\r\nAccept: */*\r\nCookie: a=b; c=d\r\n\r\n";

fn snapshot() -> Snapshot {
    let mut problems = Problems::default();
    let compiled = snapshot::compile(FILE, &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    compiled.expect("a good file")
}

/// Counts what a warmed-up action allocates.
fn allocations(mut act: impl FnMut()) -> u64 {
    act();
    measure(act).count_total
}

fn main() {
    vetting_a_head_allocates_nothing();
    guarding_a_chunked_body_allocates_nothing();
    finding_a_route_allocates_nothing();
    asking_the_policies_allocates_nothing();
    choosing_and_reporting_a_backend_allocates_nothing();
    no_algorithm_allocates();
    taking_a_place_where_load_is_bounded_allocates_nothing();
    splitting_a_route_allocates_nothing();
    a_request_id_costs_no_allocation_of_its_own();
    a_request_that_is_not_traced_costs_no_allocation_but_a_share_of_its_field();
    telling_of_a_client_allocates_nothing();
    holding_a_host_against_a_certificate_allocates_nothing();
    looking_for_the_page_of_a_challenge_allocates_nothing();
    counting_a_request_allocates_nothing();
    kept::an_answer_that_is_kept_costs_so_much();
    kept::a_route_without_a_cache_costs_nothing_for_it();
    kept::looking_for_cookies_of_ours_allocates_nothing();
    println!("17 passed, 0 failed");
}

fn vetting_a_head_allocates_nothing() {
    let limits = Limits::default();
    let count = allocations(|| {
        let head = HeadReader::new().advance(HEAD, &limits);
        assert!(matches!(head, Ok(Some(_))));
    });
    assert_eq!(count, 0, "HeadReader");
}

fn guarding_a_chunked_body_allocates_nothing() {
    let count = allocations(|| {
        let mut guard = ChunkGuard::new();
        assert_eq!(guard.advance(b"5\r\nhello\r\n0\r\n\r\n"), Ok(15));
    });
    assert_eq!(count, 0, "ChunkGuard");
}

/// The first request of a route on a thread makes the cells of that thread.
fn counting_a_request_allocates_nothing() {
    let snapshot = snapshot();
    let account = snapshot.upstreams["app"].account().clone();
    let took = Duration::from_millis(3);
    let count = allocations(|| {
        snapshot.ledger.unrouted.count(200, took);
        account.connected(Some(took));
        account.connected(None);
    });
    assert_eq!(count, 0, "metrics");
}

/// What the table makes of a request: a route's name, `405` or `404`.
fn find<'a>(snapshot: &'a Snapshot, line: &str, headers: &HeaderMap) -> &'a str {
    let (method, rest) = line.split_once(' ').expect("a method");
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let (authority, target) = rest.split_once(' ').expect("a host");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = canonicalize(path).expect("a good path");
    assert!(matches!(path, Canonical::AsIs(_)));
    let host = RequestHost::new(authority);
    let (host, path) = (host.as_str(), path.as_str());
    let request = RequestParts { host, path, method: &method, headers, query };
    match snapshot.routes.find(&request) {
        Found::Route(route) => route.name.as_str(),
        Found::OtherMethods => "405",
        Found::Nothing => "404",
    }
}

/// Conditions of every kind, met and not met, alone and beside routes that others would take.
fn finding_a_route_allocates_nothing() {
    let snapshot = snapshot();
    let field = |name: &'static str, value: &'static str| {
        (name.parse().expect("a name"), HeaderValue::from_static(value))
    };
    let headers = HeaderMap::from_iter([
        (ACCEPT, HeaderValue::from_static("text/html, application/json")),
        field("x-plain", "1"),
        field("x-plain", "2"),
        field("x-any", ""),
    ]);
    let none = HeaderMap::new();
    let all = "plain=1&plain=2&page=17&any";
    for (line, headers, expected) in [
        ("GET WWW.shop.test:8080 /api/v1/things", &none, "shop"),
        ("GET [2001:DB8::1]:8080 /api/v1/things", &none, "any"),
        ("POST conditions.test /exact", &none, "exact"),
        ("GET conditions.test /exact", &none, "any"),
        ("DELETE conditions.test /exact", &none, "405"),
        (&format!("GET conditions.test /v1/a?{all}"), &headers, "conditions"),
        (&format!("HEAD conditions.test /v1/b?{all}"), &headers, "conditions"),
        (&format!("PUT conditions.test /v1/b?{all}"), &headers, "405"),
        (&format!("GET conditions.test /v1/b?{all}&none"), &headers, "any"),
        (&format!("GET conditions.test /w1/b?{all}"), &headers, "any"),
        (&format!("GET conditions.test /v1/b?{all}"), &none, "any"),
        ("GET x.y.only.test /only/this", &headers, "only"),
        ("PUT x.y.only.test /only/this", &none, "405"),
        ("OPTIONS x.y.only.test *", &none, "404"),
    ] {
        let count = allocations(|| assert_eq!(find(&snapshot, line, headers), expected, "{line}"));
        assert_eq!(count, 0, "Table::find: {line}");
    }
}

fn asking_the_policies_allocates_nothing() {
    let snapshot = snapshot();
    let (method, headers) = (Method::POST, HeaderMap::new());
    let (host, path, query) = ("shop.test", "/api", "");
    let request = RequestParts { host, path, method: &method, headers: &headers, query };
    let Found::Route(route) = snapshot.routes.find(&request) else { panic!("a route") };
    let mut header = RequestHeader::build("POST", b"/api", None).expect("a request");
    header.insert_header("content-length", "100").expect("a header");
    let client = Some(IpAddr::from([192, 0, 2, 7]));
    let connection = Connection::new(client, Arc::new([]), Arc::default(), Arc::default());
    let (id, who) = (HeaderValue::from_static("1"), Who::default());
    let facts = Facts {
        header: &header,
        canonical: None,
        connection: &connection,
        client,
        id: &id,
        who: &who,
        route: &route.name,
        upstream: "app",
        backend: None,
    };
    let mut answer = ResponseHeader::build(200, Some(16)).expect("an answer");
    answer.insert_header("x-edge", "theirs").expect("a header");
    let count = allocations(|| {
        let mut notes = Notes::default();
        let mut request = Request { facts, notes: &mut notes };
        let flow = route.policies.on_request(&mut request).now_or_never();
        assert!(matches!(flow, Some(Flow::Continue)));
        let mut body = BodyFilters::default();
        let mut response =
            Response { header: &mut answer, facts, notes: &notes, is_own: false, body: &mut body };
        route.policies.on_response(&mut response).expect("it fits");
    });
    assert_eq!(count, 0, "Policies::on_request, on_response");
}

/// `select` is Pingora's `select_with` around our `accept`; this is all of ours in it.
fn choosing_and_reporting_a_backend_allocates_nothing() {
    let snapshot = snapshot();
    let upstream = &snapshot.upstreams["app"];
    let members = upstream.members();
    let now = Instant::now();
    assert!(members.iter().all(|member| member.state.probe() == Probe::Passing));
    let count = allocations(|| {
        upstream.count_request();
        let member = &members[1];
        let availability = member.availability(now);
        assert_eq!(availability, Availability::Ready);
        let in_flight = InFlight::take(member, availability).expect("it is free");
        upstream.report(in_flight.member(), Outcome::Status(200), now);
        let took = Duration::from_millis(3);
        upstream.report_latency(in_flight.member(), Outcome::Status(200), took, now);
    });
    assert_eq!(count, 0, "availability, InFlight, report, report_latency");

    // And Pingora's share, for the record: it must not grow unnoticed.
    let whole = allocations(|| drop(upstream.select(now, &Hints::NONE, |_| Visit::None)));
    assert!(whole <= 2, "select: {whole}, of Pingora's");
}

const ALGORITHMS: [&str; 7] = [
    "round_robin",
    "random",
    "least_requests",
    "peak_ewma",
    "{ consistent_hash: { on: { header: x-key } } }",
    "{ consistent_hash: { on: client } }",
    "{ sticky: {} }",
];

/// What is ours of each algorithm, and the whole with Pingora's share, its set of what was offered.
fn no_algorithm_allocates() {
    let mut headers = HeaderMap::new();
    headers.insert("x-key", HeaderValue::from_static("7"));
    headers.insert(
        "cookie",
        HeaderValue::from_static("a=b; crestline_backend=AAAAAAAAAAAAAAAAAAAAAA"),
    );
    let uri = "/a?b=c".parse().expect("a target");
    let client = "192.0.2.1".parse().ok();
    let hints = Hints { client, headers: Some(&headers), uri: Some(&uri) };
    for balance in ALGORITHMS {
        let file = format!(
            "upstreams: {{ app: {{ backends: [127.0.0.1:1, {{ address: 127.0.0.1:2, weight: 3 }}, \
             {{ address: 127.0.0.1:3, backup: true }}], health_check: off, slow_start: 30s, \
             balance: {balance} }} }}"
        );
        let mut problems = Problems::default();
        let snapshot = snapshot::compile(&file, &mut problems);
        let snapshot = snapshot.unwrap_or_else(|| panic!("{problems:?}"));
        let upstream = &snapshot.upstreams["app"];
        let now = Instant::now();
        let whole = allocations(|| {
            let taken = upstream.select(now, &hints, |_| Visit::None).expect("a backend");
            upstream.report_latency(
                taken.member(),
                Outcome::Status(200),
                Duration::from_millis(1),
                now,
            );
            drop(upstream.cookie(&hints, taken.member(), true));
        });
        assert!(whole <= 2, "{balance}: {whole}, of Pingora's");

        let pool: Pool = upstream.members().into_iter().collect();
        let none = BTreeSet::new();
        let random = Arc::new(Random::build_with_config(&none, &pool));
        let requests = Arc::new(LeastRequests::build_with_config(&none, &pool));
        let latency = Arc::new(PeakEwma::build_with_config(&none, &pool));
        let ours = allocations(|| {
            assert!(random.iter(b"").next().is_some());
            assert!(requests.iter(b"").next().is_some());
            assert!(latency.iter(b"").next().is_some());
        });
        assert_eq!(ours, 0, "{balance}");
    }
}

/// Where load is bounded, a place is taken and given back by counters alone.
fn taking_a_place_where_load_is_bounded_allocates_nothing() {
    let (snapshot, now) = (snapshot(), Instant::now());
    for name in ["bounded", "adaptive"] {
        let upstream = &snapshot.upstreams[name];
        let members = upstream.members();
        let count = allocations(|| {
            let taken = InFlight::take(&members[0], Availability::Ready).expect("it is free");
            let taken = taken.awaited_in(upstream.account().line());
            assert!(upstream.account().line().is_empty());
            taken.took(Duration::from_millis(3), now);
        });
        assert_eq!(count, 0, "InFlight::take, awaited_in, took: {name}");
        let whole = allocations(|| {
            let taken = upstream.admit(now, &Hints::NONE, |_| Visit::None);
            assert!(matches!(taken, Admission::Taken(_)), "{name}");
        });
        assert!(whole <= 2, "admit: {whole}, of Pingora's: {name}");
    }
}

/// Which upstream of a split route takes a request.
fn splitting_a_route_allocates_nothing() {
    let snapshot = snapshot();
    let headers = HeaderMap::from_iter([(
        "x-user".parse().expect("a name"),
        HeaderValue::from_static("somebody"),
    )]);
    let (host, path, method, query) = ("split.test", "/", Method::GET, "");
    let request = RequestParts { host, path, method: &method, headers: &headers, query };
    let Found::Route(route) = snapshot.routes.find(&request) else { panic!("a route") };
    let count = allocations(|| {
        Split::leg(route, None, &headers);
        Split::leg(route, None, &HeaderMap::new());
    });
    assert_eq!(count, 0, "Split::leg");
}

/// Ids are cut from blocks: one allocation for about a hundred of them.
fn a_request_id_costs_no_allocation_of_its_own() {
    let count = allocations(|| (0..1_000).for_each(|_| drop(request_id::new())));
    assert!(count <= 1_000 / 50, "{count} allocations for 1,000 ids");
}

/// Where nothing is traced, a request has no tracing to ask; where it is, one that is not sampled
/// costs the field that its origin is sent, which is cut from a block as its id is.
fn a_request_that_is_not_traced_costs_no_allocation_but_a_share_of_its_field() {
    const TRACES: &str = "
traces:
  otlp: { endpoint: 'http://127.0.0.1:4318' }
  sample: 0%
  rules: [{ path: '~ ^/v[0-9]+/', headers: { x-debug: '*' }, sample: 100% }]
";
    let (method, sent) =
        (Method::GET, HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("*/*"))]));
    let parts =
        RequestParts { host: "a.test", path: "/v1/a", method: &method, headers: &sent, query: "" };
    let find = |snapshot: &Snapshot| match snapshot.routes.find(&parts) {
        Found::Route(route) => route.clone(),
        _ => panic!("no route"),
    };
    assert!(find(&snapshot()).traces.is_none() && snapshot().traces.is_none());
    let compiled = snapshot::compile(&format!("{FILE}{TRACES}"), &mut Problems::default());
    let route = find(&compiled.expect("a good file"));
    let traces = route.traces.as_ref().expect("what traces");
    let mut headers = HeaderMap::with_capacity(16);
    let count = allocations(|| {
        for _ in 0..1_000 {
            let trace = traces.begin(&parts, false);
            assert!(!trace.is_sampled);
            traces.tell(&trace, 0, &mut headers);
        }
    });
    assert!(headers.contains_key("traceparent"));
    assert!(count <= 1_000 / 30, "{count} allocations for 1,000 requests");
}

/// What tells an origin of a client's certificate, on every request of its connection.
fn telling_of_a_client_allocates_nothing() {
    const TLS: &str = "
upstreams: { app: { backends: [127.0.0.1:3031], health_check: off } }
listeners:
  - address: 127.0.0.1:443
    tls:
      certificates: [{ cert: tests/certificates/ecdsa.pem, key: tests/certificates/ecdsa.key }]
      client_certificates:
        ca: tests/certificates/clients.pem
        forward: { subject: x-client-subject, sans: x-client-sans, fingerprint: x-client-fingerprint }
access_log: off
";
    let mut problems = Problems::default();
    let snapshot = snapshot::compile(TLS, &mut problems).expect("a good file");
    let keyring = snapshot.listeners[0].tls.as_ref().expect("TLS").now();
    let pem = std::fs::read("tests/certificates/ecdsa.pem").expect("a certificate");
    let certificate = CertificateDer::from_pem_slice(&pem).expect("a certificate");
    let forward = &keyring.clients().expect("client certificates").forward;
    let client = Identity::of(&certificate, forward, SystemTime::now()).expect("a good one");
    assert_eq!(client.count(), 3);
    for _ in 0..2 {
        let mut headers = HeaderMap::with_capacity(16);
        assert_eq!(allocations(|| client.tell(&mut headers)), 0, "Identity::tell");
        assert_eq!(headers["x-client-subject"], "CN=a.test");
    }
}

/// A page that a CA may ask for, and that nobody waits for it to.
fn looking_for_the_page_of_a_challenge_allocates_nothing() {
    let challenges = Challenges::default();
    for path in ["/", "/api/v1", "/.well-known/acme-challenge/4Ya0-x9"] {
        assert!(challenges.page(path).is_none()); // the first look of a thread is on the house
        let count = allocations(|| assert!(challenges.page(path).is_none()));
        assert_eq!(count, 0, "Challenges::page: {path}");
    }
}

/// What tells a misdirected request, where its host is another than the client's first word.
fn holding_a_host_against_a_certificate_allocates_nothing() {
    const TLS: &str = "
upstreams: { app: { backends: [127.0.0.1:3031], health_check: off } }
listeners:
  - address: 127.0.0.1:443
    tls: { certificates: [{ cert: tests/certificates/ecdsa.pem, key: tests/certificates/ecdsa.key }] }
access_log: off
";
    let mut problems = Problems::default();
    let snapshot = snapshot::compile(TLS, &mut problems).expect("a good file");
    let keyring = snapshot.listeners[0].tls.as_ref().expect("certificates").now();
    let names = &keyring.certificates()[0].names;
    for (authority, is_covered) in [("WWW.a.test:443", true), ("a.test", true), ("b.test", false)] {
        let count = allocations(|| {
            assert_eq!(names.cover(RequestHost::new(authority).as_str()), is_covered);
        });
        assert_eq!(count, 0, "Names::cover: {authority}");
    }
}
