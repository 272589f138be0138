//! One test for each row of the fault table that a head can show, by theme, then the properties.

mod framing;
mod limits;
mod lines;
mod properties;
mod targets;
mod versions;

use super::*;

fn read(bytes: &[u8]) -> Result<Option<Head>, Refusal> {
    HeadReader::new().advance(bytes, &Limits::default())
}

/// Reads a head that must be complete.
fn accept(bytes: impl AsRef<[u8]>) -> Head {
    let bytes = bytes.as_ref();
    match read(bytes) {
        Ok(Some(head)) => head,
        other => panic!("{:?} for {}", other, bytes.escape_ascii()),
    }
}

/// Reads a head that must be refused.
fn refuse(bytes: impl AsRef<[u8]>) -> Refusal {
    let bytes = bytes.as_ref();
    match read(bytes) {
        Err(refusal) => refusal,
        other => panic!("{:?} for {}", other, bytes.escape_ascii()),
    }
}

/// A request with these field lines beside `Host`.
fn with(fields: &[u8]) -> Vec<u8> {
    [b"GET / HTTP/1.1\r\nHost: a.test\r\n", fields, b"\r\n"].concat()
}

/// A request with these bytes in a value.
fn with_value(value: &[u8]) -> Vec<u8> {
    with(&[b"X: a", value, b"b\r\n"].concat())
}

/// A request with this target.
fn with_target(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

/// A request with this `Host`.
fn with_host(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// A request with this version.
fn with_version(version: &str) -> String {
    format!("GET / {version}\r\nHost: a.test\r\n\r\n")
}

#[test]
fn a_plain_head_is_measured_and_what_follows_is_left_alone() {
    let head = with(b"Accept: */*\r\n");
    let mut bytes = head.clone();
    bytes.extend_from_slice(b"\0\nbody");
    assert_eq!(accept(&bytes), Head { len: head.len(), ..Head::default() });
}

#[test]
fn what_the_head_says_about_its_body_is_reported() {
    assert_eq!(accept(with(b"Content-Length: 42\r\n")).content_length, Some(42));
    assert!(accept(with(b"Transfer-Encoding: chunked\r\n")).chunked);
    assert!(accept(with(b"expect: 100-Continue \r\n")).expect_continue);
    assert!(accept(with(b"Upgrade: websocket\r\n")).upgrade);
}

#[test]
fn a_fault_is_reported_before_its_line_ends() {
    for start in ["G(", "GET /\\", "GET / HTTX/1.1XX", "GET / HTTP/1.1\r\nX: a\0"] {
        refuse(start);
    }
}
