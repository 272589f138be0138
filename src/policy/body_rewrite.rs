//! Other words in the bodies of answers, as they pass.

use std::{sync::Arc, time::Duration};

use aho_corasick::{AhoCorasick, MatchKind};
use bytes::Bytes;
use http::{
    HeaderValue, Version,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, TRANSFER_ENCODING},
};
use pingora::Result;
use pingora_http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    policy::{
        body::BodyFilter,
        coding,
        content_type::{self, MediaType},
        contract::{Build, Hooks, Response, Written},
    },
    yaml::Spanned,
};

/// What is looked for is at most so long, since so much is kept of a body.
const FIND_MAX: usize = 1024;
/// A policy may have so many pairs.
const PAIRS_MAX: usize = 100;

/// Replaces literal texts in the bodies of answers as they pass, the longest that fits, each place
/// once. Bodies that are coded, and ranges, stay as they are: where origins compress, have
/// `request_headers: { remove: [accept-encoding] }` ask them not to.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BodyRewrite")]
pub struct Config {
    /// What is replaced, and by what.
    pub replace: Spanned<Vec<Pair>>,
    /// Media types of bodies that are changed. Default: `[text/*, application/json]`.
    #[serde(default = "types")]
    pub types: Vec<MediaType>,
}

/// A text, and what takes its place.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Replacement")]
pub struct Pair {
    /// What is looked for, letter by letter: 1 to 1024 bytes.
    pub find: Spanned<String>,
    /// What takes its place; may be empty.
    pub with: String,
}

fn types() -> Vec<MediaType> {
    ["text/*", "application/json"].iter().filter_map(|text| text.parse().ok()).collect()
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    types: Box<[MediaType]>,
    pairs: Arc<Pairs>,
}

#[derive(Debug)]
struct Pairs {
    find: AhoCorasick,
    texts: Box<[Vec<u8>]>,
    with: Box<[String]>,
    /// The longest text that is looked for.
    longest: usize,
}

impl Pairs {
    /// Up to where no text that is looked for can have begun and go on behind the end.
    fn sure(&self, body: &[u8]) -> usize {
        let first = (body.len() + 1).saturating_sub(self.longest);
        let may_begin = |at: &usize| {
            let rest = &body[*at..];
            self.texts.iter().any(|text| rest.len() < text.len() && text.starts_with(rest))
        };
        (first..body.len()).find(may_begin).unwrap_or(body.len())
    }
}

impl Config {
    /// Makes the search ready.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        if self.replace.is_empty() || PAIRS_MAX < self.replace.len() {
            let message = format!("{} replacements", self.replace.len());
            cx.problem_at(self.replace.span, message, "write 1 to 100 of them");
            return None;
        }
        for Pair { find, .. } in &self.replace.value {
            if find.is_empty() || FIND_MAX < find.len() {
                let message = format!("a text of {} bytes cannot be looked for", find.len());
                cx.problem_at(find.span, message, "write 1 to 1024 bytes");
                return None;
            }
        }
        let texts = self.replace.iter().map(|pair| pair.find.as_bytes());
        let mut builder = AhoCorasick::builder();
        let find = builder.match_kind(MatchKind::LeftmostLongest).build(texts);
        let Ok(find) = find else {
            cx.problem_at(self.replace.span, "these texts cannot be looked for", "write fewer");
            return None;
        };
        let longest = self.replace.iter().map(|pair| pair.find.len()).max().unwrap_or(1);
        let with = self.replace.iter().map(|pair| pair.with.clone()).collect();
        let texts = self.replace.iter().map(|pair| pair.find.as_bytes().to_vec()).collect();
        Some(Policy {
            types: self.types.clone().into(),
            pairs: Arc::new(Pairs { find, texts, with, longest }),
        })
    }
}

impl Policy {
    fn is_meant(&self, header: &ResponseHeader) -> bool {
        let headers = &header.headers;
        let essence = content_type::essence(headers.get(CONTENT_TYPE));
        !matches!(header.status.as_u16(), 101 | 204 | 206 | 304)
            && !headers.contains_key(CONTENT_ENCODING)
            && !headers.contains_key(CONTENT_RANGE)
            && content_type::is_among(essence, &self.types)
    }
}

impl Written for Config {}

impl Hooks for Policy {
    fn on_response(&self, response: &mut Response<'_>) -> Result<()> {
        // HTTP/1.0 knows no chunks.
        let is_old = response.facts.header.version <= Version::HTTP_10;
        if response.is_own || is_old || !self.is_meant(response.header) {
            return Ok(());
        }
        let header = &mut *response.header;
        if header.remove_header(&CONTENT_LENGTH).is_some() {
            header.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
        }
        coding::other_bytes(header)?;
        response.body.push(Rewriter { pairs: self.pairs.clone(), kept: Vec::new() });
        Ok(())
    }
}

/// Rewrites the body of one answer.
struct Rewriter {
    pairs: Arc<Pairs>,
    /// What may be the beginning of a text that is looked for.
    kept: Vec<u8>,
}

impl Rewriter {
    fn rewrite(&mut self, piece: &[u8], is_last: bool) -> Vec<u8> {
        self.kept.extend_from_slice(piece);
        let Pairs { find, with, .. } = &*self.pairs;
        // Where a text may have begun, it waits for the next piece; all else goes on at once.
        let sure = if is_last { self.kept.len() } else { self.pairs.sure(&self.kept) };
        let (mut out, mut done) = (Vec::with_capacity(self.kept.len()), 0);
        for found in find.find_iter(&self.kept) {
            if sure <= found.start() {
                break;
            }
            out.extend_from_slice(&self.kept[done..found.start()]);
            out.extend_from_slice(with[found.pattern().as_usize()].as_bytes());
            done = found.end();
        }
        if done < sure {
            out.extend_from_slice(&self.kept[done..sure]);
            done = sure;
        }
        self.kept.drain(..done);
        out
    }
}

impl BodyFilter for Rewriter {
    fn pass(&mut self, body: &mut Option<Bytes>, is_last: bool) -> Result<Duration> {
        let piece = body.take().unwrap_or_default();
        let out = self.rewrite(&piece, is_last);
        *body = Some(Bytes::from(out)).filter(|out| !out.is_empty());
        Ok(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{Given, build, problems};

    const PAIRS: &str = "{ replace: [{ find: cat, with: dog }, { find: category, with: kind }, { find: x, with: '' }] }";

    fn rewritten(pieces: &[&str]) -> String {
        let policy = build(PAIRS, |config: &Config, cx| config.build(cx));
        let mut rewriter = Rewriter { pairs: policy.pairs, kept: Vec::new() };
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(rewriter.rewrite(piece.as_bytes(), false));
        }
        out.extend(rewriter.rewrite(&[], true));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn texts_are_replaced_wherever_the_pieces_part() {
        let body = "a cat of a category, xcat, catcat cate";
        let expected = "a dog of a kind, dog, dogdog doge";
        assert_eq!(rewritten(&[body]), expected);
        for at in 0..body.len() {
            assert_eq!(rewritten(&[&body[..at], &body[at..]]), expected, "{at}");
        }
        let letters: Vec<&str> = body.split_inclusive(|_: char| true).collect();
        assert_eq!(rewritten(&letters), expected);
    }

    #[test]
    fn an_event_goes_on_as_soon_as_it_is_whole() {
        let policy = build(PAIRS, |config: &Config, cx| config.build(cx));
        let mut rewriter = Rewriter { pairs: policy.pairs, kept: Vec::new() };
        assert_eq!(rewriter.rewrite(b"data: a cat\n\n", false), b"data: a dog\n\n");
        assert_eq!(rewriter.rewrite(b"data: a cate", false), b"data: a ", "it may go on");
        assert_eq!(rewriter.rewrite(b"r\n\n", false), b"doger\n\n");
    }

    #[test]
    fn coded_bodies_and_other_types_stay_as_they_are() {
        let policy = build(PAIRS, |config: &Config, cx| config.build(cx));
        for (fields, is_changed) in [
            (&[("content-type", "text/html")][..], true),
            (&[("content-type", "text/html"), ("content-encoding", "gzip")], false),
            (&[("content-type", "image/png")], false),
        ] {
            let mut header = ResponseHeader::build(200, None).unwrap();
            header.insert_header("content-length", "3").unwrap();
            for (name, value) in fields {
                header.insert_header(*name, *value).unwrap();
            }
            Given::request("GET", "/").answered(&policy, &mut header);
            assert_eq!(!header.headers.contains_key("content-length"), is_changed, "{fields:?}");
        }
    }

    #[test]
    fn what_cannot_be_looked_for_is_refused() {
        let told = |yaml: &str| problems(yaml, |config: &Config, cx| config.build(cx));
        assert_eq!(told("{ replace: [] }"), ["0 replacements"]);
        assert_eq!(
            told("{ replace: [{ find: '', with: a }] }"),
            ["a text of 0 bytes cannot be looked for"]
        );
    }
}
