//! Metrics: what is on the page, in both forms, and that it agrees with what clients saw.
//!
//! To write `docs/metrics.md` anew after a family has changed, run
//!
//! ```text
//! UPDATE_EXPECTED=1 cargo test --test integration metrics::
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Stdio,
};

use crestline::{admin::metrics, reason};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::support::{Crestline, Origin, Pair, curl, get, soon};

/// What `promtool check metrics` says of a page: nothing, if it is good.
async fn promtool(page: &str) -> (bool, String) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).kill_on_drop(true);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("promtool is installed");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(page.as_bytes()).await.unwrap();
    drop(stdin);
    let output = soon("promtool", child.wait_with_output()).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// The admin socket's page in the other form, with the head of the answer.
async fn open_metrics(proxy: &Crestline) -> (String, String) {
    let socket = proxy.admin_socket().display().to_string();
    let accept = "accept: application/openmetrics-text; version=1.0.0, text/plain;q=0.5";
    let url = "http://localhost/metrics";
    let told = curl(&["-i", "--unix-socket", &socket, "-H", accept, url]).await;
    let text = String::from_utf8(told.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[test]
fn the_reference_that_ships_is_that_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(path, metrics::manual()).unwrap();
    } else {
        let shipped = fs::read_to_string(path).unwrap_or_default();
        let how = "run `UPDATE_EXPECTED=1 cargo test --test integration metrics::`";
        assert!(shipped == metrics::manual(), "docs/metrics.md is not that of the program: {how}");
    }
}

#[test]
fn the_reasons_that_are_told_are_those_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reasons.md");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(path, reason::manual()).unwrap();
    } else {
        let shipped = fs::read_to_string(path).unwrap_or_default();
        assert!(shipped == reason::manual(), "docs/reasons.md is not that of the program");
    }
}

/// Everything that a page can have is on it: routes, backends good and bad, TLS, refusals.
#[tokio::test]
async fn promtool_finds_nothing_and_the_reference_names_every_family() {
    let (good, dead) = (Origin::replying("hello"), Origin::refusing());
    let folder = tempfile::tempdir().unwrap();
    Pair::of(&["a.test"]).write(folder.path(), "a");
    let at = folder.path().join("a").display().to_string();
    let pair = format!("{{ cert: {at}.pem, key: {at}.key }}");
    let proxy = Crestline::start(&format!(
        "
        listeners:
          - address: \"127.0.0.1:0\"
          - {{ address: \"127.0.0.1:0\", tls: {{ certificates: [{pair}] }} }}
        upstreams: {{ app: {{ backends: [\"{good}\", \"{dead}\"] }} }}
        routes: [{{ name: 'a \"quoted\" one', upstream: app }}]
        "
    ))
    .await;
    for _ in 0..3 {
        proxy.get("/").await;
    }
    proxy.send("GET / HTTP/1.1\r\n\r\n").await;
    let page = proxy.metrics().await;
    assert_eq!(promtool(&page).await, (true, String::new()), "{page}");
    assert!(!promtool(&page.replacen("# HELP", "# HELLO", 1)).await.0, "it would be found");

    let on_page: BTreeSet<_> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let manual = metrics::manual();
    let described: BTreeSet<_> =
        manual.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(on_page, described);
    for family in ["crestline_certificate_expiry_timestamp_seconds", "crestline_refused_total"] {
        let begins = |line: &str| line.starts_with(&format!("{family}{{"));
        assert!(page.lines().any(begins), "{family} has a sample in\n{page}");
    }
}

/// The id of a request that failed leads from a bucket of its histogram to its story.
#[tokio::test]
async fn a_failed_request_stands_for_its_bucket_where_the_form_has_exemplars() {
    let refusing = Origin::refusing();
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{refusing}\"], health_check: off, ejection: off }} }}
        traces: {{ otlp: {{ endpoint: \"http://{refusing}\" }}, sample: 0%,
          rules: [{{ path: /traced, sample: 100% }}] }}
        "
    ))
    .await;
    for path in ["/", "/traced"] {
        let answer = proxy.get(path).await;
        assert_eq!(answer.status, 502);
        let id = answer.get("x-request-id").unwrap().to_owned();
        let trace = proxy.access_line(|line| line["id"] == *id).await["trace_id"].clone();
        assert_eq!(trace.is_string(), path == "/traced");
        let (_, page) = open_metrics(&proxy).await;
        let is_it = |exemplar: &&BTreeMap<String, String>| exemplar["request_id"] == id;
        let exemplars = exemplars(&page);
        let shown = exemplars.iter().find(is_it).unwrap_or_else(|| panic!("no {id} in\n{page}"));
        assert_eq!(shown.get("trace_id").map(String::as_str), trace.as_str(), "{shown:?}");
        let (status, story) = proxy.api("GET", &format!("/v1/requests/{id}"), "").await;
        assert_eq!((status, &story["status"]), (200, &502.into()), "it can be looked up");
    }
    let page = proxy.metrics().await;
    assert!(!page.contains(" # "), "Prometheus' own format has none:\n{page}");
}

/// Reads the exemplars of a page, as strictly as the standard has it: behind buckets alone, with no
/// more characters than there may be, a value within the bucket, and a time.
fn exemplars(page: &str) -> Vec<BTreeMap<String, String>> {
    let (mut all, mut below) = (Vec::new(), 0.0);
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (sample, exemplar) = match line.split_once(" # ") {
            Some((sample, exemplar)) => (sample, Some(exemplar)),
            None => (line, None),
        };
        let bound = sample.split_once("le=\"").map(|(_, rest)| rest.split_once('"').unwrap().0);
        let above = bound.map(|bound| bound.parse().unwrap_or(f64::INFINITY));
        if let Some(exemplar) = exemplar {
            assert!(sample.starts_with("crestline_request_duration_seconds_bucket{"), "{line}");
            let (labels, rest) = exemplar.strip_prefix('{').unwrap().split_once("} ").unwrap();
            let (value, at) = rest.split_once(' ').unwrap();
            let value: f64 = value.parse().unwrap();
            assert!(below < value && value <= above.unwrap(), "{below} {line}");
            assert!(1e9 < at.parse::<f64>().unwrap(), "{line}");
            let label = |label: &str| {
                let (name, value) = label.split_once('=').unwrap();
                let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                (name.to_owned(), value.unwrap().to_owned())
            };
            let labels: BTreeMap<_, _> = labels.split(',').map(label).collect();
            let characters = labels.iter().map(|(name, value)| name.len() + value.len());
            assert!(characters.sum::<usize>() <= 128, "{line}");
            all.push(labels);
        }
        below = above.filter(|above| above.is_finite()).unwrap_or(0.0);
    }
    all
}

#[tokio::test]
async fn open_metrics_are_written_for_who_asks_for_them() {
    let origin = Origin::replying("hello");
    let yaml = format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}");
    let proxy = Crestline::start(&yaml).await;
    proxy.get("/").await;
    let (head, page) = open_metrics(&proxy).await;
    let expected = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.to_lowercase().contains(&format!("content-type: {expected}")), "{head}");
    assert!(page.ends_with("\n# EOF\n"));
    let name = "crestline_requests";
    let lines: Vec<_> = page.lines().filter(|line| line.contains(name)).collect();
    assert_eq!(lines[1], format!("# TYPE {name} counter"));
    assert!(lines[2].starts_with(&format!("{name}_total{{route=\"default\"")), "{}", lines[2]);
    let types = page.lines().filter(|line| line.starts_with("# TYPE "));
    assert!(!types.clone().any(|line| line.ends_with("_total counter")), "{page}");
}

#[tokio::test]
async fn requests_are_counted_by_route_and_class_over_reloads() {
    let origin = Origin::with(async |exchange| match exchange.request.target.as_str() {
        "/bad" => exchange.answer("503 Busy", "", "busy").await,
        _ => exchange.answer("200 OK", "", "hello").await,
    });
    let yaml = |more: &str| {
        format!(
            "
            upstreams: {{ app: {{ backends: [\"{origin}\"], retries: 0, ejection: off{more} }} }}
            routes:
              - {{ name: api, match: {{ path: /api }}, upstream: app }}
              - {{ name: bad, match: {{ path: /bad }}, upstream: app }}
            "
        )
    };
    let proxy = Crestline::start(&yaml("")).await;
    let all = async || {
        for (path, times) in [("/api", 3), ("/bad", 2), ("/none", 1)] {
            for _ in 0..times {
                proxy.get(path).await;
            }
        }
        proxy.send("GET / HTTP/1.1\r\nHost: a b\r\n\r\n").await;
    };
    all().await;
    proxy.reload(&yaml(", timeouts: { connect: 2s }")).await;
    all().await;

    let of = |route: &str, class: &str| format!("{{route=\"{route}\",status_class=\"{class}\"}}");
    for (route, class, count) in
        [("api", "2xx", 6.0), ("bad", "5xx", 4.0), ("(none)", "4xx", 4.0), ("api", "5xx", 0.0)]
    {
        let labels = of(route, class);
        proxy.measures(&format!("crestline_requests_total{labels}"), count).await;
        if 0.0 < count {
            let sample = format!("crestline_request_duration_seconds_count{labels}");
            proxy.measures(&sample, count).await;
        }
    }
    let backend = format!("{{upstream=\"app\",backend=\"{origin}\"}}");
    for (name, value) in [
        ("crestline_backend_attempts_total", 10.0),
        ("crestline_backend_failures_total", 4.0),
        ("crestline_backend_requests_in_flight", 0.0),
        ("crestline_backend_available", 1.0),
    ] {
        proxy.measures(&format!("{name}{backend}"), value).await;
    }
    proxy.measures("crestline_upstream_requests_total{upstream=\"app\"}", 10.0).await;
    proxy.measures("crestline_reloads_total{outcome=\"success\"}", 1.0).await;
    proxy.measures("crestline_configuration_version", 2.0).await;
    proxy.refuses("upstreams: 7\n").await;
    proxy.measures("crestline_reloads_total{outcome=\"refused\"}", 1.0).await;
    proxy.measures("crestline_reload_last_succeeded", 0.0).await;
}

#[tokio::test]
async fn a_dead_backend_shows_and_connections_are_counted() {
    let (good, dead) = (Origin::replying("hello"), Origin::refusing());
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app: {{ backends: [\"{good}\", \"{dead}\"], health_check: off, ejection: {{ consecutive_failures: 1, eject_for: 5m }} }}
        "
    ))
    .await;
    let mut client = proxy.client().await;
    for _ in 0..4 {
        client.exchange(get("/")).await;
    }
    let dead = format!("{{upstream=\"app\",backend=\"{dead}\"}}");
    for (name, value) in [
        ("crestline_backend_available", 0.0),
        ("crestline_backend_ejected", 1.0),
        ("crestline_backend_ejections_total", 1.0),
        ("crestline_backend_failures_total", 1.0),
        ("crestline_backend_healthy", 1.0),
    ] {
        proxy.measures(&format!("{name}{dead}"), value).await;
    }
    proxy.measures("crestline_upstream_retries_total{upstream=\"app\"}", 1.0).await;
    let from = |from: &str| {
        format!("crestline_upstream_connections_total{{upstream=\"app\",from=\"{from}\"}}")
    };
    // One that has only just been let go may not be in the pool yet, and another is made.
    let new = proxy.metric(&from("new")).await;
    assert!((1.0..4.0).contains(&new), "{new} of 4");
    proxy.measures(&from("pool"), 4.0 - new).await;
    proxy.measures("crestline_upstream_connect_seconds_count{upstream=\"app\"}", new).await;
    proxy.measures("crestline_connections", 1.0).await;
    proxy.measures("crestline_connections_accepted_total", 1.0).await;
    drop(client);
    proxy.measures("crestline_connections", 0.0).await;
    assert!(0.0 < proxy.metric("process_resident_memory_bytes").await);
    assert!(0.0 < proxy.metric("process_open_fds").await);
}

/// Whatever clients send, origins do, and operators change, every request has one end.
#[tokio::test]
async fn the_sum_over_all_reasons_is_what_clients_sent() {
    let (good, dead) = (Origin::replying("hello"), Origin::refusing());
    let cut = Origin::sending("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello");
    let yaml = format!(
        "
        upstreams:
          good: {{ backends: [\"{good}\"], health_check: off }}
          dead: {{ backends: [\"{dead}\"], health_check: off, retries: 0, ejection: off }}
          cut: {{ backends: [\"{cut}\"], health_check: off, retries: 0, ejection: off }}
        routes:
          - {{ name: good, match: {{ path: = / }}, upstream: good }}
          - {{ name: dead, match: {{ path: = /dead }}, upstream: dead }}
          - {{ name: cut, match: {{ path: = /cut }}, upstream: cut }}
          - {{ name: here, match: {{ path: = /here }}, policies: [respond: {{ status: 204 }}], upstream: good }}
        "
    );
    let proxy = Crestline::start(&yaml).await;
    let ends = [
        (get("/"), "ok"),
        (get("/dead"), "connect_refused"),
        (get("/cut"), "origin_truncated"),
        (get("/here"), "answered_here"),
        (get("/nowhere"), "no_route"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "missing_host"),
    ];
    let mut sent = 0.0;
    for round in 0..3 {
        for (index, (request, _)) in ends.iter().enumerate() {
            for _ in 0..=index {
                let mut client = proxy.client().await;
                client.send(request).await;
                let _ = client.try_answer().await; // some are cut off
                sent += 1.0;
            }
        }
        proxy.reload(&format!("{yaml}lame_duck: {}s\n", round + 1)).await;
    }
    for (index, (_, reason)) in ends.iter().enumerate() {
        let times = 3.0 * (index + 1) as f64;
        let name = format!("crestline_request_ends_total{{reason=\"{reason}\"}}");
        proxy.measures(&name, times).await;
    }
    let page = proxy.metrics().await;
    let counts = page.lines().filter(|line| line.starts_with("crestline_request_ends_total{"));
    let sum: f64 =
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
    assert!((sum - sent).abs() < 0.5, "{sum} of {sent}: {page}");
}
