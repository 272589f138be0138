//! What Crestline's own code allocates for a request: nothing.
//!
//! A binary of its own, under a counting allocator. Pingora's allocations (its `select` builds a
//! set, each of its async hooks a boxed future) are not ours and not counted here: each part of
//! ours is measured on its own, as the path calls it.

use allocation_counter::measure;
use crestline::{
    diagnostic::Problems,
    http1::{
        chunked::ChunkGuard,
        head::{HeadReader, Limits},
    },
    observe::request_id,
    routing::{
        host::RequestHost,
        path::{Canonical, canonicalize},
    },
    snapshot::{self, Snapshot},
    upstream::{
        Visit,
        backend::{Availability, InFlight, Probe},
        outcome::Outcome,
    },
};
use pingora_http::RequestHeader;
use tokio::time::Instant;

const FILE: &str = "
upstreams:
  app: { backends: [127.0.0.1:3031, 127.0.0.1:3032, 127.0.0.1:3033], health_check: off }
routes:
  - name: any
    upstream: app
  - name: shop
    match: { hosts: [shop.test, '*.shop.test'], path: /api/ }
    policies: [{ request_headers: { set: { x-edge: crestline } } }, { body_limit: 1MiB }]
    upstream: app
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
    a_request_id_costs_no_allocation_of_its_own();
    println!("6 passed, 0 failed");
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

fn finding_a_route_allocates_nothing() {
    let snapshot = snapshot();
    let count = allocations(|| {
        let path = canonicalize("/api/v1/things").expect("a good path");
        assert!(matches!(path, Canonical::AsIs(_)));
        let host = RequestHost::new("WWW.shop.test:8080");
        let route = snapshot.routes.find(host.as_str(), path.as_str()).cloned();
        assert_eq!(route.expect("a route").name, "shop");
    });
    assert_eq!(count, 0, "Table::find");
}

fn asking_the_policies_allocates_nothing() {
    let snapshot = snapshot();
    let route = snapshot.routes.find("shop.test", "/api").expect("a route");
    let mut request = RequestHeader::build("POST", b"/api", None).expect("a request");
    request.insert_header("content-length", "100").expect("a header");
    let count = allocations(|| {
        let flow = route.policies.on_request(&request);
        assert!(matches!(flow, crestline::policy::contract::Flow::Continue));
    });
    assert_eq!(count, 0, "Policies::on_request");
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
        let availability = member.state.availability(now);
        assert_eq!(availability, Availability::Ready);
        let in_flight = InFlight::take(member, availability).expect("it is free");
        upstream.report(in_flight.member(), Outcome::Status(200), now);
    });
    assert_eq!(count, 0, "availability, InFlight, report");

    // And Pingora's share, for the record: it must not grow unnoticed.
    let whole = allocations(|| drop(upstream.select(now, |_| Visit::None)));
    assert!(whole <= 2, "select: {whole}, of Pingora's");
}

/// Ids are cut from blocks: one allocation for about a hundred of them.
fn a_request_id_costs_no_allocation_of_its_own() {
    let count = allocations(|| (0..1_000).for_each(|_| drop(request_id::new())));
    assert!(count <= 1_000 / 50, "{count} allocations for 1,000 ids");
}
