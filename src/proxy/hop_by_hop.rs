//! Fields that belong to one connection, and go no farther (RFC 9110 §7.6.1).
//!
//! Pingora's proxy takes them off the requests that it sends; this is for those that go past it,
//! with the same result.

use arrayvec::ArrayVec;
use http::{HeaderName, HeaderValue, header};
use pingora::{Error, ErrorType, Result};
use pingora_http::RequestHeader;

/// A client that names more has no good in mind.
const NAMED_MAX: usize = 32;

/// What nobody may have taken off by naming it: the origin relies on it.
const PROTECTED: [&str; 4] = ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];

const FIELDS: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Whether a request asks for a WebSocket, the one upgrade that is passed on.
pub(crate) fn asks_for_websocket(head: &RequestHeader) -> bool {
    let upgrade = head.headers.get(header::UPGRADE);
    upgrade.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Takes them off a request, those that its `Connection` names as well; a WebSocket is asked for
/// anew where it was.
///
/// # Errors
/// If `Connection` names what is no field, or too many, or one that the origin relies on.
pub(crate) fn strip(head: &mut RequestHeader) -> Result<()> {
    let named = named(head).map_err(Error::into_down)?;
    let is_websocket = asks_for_websocket(head);
    for name in named.iter().chain(&FIELDS) {
        head.remove_header(name);
    }
    if is_websocket {
        head.insert_header(header::CONNECTION, HeaderValue::from_static("Upgrade"))?;
        head.insert_header(header::UPGRADE, HeaderValue::from_static("websocket"))?;
    }
    Ok(())
}

/// The fields that `Connection` names.
fn named(head: &RequestHeader) -> Result<ArrayVec<HeaderName, NAMED_MAX>> {
    let values = head.headers.get_all(header::CONNECTION).iter();
    let words = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let words = words.map(<[u8]>::trim_ascii).filter(|word| !word.is_empty());
    let mut names = ArrayVec::new();
    for word in words {
        let name = HeaderName::from_bytes(word).ok();
        let name = name.filter(|name| !PROTECTED.contains(&name.as_str()));
        let Some(name) = name.filter(|_| !names.is_full()) else {
            let why = "`Connection` names what is not to be taken off";
            return Error::e_explain(ErrorType::InvalidHTTPHeader, why);
        };
        names.push(name);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(fields: &[(&'static str, &'static str)]) -> Result<Vec<(String, String)>> {
        let mut head = RequestHeader::build("GET", b"/", None)?;
        for (name, value) in fields {
            head.append_header(*name, *value)?;
        }
        strip(&mut head)?;
        let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
        Ok(head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect())
    }

    #[test]
    fn what_belongs_to_the_connection_is_taken_off_and_all_else_stays() {
        let left = stripped(&[
            ("connection", "keep-alive, X-Named"),
            ("connection", " te ,,"),
            ("x-named", "1"),
            ("keep-alive", "5"),
            ("proxy-authorization", "Basic a"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("http2-settings", "AA"),
            ("x-kept", "1"),
        ]);
        assert_eq!(left.unwrap(), [("x-kept".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn a_websocket_is_asked_for_anew() {
        let left =
            stripped(&[("connection", "x-a, upgrade"), ("upgrade", "WebSocket"), ("x-a", "1")]);
        let expected = [("connection", "Upgrade"), ("upgrade", "websocket")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(left.unwrap(), expected);
    }

    #[test]
    fn nobody_has_taken_off_what_the_origin_relies_on() {
        let many = vec!["x"; NAMED_MAX + 1].join(",").leak();
        for named in ["X-Forwarded-For", "host", "a b", many] {
            assert!(stripped(&[("connection", named)]).is_err(), "{named}");
        }
    }
}
