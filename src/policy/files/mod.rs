//! Static files: no origin is asked for them.
//!
//! INVARIANT: the kernel itself resolves a path below the root (`openat2(2)`, `RESOLVE_BENEATH`),
//! symbolic links included, so that no spelling and no link leads out of it.

mod condition;
mod range;
mod root;

use std::path::PathBuf;

use http::{
    HeaderName, HeaderValue, Method,
    header::{
        ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, ETAG, LAST_MODIFIED,
        LOCATION, VARY,
    },
};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    field::Value,
    policy::{
        coding::{self, Coding},
        contract::{Build, Facts, Flow, Hooks, Request, Written},
        files::{
            condition::Verdict,
            range::Wanted,
            root::{Entry, Found, Root},
        },
        page,
    },
    reason::Reason,
    reply::{FileBody, Reply},
    yaml::Spanned,
};

/// Answers with files of a folder, such as `{ root: /srv/www }`: with ranges, conditions
/// (RFC 9110 §13), `ETag`, and variants that were compressed beforehand. A folder is answered with
/// its index. Nothing above the root is ever read, whatever links or encodings say, and nothing
/// whose name begins with a dot but `.well-known`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Files")]
pub struct Config {
    /// The folder, seen from that of the main file.
    pub root: Spanned<PathBuf>,
    /// What is taken off the path before a file is looked for, such as `/static`.
    /// Default: nothing.
    #[serde(default)]
    pub strip: Option<Spanned<String>>,
    /// What a folder is answered with: the first of these that is in it. Default: `[index.html]`.
    #[serde(default = "index")]
    pub index: Vec<String>,
    /// Codings that files lie beside theirs in, as `NAME.br`, `NAME.zst` or `NAME.gz`; the first
    /// that the client likes best is sent. Default: `[]`.
    #[serde(default)]
    pub precompressed: Vec<Coding>,
    /// The `Cache-Control` of what is found, such as `max-age=3600`. Default: not said.
    #[serde(default)]
    pub cache_control: Option<Value>,
    /// Whether the upstream is asked for what is not found, and for other methods than `GET` and
    /// `HEAD`, which get `404` and `405` otherwise. Default: `false`.
    #[serde(default)]
    pub fall_through: bool,
}

fn index() -> Vec<String> {
    vec!["index.html".to_owned()]
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    root: Root,
    strip: String,
    index: Box<[String]>,
    precompressed: Box<[Coding]>,
    cache_control: Option<HeaderValue>,
    falls_through: bool,
}

impl Config {
    /// Opens the root.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        let strip = self.strip.as_ref().map_or("", |strip| strip.value.trim_end_matches('/'));
        if let Some(written) = &self.strip
            && !written.value.starts_with('/')
        {
            let message = format!("`{}` is no beginning of a path", written.value);
            cx.problem_at(written.span, message, "write a path such as `/static`");
            return None;
        }
        if let Some(name) = self.index.iter().find(|name| name.is_empty() || name.contains('/')) {
            cx.problem(format!("`{name}` is no name of a file"), "write a name alone");
            return None;
        }
        let path = cx.path(&self.root.value);
        let root = match Root::open(&path) {
            Ok(root) => root,
            Err(why) => {
                let message = format!("cannot open the folder `{}`: {why}", path.display());
                let help = "paths are seen from the folder of the main file";
                cx.problem_at(self.root.span, message, help);
                return None;
            }
        };
        Some(Policy {
            root,
            strip: strip.to_owned(),
            index: self.index.clone().into(),
            precompressed: self.precompressed.clone().into(),
            cache_control: self.cache_control.as_ref().map(|value| value.0.clone()),
            falls_through: self.fall_through,
        })
    }
}

impl Policy {
    /// What is asked for, seen from the root; `None` if that can be no file.
    fn wanted<'a>(&self, facts: &Facts<'a>) -> Option<&'a str> {
        let rest = facts.path().strip_prefix(self.strip.as_str())?;
        (rest.starts_with('/') || rest.is_empty()).then(|| rest.trim_start_matches('/'))
    }

    /// Finds the file, on a thread that may wait for the disk.
    async fn find(&self, facts: &Facts<'_>) -> Found {
        let Some(path) = self.wanted(facts).and_then(root::decoded) else { return Found::Nothing };
        let coding = coding::best(&self.precompressed, facts.headers());
        let (root, index) = (self.root.clone(), self.index.clone());
        let looked = tokio::task::spawn_blocking(move || root.find(&path, &index, coding));
        looked.await.unwrap_or(Found::Nothing)
    }

    fn not_found(&self, request: &mut Request<'_>) -> Flow {
        if self.falls_through {
            return Flow::Continue;
        }
        request.notes.reason = Some(Reason::NoFile);
        Flow::Respond(Reply::status(404))
    }

    /// The fields that every answer about a file has, `304` as well.
    fn describe(&self, entry: &Entry) -> Vec<(HeaderName, HeaderValue)> {
        let mut fields = vec![(ETAG, entry.tag.clone()), (LAST_MODIFIED, entry.modified.clone())];
        fields.extend(self.cache_control.clone().map(|value| (CACHE_CONTROL, value)));
        if !self.precompressed.is_empty() {
            fields.push((VARY, HeaderValue::from_static("Accept-Encoding")));
        }
        fields
    }

    fn answer(&self, entry: Entry, request: &RequestHeader) -> Reply {
        let (mut fields, headers) = (self.describe(&entry), &request.headers);
        match condition::verdict(headers, &entry) {
            Verdict::Send => {}
            Verdict::NotModified => return Reply { fields, ..Reply::status(304) },
            Verdict::Failed => return Reply { fields: refusal(fields), ..Reply::status(412) },
        }
        fields.push((ACCEPT_RANGES, HeaderValue::from_static("bytes")));
        if let Some(coding) = entry.coding {
            fields.push((CONTENT_ENCODING, HeaderValue::from_static(coding.as_str())));
        }
        let content_type = page::by_ending(&entry.name).map(HeaderValue::from_static);
        let content_type =
            content_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
        // Only a `GET` has ranges (RFC 9110 §14.2).
        let is_get = request.method == Method::GET;
        let wanted = if is_get { range::wanted(headers, &entry) } else { Wanted::Whole };
        let (status, from, length) = match wanted {
            Wanted::Whole => (200, 0, entry.length),
            Wanted::Part { first, last } => {
                let range = format!("bytes {first}-{last}/{}", entry.length);
                fields
                    .extend(HeaderValue::try_from(range).ok().map(|range| (CONTENT_RANGE, range)));
                (206, first, last - first + 1)
            }
            Wanted::Nothing => {
                let range = HeaderValue::try_from(format!("bytes */{}", entry.length)).ok();
                fields.extend(range.map(|range| (CONTENT_RANGE, range)));
                return Reply { fields: refusal(fields), ..Reply::status(416) };
            }
        };
        let file = FileBody { content_type, file: entry.file, from, length };
        Reply { fields, file: Some(Box::new(file)), ..Reply::status(status) }
    }
}

/// The fields of an answer that refuses: how long the file may be kept is not for it.
fn refusal(mut fields: Vec<(HeaderName, HeaderValue)>) -> Vec<(HeaderName, HeaderValue)> {
    fields.retain(|(name, _)| name != CACHE_CONTROL);
    fields
}

impl Written for Config {}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let method = &request.facts.header.method;
        if *method != Method::GET && *method != Method::HEAD {
            if self.falls_through {
                return Flow::Continue;
            }
            request.notes.reason = Some(Reason::MethodNotAllowed);
            let allowed = HeaderValue::from_static("GET, HEAD");
            return Flow::Respond(Reply::status(405).with(ALLOW, allowed));
        }
        match Box::pin(self.find(&request.facts)).await {
            Found::Nothing => self.not_found(request),
            Found::Folder => {
                // To the same path with a slash, so that links in the index lead where they should.
                let path = request.facts.path().trim_start_matches('/');
                let query = request.facts.query().map(|query| format!("?{query}"));
                let place = format!("/{path}/{}", query.unwrap_or_default());
                request.notes.reason = Some(Reason::Redirected);
                let place = HeaderValue::try_from(place);
                let place = place.unwrap_or(HeaderValue::from_static("/"));
                Flow::Respond(Reply::status(301).with(LOCATION, place))
            }
            Found::File(entry) => {
                request.notes.reason = Some(Reason::AnsweredHere);
                Flow::Respond(self.answer(*entry, request.facts.header))
            }
        }
    }
}
