//! One test for each row of the fault table that a head can show, then the properties.

use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::prelude::*;

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

// Row 1.
#[test]
fn a_bare_line_feed_is_refused() {
    for head in [
        "GET / HTTP/1.1\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nX\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\n\n",
        "\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ] {
        assert_eq!(refuse(head), Refusal::BARE_LINE_FEED, "{head:?}");
    }
}

// Row 2.
#[test]
fn a_bare_carriage_return_is_refused() {
    for head in [
        "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\n\rX: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nX\r: a\r\n\r\n",
        "\rGET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ] {
        assert_eq!(refuse(head), Refusal::BARE_CARRIAGE_RETURN, "{head:?}");
    }
    assert_eq!(refuse("GET / HTTP/1.1\rX: a\r\n\r\n").status, 400);
}

// Row 3.
#[test]
fn a_nul_in_a_value_is_refused() {
    assert_eq!(refuse(with_value(b"\0")), Refusal::NUL_BYTE);
}

// Row 4.
#[test]
fn a_control_byte_in_a_value_is_refused_and_a_tab_is_not() {
    for byte in (1..0x20).chain([0x7F]).filter(|byte| !b"\t\r\n".contains(byte)) {
        assert_eq!(refuse(with_value(&[byte])), Refusal::CONTROL_BYTE, "{byte:#04x}");
    }
    accept(with_value(b"\t"));
}

// Row 5.
#[test]
fn a_folded_line_is_refused() {
    assert_eq!(refuse(with(b"X: a\r\n b\r\n")), Refusal::OBS_FOLD);
    assert_eq!(refuse(with(b"X: a\r\n\tb: c\r\n")), Refusal::OBS_FOLD);
    assert_eq!(refuse("GET / HTTP/1.1\r\n Host: a.test\r\n\r\n"), Refusal::OBS_FOLD);
}

// Row 6.
#[test]
fn white_space_before_a_colon_is_refused() {
    for line in ["X : a\r\n", "X\t: a\r\n", "Content-Length : 5\r\n", "X Y: a\r\n"] {
        assert_eq!(refuse(with(line.as_bytes())), Refusal::SPACE_BEFORE_COLON, "{line:?}");
    }
}

// Row 7.
#[test]
fn a_field_line_without_a_colon_is_refused() {
    assert_eq!(refuse(with(b"NoColon\r\n")), Refusal::MISSING_COLON);
}

// Row 8.
#[test]
fn an_empty_field_name_is_refused() {
    assert_eq!(refuse(with(b": x\r\n")), Refusal::EMPTY_FIELD_NAME);
}

// Row 9.
#[test]
fn a_field_name_that_is_no_token_is_refused() {
    let tokens = b"!#$%&'*+-.^_`|~";
    for byte in 0..=u8::MAX {
        let head = with(&[b"X", &[byte][..], b"A: v\r\n"].concat());
        if byte.is_ascii_alphanumeric() || tokens.contains(&byte) || byte == b':' {
            accept(head);
        } else {
            assert_eq!(refuse(head).status, 400, "{byte:#04x}");
        }
    }
    assert_eq!(refuse(with(b"X(A: v\r\n")), Refusal::BAD_FIELD_NAME);
    assert_eq!(refuse(with(b"\xFF: v\r\n")), Refusal::BAD_FIELD_NAME);
}

// Row 10.
#[test]
fn bytes_above_ascii_pass_in_a_value() {
    for byte in 0x80..=0xFF {
        accept(with_value(&[byte]));
    }
}

// Row 11.
#[test]
fn a_byte_above_ascii_in_the_target_is_refused() {
    for byte in [0x80, 0xC3, 0xFF] {
        for prefix in [&b"/"[..], b"/?"] {
            let head = [b"GET ", prefix, &[byte][..], b" HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(refuse(head), Refusal::BAD_TARGET);
        }
    }
}

// Row 12.
#[test]
fn one_blank_line_before_the_request_is_skipped_and_two_are_refused() {
    let request = with(b"");
    let head = accept([b"\r\n", &request[..]].concat());
    assert_eq!((head.start, head.len), (2, request.len() + 2));
    assert_eq!(refuse("\r\n\r\n"), Refusal::LEADING_BLANK_LINES);
    assert_eq!(refuse("\r\n".repeat(50)), Refusal::LEADING_BLANK_LINES);
    assert_eq!(refuse("\r\n\n"), Refusal::LEADING_BLANK_LINES);
}

// Row 13.
#[test]
fn anything_but_single_spaces_in_the_request_line_is_refused() {
    for (line, refusal) in [
        ("GET  / HTTP/1.1", Refusal::BAD_REQUEST_LINE),
        ("GET /  HTTP/1.1", Refusal::BAD_VERSION),
        ("GET / HTTP/1.1 ", Refusal::BAD_VERSION),
        ("GET\t/ HTTP/1.1", Refusal::BAD_METHOD),
        ("GET /\tHTTP/1.1", Refusal::BAD_TARGET),
        ("GET /a b HTTP/1.1", Refusal::BAD_VERSION),
        (" GET / HTTP/1.1", Refusal::BAD_METHOD),
    ] {
        assert_eq!(refuse(format!("{line}\r\nHost: a.test\r\n\r\n")), refusal, "{line:?}");
    }
}

// Row 14.
#[test]
fn two_hosts_are_refused() {
    assert_eq!(refuse(with(b"Host: b.test\r\n")), Refusal::DUPLICATE_HOST);
}

// Row 15.
#[test]
fn the_same_host_twice_is_refused() {
    assert_eq!(refuse(with(b"hOST: a.test\r\n")), Refusal::DUPLICATE_HOST);
}

// Row 16.
#[test]
fn http_1_1_without_host_is_refused() {
    assert_eq!(refuse("GET / HTTP/1.1\r\n\r\n"), Refusal::MISSING_HOST);
    assert_eq!(refuse("GET http://a.test/ HTTP/1.1\r\n\r\n"), Refusal::MISSING_HOST);
}

// Row 17.
#[test]
fn a_host_with_a_space_or_a_slash_is_refused() {
    for host in ["a b", "a.test/", "a.test/b", ""] {
        assert_eq!(refuse(with_host(host)), Refusal::BAD_HOST, "{host:?}");
    }
    accept(with_host(" \ta.test \t"));
}

// Row 18.
#[test]
fn a_host_with_userinfo_is_refused() {
    for host in ["u@a.test", "u:p@a.test", "@a.test"] {
        assert_eq!(refuse(with_host(host)), Refusal::BAD_HOST, "{host:?}");
    }
}

// Row 19.
#[test]
fn a_host_with_a_comma_or_a_bad_port_is_refused() {
    for host in ["a.test,b.test", "a.test:99999x", "a.test:65536", "a.test:-1", "a.test:"] {
        assert_eq!(refuse(with_host(host)), Refusal::BAD_HOST, "{host:?}");
    }
    accept(with_host("a.test:65535"));
    accept(with_host("[::1]:8080"));
}

// Row 20.
#[test]
fn a_target_in_absolute_form_agrees_with_host() {
    for target in ["http://a.test", "HTTP://A.test:80/x", "https://a.test:443?q"] {
        accept(with_target(target));
    }
    for target in ["http://b.test/", "http://a.test:81/", "https://a.test:80/", "http://a.test.b/"]
    {
        assert_eq!(refuse(with_target(target)), Refusal::HOST_MISMATCH, "{target}");
    }
    for target in ["http://", "http:///x", "http://u@a.test/", "http://a.test:x/", "http://a%41/"] {
        assert_eq!(refuse(with_target(target)), Refusal::BAD_HOST, "{target}");
    }
    accept("GET http://a.test/ HTTP/1.0\r\n\r\n");
}

// Row 21.
#[test]
fn a_target_of_another_scheme_is_refused() {
    for target in ["ftp://a.test/", "ws://a.test/", "://a.test/", "httpx://a.test/"] {
        assert_eq!(refuse(with_target(target)), Refusal::UNSUPPORTED_SCHEME, "{target}");
    }
}

// Row 22.
#[test]
fn a_target_of_any_other_form_is_refused() {
    for target in ["a.test:80", "a.test", "?q", "a/b", "http:/a.test", "http:a.test", "**"] {
        assert_eq!(refuse(with_target(target)), Refusal::BAD_TARGET_FORM, "{target}");
    }
    assert_eq!(refuse(with_target("*")), Refusal::ASTERISK_TARGET);
    accept("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n");
}

// Row 23.
#[test]
fn connect_is_refused_before_anything_behind_it_is_read() {
    assert_eq!(refuse("CONNECT "), Refusal::CONNECT_METHOD);
    assert_eq!(refuse("CONNECT a.test:443 HTTP/1.1\r\n\r\nGET /").status, 405);
}

// Row 24.
#[test]
fn trace_is_refused() {
    assert_eq!(refuse("TRACE / HTTP/1.1\r\nHost: a.test\r\n\r\n"), Refusal::TRACE_METHOD);
    assert_eq!(Refusal::TRACE_METHOD.status, 405);
}

// Row 25.
#[test]
fn http_0_9_is_refused() {
    assert_eq!(refuse("GET /\r\n"), Refusal::MISSING_VERSION);
    assert_eq!(refuse("GET /\n"), Refusal::MISSING_VERSION);
    assert_eq!(refuse("GET /?q\r\n"), Refusal::MISSING_VERSION);
    assert_eq!(refuse("GET\r\n"), Refusal::BAD_METHOD);
    assert_eq!(refuse("GET / \r\n"), Refusal::BAD_VERSION);
    assert_eq!(refuse(with_version("HTTP/0.9")).status, 505);
}

// Row 26.
#[test]
fn http_1_0_needs_no_host() {
    assert_eq!(accept("GET / HTTP/1.0\r\n\r\n").version, Version::Http10);
    assert_eq!(accept("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").version, Version::Http10);
    assert_eq!(refuse("GET / HTTP/1.0\r\nHost: a b\r\n\r\n"), Refusal::BAD_HOST);
}

// Row 27. HTTP/1.2 is 505 and not answered as 1.1, because httparse does not know it.
#[test]
fn a_later_minor_version_is_read_as_http_1_1() {
    let head = accept(with_version("HTTP/1.2"));
    assert_eq!((head.version, head.edits.minor), (Version::Http11, Some(b"GET / HTTP/1.".len())));
}

#[test]
fn other_versions_are_refused() {
    for (version, status) in [
        ("HTTP/2.0", 505),
        ("HTTP/0.9", 505),
        ("HTTP/3.0", 505),
        ("HTTP/1.10", 400),
        ("HTTP/1", 400),
        ("HTTP/2", 400),
        ("http/1.1", 400),
        ("HTTP/1,1", 400),
        ("HTTP/ 1.1", 400),
        ("ICY/1.1", 400),
    ] {
        assert_eq!(refuse(with_version(version)).status, status, "{version}");
    }
    assert_eq!(refuse("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").status, 400);
}

// Row 28.
#[test]
fn a_method_is_a_token_of_at_most_32_characters() {
    let with_method = |method: &str| format!("{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    for method in ["get", "connect", "PROPFIND", "M-SEARCH", "G!", &"M".repeat(32)] {
        accept(with_method(method));
    }
    for method in ["G@T", "", "G(", "G\0T", "GÉT"] {
        assert_eq!(refuse(with_method(method)), Refusal::BAD_METHOD, "{method:?}");
    }
    for length in [33, 300, 100_000] {
        assert_eq!(refuse("M".repeat(length)), Refusal::METHOD_TOO_LONG);
    }
    assert_eq!(Refusal::METHOD_TOO_LONG.status, 501);
}

// Row 29.
#[test]
fn a_length_beside_a_transfer_encoding_is_refused() {
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        assert_eq!(refuse(with(fields.as_bytes())), Refusal::LENGTH_WITH_ENCODING);
    }
}

// Row 30.
#[test]
fn two_lengths_are_refused_even_if_they_agree() {
    let twice = |a, b| with(format!("Content-Length: {a}\r\ncontent-length: {b}\r\n").as_bytes());
    assert_eq!(refuse(twice(5, 6)), Refusal::DUPLICATE_CONTENT_LENGTH);
    assert_eq!(refuse(twice(5, 5)), Refusal::DUPLICATE_CONTENT_LENGTH);
    assert_eq!(refuse(with(b"Content-Length: 5, 5\r\n")), Refusal::BAD_CONTENT_LENGTH);
}

// Row 31.
#[test]
fn a_length_that_is_no_decimal_number_is_refused() {
    let with_length = |length| with(format!("Content-Length: {length}\r\n").as_bytes());
    for length in ["+5", "-1", "0x5", "1_0", "", "18446744073709551621", "5.", "5 5", "٥"] {
        assert_eq!(refuse(with_length(length)), Refusal::BAD_CONTENT_LENGTH, "{length:?}");
    }
    assert_eq!(accept(with_length("18446744073709551615")).content_length, Some(u64::MAX));
}

// Row 32.
#[test]
fn a_length_with_leading_zeros_passes() {
    assert_eq!(accept(with(b"Content-Length: \t0005 \r\n")).content_length, Some(5));
}

// Row 33.
#[test]
fn two_transfer_encodings_are_refused() {
    let fields = b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(refuse(with(fields)), Refusal::DUPLICATE_TRANSFER_ENCODING);
}

// Row 34.
#[test]
fn a_malformed_transfer_encoding_is_400_and_an_unknown_one_501() {
    let with_coding = |coding| with(format!("Transfer-Encoding: {coding}\r\n").as_bytes());
    for coding in [
        "chunked, chunked",
        ",chunked",
        "chunked,",
        "",
        "chun ked",
        "\"chunked\"",
        "chunked;q=1",
        "chunked, gzip",
        "gzip,,chunked",
        "chunked\u{e9}",
    ] {
        assert_eq!(refuse(with_coding(coding)), Refusal::BAD_TRANSFER_ENCODING, "{coding:?}");
    }
    for coding in ["xchunked", "identity", "gzip", "chunkedx"] {
        assert_eq!(refuse(with_coding(coding)), Refusal::UNKNOWN_TRANSFER_CODING, "{coding:?}");
    }
    assert_eq!(refuse(with_coding("\x0Bchunked")), Refusal::CONTROL_BYTE);
    assert!(accept(with_coding(" CHUNKED\t")).chunked);
}

// Row 35.
#[test]
fn a_coding_before_chunked_is_unknown() {
    for value in ["gzip, chunked", "gzip;level=1 ,chunked"] {
        let head = with(format!("Transfer-Encoding: {value}\r\n").as_bytes());
        assert_eq!(refuse(head), Refusal::UNKNOWN_TRANSFER_CODING);
    }
    assert_eq!(Refusal::UNKNOWN_TRANSFER_CODING.status, 501);
}

// Row 36.
#[test]
fn a_transfer_encoding_in_http_1_0_is_refused() {
    let head = "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(refuse(head), Refusal::TRANSFER_ENCODING_IN_HTTP_10);
}

// Row 51.
#[test]
fn a_target_over_its_limit_is_refused_as_soon_as_it_is() {
    let target = |length: usize| format!("/{}", "a".repeat(length - 1));
    accept(with_target(&target(10 * 1024)));
    accept(with_target(&target(16 * 1024)));
    for length in [16 * 1024 + 1, 70 * 1024] {
        assert_eq!(refuse(with_target(&target(length))), Refusal::TARGET_TOO_LONG);
        assert_eq!(refuse(format!("GET {}", target(length))), Refusal::TARGET_TOO_LONG);
        assert_eq!(refuse(format!("GET /?{}", target(length))), Refusal::TARGET_TOO_LONG);
    }
    assert_eq!(read(format!("GET {}", target(16 * 1024)).as_bytes()), Ok(None));
    assert_eq!(Refusal::TARGET_TOO_LONG.status, 414);
}

// Row 52.
#[test]
fn a_head_over_its_limits_is_refused_even_if_it_never_ends() {
    let filled = |size: usize| with(format!("X: {}\r\n", "v".repeat(size)).as_bytes());
    let spare = 64 * 1024 - filled(0).len();
    for size in [9 * 1024, 40 * 1024, spare] {
        accept(filled(size));
    }
    assert_eq!(refuse(filled(spare + 1)), Refusal::HEAD_TOO_LARGE);
    assert_eq!(refuse(filled(100 * 1024)), Refusal::HEAD_TOO_LARGE);
    let endless = &filled(100 * 1024)[..64 * 1024];
    assert_eq!(refuse(endless), Refusal::HEAD_TOO_LARGE);
    assert_eq!(read(&endless[..64 * 1024 - 1]), Ok(None));

    let fields = |count: usize| {
        with(
            (1..count)
                .fold(String::new(), |mut text, i| {
                    let _ = write!(text, "X-{i}: v\r\n");
                    text
                })
                .as_bytes(),
        )
    };
    for count in [110, 128] {
        accept(fields(count));
    }
    for count in [129, 1100] {
        assert_eq!(refuse(fields(count)), Refusal::TOO_MANY_FIELDS);
    }
    assert_eq!((Refusal::HEAD_TOO_LARGE.status, Refusal::TOO_MANY_FIELDS.status), (431, 431));
}

// Row 55, as far as bytes go; `routing::path` has the rest.
#[test]
fn a_backslash_in_the_path_or_a_fragment_is_refused() {
    assert_eq!(refuse(with_target("/..\\x")), Refusal::TARGET_BACKSLASH);
    assert_eq!(refuse(with_target("/x#frag")), Refusal::TARGET_FRAGMENT);
    assert_eq!(refuse(with_target("/x?q#frag")), Refusal::TARGET_FRAGMENT);
    for target in ["/%2f..%2f", "/%zz", "/a/../b", "//a//b", "/?%zz"] {
        accept(with_target(target));
    }
}

// Row 58.
#[test]
fn two_authorizations_are_refused() {
    let fields = b"Authorization: Basic QTpC\r\nauthorization: Basic QTpC\r\n";
    assert_eq!(refuse(with(fields)), Refusal::DUPLICATE_AUTHORIZATION);
}

/// What browsers leave unescaped passes, and what Pingora's `Uri` would refuse does not.
#[test]
fn a_target_holds_what_browsers_send() {
    for byte in 0..=u8::MAX {
        let path = [b"GET /", &[byte][..], b"x HTTP/1.1\r\nHost: a.test\r\n\r\n"].concat();
        let query = [b"GET /?", &[byte][..], b"x HTTP/1.1\r\nHost: a.test\r\n\r\n"].concat();
        let passes = |head: &[u8]| matches!(read(head), Ok(Some(_)));
        let printable = byte.is_ascii_graphic();
        assert_eq!(passes(&path), printable && !b"#<>\\`".contains(&byte), "{byte:#04x}");
        assert_eq!(passes(&query), printable && !b"#<>\"".contains(&byte), "{byte:#04x}");
    }
}

#[test]
fn a_fault_is_reported_before_its_line_ends() {
    for start in ["G(", "GET /\\", "GET / HTTX/1.1XX", "GET / HTTP/1.1\r\nX: a\0"] {
        refuse(start);
    }
}

#[test]
fn limits_that_a_reload_lowers_refuse_what_is_over_them() {
    let low = Limits { header_size: 40, header_fields: 1, target_size: 5 };
    for (start, refusal) in [
        (with_value(&[b'v'; 100]), Refusal::HEAD_TOO_LARGE),
        (b"GET /0123456789".to_vec(), Refusal::TARGET_TOO_LONG),
    ] {
        let mut reader = HeadReader::new();
        let almost = &start[..start.len() - 2];
        assert_eq!(reader.advance(almost, &Limits::default()), Ok(None));
        assert_eq!(reader.advance(&start, &low), Err(refusal));
    }
}

/// Feeds the bytes in growing pieces until there is a verdict.
fn read_in_pieces(bytes: &[u8], cuts: &[usize], limits: &Limits) -> Result<Option<Head>, Refusal> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    ends.sort_unstable();
    ends.push(bytes.len());
    let mut reader = HeadReader::new();
    for end in ends {
        let verdict = reader.advance(&bytes[..end], limits);
        if verdict != Ok(None) {
            assert_eq!(reader.advance(&bytes[..end], limits), verdict, "asked again");
            return verdict;
        }
    }
    Ok(None)
}

/// Pieces of which heads are made, good and bad.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => prop::sample::select(vec![
            "GET ", "OPTIONS ", "TRACE ", "CONNECT ", "/", "/a?b=c", "*", "http://a.test/", " ",
            " HTTP/1.1\r\n", " HTTP/1.0\r\n", " HTTP/2.0\r\n", "HTTP/1.1", "\r\n", "\r", "\n", "\r\n\r\n",
            "Host: a.test\r\n", "Host: b\r\n", "Content-Length: 5\r\n", "Content-Length: x\r\n",
            "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: gzip\r\n", "X: y\r\n", "X", ":", "\t",
            "Authorization: a\r\n", "Expect: 100-continue\r\n", "Upgrade: h2c\r\n", "aaaaaaaaaaaaaaaaaaaa",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 1..4),
    ]
}

/// A head with a good beginning, so that the later stages are reached as well.
fn heads() -> impl Strategy<Value = Vec<u8>> {
    let start = prop::sample::select(vec![
        "",
        "\r\n",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\n",
        "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n",
        "GET / HTTP/1.0\r\n",
    ]);
    (start, vec(piece(), 0..12))
        .prop_map(|(start, pieces)| [start.as_bytes(), &pieces.concat()].concat())
}

fn limits() -> impl Strategy<Value = Limits> {
    let tight = (0usize..80, 0usize..5, 0usize..20).prop_map(|(size, fields, target)| Limits {
        header_size: size,
        header_fields: fields,
        target_size: target,
    });
    prop_oneof![Just(Limits::default()), tight]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_verdict_does_not_depend_on_how_the_bytes_are_cut(
        bytes in heads(), cuts in vec(any::<usize>(), 0..8), limits in limits(),
    ) {
        let whole = HeadReader::new().advance(&bytes, &limits);
        prop_assert_eq!(read_in_pieces(&bytes, &cuts, &limits), whole);
        let each: Vec<_> = (0..bytes.len()).collect();
        prop_assert_eq!(read_in_pieces(&bytes, &each, &limits), whole);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200), limits in limits()) {
        let each: Vec<_> = (0..bytes.len()).collect();
        let _ = read_in_pieces(&bytes, &each, &limits);
    }

    #[test]
    fn a_head_ends_at_its_first_blank_line(bytes in heads()) {
        if let Ok(Some(head)) = read(&bytes) {
            let end = memchr::memmem::find(&bytes[head.start..], b"\r\n\r\n").unwrap();
            prop_assert_eq!(head.len, head.start + end + 4);
        }
    }
}
