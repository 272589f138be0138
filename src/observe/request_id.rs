//! Request ids: one for every request, made at the edge, sent on, returned and logged.

use std::{cell::RefCell, time::SystemTime};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue};
use uuid::Builder;

/// The field that carries the id.
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken over from a trusted proxy.
pub const LENGTH_MAX: usize = 128;

/// The length of a UUID with its hyphens.
const UUID_LENGTH: usize = 36;
/// Ids cut from one block of memory, so that an id costs no allocation of its own.
const IDS_PER_BLOCK: usize = 113;

thread_local!(static BLOCK: RefCell<BytesMut> = RefCell::new(BytesMut::new()));

/// Makes a new id: a UUID of version 7 (RFC 9562), which sorts by time.
pub fn new() -> HeaderValue {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    let uuid = Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
    let mut text = [0; UUID_LENGTH];
    value(uuid.hyphenated().encode_lower(&mut text).as_bytes())
}

/// Makes a header value of a few known-good bytes without an allocation of its own.
///
/// # Panics
/// If the bytes are not a valid field value.
pub fn value(text: &[u8]) -> HeaderValue {
    HeaderValue::from_maybe_shared(cut(text)).expect("only visible ASCII is written here")
}

fn cut(text: &[u8]) -> Bytes {
    BLOCK.with_borrow_mut(|block| {
        if block.capacity() - block.len() < text.len() {
            *block = BytesMut::with_capacity((IDS_PER_BLOCK * UUID_LENGTH).max(text.len()));
        }
        block.extend_from_slice(text);
        block.split().freeze()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_of_version_seven_in_the_order_of_time() {
        let (first, later) = (new(), {
            std::thread::sleep(std::time::Duration::from_millis(2));
            new()
        });
        let parse = |id: &HeaderValue| uuid::Uuid::parse_str(id.to_str().unwrap()).unwrap();
        assert_eq!(parse(&first).get_version_num(), 7);
        assert!(parse(&first) < parse(&later));
    }

    #[test]
    fn a_thousand_ids_are_different() {
        let ids: std::collections::BTreeSet<_> =
            (0..1_000).map(|_| new().to_str().unwrap().to_owned()).collect();
        assert_eq!(ids.len(), 1_000);
    }
}
