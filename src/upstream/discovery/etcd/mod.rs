//! Backends from etcd: each key under a prefix holds one, as `127.0.0.1:3031` or in the form of
//! `backends`.
//!
//! All keys are read at one revision, and watched from the next, by etcd's JSON gateway. When the
//! watch ends, or its revision was compacted away, all are read again: nothing is lost between the
//! two, and nothing is remembered that is gone.

mod keys;

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::Method;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use self::keys::{Keys, Pair, number};
use crate::{
    client,
    diagnostic::{Problem, Problems},
    upstream::discovery::{
        api::{self, Api, TlsConfig, Url},
        source::{Answer, BACKENDS_MAX, Failure, Named, Source},
        stream::{Heard, Reopening, Stream},
    },
    yaml::Spanned,
};

/// After so long a silence etcd is asked whether it is still there.
const QUIET: Duration = Duration::from_secs(20);

/// The keys under a prefix in etcd, each of which holds a backend.
///
/// What the operator writes under `etcd:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Etcd")]
pub struct Config {
    /// The URLs of its members; when one fails, the next is asked.
    /// Default: `[http://127.0.0.1:2379]`.
    #[serde(default = "local")]
    #[schemars(length(min = 1))]
    pub urls: Spanned<Vec<Url>>,
    /// What the keys begin with, such as `/services/app/`.
    #[schemars(length(min = 1))]
    pub prefix: Spanned<String>,
    /// Who asks, where etcd wants to know. Default: nobody.
    #[serde(default)]
    #[schemars(with = "String")]
    pub user: Option<Spanned<String>>,
    /// The password of that user; better kept in a file: `${file:/run/secrets/etcd}`.
    /// Default: none.
    #[serde(default)]
    #[schemars(with = "String")]
    pub password: Option<Spanned<String>>,
    /// TLS toward members at `https://` URLs. Default: none, and `https://` is as with `{}`.
    #[serde(default)]
    #[schemars(with = "TlsConfig")]
    pub tls: Option<Spanned<TlsConfig>>,
}

fn local() -> Spanned<Vec<Url>> {
    Spanned::new(vec!["http://127.0.0.1:2379".parse().expect("it is a URL")])
}

/// Reads and watches.
pub struct Etcd {
    api: Api,
    prefix: String,
    user: Option<(String, String)>,
    token: Option<String>,
    keys: Keys,
    watch: Option<Stream>,
    reopening: Reopening,
}

impl Config {
    /// Prepares the questions; `None` if something is wrong.
    pub fn build(&self, folder: &Path, problems: &mut Problems) -> Option<Named> {
        let endpoints: Vec<_> = self.urls.value.iter().map(|url| url.0.clone()).collect();
        let mut refuse = |message: &str, help: &str, place| {
            problems.push(Problem::error(message).at(place).help(help));
        };
        if endpoints.is_empty() {
            refuse("`urls` names no member", "name at least one", self.urls.span);
            return None;
        }
        if self.prefix.value.is_empty() {
            let help = "name what the keys of the backends begin with, as in `prefix: /app/`";
            refuse("an empty prefix is that of all keys", help, self.prefix.span);
        }
        let user = match (&self.user, &self.password) {
            (None, None) => None,
            (Some(user), Some(password)) => Some((user.value.clone(), password.value.clone())),
            (Some(half), None) | (None, Some(half)) => {
                refuse("`user` and `password` need each other", "write both, or none", half.span);
                return None;
            }
        };
        let files = TlsConfig::build(self.tls.as_ref(), &endpoints, folder, problems)?;
        let api = Api::new(endpoints, files);
        let label = format!("etcd {} at {}", self.prefix, api.place());
        let etcd = Etcd {
            api,
            prefix: self.prefix.value.clone(),
            user,
            token: None,
            keys: Keys::default(),
            watch: None,
            reopening: Reopening::default(),
        };
        Some((label, Box::new(etcd)))
    }
}

#[async_trait]
impl Source for Etcd {
    async fn next(&mut self) -> Answer {
        loop {
            // The watch stays only if all goes well.
            let Some(mut watch) = self.watch.take() else {
                if let Err(why) = self.begin().await {
                    self.api.move_on();
                    return Err(why);
                }
                return self.keys.found();
            };
            let goes_on = match watch.hear(QUIET).await {
                Heard::Silence => self.is_there().await,
                Heard::End(_) => false,
                Heard::Events(events) => self.keys.apply(&events)?,
            };
            if goes_on {
                self.watch = Some(watch);
                return self.keys.found();
            }
            self.reopening.pause().await;
        }
    }
}

impl Etcd {
    /// Reads all keys, and watches them from there.
    async fn begin(&mut self) -> Result<(), Failure> {
        self.token = self.authenticate().await?;
        let (key, end) = range(&self.prefix);
        let question = json!({ "key": key, "range_end": end, "limit": BACKENDS_MAX + 1 });
        let answer: Range = api::json(self.ask("/v3/kv/range", &question).await?).await?;
        let revision = number(&answer.header.revision)?;
        self.keys.replace(answer.kvs)?;
        let question = json!({ "create_request": {
            "key": key, "range_end": end, "start_revision": revision + 1,
        }});
        self.watch = Some(Stream::of(self.ask("/v3/watch", &question).await?).await?);
        self.reopening.opened();
        Ok(())
    }

    /// Whether the member that tells nothing still agrees with the others: it could be cut off
    /// from them, and its watch be silent for ever.
    async fn is_there(&self) -> bool {
        let (key, end) = range(&self.prefix);
        let question = json!({ "key": key, "range_end": end, "count_only": true });
        let asked = self.ask("/v3/kv/range", &question).await;
        match asked {
            Ok(answer) => api::json::<Counted>(answer).await.is_ok(),
            Err(_) => false,
        }
    }

    async fn authenticate(&mut self) -> Result<Option<String>, Failure> {
        self.token = None;
        let Some((name, password)) = &self.user else { return Ok(None) };
        let question = json!({ "name": name, "password": password });
        let answer = self.ask("/v3/auth/authenticate", &question).await?;
        let answer: Authenticated = api::json(answer).await?;
        Ok(Some(answer.token))
    }

    async fn ask(&self, path: &str, question: &Value) -> Result<client::answer::Answer, Failure> {
        let token = self.token.clone().map(|token| ("authorization", token));
        let question = api::question(Method::POST, path, token, question.to_string())?;
        self.api.ask(question, api::WITHIN).await
    }
}

/// The keys that begin with a prefix, as etcd names a range.
fn range(prefix: &str) -> (String, String) {
    let mut end = prefix.as_bytes().to_vec();
    // The next prefix of that length; a text never ends in 0xff, which UTF-8 does not have.
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    (BASE64_STANDARD.encode(prefix), BASE64_STANDARD.encode(end))
}

#[derive(Deserialize)]
struct Authenticated {
    token: String,
}

#[derive(Deserialize)]
struct Header {
    revision: Value,
}

#[derive(Deserialize)]
struct Range {
    header: Header,
    #[serde(default)]
    kvs: Vec<Pair>,
}

/// The answer to how many there are.
#[derive(Deserialize)]
struct Counted {
    #[serde(rename = "header")]
    _header: Header,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_range_of_keys() {
        assert_eq!(range("/a/"), (BASE64_STANDARD.encode("/a/"), BASE64_STANDARD.encode("/a0")));
    }
}
