//! Reloads under load: no request fails, no line is lost, and nothing grows.

use std::fs;

use rustix::process::Signal;

use crate::support::{Crestline, Load, Origin, eventually, soon};

/// What a process holds: resident kilobytes, threads, open files.
#[derive(Debug)]
struct Held {
    resident: u64,
    threads: usize,
    files: usize,
}

impl Held {
    fn of(proxy: &Crestline) -> Self {
        let folder = format!("/proc/{}", proxy.id());
        let status = fs::read_to_string(format!("{folder}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let count = |name: &str| fs::read_dir(format!("{folder}/{name}")).unwrap().count();
        Self {
            resident: resident.trim().trim_end_matches(" kB").parse().unwrap(),
            threads: count("task"),
            files: count("fd"),
        }
    }
}

/// The file of round `n`: routes, backends, weights, policies and checks differ from the last.
fn round(origins: &[Origin], n: usize) -> String {
    let backend = |index: usize| {
        format!(
            "{{ address: \"{}\", weight: {} }}",
            origins[index % origins.len()],
            1 + (n + index) % 3
        )
    };
    let backends: Vec<_> = (n..n + 1 + n % 3).map(backend).collect();
    let check = ["tcp", "{ http: { path: /healthz } }", "off", "{ every: 1s }"][n % 4];
    let ejection = ["{ eject_for: 1s }", "off"][n % 2];
    let extra = if n.is_multiple_of(5) {
        format!("  extra: {{ backends: [\"{}\"] }}\n", origins[0])
    } else {
        String::new()
    };
    let policies = format!(
        "[{{ response_headers: {{ set: {{ x-round: \"{n}\" }} }} }}, {{ body_limit: {}KiB }}]",
        n + 1
    );
    let path = if n.is_multiple_of(2) { "as_sent" } else { "canonical" };
    format!(
        "upstreams:\n  app:\n    backends: [{}]\n    health_check: {check}\n    ejection: {ejection}\n    \
         timeouts: {{ idle: 1s }}\n{extra}\
         routes:\n  - {{ name: all, upstream: app, path: {path}, policies: {policies} }}\n  \
         - {{ name: only-{n}, match: {{ path: /{n} }}, upstream: app }}\n",
        backends.join(", "),
    )
}

/// And nothing grows: memory, threads, open files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_reloads_under_load_fail_no_request_and_leak_nothing() {
    let origins = [
        Origin::replying("a"),
        Origin::replying("b"),
        Origin::replying("c"),
        Origin::replying("d"),
    ];
    let proxy = Crestline::start(&format!("access_log: off\n{}", round(&origins, 0))).await;
    let before = Held::of(&proxy);
    let load = Load::start(proxy.address(), 64, 0);
    let mut settled = None;

    for n in 1..=200 {
        proxy.rewrite(&format!("access_log: off\n{}", round(&origins, n)));
        let (status, receipt) = proxy.api("POST", "/v1/reload", "").await;
        assert_eq!((status, &receipt["to"]), (200, &(n + 1).into()), "{receipt}");
        if n == 20 {
            load.goes_on().await;
            settled = Some(Held::of(&proxy));
        }
    }
    load.goes_on().await;
    let (settled, after) = (settled.unwrap(), Held::of(&proxy));
    assert_eq!(proxy.get("/200").await.status, 200);
    load.stop().await;
    assert!(after.resident < settled.resident * 11 / 10, "{settled:?}, then {after:?}");
    assert!(after.threads <= settled.threads + 1, "{settled:?}, then {after:?}");
    // Connections of clients are gone, and those that wait for the next request go in a second.
    let left = || Held::of(&proxy).files <= before.files + 4;
    eventually("no more open files than at the start", left).await;
}

/// They are one wish, or a few.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_sighup_ends_in_the_right_version() {
    let origins = [Origin::replying("a"), Origin::replying("b"), Origin::replying("c")];
    let proxy = Crestline::start(&round(&origins, 0)).await;
    let load = Load::start(proxy.address(), 8, 0);

    for n in 1..=200 {
        proxy.rewrite(&round(&origins, n));
        proxy.signal(Signal::HUP);
    }
    let told = async || {
        let answer = proxy.get("/200").await;
        answer.status == 200 && proxy.get("/199").await.get("x-round") == Some("200")
    };
    soon("the last version", async { while !told().await {} }).await;
    let changes = proxy.log_with("reload: v").iter().filter(|line| line.contains(" → ")).count();
    assert_eq!(proxy.version().await, changes as u64 + 1, "each has its line");
    assert_eq!(proxy.log_with("nothing was changed"), [""; 0]);
    load.stop().await;
}

/// Commands, signals and changes that go back, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_from_many_sides_are_made_one_after_the_other() {
    let origins = [Origin::replying("a"), Origin::replying("b")];
    let proxy = Crestline::start(&round(&origins, 0)).await;
    let load = Load::start(proxy.address(), 8, 0);
    proxy.reload(&round(&origins, 1)).await;

    for _ in 0..10 {
        proxy.signal(Signal::HUP);
        let probation = "{\"probation\": \"1h\"}";
        let there = proxy.api("POST", "/v1/reload", probation);
        let (back, again) = (
            proxy.api("POST", "/v1/reload", "{\"to\": 1}"),
            proxy.api("POST", "/v1/reload", "{\"to\": 2}"),
        );
        let answers = tokio::join!(there, back, again);
        for (status, answer) in [answers.0, answers.1, answers.2] {
            // Versions 1 and 2 are gone after a while.
            assert!(matches!(status, 200 | 404), "{answer}");
        }
    }
    proxy.reload(&round(&origins, 3)).await;
    assert_eq!(proxy.get("/3").await.status, 200);
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_log_moves_and_no_line_is_lost() {
    let origin = Origin::replying("hello");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let yaml = |name: &str, format: &str| {
        format!(
            "access_log: {{ path: {}, format: {format} }}\n\
             upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n",
            path(name)
        )
    };
    let proxy = Crestline::start(&yaml("a.log", "json")).await;
    let load = Load::start(proxy.address(), 8, 0);
    let logs = [("b.log", "json"), ("c.log", "combined"), ("b.log", "combined"), ("a.log", "json")];
    for (name, format) in logs.into_iter().cycle().take(12) {
        assert!(proxy.reload(&yaml(name, format)).await.ends_with(": access_log changed"));
        load.goes_on().await;
    }

    let answers = load.stop().await;
    let lines = || -> usize {
        let read = |name| fs::read_to_string(path(name)).unwrap_or_default().lines().count();
        ["a.log", "b.log", "c.log"].map(read).iter().sum()
    };
    eventually("all lines", || answers <= lines()).await;
    assert_eq!(lines(), answers);
    let combined = fs::read_to_string(path("c.log")).unwrap();
    assert!(combined.lines().all(|line| line.ends_with("\"GET / HTTP/1.1\" 200 5 \"-\" \"-\"")));
    let json = fs::read_to_string(path("a.log")).unwrap();
    assert!(json.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
}

#[tokio::test]
async fn the_access_log_goes_off_and_on() {
    let origin = Origin::replying("hello");
    let yaml = |more: &str| format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n{more}");
    let proxy = Crestline::start(&yaml("")).await;
    proxy.get("/first").await;

    assert_eq!(proxy.reload(&yaml("access_log: off\n")).await, "v1 → v2: access_log changed");
    proxy.get("/second").await;
    assert_eq!(proxy.reload(&yaml("")).await, "v2 → v3: access_log changed");
    proxy.get("/third").await;
    let lines = proxy.access_log(2).await;
    let paths: Vec<_> = lines.iter().map(|line| line["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/first", "/third"]);
}

/// A log that cannot be opened is a problem like any other.
#[tokio::test]
async fn a_log_that_cannot_be_opened_changes_nothing() {
    let origin = Origin::replying("hello");
    let yaml = |more: &str| format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n{more}");
    let proxy = Crestline::start(&yaml("")).await;

    let told = proxy.refuses(&yaml("access_log: { path: /no/such/folder/a.log }\n")).await;
    assert!(told.contains("access log `/no/such/folder/a.log` cannot be opened"), "{told}");
    proxy.get("/").await;
    assert_eq!(proxy.access_log(1).await.len(), 1);
}
