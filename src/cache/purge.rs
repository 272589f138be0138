//! Answers that are to be removed, by order of the operator.

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cache::entry::{Entry, Subject};

/// The fields by which origins tag their answers.
pub static TAGS: [HeaderName; 2] =
    [HeaderName::from_static("cache-tag"), HeaderName::from_static("surrogate-key")];

/// Which answers are removed: those that meet all that is named here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "PurgeOrder")]
pub struct Purge {
    /// Of this URL, in all variants: `https://shop.example.com/a?b=1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Of URLs that begin so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// That have this tag, by `Cache-Tag` or `Surrogate-Key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Of this route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// All there are, if nothing else is named.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// How many answers were removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Purged {
    /// How many were whole; those that were still coming are not counted.
    pub purged: u64,
}

impl Purge {
    /// Whether it names anything, so that nothing is emptied by mistake.
    ///
    /// # Errors
    /// In words, if it names nothing, or too much.
    pub fn check(&self) -> Result<(), &'static str> {
        let Self { url, prefix, tag, route, all } = self;
        let names = url.is_some() || prefix.is_some() || tag.is_some() || route.is_some();
        match (names, all) {
            (true, true) => Err("`all` goes with nothing else"),
            (false, false) => Err("name one of `url`, `prefix`, `tag`, `route`, or `all: true`"),
            _ => Ok(()),
        }
    }

    /// The same order with its URL as keys are written: the host in lower case, a path at least.
    /// How a path may be written otherwise is for the caller.
    ///
    /// # Errors
    /// In words, if what should be a URL is none.
    pub fn canonical(mut self) -> Result<Self, String> {
        for url in [&mut self.url, &mut self.prefix].into_iter().flatten() {
            *url = canonical(url).ok_or_else(|| {
                format!("`{url}` is no URL such as `https://shop.example.com/a?b=1`")
            })?;
        }
        Ok(self)
    }

    pub(super) fn meets(&self, entry: &Entry) -> bool {
        self.may_meet(&entry.subject) && self.tag.as_ref().is_none_or(|tag| has_tag(entry, tag))
    }

    /// Whether an answer of which no more is known may be meant.
    pub(super) fn may_meet(&self, subject: &Subject) -> bool {
        let Self { url, prefix, route, tag: _, all: _ } = self;
        url.as_ref().is_none_or(|url| **url == *subject.url)
            && prefix.as_ref().is_none_or(|prefix| subject.url.starts_with(&**prefix))
            && route.as_ref().is_none_or(|route| **route == *subject.route)
    }
}

fn canonical(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let (host, target) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let slash = if target.starts_with('/') { "" } else { "/" };
    let is_url = matches!(&*scheme, "http" | "https") && !host.is_empty();
    is_url.then(|| format!("{scheme}://{}{slash}{target}", host.to_ascii_lowercase()))
}

fn has_tag(entry: &Entry, wanted: &str) -> bool {
    let headers = &entry.head.header.headers;
    let values = TAGS.iter().flat_map(|name| headers.get_all(name));
    let texts = values.filter_map(|value| value.to_str().ok());
    let mut tags = texts.flat_map(|text| text.split([',', ' ', '\t']));
    tags.any(|tag| tag == wanted)
}
