//! One test for each row of the fault table that a chunked body can show, then the properties.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Follows a body and answers how many bytes are its own, and whether it has ended.
fn follow(bytes: &[u8]) -> Result<(usize, bool), Refusal> {
    let mut guard = ChunkGuard::new();
    guard.advance(bytes).map(|taken| (taken, guard.is_done()))
}

/// Follows a body that must pass as a whole.
fn accept(bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    assert_eq!(follow(bytes), Ok((bytes.len(), true)), "{}", bytes.escape_ascii());
}

/// Follows a body that must be refused.
fn refuse(bytes: impl AsRef<[u8]>) -> Refusal {
    let bytes = bytes.as_ref();
    match follow(bytes) {
        Err(refusal) => refusal,
        other => panic!("{:?} for {}", other, bytes.escape_ascii()),
    }
}

#[test]
fn a_plain_body_passes_and_what_follows_is_left_alone() {
    let body = b"5\r\nhello\r\nA\r\n0\r\n\r\n12345\r\n0\r\n\r\n";
    accept(body);
    let pipelined = [&body[..], b"GET / HTTP/1.1\r\n"].concat();
    assert_eq!(follow(&pipelined), Ok((body.len(), true)));
    assert_eq!(follow(&body[..body.len() - 1]), Ok((body.len() - 1, false)));
}

#[test]
fn nothing_is_taken_behind_the_end() {
    let mut guard = ChunkGuard::new();
    assert_eq!(guard.advance(b"0\r\n\r\n"), Ok(5));
    assert_eq!(guard.advance(b"0\r\n\r\n"), Ok(0));
    assert!(guard.is_done());
}

#[test]
fn a_refusal_is_repeated() {
    let mut guard = ChunkGuard::new();
    assert_eq!(guard.advance(b"x"), Err(Refusal::BAD_CHUNK_SIZE));
    assert_eq!(guard.advance(b"0\r\n\r\n"), Err(Refusal::BAD_CHUNK_SIZE));
    assert_eq!(guard.advance(b""), Err(Refusal::BAD_CHUNK_SIZE));
    assert!(!guard.is_done());
}

// Row 37.
#[test]
fn extensions_over_four_kibibytes_in_all_are_refused() {
    let with = |length: usize| format!("1;{}\r\n", "x".repeat(length - 1));
    accept(format!("{}a\r\n0\r\n\r\n", with(4096)));
    assert_eq!(refuse(with(4097)), Refusal::CHUNK_EXTENSIONS_TOO_LARGE);
    assert_eq!(refuse(with(64 * 1024)), Refusal::CHUNK_EXTENSIONS_TOO_LARGE);
    assert_eq!(refuse("1;x=y\r\na\r\n".repeat(1025)), Refusal::CHUNK_EXTENSIONS_TOO_LARGE);
    accept("1;x=y\r\na\r\n".repeat(1024) + "0\r\n\r\n");
}

// Row 38.
#[test]
fn a_bare_line_end_in_an_extension_is_refused() {
    assert_eq!(refuse("1;a\nb\r\nx\r\n"), Refusal::BARE_LINE_FEED);
    assert_eq!(refuse("1;a\rb\r\nx\r\n"), Refusal::BARE_CARRIAGE_RETURN);
    for byte in (0..0x20u8).chain([0x7F]).filter(|byte| !b"\t\r\n".contains(byte)) {
        let body = [b"1;", &[byte][..], b"\r\nx\r\n"].concat();
        assert_eq!(refuse(body), Refusal::BAD_CHUNK_EXTENSION, "{byte:#04x}");
    }
    accept("1;a=\"b\t;\u{e9}\"\r\nx\r\n0;b\r\n\r\n");
}

// Row 39.
#[test]
fn a_size_line_ended_by_a_bare_line_feed_is_refused() {
    assert_eq!(refuse("1\nx\r\n0\r\n\r\n"), Refusal::BARE_LINE_FEED);
    assert_eq!(refuse("1\r\nx\r\n0\n\r\n"), Refusal::BARE_LINE_FEED);
    assert_eq!(refuse("0\r\n\n"), Refusal::BARE_LINE_FEED);
    assert_eq!(refuse("1\rx"), Refusal::BARE_CARRIAGE_RETURN);
    assert_eq!(refuse("0\r\n\rx"), Refusal::BARE_CARRIAGE_RETURN);
}

// Row 40.
#[test]
fn a_size_is_hexadecimal_digits_only() {
    for size in ["0x5", "0_5", "-1", "+1", " 5", "\t5", "", ";x", "g", "5g", "00000000000000005"] {
        assert_eq!(refuse(format!("{size}\r\nhello\r\n")), Refusal::BAD_CHUNK_SIZE, "{size:?}");
    }
    accept(format!("00000000000000aF\r\n{}\r\n0\r\n\r\n", "x".repeat(0xAF)));
}

// Row 41.
#[test]
fn a_blank_behind_a_size_is_refused() {
    for line in ["5 \r\n", "5\t\r\n", "5 ;x\r\n"] {
        assert_eq!(refuse(format!("{line}hello\r\n")), Refusal::BAD_CHUNK_SIZE, "{line:?}");
    }
}

// Row 42.
#[test]
fn five_hundred_leading_zeros_are_refused() {
    assert_eq!(refuse("0".repeat(500) + "5\r\nhello\r\n"), Refusal::BAD_CHUNK_SIZE);
    accept("0".repeat(16) + "\r\n\r\n");
}

// Row 43.
#[test]
fn data_that_is_not_followed_by_a_line_end_is_refused() {
    for end in ["x", "\n", "\rx", "\n\r"] {
        assert_eq!(refuse(format!("5\r\nhello{end}")), Refusal::BAD_CHUNK_END, "{end:?}");
    }
}

// Row 44.
#[test]
fn a_forbidden_trailer_is_counted() {
    let body = b"0\r\nContent-Length: 3\r\nX-Sum: 1\r\nTE:\r\nTEx: 1\r\nauthorization: 1\r\n\r\n";
    for cut in 0..body.len() {
        let mut guard = ChunkGuard::new();
        assert_eq!(guard.advance(&body[..cut]), Ok(cut));
        assert_eq!(guard.advance(&body[cut..]), Ok(body.len() - cut));
        assert_eq!((guard.is_done(), guard.forbidden_trailers()), (true, 3));
    }
    for name in FORBIDDEN {
        let mut guard = ChunkGuard::new();
        guard.advance(&[b"0\r\n", name, b": 1\r\n"].concat()).unwrap();
        assert_eq!(guard.forbidden_trailers(), 1, "{}", name.escape_ascii());
    }
}

#[test]
fn a_trailer_line_is_as_strict_as_a_field_line() {
    for (line, refusal) in [
        ("X : a\r\n", Refusal::SPACE_BEFORE_COLON),
        ("NoColon\r\n", Refusal::MISSING_COLON),
        (": x\r\n", Refusal::EMPTY_FIELD_NAME),
        ("X(A: x\r\n", Refusal::BAD_FIELD_NAME),
        ("X: a\r\n b\r\n", Refusal::OBS_FOLD),
        ("X: a\rb\r\n", Refusal::BARE_CARRIAGE_RETURN),
        ("X: a\n", Refusal::BARE_LINE_FEED),
        ("X\n", Refusal::BARE_LINE_FEED),
        ("X: a\0\r\n", Refusal::NUL_BYTE),
        ("X: a\x01\r\n", Refusal::CONTROL_BYTE),
    ] {
        assert_eq!(refuse(format!("0\r\n{line}\r\n")), refusal, "{line:?}");
    }
    accept("0\r\nX:\r\nY: \ta\u{e9} \r\n\r\n");
}

// Row 45.
#[test]
fn a_trailer_section_over_its_limit_is_refused() {
    let with = |length: usize| format!("0\r\nX: {}\r\n", "v".repeat(length - 5));
    accept(with(64 * 1024) + "\r\n");
    assert_eq!(refuse(with(64 * 1024 + 1)), Refusal::TRAILERS_TOO_LARGE);
    assert_eq!(refuse(format!("0\r\n{}", "X: v\r\n".repeat(11_000))), Refusal::TRAILERS_TOO_LARGE);
    assert_eq!(refuse(format!("0\r\n{}", "X".repeat(70_000))), Refusal::TRAILERS_TOO_LARGE);
    assert_eq!(Refusal::TRAILERS_TOO_LARGE.status, 431);
}

#[test]
fn the_largest_size_does_not_overflow() {
    let mut guard = ChunkGuard::new();
    assert_eq!(guard.advance(b"FFFFFFFFFFFFFFFF\r\n"), Ok(18));
    assert_eq!(guard.advance(&[0; 100]), Ok(100));
}

/// Feeds the bytes in pieces until there is a verdict.
fn follow_in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<(usize, bool), Refusal> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    ends.sort_unstable();
    ends.push(bytes.len());
    let mut guard = ChunkGuard::new();
    let (mut start, mut taken) = (0, 0);
    for end in ends {
        taken += guard.advance(&bytes[start..end])?;
        start = end;
    }
    Ok((taken, guard.is_done()))
}

/// Pieces of which chunked bodies are made, good and bad.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        20 => prop::sample::select(vec![
            "5\r\nhello\r\n", "1\r\nx\r\n", "0\r\n", "\r\n", "\r", "\n", "3;a=b\r\nabc\r\n", "1;", ";", "a",
            "0\r\nX: y\r\n", "X: y\r\n", "Content-Length: 5\r\n", ":", " ", "0\r\n\r\n", "FFFFFFFF",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => (1usize..3000).prop_map(|length| [b"1;", &vec![b'e'; length][..], b"\r\nx\r\n"].concat()),
        1 => vec(any::<u8>(), 1..4),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// Encodes chunks, with extensions, zeros before sizes and trailers as the syntax allows.
fn encode(chunks: &[(Vec<u8>, usize, String)], trailers: &[(String, String)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (data, zeros, extension) in chunks {
        body.extend("0".repeat(*zeros).bytes());
        body.extend(format!("{:x}{extension}\r\n", data.len()).bytes());
        body.extend(data);
        body.extend(b"\r\n");
    }
    body.extend(b"0\r\n");
    for (name, value) in trailers {
        body.extend(format!("{name}:{value}\r\n").bytes());
    }
    body.extend(b"\r\n");
    body
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_verdict_does_not_depend_on_how_the_bytes_are_cut(
        bytes in bodies(), cuts in vec(any::<usize>(), 0..8),
    ) {
        let whole = follow(&bytes);
        prop_assert_eq!(follow_in_pieces(&bytes, &cuts), whole);
        let each: Vec<_> = (0..bytes.len()).collect();
        prop_assert_eq!(follow_in_pieces(&bytes, &each), whole);
    }

    #[test]
    fn what_an_encoder_writes_always_passes(
        chunks in vec((vec(any::<u8>(), 1..300), 0usize..8, "(;[a-z]{1,8}(=[a-z]{1,8})?)?"), 0..20),
        trailers in vec(("[A-Za-z-]{1,30}", "[ -~\t]{0,40}"), 0..5),
        cuts in vec(any::<usize>(), 0..8),
    ) {
        let body = encode(&chunks, &trailers);
        prop_assert_eq!(follow_in_pieces(&body, &cuts), Ok((body.len(), true)));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = follow(&bytes);
    }
}
