//! Where keys come from: a file, which is read with the configuration, or a URL, which is asked
//! when they have become old.
//!
//! Of a URL the last good set stays, whatever happens. Who needs keys that there are not yet waits
//! for them; what is only old is renewed in the background. It is asked at most once in a while,
//! whoever shows tokens of unknown keys.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration as Time,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Request, header::ACCEPT};
use http_body_util::Full;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{
    sync::Mutex,
    time::{self, Instant},
};

use crate::{
    client::endpoint::Files,
    policy::{contract::Build, jwt::keys::Keys, url::Url},
    units::{self, Duration},
    yaml::Spanned,
};

/// How long a question may take altogether.
const WITHIN: Time = Time::from_secs(5);
/// The time between two questions.
const PAUSE: Time = Time::from_secs(5);
/// The largest set.
const BYTES_MAX: usize = 1024 * 1024;

/// Where public keys come from: a `file` or a `url`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "JwtKeys")]
pub struct KeysConfig {
    /// A file, seen from the folder of the main file. Default: none.
    #[serde(default)]
    pub file: Option<Spanned<PathBuf>>,
    /// A URL, such as `https://login.example.com/.well-known/jwks.json`. Default: none.
    #[serde(default)]
    pub url: Option<Url>,
    /// After how long a URL is asked again, which is done as well for a token of an unknown key, at
    /// most every 5 s. The last good keys count until there are newer ones. Default: `10m`.
    #[serde(default = "refresh", deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub refresh: Duration,
}

fn refresh() -> Duration {
    Duration::from_secs(600)
}

/// Where keys come from.
#[derive(Debug)]
pub(super) enum Source {
    File(Arc<Keys>),
    Url(Arc<Remote>),
}

/// A URL, and what it said last.
#[derive(Debug)]
pub(super) struct Remote {
    config: KeysConfig,
    url: Url,
    last: ArcSwapOption<Fetched>,
    /// When it was asked last; held while it is asked.
    asked: Mutex<Option<Instant>>,
    is_away: AtomicBool,
}

#[derive(Debug)]
struct Fetched {
    keys: Arc<Keys>,
    at: Instant,
}

/// Reads the file, or finds what is known of the URL.
pub(super) fn build(written: &Spanned<KeysConfig>, cx: &mut Build<'_>) -> Option<Arc<Source>> {
    let config = &written.value;
    match (&config.file, &config.url) {
        (Some(file), None) => {
            let text = cx.read(&file.value, file.span)?;
            match Keys::read(&text) {
                Ok(keys) => Some(Arc::new(Source::File(Arc::new(keys)))),
                Err(why) => {
                    let message = format!("`{}` is no set of keys: {why}", file.value.display());
                    let help = "write a JWK Set (RFC 7517): `{ \"keys\": [ … ] }`";
                    cx.problem_at(file.span, message, help);
                    None
                }
            }
        }
        (None, Some(url)) => {
            let new = || Remote {
                config: config.clone(),
                url: url.clone(),
                last: ArcSwapOption::empty(),
                asked: Mutex::new(None),
                is_away: AtomicBool::new(false),
            };
            let remote = cx.state(|old: &Remote| old.config == *config, new);
            Some(Arc::new(Source::Url(remote)))
        }
        _ => {
            let help = "write one of both: `{ file: keys.json }` or `{ url: https://… }`";
            cx.problem_at(written.span, "where the keys are is not said, or said twice", help);
            None
        }
    }
}

impl Source {
    /// The keys; newer ones than those that are known, if that is wanted and can be had. `None` if
    /// there never were any.
    pub(super) async fn keys(&self, newer: bool) -> Option<Arc<Keys>> {
        match self {
            Self::File(keys) => Some(keys.clone()),
            Self::Url(remote) => remote.keys(newer).await,
        }
    }
}

impl Remote {
    async fn keys(self: &Arc<Self>, newer: bool) -> Option<Arc<Keys>> {
        let known = self.last.load_full();
        match known {
            Some(fetched) if !newer => {
                if self.config.refresh.0 < fetched.at.elapsed()
                    && let Ok(asked) = self.asked.try_lock()
                    && is_due(*asked)
                {
                    drop(asked);
                    let this = self.clone();
                    tokio::spawn(async move { this.ask_if_due().await });
                }
                Some(fetched.keys.clone())
            }
            _ => {
                self.ask_if_due().await;
                self.last.load_full().map(|fetched| fetched.keys.clone())
            }
        }
    }

    /// Asks, if nobody did a moment ago; who comes while it is asked waits for the same answer.
    async fn ask_if_due(&self) {
        let mut asked = self.asked.lock().await;
        if !is_due(*asked) {
            return;
        }
        let fetched = time::timeout(WITHIN, self.fetch()).await;
        // From its end: who waited meanwhile does not ask again at once.
        *asked = Some(Instant::now());
        let place = &self.url.endpoint;
        match fetched.unwrap_or_else(|_| Err(format!("no answer within {WITHIN:?}"))) {
            Ok(keys) => {
                self.last
                    .store(Some(Arc::new(Fetched { keys: Arc::new(keys), at: Instant::now() })));
                if self.is_away.swap(false, Relaxed) {
                    log::info!("the keys of `jwt` at {place} can be had again");
                }
            }
            Err(why) => {
                if !self.is_away.swap(true, Relaxed) {
                    let until = if self.last.load().is_some() {
                        "the last ones count until they can"
                    } else {
                        "nobody is let in until they can"
                    };
                    log::warn!("the keys of `jwt` at {place} could not be had: {why}; {until}");
                }
            }
        }
    }

    async fn fetch(&self) -> Result<Keys, String> {
        let question = Request::get(&self.url.path).header(ACCEPT, "application/json");
        let question = question.body(Full::<Bytes>::default()).map_err(|why| why.to_string())?;
        let answer = self.url.endpoint.ask(question, &Files::default(), WITHIN).await?;
        if !answer.status.is_success() {
            return Err(format!("it answered {}", answer.status));
        }
        Keys::read(&answer.whole(BYTES_MAX, WITHIN).await?)
    }
}

fn is_due(asked: Option<Instant>) -> bool {
    asked.is_none_or(|asked| PAUSE <= asked.elapsed())
}
