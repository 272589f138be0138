//! What texts compile to, and what they are refused for.
//!
//! `tests/config.rs` shows the same problems as an operator sees them.

use std::{num::NonZero, thread, time::Duration};

use http::{HeaderMap, Method};
use pingora_core::server::configuration::ServerConf;

use super::*;
use crate::{
    diagnostic::{Color, Severity, Sources, render},
    downstream::config::{Address, Bounds},
    routing::{request::RequestParts, table::Found},
    upstream::health::state::Thresholds,
};

const APP: &str = "upstreams: { app: { backends: [127.0.0.1:3031] } }\n";

/// Compiles a text in which nothing is wrong.
#[track_caller]
fn good(text: &str) -> Snapshot {
    let mut problems = Problems::default();
    let compiled = compile(text, &mut problems);
    let sources = Sources::of("text", text);
    assert!(problems.is_empty(), "{}", render(&problems, &sources, Color::Never));
    compiled.unwrap()
}

/// The problems of a text, each as `line:column message`; warnings begin with their kind.
fn told(text: &str) -> Vec<String> {
    let mut problems = Problems::default();
    let compiled = compile(text, &mut problems);
    assert_eq!(compiled.is_none(), problems.has_errors());
    let sources = Sources::of("", text);
    let line = |problem: &Problem| {
        let place = problem.span.and_then(|span| sources.place(span));
        let place = place.map_or(String::new(), |it| format!("{}:{} ", it.line, it.column));
        let kind = if problem.severity == Severity::Warning { "warning: " } else { "" };
        format!("{kind}{place}{}", problem.message)
    };
    problems.iter().map(line).collect()
}

/// The help of the only problem of a text.
#[track_caller]
fn help(text: &str) -> String {
    let mut problems = Problems::default();
    let _ = compile(text, &mut problems);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.iter().next().unwrap().help.clone().unwrap()
}

fn with_routes(routes: &str) -> String {
    format!("{APP}routes:\n{routes}")
}

fn route<'a>(compiled: &'a Snapshot, host: &str, path: &str) -> &'a Route {
    let (method, headers) = (Method::GET, HeaderMap::new());
    let request = RequestParts { host, path, method: &method, headers: &headers, query: "" };
    match compiled.routes.find(&request) {
        Found::Route(route) => route,
        _ => panic!("no route"),
    }
}

#[test]
fn the_smallest_file_listens_on_8080_and_sends_everything_to_its_upstream() {
    let compiled = good(APP);
    let [listener] = &*compiled.listeners else { panic!("one listener") };
    assert_eq!(listener.address.to_string(), "0.0.0.0:8080");
    assert!(!listener.h2c);
    assert_eq!(*listener.bounds, Bounds::default());
    assert!(compiled.trusted.is_empty());
    assert!(compiled.access_log.is_some(), "one by default");

    let route = route(&compiled, "any.test", "/any/path");
    assert_eq!(route.name, "default");
    assert!(matches!(route.host, Host::Pass));
    assert!(!route.path_as_sent && !route.forwarded && !route.via);
    assert_eq!(route.policies.body_bytes_max(), None);
    assert!(Arc::ptr_eq(&route.upstream, &compiled.upstreams["app"]));
}

#[test]
fn an_upstream_has_checks_retries_and_bounds_unless_told_otherwise() {
    let compiled = good(APP);
    let upstream = &compiled.upstreams["app"];
    assert_eq!(&**upstream.name(), "app");
    assert_eq!(upstream.members().len(), 1);
    assert_eq!(upstream.retry_policy().max, 3);
    let checks = upstream.checks().expect("checks");
    assert_eq!((checks.every, checks.timeout), (Duration::from_secs(5), Duration::from_secs(1)));
    assert_eq!(checks.thresholds, Thresholds { healthy_after: 1, unhealthy_after: 2 });
    let timeouts = upstream.timeouts();
    let seconds = [
        timeouts.connect,
        timeouts.first_byte,
        timeouts.between_bytes,
        timeouts.idle,
        timeouts.tunnel,
    ];
    assert_eq!(seconds.map(|timeout| timeout.as_secs()), [1, 60, 60, 55, 3600]);

    let off = good("upstreams: { app: { backends: [127.0.0.1:1], health_check: off } }");
    assert!(off.upstreams["app"].checks().is_none());
}

#[test]
fn routes_are_found_by_host_and_path() {
    let compiled = good(&with_routes(
        "  - { name: exact, match: { path: = /a }, upstream: app }
  - { name: below, match: { path: /a/ }, upstream: app }
  - { name: hosts, match: { hosts: [A.test, \"*.b.test\"] }, upstream: app, via: true }
  - { name: rest, upstream: app, host: upstream, path: as_sent, forwarded: true }
",
    ));
    let name = |host, path| route(&compiled, host, path).name.as_str();
    assert_eq!(name("x", "/a"), "exact");
    assert_eq!(name("x", "/a/b"), "below");
    assert_eq!(name("a.test", "/a"), "hosts");
    assert_eq!(name("x.b.test", "/"), "hosts");
    assert_eq!(name("b.test", "/"), "rest");
    let rest = route(&compiled, "x", "/");
    assert!(rest.path_as_sent && rest.forwarded && !rest.via);
    assert!(matches!(rest.host, Host::Upstream));
}

#[test]
fn routes_for_the_same_requests_are_refused() {
    let conflict = |one: &str, other: &str| {
        told(&with_routes(&format!(
            "  - {{ name: one, match: {{ {one} }}, upstream: app }}
  - {{ name: other, match: {{ {other} }}, upstream: app }}
"
        )))
    };
    let any = ["4:35 routes `one` and `other` match the same requests: any host, /api/"];
    assert_eq!(conflict("path: /api", "path: /api/"), any);
    let host = ["4:45 routes `one` and `other` match the same requests: a.test, /"];
    assert_eq!(conflict("hosts: [b.test, A.test]", "hosts: [c.test, a.test.]"), host);
    let wild = ["4:37 routes `one` and `other` match the same requests: *.a.test, = /x"];
    assert_eq!(conflict("hosts: ['*.a.test'], path: = /x", "hosts: ['*.A.test'], path: =/x"), wild);
    assert_eq!(conflict("path: = /api", "path: /api/"), [""; 0], "not the same");

    let all = told(&with_routes(
        "  - { name: one, upstream: app }\n  - { name: other, upstream: app }\n",
    ));
    assert_eq!(all, ["4:13 routes `one` and `other` match the same requests: any host, /"]);
    let twice =
        with_routes("  - { name: one, match: { hosts: [a.test, A.test] }, upstream: app }\n");
    assert_eq!(told(&twice), ["3:43 route `one` names a.test twice"]);
    let none = with_routes("  - { name: one, match: { hosts: [] }, upstream: app }\n");
    assert_eq!(told(&none), ["3:34 this list of hosts is empty: nothing would match"]);
}

#[test]
fn names_must_resolve_and_be_different() {
    let undefined = "upstreams: { checkout: { backends: [127.0.0.1:1] } }
routes: [{ name: shop, upstream: chekout }]
";
    assert_eq!(
        told(undefined),
        [
            "warning: 1:14 no route sends to upstream `checkout`",
            "2:34 route `shop` sends to upstream `chekout`, which is not defined",
        ]
    );
    let undefined = with_routes("  - { name: a, match: { path: /a }, upstream: ap }\n")
        + "  - { name: b, upstream: app }\n";
    assert_eq!(help(&undefined), "did you mean `app`? Defined: app");

    let twice = with_routes("  - { name: a, upstream: app }\n")
        + "  - { name: a, match: { path: /b }, upstream: app }\n  - { name: '', match: { path: /c }, upstream: app }\n";
    assert_eq!(told(&twice), ["4:13 two routes have the name `a`", "5:13 a route needs a name"]);
    let backends = "upstreams: { app: { backends: [127.0.0.1:1, a.test:2, { address: 127.0.0.1:1, weight: 2 }] } }";
    assert_eq!(told(backends), ["1:55 backend `127.0.0.1:1` stands twice in upstream `app`"]);
    let listeners =
        format!("{APP}listeners: [{{ address: '[::]:80' }}, {{ address: '[0::0]:80' }}]");
    assert_eq!(told(&listeners), ["2:48 two listeners have the address `[::]:80`"]);
    let chosen = format!("{APP}listeners: [{{ address: '[::]:0' }}, {{ address: '[::]:0' }}]");
    assert_eq!(good(&chosen).listeners.len(), 2, "ports that the system chooses");
}

#[test]
fn what_nobody_uses_is_warned_about() {
    let unused = "upstreams: { a: { backends: [127.0.0.1:1] }, b: { backends: [127.0.0.1:2] } }
routes: [{ name: all, upstream: a }]
";
    assert_eq!(told(unused), ["warning: 1:46 no route sends to upstream `b`"]);
    let none = format!("{APP}routes: []\n");
    assert_eq!(
        told(&none),
        [
            "warning: there are no routes: every request gets 404",
            "warning: 1:14 no route sends to upstream `app`"
        ]
    );
}

#[test]
fn several_upstreams_need_routes() {
    let text = "upstreams: { a: { backends: [127.0.0.1:1] }, b: { backends: [127.0.0.1:2] } }";
    assert_eq!(told(text), ["1:46 there are several upstreams and no routes to choose by"]);
    assert_eq!(told("threads: 1"), ["no upstream is defined"]);
    assert_eq!(told("upstreams: {}"), ["no upstream is defined"]);
    let empty = "upstreams: { a: { backends: [] } }";
    assert_eq!(told(empty), ["1:29 upstream `a` has no backends"]);
}

#[test]
fn one_mistake_is_told_once_and_hides_no_other() {
    let text = "threads: 0
upstreams:
  app: { backends: [127.0.0.1], retries: 11 }
  api: { backends: [127.0.0.1:1], balanse: round_robin }
routes:
  - { name: one, upstream: app, polices: [] }
  - { name: two, match: { path: two }, upstream: app }
  - { name: three, match: { path: /three }, upstream: nowhere }
listeners: [{ address: localhost:80 }]
trusted_proxies: [10.0.0.0/33]
";
    let places = told(text).into_iter().map(|line| {
        let place = line.trim_start_matches("warning: ").split_once(' ').unwrap().0.to_owned();
        place.split_once(':').unwrap().0.parse().unwrap()
    });
    let lines: Vec<usize> = places.collect();
    assert_eq!(lines, [1, 3, 3, 4, 6, 7, 8, 9, 10], "{:#?}", told(text));
}

#[test]
fn trusted_proxies_are_networks_or_addresses() {
    let text = format!("{APP}trusted_proxies: [10.0.0.0/8, 192.0.2.1, '2001:db8::/32', '::1']");
    let networks = ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "::1/128"];
    assert_eq!(*good(&text).trusted, networks.map(|text| text.parse().unwrap()));
    for wrong in ["10.0.0.0/33", "10.0.0", "a.test", "10.0.0.0/8 "] {
        let text = format!("{APP}trusted_proxies: ['{wrong}']");
        assert_eq!(told(&text), [format!("2:19 `{wrong}` is no network")]);
    }
    let one = format!("{APP}trusted_proxies: 10.0.0.0/8");
    assert_eq!(help(&one), "put it in brackets: `[…]`");
}

#[test]
fn pingoras_server_has_our_defaults_and_takes_what_is_written() {
    let conf = good(APP).file.server();
    assert_eq!(conf.threads, thread::available_parallelism().map_or(1, NonZero::get));
    assert_eq!(conf.grace_period_seconds, Some(30));
    assert_eq!(conf.pid_file, "/run/crestline/crestline.pid");
    assert_eq!(conf.upgrade_sock, "/run/crestline/upgrade.sock");
    assert!(!conf.work_stealing && !conf.daemon);
    let pingoras = ServerConf::default();
    assert_eq!(conf.max_retries, pingoras.max_retries);
    assert_eq!(conf.upstream_keepalive_pool_size, pingoras.upstream_keepalive_pool_size);

    let conf = good(&format!(
        "{APP}threads: 3
grace_period_seconds: 0
graceful_shutdown_timeout_seconds: 7
pid_file: /tmp/a.pid
upgrade_sock: /tmp/a.sock
work_stealing: true
listener_tasks_per_fd: 2
max_retries: 1
upstream_keepalive_pool_size: 9
client_bind_to_ipv4: [127.0.0.1]
client_bind_to_ipv6: ['::1']
max_blocking_threads: 5
"
    ))
    .file
    .server();
    assert_eq!((conf.threads, conf.listener_tasks_per_fd, conf.max_retries), (3, 2, 1));
    assert_eq!(conf.grace_period_seconds, Some(0));
    assert_eq!(conf.graceful_shutdown_timeout_seconds, Some(7));
    assert_eq!((conf.pid_file.as_str(), conf.upgrade_sock.as_str()), ("/tmp/a.pid", "/tmp/a.sock"));
    assert!(conf.work_stealing);
    assert_eq!(conf.upstream_keepalive_pool_size, 9);
    assert_eq!(
        (conf.client_bind_to_ipv4, conf.client_bind_to_ipv6),
        (vec!["127.0.0.1".to_owned()], vec!["::1".to_owned()])
    );
    assert_eq!(conf.max_blocking_threads, Some(5));
}

#[test]
fn pingoras_keys_are_refused_where_they_would_do_nothing() {
    for (key, value) in [
        ("version", "1"),
        ("ca_file", "/etc/ssl/ca.pem"),
        ("upstream_debug_ssl_keylog", "true"),
        ("downstream_tls_offload_threadpools", "1"),
        ("downstream_tls_offload_thread_per_pool", "1"),
        ("runtime_enable_alt_timer", "true"),
        ("runtime_metrics_poll_time_histogram", "true"),
        ("upgrade_sock_connect_accept_max_retries", "9"),
    ] {
        let told = told(&format!("{APP}{key}: {value}\n"));
        let [one] = told.as_slice() else { panic!("{key}: {told:?}") };
        assert!(one.starts_with(&format!("2:1 `{key}` would do nothing: ")), "{one}");
    }
}

#[test]
fn keys_of_a_daemon_are_warned_about_without_one() {
    for key in ["user: www", "group: www", "error_log: /tmp/a", "working_directory: /"] {
        let name = key.split_once(':').unwrap().0;
        let warning = format!("warning: 2:1 `{name}` takes effect only for a daemon");
        assert_eq!(told(&format!("{APP}{key}\n")), [warning.as_str()]);
        assert_eq!(told(&format!("{APP}{key}\ndaemon: true\n")), [""; 0]);
    }
}

#[test]
fn numbers_and_addresses_that_pingora_would_panic_over_are_refused() {
    for (line, problem) in [
        ("threads: 0", "2:10 `threads` is 0, and must be at least 1"),
        ("max_retries: 0", "2:14 `max_retries` is 0, and must be at least 1"),
        ("listener_tasks_per_fd: 0", "2:24 `listener_tasks_per_fd` is 0, and must be at least 1"),
        ("client_bind_to_ipv4: ['::1']", "2:23 `::1` is no IPv4 address"),
        ("client_bind_to_ipv4: [eth0]", "2:23 `eth0` is no IPv4 address"),
        ("client_bind_to_ipv6: [127.0.0.1]", "2:23 `127.0.0.1` is no IPv6 address"),
        ("threads: -1", "2:10 `-1` is out of range: 0 to 18446744073709551615"),
    ] {
        assert_eq!(told(&format!("{APP}{line}\n")), [problem]);
    }
}

#[test]
fn a_number_that_pingora_refuses_is_told_at_its_place() {
    let text = format!("{APP}max_blocking_threads: 0\n");
    assert_eq!(told(&text), ["2:23 `max_blocking_threads` is 0, and must be at least 1"]);
}

#[test]
fn the_details_of_a_histogram_that_is_never_made_are_refused() {
    for detail in ["scale: log", "resolution_micros: 100", "buckets: 10"] {
        let text = format!("{APP}runtime_metrics_poll_time_histogram_{detail}\n");
        let told = told(&text);
        assert!(told.len() == 1 && told[0].contains("would do nothing"), "{detail}: {told:?}");
    }
}

#[test]
fn a_daemon_that_is_switched_off_is_none() {
    let text = format!("{APP}user: www\ndaemon: false\n");
    assert_eq!(told(&text), ["warning: 2:1 `user` takes effect only for a daemon"]);
}

/// A successor of a snapshot, of another text.
fn after(old: &Snapshot, text: &str) -> Snapshot {
    let mut problems = Problems::default();
    let loaded = Loaded::of(text, &mut problems);
    let file = File::read(&loaded, &mut problems).map(Arc::new).unwrap();
    let mut new = assemble(file, Some(old), &mut problems);
    assert!(!problems.has_errors(), "{problems:?}");
    new.bind_as(old);
    new
}

#[test]
fn listeners_take_over_the_addresses_that_those_before_were_bound_to() {
    let listeners = |list: &str| format!("{APP}listeners: [{list}]");
    let zero = |fields: u16| {
        format!("{{ address: \"127.0.0.1:0\", limits: {{ header_fields: {fields} }} }}")
    };
    let fixed = "{ address: \"127.0.0.1:80\" }";
    let mut old = good(&listeners(&format!("{}, {fixed}, {}", zero(1), zero(2))));
    for (listener, bound) in old.listeners.iter_mut().zip([4001, 80, 4002]) {
        listener.address = Address::Socket(([127, 0, 0, 1], bound).into());
    }

    let new = after(&old, &listeners(&format!("{fixed}, {}, {}", zero(3), zero(4))));
    let told: Vec<_> = new
        .listeners
        .iter()
        .map(|listener| (listener.address.to_string(), listener.bounds.head.header_fields))
        .collect();
    let expected = [("127.0.0.1:80", 128), ("127.0.0.1:4001", 3), ("127.0.0.1:4002", 4)];
    assert_eq!(told, expected.map(|(address, fields)| (address.to_owned(), fields)));
    let again = after(&new, &listeners(&format!("{}, {fixed}, {}", zero(5), zero(6))));
    assert_eq!(again.listeners[2].address.to_string(), "127.0.0.1:4002", "and so on");
}

#[test]
fn what_is_equal_is_shared_with_the_snapshot_before() {
    let text = |more: &str| {
        format!(
            "upstreams:\n  app: {{ backends: [127.0.0.1:1] }}\n  web: {{ backends: [127.0.0.1:2]{more} }}\n\
             routes: [{{ name: a, upstream: app }}, {{ name: w, match: {{ path: /w }}, upstream: web }}]\n"
        )
    };
    let old = good(&text(""));
    let new = after(&old, &text(", retries: 1"));
    assert_eq!((old.version, new.version), (1, 2));
    assert!(Arc::ptr_eq(&old.upstreams["app"], &new.upstreams["app"]));
    assert!(!Arc::ptr_eq(&old.upstreams["web"], &new.upstreams["web"]));
    assert!(Arc::ptr_eq(&route(&new, "x", "/w").upstream, &new.upstreams["web"]));
    let logs = [&old, &new].map(|snapshot| snapshot.access_log.as_ref().unwrap());
    assert!(Arc::ptr_eq(logs[0], logs[1]));
    let other = after(&old, &(text("") + "access_log: { format: combined }\n"));
    assert!(!Arc::ptr_eq(logs[0], other.access_log.as_ref().unwrap()));
}
