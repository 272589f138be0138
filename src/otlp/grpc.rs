//! gRPC, as far as one message goes and one comes: frames, and how a call ended.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use prost::Message;

/// The flag of a message that is not compressed, and its length.
const HEAD: usize = 1 + 4;
/// `RetryInfo`, by which a receiver that is overburdened says that it will recover.
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// The codes that are worth another attempt (OTLP, "Failures"): cancelled, deadline exceeded,
/// aborted, out of range, unavailable, data loss.
const AGAIN: [u32; 6] = [1, 4, 10, 11, 14, 15];
/// Worth one only if the receiver says when.
const EXHAUSTED: u32 = 8;

/// A message in its frame.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(HEAD + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// The message in the first frame of a body; `None` if there is none that can be read.
pub(super) fn unframed(body: &Bytes) -> Option<Bytes> {
    let (head, rest) = body.split_first_chunk::<HEAD>()?;
    let [flag, length @ ..] = *head;
    let length = u32::from_be_bytes(length) as usize;
    (flag == 0 && length <= rest.len()).then(|| body.slice(HEAD..HEAD + length))
}

/// How a call ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: u32,
    pub(super) message: String,
    /// When, if the receiver says so.
    pub(super) retry_after: Option<Duration>,
}

/// `google.rpc.Status`, of which only the details count.
#[derive(Clone, PartialEq, Message)]
struct Details {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Delay>,
}

#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl Status {
    /// The status in the trailers, or, where there was no message, in the fields.
    pub(super) fn of(headers: &HeaderMap, trailers: &HeaderMap) -> Option<Self> {
        let fields = if trailers.contains_key("grpc-status") { trailers } else { headers };
        let text = |name: &str| fields.get(name).map(HeaderValue::as_bytes);
        let code = str::from_utf8(text("grpc-status")?).ok()?.parse().ok()?;
        let message = text("grpc-message").unwrap_or_default();
        let message = String::from_utf8_lossy(message).into_owned();
        let retry_after = text("grpc-status-details-bin").and_then(delay);
        Some(Self { code, message, retry_after })
    }

    /// Whether the same is worth another attempt.
    pub(super) fn is_passing(&self) -> bool {
        AGAIN.contains(&self.code) || self.code == EXHAUSTED && self.retry_after.is_some()
    }
}

/// The pause that a receiver asks for, in base64 with or without its padding.
fn delay(encoded: &[u8]) -> Option<Duration> {
    let padding = encoded.iter().rev().take_while(|byte| **byte == b'=').count();
    let bytes = BASE64_STANDARD_NO_PAD.decode(&encoded[..encoded.len() - padding]).ok()?;
    let details = Details::decode(&*bytes).ok()?.details;
    let found = details.iter().find(|any| any.kind == RETRY_INFO)?;
    let delay = RetryInfo::decode(&*found.value).ok()?.delay.unwrap_or_default();
    let nanos = u32::try_from(delay.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(delay.seconds).ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_message_comes_out_of_its_frame_as_it_went_in() {
        let framed = framed(b"abc");
        assert_eq!(&framed[..], b"\0\0\0\0\x03abc");
        assert_eq!(unframed(&framed).unwrap(), &b"abc"[..]);
        for wrong in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x04abc", b"\x01\0\0\0\x03abc"] {
            assert_eq!(unframed(&Bytes::copy_from_slice(wrong)), None, "{wrong:?}");
        }
    }

    #[test]
    fn some_failures_are_worth_another_attempt() {
        let status = |fields: &HeaderMap| Status::of(fields, &HeaderMap::new()).unwrap();
        let told = fields(&[("grpc-status", "14"), ("grpc-message", "down")]);
        assert!(status(&told).is_passing() && status(&told).message == "down");
        for never in ["0", "3", "8", "16"] {
            assert!(!status(&fields(&[("grpc-status", never)])).is_passing(), "{never}");
        }
        let info = RetryInfo { delay: Some(Delay { seconds: 2, nanos: 500_000_000 }) };
        let any = Any { kind: RETRY_INFO.to_owned(), value: info.encode_to_vec() };
        let details = Details { details: vec![any] }.encode_to_vec();
        for encoded in [
            BASE64_STANDARD_NO_PAD.encode(&details),
            base64::prelude::BASE64_STANDARD.encode(&details),
        ] {
            let told = fields(&[("grpc-status", "8"), ("grpc-status-details-bin", &encoded)]);
            assert!(status(&told).is_passing());
            assert_eq!(status(&told).retry_after, Some(Duration::from_millis(2_500)));
        }
        assert_eq!(Status::of(&fields(&[]), &fields(&[("grpc-status", "0")])).unwrap().code, 0);
        assert_eq!(Status::of(&fields(&[]), &fields(&[("grpc-status", "x")])), None);
    }
}
