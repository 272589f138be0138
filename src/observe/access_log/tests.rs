use std::{
    fs::{self, File},
    process::Command,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    form::Format,
    line::{Entry, Tls},
    target::probe,
    *,
};
use crate::reason::Reason;

fn entry() -> Entry<'static> {
    Entry {
        id: b"id-1",
        traced: None,
        client: Some("192.0.2.1".parse().unwrap()),
        method: "GET",
        host: "a.test",
        target: b"/a\x1b[31m\"\r\nb?c=\\",
        protocol: "HTTP/1.1",
        tls: Tls {
            version: Some("TLSv1.3"),
            sni: Some("a.test"),
            cipher: Some("TLS13_AES_256_GCM_SHA384"),
            group: Some("X25519MLKEM768"),
            is_resumed: true,
            client: Some([br"CN=a\2C", b"DNS:a.test", b"00ff"]),
            told_client_cn: None,
        },
        status: 200,
        bytes: 12,
        total: Duration::from_micros(1_042),
        connect: None,
        first_byte: Some(Duration::from_micros(7)),
        route: Some("shop"),
        upstream: Some("app"),
        backend: Some("127.0.0.1:3032"),
        attempts: 2,
        via: &"127.0.0.1:3031:refused,127.0.0.1:3032:200",
        replayed: Some(1_024),
        is_too_long_to_replay: true,
        cache: Some("miss"),
        reason: Reason::Ok,
        user: Some(b"ali b"),
        user_agent: Some(b"curl/8 \xff"),
        referer: None,
        request: None,
        response: None,
    }
}

fn written(format: Format) -> String {
    let mut out = Vec::new();
    Form::of(format).write(&entry(), &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_json_line_is_one_line_of_json_whatever_the_client_sent() {
    let line = written(Format::Json);
    assert_eq!(line.matches('\n').count(), 1);
    assert!(line.bytes().all(|byte| byte == b'\n' || !byte.is_ascii_control()), "{line}");
    let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(parsed["path"], "/a\u{1b}[31m\"\r\nb?c=\\");
    assert_eq!(parsed["total_ms"], 1.042);
    assert_eq!((&parsed["replayed_bytes"], &parsed["replay"]), (&1_024.into(), &"too_long".into()));
    assert_eq!((&parsed["tls_version"], &parsed["tls_resumed"]), (&"TLSv1.3".into(), &true.into()));
    assert_eq!(parsed["tls_client_subject"], r"CN=a\2C");
    assert_eq!(parsed["tls_client_sans"].as_str(), Some("DNS:a.test"));
    assert_eq!(parsed["first_byte_ms"], 0.007);
    assert_eq!(parsed["via"], "127.0.0.1:3031:refused,127.0.0.1:3032:200");
    assert!(parsed["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_logfmt_line_has_the_same_fields_and_quotes_what_needs_them() {
    let line = written(Format::Logfmt);
    assert!(line.starts_with("time=2"), "{line}");
    for field in [
        " id=id-1 client=192.0.2.1 method=GET host=a.test ",
        " path=\"/a\\u001b[31m\\\"\\u000d\\u000ab?c=\\\\\" ",
        " tls_client_subject=\"CN=a\\\\2C\" ",
        " status=200 bytes=12 total_ms=1.042 first_byte_ms=0.007 ",
        " attempts=2 via=127.0.0.1:3031:refused,127.0.0.1:3032:200 ",
    ] {
        assert!(line.contains(field), "{field} in {line}");
    }
    assert_eq!(line.matches('\n').count(), 1);
}

#[test]
fn a_template_has_what_it_names_and_a_dash_for_what_is_not_known() {
    let template = "<{client}> {path} {status} {total_ms} {connect_ms} {via} {referer} {reason}";
    let line = written(Format::Template(template.parse().unwrap()));
    let expected = "<192.0.2.1> /a\\x1B[31m\\x22\\x0D\\x0Ab?c=\\x5C 200 1.042 - \
                    127.0.0.1:3031:refused,127.0.0.1:3032:200 - ok\n";
    assert_eq!(line, expected);
}

#[test]
fn a_combined_line_escapes_as_nginx_does() {
    let line = written(Format::Combined);
    assert!(line.starts_with("192.0.2.1 - ali\\x20b ["), "{line}");
    assert!(
        line.ends_with(
            "\"GET /a\\x1B[31m\\x22\\x0D\\x0Ab?c=\\x5C HTTP/1.1\" 200 12 \"-\" \"curl/8 \\xFF\"\n"
        ),
        "{line}"
    );
}

#[test]
fn a_log_that_nobody_writes_drops_and_counts_and_stays_within_its_bound() {
    let log = AccessLog::new(Form::of(Format::Json), Target::Stdout);
    for _ in 0..10_000 {
        log.write(&entry());
    }
    let held: usize = log.shards.iter().map(|shard| shard.lock().len()).sum();
    assert!(0 < log.dropped());
    assert!(held < SHARD_BYTES_MAX + 4_096, "{held}");
}

#[test]
fn a_reopened_log_writes_to_the_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = AccessLog::new(Form::of(Format::Json), Target::File(path.clone()));
    log.start().unwrap();
    log.write(&entry());
    wait_for(|| fs::read(&path).is_ok_and(|text| !text.is_empty()));
    fs::rename(&path, folder.path().join("old.log")).unwrap();
    log.reopen();
    wait_for(|| path.exists());
    log.write(&entry());
    log.finish();
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
}

fn wait_for(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited in vain");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_pipe_that_nobody_reads_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let told = probe(&Target::File(path.clone())).unwrap_err();
    assert_eq!(told.to_string(), "nobody reads from this pipe");
    let _reader = File::options().read(true).write(true).open(&path).unwrap();
    probe(&Target::File(path)).unwrap();
}
