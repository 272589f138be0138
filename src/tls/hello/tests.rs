use std::sync::Arc;

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs};

use super::*;

/// What rustls says first to a server of this name.
fn hello(name: &str) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = name.to_owned().try_into().unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).unwrap();
    }
    bytes
}

fn named(name: &str) -> Seen {
    Seen::Hello(Some(name.into()))
}

/// The same message in records of so many bytes.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let records = hello[RECORD_HEAD..].chunks(size).map(|carried| {
        let length = u16::try_from(carried.len()).unwrap().to_be_bytes();
        [&[HANDSHAKE, 3, 1], &length[..], carried].concat()
    });
    records.collect::<Vec<_>>().concat()
}

/// A message of a client that knows no more than TLS 1.0, with these extensions.
fn old(extensions: &[u8]) -> Vec<u8> {
    let body = [&[3, 1][..], &[7; 32], &[0], &[0, 2, 0, 10], &[1, 0], extensions].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[CLIENT_HELLO], &length[1..], &body].concat();
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    [&[HANDSHAKE, 3, 1], &length[..], &message].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    let field =
        |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let list = field(&[&[HOST_NAME][..], &field(name)].concat());
    field(&[&[0, 0][..], &field(&list)].concat())
}

#[test]
fn the_name_is_read_in_lower_case() {
    assert_eq!(Hello::default().read(&hello("Shop.example.com")), named("shop.example.com"));
    assert_eq!(Hello::default().read(&hello("192.0.2.1")), Seen::Hello(None), "an address");
}

#[test]
fn clients_that_nobody_speaks_to_any_more_are_understood() {
    assert_eq!(Hello::default().read(&old(&server_name(b"a.test."))), named("a.test"));
    assert_eq!(Hello::default().read(&old(&[])), Seen::Hello(None));
    assert_eq!(Hello::default().read(&old(&[0, 0])), Seen::Hello(None));
}

#[test]
fn what_is_no_first_message_is_no_tls() {
    let wrong_kind = [&[HANDSHAKE, 3, 1, 0, 4], &[2, 0, 0, 0][..]].concat();
    let cut_off = old(&[0, 9, 0]);
    let cases: [&[u8]; 8] = [
        b"SSH-2.0-OpenSSH",
        b"\x16\x02\x00\x00\x05",
        b"\x16\x03\x01\x00\x00",
        &wrong_kind,
        &cut_off,
        &old(&server_name(b"")),
        &old(&server_name(b"a b")),
        &old(&server_name(&[b'a'; 256])),
    ];
    for bytes in cases {
        assert_eq!(Hello::default().read(bytes), Seen::NoTls, "{bytes:?}");
    }
}

#[test]
fn a_message_has_a_bound() {
    let mut long = Hello::default();
    assert_eq!(long.read(&[HANDSHAKE, 3, 1, 0, 4, CLIENT_HELLO, 0xff, 0, 0]), Seen::TooLong);
    let (mut slow, mut read) = (Hello::default(), 0);
    let record = [&[HANDSHAKE, 3, 1, 0, 1][..], &[CLIENT_HELLO]].concat();
    let never_whole = [&record[..], &[HANDSHAKE, 3, 1, 0x3f, 0xff]].concat();
    assert_eq!(slow.read(&never_whole), Seen::NeedsMore);
    while slow.read(b"x") == Seen::NeedsMore {
        read += 1;
        assert!(read < BYTES_MAX);
    }
    assert_eq!((slow.read(b""), slow.bytes().len()), (Seen::TooLong, BYTES_MAX));
}

proptest! {
    /// The verdict does not depend on how the network cut the bytes, nor on the records.
    #[test]
    fn cuts_do_not_matter(record in 1usize..600, cut in 1usize..600) {
        let bytes = in_records(&hello("a.test"), record);
        let mut reader = Hello::default();
        let mut pieces = bytes.chunks(cut).peekable();
        while let Some(piece) = pieces.next() {
            let expected = if pieces.peek().is_some() { Seen::NeedsMore } else { named("a.test") };
            prop_assert_eq!(reader.read(piece), expected);
        }
        prop_assert_eq!(reader.bytes(), bytes);
    }

    #[test]
    fn nothing_that_is_sent_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut reader = Hello::default();
        let mut behind = b"\x16\x03\x01\x01\x00\x01\x00\x00\xfc".to_vec();
        behind.extend(&bytes);
        let _ = (Hello::default().read(&bytes), reader.read(&behind));
    }
}
