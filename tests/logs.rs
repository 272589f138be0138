//! The access log: one line a request, whatever strangers send.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Crestline, Origin, eventually, get, request};

#[tokio::test]
async fn a_json_line_has_all_fields() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes: [{{ name: all, upstream: app }}]
        "
    ))
    .await;

    let answer = proxy.send(request("GET", "/a?b=c", "User-Agent: test/1\r\n", "")).await;
    let line = &proxy.access_log(1).await[0];
    let expected = [
        ("id", answer.get("x-request-id").unwrap()),
        ("client", "127.0.0.1"),
        ("method", "GET"),
        ("host", "a.test"),
        ("path", "/a?b=c"),
        ("protocol", "HTTP/1.1"),
        ("route", "all"),
        ("upstream", "app"),
        ("backend", &origin.to_string()),
        ("via", &format!("{origin}:200")),
        ("user_agent", "test/1"),
    ];
    for (field, value) in expected {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    for (field, value) in [("status", 200), ("bytes", 5), ("attempts", 1)] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    let millis = |field: &str| line[field].as_f64().unwrap_or_else(|| panic!("{field}: {line}"));
    let (total, connect, first) =
        (millis("total_ms"), millis("connect_ms"), millis("first_byte_ms"));
    assert!(0.0 < connect && connect <= first && first <= total && total < 5_000.0, "{line}");
    assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
}

/// A file for a log, in a folder that goes with it.
fn a_file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("of-its-own.log");
    (folder, path)
}

/// The first line, once it is there.
async fn line_in(path: &Path) -> String {
    eventually("a line", || fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n'))).await;
    fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn the_combined_format_is_that_of_apache() {
    let origin = Origin::replying("hello");
    let (_folder, path) = a_file();
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        access_log: {{ path: {}, format: combined }}
        ",
        path.display()
    ))
    .await;

    let fields = "User-Agent: a \"b\" \\\r\nReferer: http://b.test/\r\n";
    proxy.send(request("GET", "/a?b=c", fields, "")).await;
    let line = line_in(&path).await;
    let (start, rest) = line.split_once('[').unwrap();
    let (_, rest) = rest.split_once(']').unwrap();
    assert_eq!(start, "127.0.0.1 - - ");
    assert_eq!(rest, " \"GET /a?b=c HTTP/1.1\" 200 5 \"http://b.test/\" \"a \\x22b\\x22 \\x5C\"\n");
}

/// What is asked for is there, what lets its reader in somewhere is not, and of good requests only
/// as many as are wanted; of bad ones all.
#[tokio::test]
async fn a_line_has_the_fields_that_are_asked_for_and_no_secrets() {
    let origin = Origin::with(async |exchange| {
        let status = if exchange.request.target.starts_with("/good") { "200 OK" } else { "404 No" };
        exchange.answer(status, "X-Version: 7\r\nSet-Cookie: a=secret\r\n", "").await
    });
    let (_folder, path) = a_file();
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        access_log:
          path: {path}
          format: logfmt
          request_headers: [x-tenant, authorization, x-none]
          response_headers: [x-version, set-cookie]
          sample: 0%
        ",
        path = path.display()
    ))
    .await;
    let fields = "X-Tenant: a b\r\nAuthorization: Bearer secret\r\n";
    for target in ["/good", "/bad?Token=secret&b=1"] {
        proxy.send(request("GET", target, fields, "")).await;
    }
    let line = line_in(&path).await;
    for field in [
        " path=\"/bad?Token=[hidden]&b=1\" ",
        " status=404 ",
        " request.x-tenant=\"a b\" request.authorization=[hidden] response.x-version=7 ",
        " response.set-cookie=[hidden]",
    ] {
        assert!(line.contains(field), "{field} in {line}");
    }
    assert!(!line.contains("secret") && !line.contains("x-none"), "{line}");
}

#[tokio::test]
async fn a_template_is_filled_in() {
    let origin = Origin::replying("hello");
    let (_folder, path) = a_file();
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        access_log:
          path: {}
          format: {{ template: \"{{method}} {{path}} {{request.x-a}} > {{status}} {{via}} {{sni}}\" }}
        ",
        path.display()
    ))
    .await;
    proxy.send(request("GET", "/a?password=1", "X-A: a\tb\r\n", "")).await;
    let expected = format!("GET /a?password=[hidden] a\\x09b > 200 {origin}:200 -\n");
    assert_eq!(line_in(&path).await, expected);
}

/// As after a rotation.
#[tokio::test]
async fn sigusr1_reopens_the_file() {
    let origin = Origin::replying("hello");
    let proxy =
        Crestline::start(&format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}")).await;
    let (now, old) = (proxy.folder().join("access.log"), proxy.folder().join("access.log.1"));
    proxy.get("/before").await;
    proxy.access_log(1).await;

    fs::rename(&now, &old).unwrap();
    proxy.signal(Signal::USR1);
    eventually("a new file", || now.exists()).await;
    proxy.get("/after").await;
    assert_eq!(proxy.access_log(1).await[0]["path"], "/after");
    let lines = fs::read_to_string(&old).unwrap();
    assert!(lines.contains("/before") && !lines.contains("/after"), "{lines}");
}

/// A terminal that shows the log is not moved, and no line is faked.
#[tokio::test]
async fn what_strangers_send_is_escaped() {
    let origin = Origin::replying("hello");
    let proxy =
        Crestline::start(&format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}")).await;

    let mut agent =
        b"GET / HTTP/1.1\r\nHost: a.test\r\nUser-Agent: a\"b\\c\x9b\xff\xc2\x9b2J\r\n\r\n".to_vec();
    assert_eq!(proxy.send(&agent).await.status, 200);
    agent = b"GET /\x1b[31m\"},{ HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec();
    assert_eq!(proxy.send(&agent).await.status, 400);

    let lines = proxy.access_log(2).await;
    assert_eq!(proxy.access_lines().len(), 2);
    let text = lines[0]["user_agent"].as_str().unwrap();
    assert!(text.starts_with("a\"b\\c"), "{text}");
    assert_eq!(lines[1]["status"], 400);
    for line in proxy.access_lines() {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[tokio::test]
async fn a_client_that_left_is_logged_as_499() {
    let origin = Origin::stalling();
    let proxy =
        Crestline::start(&format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}")).await;

    let mut client = proxy.client().await;
    client.send(get("/")).await;
    eventually("the request at the origin", || origin.count() == 1).await;
    client.reset();
    let line = &proxy.access_log(1).await[0];
    assert_eq!((&line["status"], &line["bytes"]), (&499.into(), &0.into()));
    assert_eq!(line["reason"], "client_abort");
}

#[tokio::test]
async fn the_log_can_be_switched_off() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        access_log: off
        "
    ))
    .await;

    assert_eq!(proxy.get("/").await.text(), "hello");
    assert!(!proxy.folder().join("access.log").exists());
}

/// A log that cannot be opened is a mistake of the configuration.
#[tokio::test]
async fn a_log_that_cannot_be_opened_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crestline.yaml");
    let yaml = "upstreams: { app: { backends: [\"127.0.0.1:9\"] } }\naccess_log: { path: /no/such/folder/a.log }\n";
    fs::write(&file, yaml).unwrap();

    let finished = Crestline::run(&["-c", file.to_str().unwrap()]).await;
    assert_eq!(finished.code, Some(78));
    assert!(finished.stderr.contains("/no/such/folder/a.log"), "{}", finished.stderr);
}
