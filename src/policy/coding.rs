//! Codings of bodies: which one a client wants best (RFC 9110 §12.5.3), and what the head of an
//! answer says whose body was changed.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT_ENCODING, ACCEPT_RANGES, ETAG, VARY},
};
use pingora::{ErrorType, OrErr as _, Result};
use pingora_http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;

/// A coding of bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    /// Brotli (RFC 7932): the smallest.
    Br,
    /// Zstandard (RFC 8878): the fastest.
    Zstd,
    /// What everybody knows (RFC 1952).
    Gzip,
}

impl Coding {
    /// All, in the order in which they are taken where a client likes several as much.
    pub const ALL: [Self; 3] = [Self::Br, Self::Zstd, Self::Gzip];

    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// The one of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|coding| coding.is_named(name))
    }

    fn is_named(self, name: &str) -> bool {
        let is_old_name = self == Self::Gzip && name.eq_ignore_ascii_case("x-gzip");
        name.eq_ignore_ascii_case(self.as_str()) || is_old_name
    }
}

/// The one among these that the client gives the greatest weight, and of several the first;
/// `None` if it takes none of them. Who does not say takes bodies as they are.
pub(super) fn best(codings: &[Coding], headers: &HeaderMap) -> Option<Coding> {
    let mut best: Option<(u16, Coding)> = None;
    for &coding in codings {
        let weight = weight(coding, headers);
        if 0 < weight && best.is_none_or(|(other, _)| other < weight) {
            best = Some((weight, coding));
        }
    }
    best.map(|(_, coding)| coding)
}

/// The weight of a coding in thousandths: its own, else that of `*`, else none.
fn weight(coding: Coding, headers: &HeaderMap) -> u16 {
    let (mut any, fields) = (0, headers.get_all(ACCEPT_ENCODING));
    let items = fields.iter().filter_map(|field| field.to_str().ok());
    for item in items.flat_map(|field| field.split(',')) {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        match name.trim() {
            "*" => any = thousandths(parameters),
            name if coding.is_named(name) => return thousandths(parameters),
            _ => {}
        }
    }
    any
}

/// Fields that vouch for the bytes of the content, or of what it is the coded form of (RFC 9530, RFC 3230, RFC 2616 §14.15).
pub(super) static DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Lets caches know that the answer differs by what clients accept.
pub(super) fn vary(header: &mut ResponseHeader) -> Result<()> {
    let fields = header.headers.get_all(VARY).iter().filter_map(|field| field.to_str().ok());
    let mut names = fields.flat_map(|field| field.split(',')).map(str::trim);
    if names.any(|name| name == "*" || name.eq_ignore_ascii_case(ACCEPT_ENCODING.as_str())) {
        return Ok(());
    }
    header.append_header(VARY, HeaderValue::from_static("Accept-Encoding")).map(|_| ())
}

/// Takes back what a head says of the very bytes of a body that is changed: places in it, digests,
/// and that it is the same to the byte.
pub(super) fn other_bytes(header: &mut ResponseHeader) -> Result<()> {
    header.remove_header(&ACCEPT_RANGES);
    for digest in &DIGESTS {
        header.remove_header(digest);
    }
    let strong = header.headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""));
    let Some(tag) = strong else { return Ok(()) };
    let weak = HeaderValue::from_maybe_shared(Bytes::from([b"W/", tag.as_bytes()].concat()));
    header.insert_header(ETAG, weak.or_err(ErrorType::InvalidHTTPHeader, "a weak ETag")?)
}

/// Reads `q=0.5`; what is no weight is none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it lies between 0 and 1000"
)]
fn thousandths(parameters: &str) -> u16 {
    let parameters = parameters.trim();
    if parameters.is_empty() {
        return 1000;
    }
    let value = parameters.strip_prefix("q=").or_else(|| parameters.strip_prefix("Q="));
    let value = value.and_then(|value| value.trim().parse::<f32>().ok());
    let value = value.filter(|value| (0.0..=1.0).contains(value)).unwrap_or(0.0);
    (value * 1000.0) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best_of(fields: &[&'static str]) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(ACCEPT_ENCODING, field.parse().unwrap());
        }
        best(&Coding::ALL, &headers)
    }

    #[test]
    fn the_weight_decides_and_then_our_order() {
        use Coding::{Br, Gzip, Zstd};
        for (fields, expected) in [
            (&[][..], None),
            (&["gzip, deflate, br, zstd"], Some(Br)),
            (&["gzip", "br"], Some(Br)),
            (&["gzip;q=1.0, br;q=0.5"], Some(Gzip)),
            (&["GZIP"], Some(Gzip)),
            (&["x-gzip"], Some(Gzip)),
            (&["*"], Some(Br)),
            (&["*;q=0.1, br;q=0, zstd; q=0.2"], Some(Zstd)),
            (&["br;q=0, *"], Some(Zstd)),
            (&["identity"], None),
            (&["gzip;q=0"], None),
            (&["gzip;q=2"], None),
            (&["gzip;level=9"], None),
            (&["deflate, compress"], None),
        ] {
            assert_eq!(best_of(fields), expected, "{fields:?}");
        }
    }
}
