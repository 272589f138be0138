//! HTTP/2 by the frame, for what no well-behaved client would send.

use super::Client;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// The preface, and settings that change nothing.
pub(crate) const START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A frame to send.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// Fields, none of them indexed or compressed (RFC 7541 §6.2.2).
pub(crate) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend(text.bytes());
        }
    }
    block
}

/// A number with a prefix of seven bits (RFC 7541 §5.1).
fn length(block: &mut Vec<u8>, number: usize) {
    if number < 127 {
        return block.push(u8::try_from(number).unwrap());
    }
    block.push(127);
    let mut rest = number - 127;
    while 128 <= rest {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

/// The pseudo-fields of a `GET`.
pub(crate) fn pseudo(path: &str) -> [(&str, &str); 4] {
    [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", path)]
}

/// `GET` of a path, as the only frame of a stream.
pub(crate) fn asking(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields(&pseudo(path)))
}

/// A frame as it comes: type, flags, stream, payload.
pub(crate) type Received = (u8, u8, u32, Vec<u8>);

/// The next frame; `None` if the connection ended instead.
pub(crate) async fn next(client: &mut Client) -> Option<Received> {
    let head = client.try_bytes(9).await?;
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    let payload = client.try_bytes(number(&head[..3]) as usize).await?;
    Some((head[3], head[4], number(&head[5..9]), payload.to_vec()))
}

/// The next frame of a type; the others between are of no interest.
pub(crate) async fn frame_of(client: &mut Client, wanted: u8) -> (u8, u32, Vec<u8>) {
    loop {
        let (kind, flags, stream, payload) = next(client).await.expect("a frame");
        if kind == wanted {
            return (flags, stream, payload);
        }
    }
}
