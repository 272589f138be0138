//! The book's examples, every way to cut them, and noise.

use proptest::prelude::*;

use super::{binary::Crc32c, *};

fn header(bytes: &[u8]) -> (usize, Told) {
    match parse(bytes) {
        Ok(Parsed::Header { length, told }) => (length, told),
        other => panic!("{other:?} of {:?}", bytes.escape_ascii().to_string()),
    }
}

fn client(address: &str) -> Told {
    Told { client: Some(address.parse().unwrap()), ..Told::default() }
}

fn value(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], value].concat()
}

/// A header of version 2 by its command, family, and what it says.
fn v2(command: u8, family: u8, said: &[u8]) -> Vec<u8> {
    let length = u16::try_from(said.len()).unwrap().to_be_bytes();
    [&binary::SIGNATURE[..], &[command, family], &length, said].concat()
}

const IPV4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];

/// A header with all that there is, and a good checksum.
fn rich() -> Vec<u8> {
    let version = value(0x21, b"TLSv1.3");
    let cn = value(0x22, "Zoë".as_bytes());
    let ssl = [&[0x07, 0, 0, 0, 0][..], &version, &cn].concat();
    let before = [
        &IPV4[..],
        &value(0x01, b"h2"),
        &value(0x02, b"shop.test"),
        &value(0x20, &ssl),
        &value(0x04, b"some padding"),
    ];
    let sealed = |crc: u32| {
        let said = [before.concat(), value(0x03, &crc.to_be_bytes())].concat();
        v2(0x21, 0x11, &[said, value(0xee, b"of a vendor")].concat())
    };
    let mut crc = Crc32c::default();
    crc.add(&sealed(0));
    sealed(crc.sum())
}

#[test]
fn a_line_tells_the_client() {
    let cases = [
        ("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", client("192.0.2.1")),
        ("PROXY TCP6 2001:db8::1 ::1 0 65535\r\n", client("2001:db8::1")),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 1\r\n", client("192.0.2.1")),
        ("PROXY UNKNOWN\r\n", Told::default()),
        ("PROXY UNKNOWN ffff::1 whatever 1 2\r\n", Told::default()),
    ];
    for (line, told) in cases {
        assert_eq!(header(line.as_bytes()), (line.len(), told.clone()));
        let more = format!("{line}GET / HTTP/1.1\r\n");
        assert_eq!(header(more.as_bytes()), (line.len(), told), "{line}");
    }
}

#[test]
fn a_line_that_is_not_by_the_book_is_refused() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 ::1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 nonsense 1 2\r\n",
        "PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2  1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        "PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    ] {
        assert_eq!(parse(line.as_bytes()), Err(Malformed::Line), "{line:?}");
    }
    assert_eq!(parse(b"PROXY \xff\r\n"), Err(Malformed::Line));
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX - 16));
    assert_eq!(header(long.as_bytes()).0, V1_MAX);
    let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX - 15));
    assert_eq!(parse(longer.as_bytes()), Err(Malformed::LongLine));
}

#[test]
fn a_binary_header_tells_all_that_it_says() {
    let bytes = rich();
    let told = Told {
        client: Some("192.0.2.1".parse().unwrap()),
        authority: Some("shop.test".into()),
        tls: Some(ToldTls { version: Some("TLSv1.3".into()), client_cn: Some("Zoë".into()) }),
    };
    assert_eq!(header(&bytes), (bytes.len(), told));

    let mut ipv6 = [0; 36];
    ipv6[15] = 1;
    assert_eq!(header(&v2(0x21, 0x21, &ipv6)).1, client("::1"));
    let v4_in_v6 = "::ffff:192.0.2.1".parse::<Ipv6Addr>().unwrap().octets();
    ipv6[..16].copy_from_slice(&v4_in_v6);
    assert_eq!(header(&v2(0x21, 0x21, &ipv6)).1, client("192.0.2.1"));
}

#[test]
fn what_speaks_for_itself_tells_nobody() {
    let nobody = [
        v2(0x20, 0x00, &[]),
        v2(0x20, 0x11, &rich()[16..]),
        v2(0x20, 0xff, b"whatever"),
        v2(0x21, 0x00, &[]),
        v2(0x21, 0x12, &IPV4), // datagrams
        v2(0x21, 0x31, &[0; 216]),
    ];
    for bytes in nobody {
        assert_eq!(header(&bytes), (bytes.len(), Told::default()), "{bytes:?}");
    }
    let plain = [&IPV4[..], &value(0x20, &[0, 0, 0, 0, 0])].concat();
    assert_eq!(header(&v2(0x21, 0x11, &plain)).1, client("192.0.2.1"));
    let unverified = value(0x20, &[&[7, 0, 0, 0, 1][..], &value(0x22, b"forged")].concat());
    let told = header(&v2(0x21, 0x11, &[&IPV4[..], &unverified].concat())).1;
    assert_eq!(told.tls, Some(ToldTls::default()), "its certificate was not found good");
}

#[test]
fn a_binary_header_that_is_not_by_the_book_is_refused() {
    let with = |said: &[u8]| v2(0x21, 0x11, &[&IPV4[..], said].concat());
    let cases = [
        (v2(0x11, 0x11, &IPV4), Malformed::Command),
        (v2(0x22, 0x11, &IPV4), Malformed::Command),
        (v2(0x21, 0x11, &IPV4[1..]), Malformed::Addresses),
        (v2(0x21, 0x21, &IPV4), Malformed::Addresses),
        (v2(0x21, 0x11, &[0; 4097]), Malformed::Long),
        (with(&[1, 0]), Malformed::Value),
        (with(&[1, 0, 2, b'h']), Malformed::Value),
        (with(&value(0x02, b"")), Malformed::Value),
        (with(&value(0x02, b"\xff")), Malformed::Value),
        (with(&value(0x02, &[b'a'; 256])), Malformed::Value),
        (with(&value(0x20, &[1, 0, 0, 0])), Malformed::Value),
        (with(&value(0x20, &[1, 0, 0, 0, 0, 0x21])), Malformed::Value),
        (with(&value(0x03, &[0; 3])), Malformed::Value),
        (with(&value(0x03, &[0; 4])), Malformed::Checksum),
    ];
    for (bytes, why) in cases {
        assert_eq!(parse(&bytes), Err(why), "{bytes:?}");
    }
}

#[test]
fn what_clients_say_themselves_is_no_header() {
    for bytes in ["GET / HTTP/1.1\r\n", "POST", "PROXYX", "\r\n\r\nGET", "\u{16}\u{3}\u{1}", "x"] {
        assert_eq!(parse(bytes.as_bytes()), Ok(Parsed::Nothing), "{bytes:?}");
        assert!(!is_header(bytes.as_bytes()));
    }
    for bytes in ["", "P", "PRO", "PROXY", "\r\n\r\n"] {
        assert_eq!(parse(bytes.as_bytes()), Ok(Parsed::NeedsMore), "{bytes:?}");
    }
}

#[test]
fn the_verdict_does_not_depend_on_where_the_bytes_are_cut() {
    for whole in [&b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"[..], &rich()] {
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), Ok(Parsed::NeedsMore), "at {cut}");
        }
    }
}

/// The check value of the algorithm.
#[test]
fn the_checksum_is_castagnoli_s() {
    let mut crc = Crc32c::default();
    crc.add(b"12345");
    crc.add(b"6789");
    assert_eq!(crc.sum(), 0xe306_9283);
}

proptest! {
    /// A damaged address is noticed, where there is a checksum.
    #[test]
    fn damage_is_noticed(place in 16_usize..28, flip in 1_u8..) {
        let mut bytes = rich();
        bytes[place] ^= flip;
        prop_assert_eq!(parse(&bytes), Err(Malformed::Checksum));
    }

    /// Noise behind each beginning: never a panic, never more bytes than the bound, and the same
    /// verdict however much follows.
    #[test]
    fn noise_has_one_verdict(
        beginning in 0..4,
        family in any::<u8>(),
        noise in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let beginning = match beginning {
            0 => V1_SIGNATURE.to_vec(),
            1 => binary::SIGNATURE.to_vec(),
            2 => [&binary::SIGNATURE[..], &[0x21, family, 0, 100]].concat(),
            _ => Vec::new(),
        };
        let bytes = [beginning, noise].concat();
        let mut first = None;
        for cut in 0..=bytes.len() {
            let verdict = parse(&bytes[..cut]);
            match &first {
                None if verdict == Ok(Parsed::NeedsMore) => {}
                None => first = Some(verdict),
                Some(first) => prop_assert_eq!(&verdict, first),
            }
        }
        if let Some(Ok(Parsed::Header { length, .. })) = first {
            prop_assert!(length <= V2_MAX);
        }
    }
}
