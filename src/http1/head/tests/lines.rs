//! Rows 1 to 13: the bytes of lines and fields.

use super::*;

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
