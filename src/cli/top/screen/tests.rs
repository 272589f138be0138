//! What stands on the screen.

use ratatui::{Terminal, backend::TestBackend, buffer};
use serde_json::json;

use super::*;
use crate::{
    admin::live::{Start, Tick},
    cli::top::{feed::News, world::Order},
};

fn backend(
    address: &str,
    availability: &str,
    in_flight: u32,
    attempts: u64,
    failures: u64,
) -> serde_json::Value {
    let failed = (0 < failures).then(|| json!({ "at": "2027-01-31T08:15:00Z", "what": "refused" }));
    json!({
        "address": address, "weight": 1, "availability": availability, "ejected_seconds": null,
        "in_flight": in_flight, "attempts": attempts, "failures": failures, "last_failure": failed,
    })
}

fn upstream(name: &str, backends: &[serde_json::Value]) -> serde_json::Value {
    json!({ "name": name, "requests": 0, "retries": 0, "backends": backends })
}

fn pulse() -> serde_json::Value {
    json!({
        "uptime_seconds": 61, "state": "serving", "unready": [], "overload": "calm", "reasons": {},
        "in_flight": { "connections": 3, "requests": 2, "tunnels": 0 },
        "panics": { "requests": 0, "tasks": 0, "others": 0 },
    })
}

fn second(at_ms: u64) -> serde_json::Value {
    json!({
        "at_ms": at_ms, "requests_per_second": 12.0, "failed_per_second": 1.0,
        "errors_per_second": 0.5, "p50_ms": 1.25, "p90_ms": null, "p99_ms": 1500.0,
    })
}

/// Two upstreams, of which one backend is dead.
fn world() -> World {
    let upstreams = [
        upstream("api", &[backend("10.0.0.1:1", "ready", 1, 100, 0)]),
        upstream(
            "shop",
            &[
                backend("10.0.0.2:1", "ready", 5, 100, 0),
                backend("10.0.0.3:1", "unhealthy", 0, 40, 7),
            ],
        ),
    ];
    let status = json!({
        "program": "0.1.0", "pid": 7, "uptime_seconds": 61, "state": "serving", "unready": [],
        "in_flight": { "connections": 3, "requests": 2, "tunnels": 0 },
        "panics": { "requests": 0, "tasks": 0, "others": 0 },
        "configuration": {
            "version": 3, "age_seconds": 5, "file": null, "watch": false, "probation": null,
            "versions": [],
        },
        "listeners": [], "upstreams": upstreams,
    });
    let start =
        json!({ "status": status, "pulse": pulse(), "routes": [], "history": [second(1_000)] });
    let start: Start = serde_json::from_value(start).unwrap();
    let mut world = World::new(Order::Load);
    world.hear(News::Start(Box::new(start)));
    let changed = upstream(
        "shop",
        &[backend("10.0.0.2:1", "ready", 5, 120, 0), backend("10.0.0.3:1", "unhealthy", 0, 44, 11)],
    );
    let tick =
        json!({ "second": second(3_000), "pulse": pulse(), "upstreams": [changed], "routes": [] });
    let tick: Tick = serde_json::from_value(tick).unwrap();
    world.hear(News::Tick(Box::new(tick)));
    world
}

fn drawn(world: &mut World, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, world)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let lines = buffer.content.chunks(usize::from(width));
    let text = lines.map(|line| line.iter().map(buffer::Cell::symbol).collect::<String>());
    text.map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[test]
fn all_that_is_known_is_on_the_screen() {
    let text = drawn(&mut world(), 130, 15);
    for shown in [
        "Crestline 0.1.0, process 7, up 1m 1s, serving, v3   live",
        "12.0 requests/s   1.0 failures/s   0.5 5xx/s   p50 1.2 ms   p90 –   p99 1.50 s   3 connections, 2 in flight",
        "  10.0.0.3:1",
        "request: refused, at 2027-01-31T08:15:00",
        "q quit",
        "by load",
    ] {
        assert!(text.contains(shown), "{shown} is not in\n{text}");
    }
    let line = text.lines().find(|line| line.contains("10.0.0.3:1")).unwrap();
    let words: Vec<_> = line.split_whitespace().take(7).collect();
    assert_eq!(words, ["10.0.0.3:1", "unhealthy", "1", "0", "2.0", "2.0", "11"], "{text}");
}

#[test]
fn rows_are_in_the_order_that_is_asked_for() {
    let mut world = world();
    let mut names = |order| {
        world.order = order;
        world.rows().into_iter().map(|row| row.name).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(Order::Load), "shop 10.0.0.2:1 10.0.0.3:1 api 10.0.0.1:1");
    assert_eq!(names(Order::Errors), "shop 10.0.0.3:1 10.0.0.2:1 api 10.0.0.1:1");
    assert_eq!(names(Order::Name), "api 10.0.0.1:1 shop 10.0.0.2:1 10.0.0.3:1");
}

#[test]
fn it_fits_any_size_and_tells_when_nobody_answers() {
    for (width, height) in [(1, 1), (10, 3), (40, 8), (500, 100)] {
        drawn(&mut world(), width, height);
        drawn(&mut World::new(Order::Name), width, height);
    }
    let mut world = world();
    world.scroll(1_000);
    let text = drawn(&mut world, 130, 11);
    assert!(text.contains("10.0.0.1:1") && !text.contains("10.0.0.2:1"), "{text}");
    world.lost = Some("connection refused".to_owned());
    let text = drawn(&mut world, 130, 11);
    assert!(text.contains("not reached, asks again: connection refused"), "{text}");
}
