//! Properties: whatever the bytes are, and however they are cut.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

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
