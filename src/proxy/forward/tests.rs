//! What the origin is told of the client, and what no client can make it believe.

use std::sync::Arc;

use super::*;

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A connection from an address; `10.0.0.0/8` and `fd00::/8` are trusted.
fn from(client: &str) -> Connection {
    let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
    Connection::new(client.parse().ok(), Arc::new(trusted), Arc::default(), Arc::default())
}

fn stranger() -> Connection {
    from("192.0.2.1")
}

fn friend() -> Connection {
    from("10.0.0.1")
}

fn request(fields: &[(&'static str, &[u8])]) -> HeaderMap {
    let named = |(name, value): &(&'static str, &[u8])| {
        (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
    };
    let mut headers = HeaderMap::new();
    for (name, value) in fields.iter().map(named) {
        headers.append(name, value);
    }
    headers
}

/// The values of a field, joined with ` | `.
fn values(header: &HeaderMap, name: &str) -> String {
    let values = header.get_all(name).iter();
    let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    values.join(" | ")
}

/// What the origin gets of a request to `a.test`.
fn forwarded(fields: &[(&'static str, &[u8])], connection: &Connection) -> HeaderMap {
    let mut header = request(fields);
    let host = HeaderValue::from_static("a.test");
    cleanse(&mut header, connection, &[]);
    introduce(&mut header, connection, &HeaderValue::from_static("id-1"), Some(&host)).unwrap();
    continue_trace(&mut header);
    header
}

fn client(fields: &[(&'static str, &[u8])], connection: &Connection) -> String {
    let client = client_of(&request(fields), connection);
    client.map_or("none".to_owned(), |client| client.to_string())
}

#[test]
fn the_client_is_the_rightmost_address_that_is_not_trusted() {
    for (list, expected) in [
        ("198.51.100.1", "198.51.100.1"),
        ("6.6.6.6, 198.51.100.1", "198.51.100.1"),
        ("6.6.6.6,198.51.100.1 ,10.9.9.9, 10.0.0.2", "198.51.100.1"),
        ("6.6.6.6, 2001:db8::1, fd00::2", "2001:db8::1"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("::ffff:198.51.100.1, ::ffff:10.0.0.2", "198.51.100.1"),
        ("6.6.6.6, unknown, 10.0.0.2", "10.0.0.2"),
        ("6.6.6.6, , 10.0.0.2", "10.0.0.2"),
        ("nonsense", "10.0.0.1"),
        ("", "10.0.0.1"),
    ] {
        assert_eq!(client(&[("x-forwarded-for", list.as_bytes())], &friend()), expected, "{list}");
    }
    let two: &[(_, &[u8])] =
        &[("x-forwarded-for", b"6.6.6.6"), ("x-forwarded-for", b"198.51.100.1, 10.0.0.2")];
    assert_eq!(client(two, &friend()), "198.51.100.1", "the last field is the nearest");
    assert_eq!(client(&[], &friend()), "10.0.0.1");
}

#[test]
fn a_stranger_is_who_he_is_whatever_he_says() {
    let claim: &[(_, &[u8])] = &[("x-forwarded-for", b"6.6.6.6")];
    assert_eq!(client(claim, &stranger()), "192.0.2.1");
    assert_eq!(client(claim, &from("unix")), "6.6.6.6", "a Unix socket is local");
    assert_eq!(client(&[], &from("unix")), "none");
}

/// What a client puts before the address that the trusted proxy has seen must not hide it.
#[test]
fn bytes_that_are_no_text_hide_no_address_to_their_right() {
    let joined: &[(_, &[u8])] =
        &[("x-forwarded-for", b"6.6.6.6"), ("x-forwarded-for", b"\xff, 198.51.100.1")];
    assert_eq!(client(joined, &friend()), "198.51.100.1");
    let alone: &[(_, &[u8])] = &[("x-forwarded-for", b"6.6.6.6"), ("x-forwarded-for", b"\xff")];
    assert_eq!(client(alone, &friend()), "10.0.0.1", "nothing left of nonsense counts");
}

#[test]
fn only_a_trusted_proxy_names_the_request() {
    let id = |value: &[u8], connection: &Connection| {
        let id = id_of(&request(&[("x-request-id", value)]), connection);
        id.to_str().unwrap().to_owned()
    };
    let is_new = |id: String| uuid::Uuid::parse_str(&id).is_ok();
    assert_eq!(id(b"from-the-edge", &friend()), "from-the-edge");
    assert_eq!(id(&[b'a'; LENGTH_MAX], &friend()).len(), LENGTH_MAX);
    assert!(is_new(id(b"from-a-stranger", &stranger())));
    for odd in [&b""[..], b"two words", b"\xff", b"tab\there", &[b'a'; LENGTH_MAX + 1]] {
        assert!(is_new(id(odd, &friend())), "{odd:?}");
    }
    assert!(is_new(id_of(&HeaderMap::new(), &friend()).to_str().unwrap().to_owned()));
}

const CLAIMS: [(&str, &[u8]); 8] = [
    ("x-forwarded-for", b"6.6.6.6"),
    ("x-forwarded-for", b"7.7.7.7"),
    ("x-forwarded-proto", b"https"),
    ("x-forwarded-host", b"admin.test"),
    ("x-forwarded-port", b"443"),
    ("x-real-ip", b"6.6.6.6"),
    ("forwarded", b"for=6.6.6.6"),
    ("x-request-id", b"mine"),
];

#[test]
fn what_a_stranger_claims_is_replaced() {
    let header = forwarded(&CLAIMS, &stranger());
    assert_eq!(values(&header, "x-forwarded-for"), "192.0.2.1");
    assert_eq!(values(&header, "x-forwarded-proto"), "http");
    assert_eq!(values(&header, "x-forwarded-host"), "a.test");
    assert_eq!(values(&header, "x-request-id"), "id-1");
    for gone in ["x-forwarded-port", "x-real-ip", "forwarded"] {
        assert_eq!(values(&header, gone), "", "{gone}");
    }
}

#[test]
fn what_a_trusted_proxy_says_is_kept_and_it_is_appended() {
    let header = forwarded(&CLAIMS, &friend());
    assert_eq!(values(&header, "x-forwarded-for"), "6.6.6.6, 7.7.7.7, 10.0.0.1");
    assert_eq!(values(&header, "x-forwarded-proto"), "https");
    assert_eq!(values(&header, "x-forwarded-host"), "admin.test");
    assert_eq!(values(&header, "x-forwarded-port"), "443");
    assert_eq!(values(&header, "x-real-ip"), "6.6.6.6");
    assert_eq!(values(&header, "forwarded"), "for=6.6.6.6");
    assert_eq!(values(&header, "x-request-id"), "id-1", "the id was chosen before");
}

#[test]
fn the_first_proxy_introduces_its_client() {
    for (address, value) in [("2001:db8::1", "2001:db8::1"), ("::ffff:192.0.2.7", "192.0.2.7")] {
        assert_eq!(values(&forwarded(&[], &from(address)), "x-forwarded-for"), value);
    }
    assert_eq!(values(&forwarded(&[], &from("unix")), "x-forwarded-for"), "unknown");
    let mut header = request(&[]);
    introduce(&mut header, &stranger(), &HeaderValue::from_static("id-1"), None).unwrap();
    assert_eq!(values(&header, "x-forwarded-host"), "", "HTTP/1.0 without `Host`");
}

#[test]
fn fields_that_origins_misread_are_removed_whoever_sends_them() {
    let odd: &[(_, &[u8])] = &[
        ("x_forwarded_for", b"6.6.6.6"),
        ("content_length", b"3"),
        ("_", b"x"),
        ("proxy", b"http://6.6.6.6"),
        ("proxy", b"twice"),
        ("x-kept", b"yes"),
        ("proxying", b"yes"),
    ];
    for connection in [stranger(), friend()] {
        let mut header = request(odd);
        header.append("x-client", HeaderValue::from_static("root"));
        header.append("x-client", HeaderValue::from_static("twice"));
        cleanse(&mut header, &connection, &[HeaderName::from_static("x-client")]);
        let mut names: Vec<_> = header.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["proxying", "x-kept"]);
    }
}

#[test]
fn crumbs_of_a_cookie_are_joined_where_they_are_cut() {
    let crumbs: &[(_, &[u8])] =
        &[("cookie", b"a=1"), ("cookie", b"b=2; c=3"), ("cookie", b"d=\xff")];
    let joined = |version| {
        let mut header = request(crumbs);
        join_cookies(&mut header, version).unwrap();
        values(&header, "cookie")
    };
    assert_eq!(joined(Version::HTTP_2), "a=1; b=2; c=3; d=\u{fffd}");
    assert_eq!(joined(Version::HTTP_11), "a=1 | b=2; c=3 | d=\u{fffd}");
    let mut none = request(&[]);
    join_cookies(&mut none, Version::HTTP_2).unwrap();
    assert_eq!(values(&none, "cookie"), "");
}

#[test]
fn forwarded_is_quoted_as_its_grammar_wants() {
    let added = |client: &str, host: Option<&'static str>| {
        let mut header = request(&[]);
        let host = host.map(HeaderValue::from_static);
        add_forwarded(&mut header, &from(client), host.as_ref()).unwrap();
        values(&header, "forwarded")
    };
    assert_eq!(added("192.0.2.1", None), "for=192.0.2.1;proto=http");
    assert_eq!(
        added("192.0.2.1", Some("a.test:80")),
        "for=192.0.2.1;proto=http;host=\"a.test:80\""
    );
    assert_eq!(added("2001:db8::1", None), "for=\"[2001:db8::1]\";proto=http");
    assert_eq!(added("unix", None), "for=unknown;proto=http");

    let mut header = request(&[("forwarded", b"for=198.51.100.1")]);
    add_forwarded(&mut header, &friend(), None).unwrap();
    assert_eq!(values(&header, "forwarded"), "for=198.51.100.1 | for=10.0.0.1;proto=http");
}

#[test]
fn a_quote_in_a_host_does_not_end_the_quoted_text() {
    let mut header = request(&[]);
    let host = HeaderValue::from_static("a\";for=6.6.6.6;by=\"\\");
    add_forwarded(&mut header, &stranger(), Some(&host)).unwrap();
    let escaped = r#"for=192.0.2.1;proto=http;host="a\";for=6.6.6.6;by=\"\\""#;
    let without = "for=192.0.2.1;proto=http";
    let value = values(&header, "forwarded");
    assert!(value == escaped || value == without, "{value}");
}

#[test]
fn a_request_without_host_gets_the_one_that_the_origin_knows() {
    let fallback = HeaderValue::from_static("127.0.0.1:3031");
    let mut header = request(&[]);
    ensure_host(&mut header, &fallback);
    assert_eq!(values(&header, "host"), "127.0.0.1:3031");
    let mut header = request(&[("host", b"a.test")]);
    ensure_host(&mut header, &fallback);
    assert_eq!(values(&header, "host"), "a.test");
    add_via(&mut header);
    assert_eq!(values(&header, "via"), "1.1 crestline");
}

#[test]
fn a_trace_is_continued_if_it_is_one() {
    let header =
        forwarded(&[("traceparent", TRACE.as_bytes()), ("tracestate", b"a=1")], &stranger());
    assert_eq!(
        (values(&header, "traceparent").as_str(), values(&header, "tracestate").as_str()),
        (TRACE, "a=1")
    );
    for wrong in [TRACE.replace("0af7", "0AF7"), String::new()] {
        let header = forwarded(&[("traceparent", wrong.as_bytes())], &stranger());
        assert!(w3c::read(&header).is_some(), "{wrong} is replaced");
    }
}

/// W3C Trace Context, section 4.3: two are none, and the state belongs to its trace.
#[test]
fn a_new_trace_begins_without_the_state_of_another() {
    let header = forwarded(&[("tracestate", b"a=1")], &stranger());
    assert_eq!(values(&header, "tracestate"), "");
    let twice: &[(_, &[u8])] =
        &[("traceparent", TRACE.as_bytes()), ("traceparent", TRACE.as_bytes())];
    let header = forwarded(twice, &stranger());
    assert_ne!(values(&header, "traceparent"), TRACE);
    assert!(header.get_all("traceparent").iter().nth(1).is_none());
}
