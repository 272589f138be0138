//! Rows 29 to 36: where the body ends.

use super::*;

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
