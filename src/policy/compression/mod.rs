//! Smaller bodies for clients that can read them.

mod budget;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Version,
    header::{
        CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
        TRANSFER_ENCODING,
    },
};
use pingora::{Error, ErrorType, OrErr as _, Result};
use pingora_http::ResponseHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use tokio::time::Instant;

use crate::{
    clock,
    policy::{
        body::BodyFilter,
        coding::{self, Coding, DIGESTS},
        compression::budget::{Budget, Room},
        content_type::{self, MediaType},
        contract::{Build, Facts, Hooks, Response, Written},
        encoder::Encoder,
    },
    units::{self, ByteSize, Percent},
    yaml::Spanned,
};

/// Compresses the bodies of answers for clients that can read them, each piece as it comes: by
/// their weights in `Accept-Encoding`, and of equal ones by the order of `codings`. Left as they
/// are: ranges, event streams, gRPC, what is coded already, what has a digest of its content, and
/// what says `no-transform`. A strong `ETag` is made a weak one.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Compression")]
pub struct Config {
    /// The codings, the best first. Default: `[br, zstd, gzip]`.
    pub codings: Spanned<Vec<Coding>>,
    /// How hard each of them tries. Default: `{}`.
    pub levels: Levels,
    /// Media types that are compressed, such as `application/json` or `text/*`.
    /// Default: those of text, scripts, JSON, XML, SVG, WebAssembly, and fonts without a coding.
    pub types: Vec<MediaType>,
    /// The smallest body that is worth it, where its length is known. Default: `1KiB`.
    pub min_size: ByteSize,
    /// The share of all processors that it may take: near it, what begins is compressed at the
    /// lowest level, and beyond it not at all. Default: `50%`.
    #[serde(deserialize_with = "share")]
    pub processor: Percent,
}

/// How hard the codings try: more is smaller, and slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "CompressionLevels")]
pub struct Levels {
    /// Of Brotli. Default: `4`.
    #[serde(deserialize_with = "br")]
    #[schemars(range(min = 1, max = 11))]
    pub br: u32,
    /// Of Zstandard. Default: `3`.
    #[serde(deserialize_with = "zstd")]
    #[schemars(range(min = 1, max = 19))]
    pub zstd: u32,
    /// Of gzip. Default: `6`.
    #[serde(deserialize_with = "gzip")]
    #[schemars(range(min = 1, max = 9))]
    pub gzip: u32,
}

fn br<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    units::in_range(deserializer, 1..=11)
}

fn zstd<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    units::in_range(deserializer, 1..=19)
}

fn gzip<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    units::in_range(deserializer, 1..=9)
}

fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Percent, D::Error> {
    let share = Percent::deserialize(deserializer)?;
    if share.get() == 0 {
        let help = "write a share such as `50%`, or remove the policy";
        return Err(serde::de::Error::custom(format!("`0%` compresses nothing\nhelp: {help}")));
    }
    Ok(share)
}

impl Default for Levels {
    fn default() -> Self {
        Self { br: 4, zstd: 3, gzip: 6 }
    }
}

impl Levels {
    fn of(self, coding: Coding) -> u32 {
        match coding {
            Coding::Br => self.br,
            Coding::Zstd => self.zstd,
            Coding::Gzip => self.gzip,
        }
    }
}

/// Types that shrink.
const TYPES: [&str; 13] = [
    "text/*",
    "application/json",
    "application/ld+json",
    "application/problem+json",
    "application/javascript",
    "application/manifest+json",
    "application/xml",
    "application/rss+xml",
    "application/atom+xml",
    "application/xhtml+xml",
    "application/wasm",
    "image/svg+xml",
    "font/ttf",
];

/// Types that never are, whatever is written: they are streams of messages that wait for nothing.
const STREAMS: [&str; 2] = ["text/event-stream", "application/grpc"];

impl Default for Config {
    fn default() -> Self {
        Self {
            codings: Spanned::new(Coding::ALL.into()),
            levels: Levels::default(),
            types: TYPES.iter().filter_map(|text| text.parse().ok()).collect(),
            min_size: ByteSize(1024),
            processor: Percent::new(50),
        }
    }
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    codings: Box<[Coding]>,
    levels: Levels,
    types: Box<[MediaType]>,
    min_size: u64,
    budget: Arc<Budget>,
}

impl Config {
    /// Makes it ready.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        if self.codings.is_empty() {
            let help = "write `[br, zstd, gzip]`, or remove the policy";
            cx.problem_at(self.codings.span, "there is no coding", help);
            return None;
        }
        Some(Policy {
            codings: self.codings.value.clone().into(),
            levels: self.levels,
            types: self.types.clone().into(),
            min_size: self.min_size.0,
            budget: Arc::new(Budget::new(self.processor)),
        })
    }
}

impl Policy {
    /// Whether an answer could be compressed for somebody: then it differs by `Accept-Encoding`.
    fn is_fit(&self, header: &ResponseHeader) -> bool {
        let headers = &header.headers;
        let length =
            headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let has_body = header.status.is_success() && !matches!(header.status.as_u16(), 204 | 206);
        has_body
            && length.is_none_or(|length: u64| self.min_size <= length)
            && !headers.contains_key(CONTENT_ENCODING)
            && !headers.contains_key(CONTENT_RANGE)
            && !DIGESTS.iter().any(|digest| headers.contains_key(digest))
            && !says_no_transform(headers)
            && self.is_fit_type(headers)
    }

    fn is_fit_type(&self, headers: &HeaderMap) -> bool {
        let essence = content_type::essence(headers.get(CONTENT_TYPE));
        let is_stream = STREAMS.iter().any(|stream| {
            essence.get(..stream.len()).is_some_and(|start| start.eq_ignore_ascii_case(stream))
        });
        !is_stream && content_type::is_among(essence, &self.types)
    }

    /// What a request and its client allow.
    fn coding_for(&self, facts: &Facts<'_>) -> Option<(Coding, u32)> {
        let header = facts.header;
        if header.method == Method::HEAD || header.version <= Version::HTTP_10 {
            return None;
        }
        let coding = coding::best(&self.codings, facts.headers())?;
        match self.budget.room(clock::nanos(Instant::now())) {
            Room::Enough => Some((coding, self.levels.of(coding))),
            Room::Little => Some((coding, 1)),
            Room::None => None,
        }
    }
}

fn says_no_transform(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(CACHE_CONTROL).iter().filter_map(|field| field.to_str().ok());
    let mut directives = fields.flat_map(|field| field.split(','));
    directives.any(|directive| directive.trim().eq_ignore_ascii_case("no-transform"))
}

/// Tells of the coding, and no more of what it has changed.
fn describe(header: &mut ResponseHeader, coding: Coding) -> Result<()> {
    header.insert_header(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()))?;
    header.remove_header(&CONTENT_LENGTH);
    header.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    coding::other_bytes(header)
}

impl Written for Config {}

impl Hooks for Policy {
    fn on_response(&self, response: &mut Response<'_>) -> Result<()> {
        if response.is_own || !self.is_fit(response.header) {
            return Ok(());
        }
        coding::vary(response.header)?;
        let Some((coding, level)) = self.coding_for(&response.facts) else { return Ok(()) };
        // What has a length is no stream of events: there, pieces are only what was read.
        let flushes = !response.header.headers.contains_key(CONTENT_LENGTH);
        let encoder = Encoder::new(coding, level).or_err(ErrorType::InternalError, "a coding")?;
        describe(response.header, coding)?;
        response.body.push(Coder { encoder, flushes, budget: self.budget.clone() });
        Ok(())
    }
}

/// Codes the body of one answer.
struct Coder {
    encoder: Encoder,
    flushes: bool,
    budget: Arc<Budget>,
}

impl BodyFilter for Coder {
    fn pass(&mut self, body: &mut Option<Bytes>, is_last: bool) -> Result<Duration> {
        let piece = body.take().unwrap_or_default();
        let start = Instant::now();
        let flush = self.flushes && !piece.is_empty();
        let coded = self.encoder.encode(&piece, flush, is_last);
        self.budget.spend(start.elapsed(), clock::nanos(start));
        let coded = coded.map_err(|why| {
            Error::because(ErrorType::InternalError, "a body that cannot be compressed", why)
        })?;
        *body = Some(coded).filter(|coded| !coded.is_empty());
        Ok(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT_RANGES, ETAG, VARY};

    use super::*;
    use crate::policy::tests::{Given, build, problems};

    fn answer(fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut header = ResponseHeader::build(200, None).unwrap();
        header.insert_header("content-type", "text/html; charset=utf-8").unwrap();
        header.insert_header("content-length", "5000").unwrap();
        for (name, value) in fields {
            header.insert_header(*name, *value).unwrap();
        }
        header
    }

    fn coding(given: &Given, header: &mut ResponseHeader) -> Option<String> {
        let policy = build("{}", |config: &Config, cx| config.build(cx));
        given.answered(&policy, header);
        header.headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn what_shrinks_is_compressed_and_told_so() {
        let mut header = answer(&[("etag", "\"a\""), ("accept-ranges", "bytes")]);
        let given = Given::request("GET", "/").field("accept-encoding", "gzip, br;q=0.9");
        assert_eq!(coding(&given, &mut header).as_deref(), Some("gzip"));
        let headers = &header.headers;
        assert_eq!(headers[ETAG], "W/\"a\"");
        assert_eq!(headers[VARY], "Accept-Encoding");
        assert!(!headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(ACCEPT_RANGES));
        assert_eq!(headers[TRANSFER_ENCODING], "chunked");
    }

    #[test]
    fn what_must_stay_as_it_is_does() {
        let given = || Given::request("GET", "/").field("accept-encoding", "gzip");
        for fields in [
            &[("content-type", "text/event-stream")][..],
            &[("content-type", "application/grpc+proto")],
            &[("content-type", "image/png")],
            &[("content-encoding", "br")],
            &[("content-range", "bytes 0-1/2")],
            &[("cache-control", "public, No-Transform")],
            &[("content-length", "1023")],
            &[("content-digest", "sha-256=:AA==:")],
        ] {
            let mut header = answer(fields);
            let before = header.headers.clone();
            coding(&given(), &mut header);
            assert_eq!(header.headers, before, "{fields:?}");
        }
        let mut partial = answer(&[]);
        partial.set_status(206).unwrap();
        assert_eq!(coding(&given(), &mut partial), None);
        let head = Given::request("HEAD", "/").field("accept-encoding", "gzip");
        let mut header = answer(&[("vary", "Origin, accept-encoding")]);
        assert_eq!(coding(&head, &mut header), None);
        assert_eq!(header.headers.get_all(VARY).iter().count(), 1, "said once");
        let plain = Given::request("GET", "/");
        let mut header = answer(&[]);
        assert_eq!(coding(&plain, &mut header), None);
        assert_eq!(header.headers[VARY], "Accept-Encoding", "others would get another body");
    }

    #[test]
    fn a_list_of_nothing_is_refused() {
        let told = problems("{ codings: [] }", |config: &Config, cx| config.build(cx));
        assert_eq!(told, ["there is no coding"]);
    }
}
