//! What choosing a backend costs, of 3, 100 and 10,000, by every algorithm.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot begin says so by panicking")]

use std::{fmt::Write as _, hint::black_box, time::Duration};

use crestline::{
    diagnostic::Problems,
    snapshot,
    upstream::{Visit, balance::hints::Hints},
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue};
use pingora_load_balancing::{LoadBalancer, selection::RoundRobin};
use tokio::time::Instant;

const ALGORITHMS: [(&str, &str); 7] = [
    ("round_robin", "round_robin"),
    ("round_robin, weighted", "round_robin"),
    ("random", "random"),
    ("least_requests", "least_requests"),
    ("peak_ewma", "peak_ewma"),
    ("consistent_hash", "{ consistent_hash: { on: { header: x-key } } }"),
    ("sticky", "{ sticky: {} }"),
];

/// The allocator of the program: Pingora's choice makes room to remember whom it has offered.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn file(backends: usize, name: &str, balance: &str) -> String {
    let mut file = String::from("upstreams: { app: { health_check: off, backends: [");
    for index in 0..backends {
        let weight = if name.ends_with("weighted") { index % 7 + 1 } else { 1 };
        let (high, low) = (index / 250, index % 250 + 1);
        write!(file, "{{ address: 10.0.{high}.{low}:80, weight: {weight} }}, ").unwrap();
    }
    file + "], balance: " + balance + " } }"
}

/// Pingora's own choice, with which each of ours begins.
fn alone(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("Pingora alone");
    for backends in [3, 100, 10_000] {
        let addresses = (0..backends).map(|index| {
            let (high, low) = (index / 250, index % 250 + 1);
            format!("10.0.{high}.{low}:80")
        });
        let balancer = LoadBalancer::<RoundRobin>::try_from_iter(addresses).unwrap();
        group.bench_function(BenchmarkId::from_parameter(backends), |bencher| {
            bencher.iter(|| balancer.select_with(black_box(b""), 16, |_, is_ready| is_ready));
        });
    }
    group.finish();
}

fn select(criterion: &mut Criterion) {
    let mut headers = HeaderMap::new();
    headers.insert("x-key", HeaderValue::from_static("a-session-of-somebody"));
    for (name, balance) in ALGORITHMS {
        let mut group = criterion.benchmark_group(name);
        for backends in [3, 100, 10_000] {
            let mut problems = Problems::default();
            let snapshot = snapshot::compile(&file(backends, name, balance), &mut problems);
            let upstream = snapshot.unwrap().upstreams["app"].clone();
            let now = Instant::now();
            let mut headers = headers.clone();
            if name == "sticky" {
                let taken = upstream.select(now, &Hints::NONE, |_| Visit::None).unwrap();
                let cookie = upstream.cookie(&Hints::NONE, taken.member(), false).unwrap();
                headers.insert("cookie", cookie);
            }
            let facts = Hints { headers: Some(&headers), ..Hints::NONE };
            group.bench_function(BenchmarkId::from_parameter(backends), |bencher| {
                bencher.iter(|| upstream.select(black_box(now), &facts, |_| Visit::None));
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = alone, select
}
criterion_main!(benches);
