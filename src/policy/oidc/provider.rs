//! Who signs people in: what a provider tells of itself (OpenID Connect Discovery 1.0), asked when
//! the configuration comes into force, and again every hour beside requests.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    policy::{
        errand::{Errand, Task},
        fetched::{self, Fetched},
        jwks::{Remote, Source},
        shared::Shared,
        url::Url,
    },
    yaml,
};

/// After how long a provider is asked again what it is.
const REFRESH: Duration = Duration::from_secs(60 * 60);
/// After how long it is asked again for its keys.
const REFRESH_KEYS: Duration = Duration::from_secs(10 * 60);

/// Those that are known in this process.
static ALL: Shared<Issuer, Provider> = Shared::new();

/// The name of a provider: the URL under which it is found, letter by letter as its tokens say it.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "Issuer", example = &"https://login.example.com/realms/shop")]
#[schemars(extend("pattern" = r"^https?://[^/?#@]+(/[^?#]*)?$"))]
pub struct Issuer {
    text: String,
    discovery: Url,
}

/// What is no name of a provider.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no issuer\nhelp: write its URL as its tokens say it: `https://login.example.com/realms/shop`"
)]
pub struct NoIssuer(String);

impl FromStr for Issuer {
    type Err = NoIssuer;

    fn from_str(text: &str) -> Result<Self, NoIssuer> {
        let wrong = || NoIssuer(text.to_owned());
        if text.contains(['?', '#']) {
            return Err(wrong());
        }
        let bare = text.strip_suffix('/').unwrap_or(text);
        let discovery = format!("{bare}/.well-known/openid-configuration");
        let discovery = discovery.parse().map_err(|_| wrong())?;
        Ok(Self { text: text.to_owned(), discovery })
    }
}

impl<'de> Deserialize<'de> for Issuer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "an issuer such as `https://login.example.com`")
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// So many codes are turned in at one provider at a time, and so many sessions renewed, whatever
/// route they are for.
const TURNING_IN_MAX: usize = 64;
const RENEWING_MAX: usize = 32;

/// A provider.
#[derive(Debug)]
pub(super) struct Provider {
    issuer: Issuer,
    known: Fetched<Known>,
    /// Whether it gave no tokens when it was asked last.
    is_away: AtomicBool,
    task: Task,
    turning_in: Semaphore,
    /// Those who have a session renewed.
    pub(super) renewing: Arc<Semaphore>,
}

/// What it tells of itself.
#[derive(Debug)]
pub(super) struct Known {
    /// Where people are sent to sign in.
    pub(super) authorization: String,
    /// Where codes and refresh tokens are turned in.
    pub(super) token: Url,
    /// Where people are sent to sign out, if anywhere.
    pub(super) end_session: Option<String>,
    pub(super) keys: Source,
    /// Whether a client proves itself in the body of a question, since the field is not taken.
    pub(super) is_secret_in_body: bool,
    /// Whether it always says its name when it sends people back (RFC 9207).
    pub(super) says_issuer: bool,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    end_session_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl Provider {
    /// What is known of it.
    pub(super) fn of(issuer: &Issuer) -> Arc<Self> {
        ALL.of(issuer.clone(), |_| Self {
            issuer: issuer.clone(),
            known: Fetched::new(format!("what the provider {issuer} tells of itself"), None),
            is_away: AtomicBool::new(false),
            task: Task::default(),
            turning_in: Semaphore::new(TURNING_IN_MAX),
            renewing: Arc::new(Semaphore::new(RENEWING_MAX)),
        })
    }

    /// A place among those who turn in a code; who finds none is told to come back.
    pub(super) fn turn_in(&self) -> Option<SemaphorePermit<'_>> {
        self.turning_in.try_acquire().ok()
    }

    /// What it told of itself; waits for it only if it never did.
    pub(super) async fn known(&self) -> Option<Arc<Known>> {
        match self.known.last() {
            Some(known) => Some(known),
            None => self.known.newer(self.fetch()).await,
        }
    }

    /// What it told of itself, if it has.
    pub(super) fn last(&self) -> Option<Arc<Known>> {
        self.known.last()
    }

    /// Notes whether it gave an answer when it was asked for tokens, and tells once that it does not.
    pub(super) fn answered(&self, why_not: Option<&String>) {
        let issuer = &self.issuer;
        match why_not {
            Some(why) if !self.is_away.swap(true, Relaxed) => {
                log::warn!(
                    "the provider {issuer} gives no tokens: {why}; \
                     nobody signs in, and no session is renewed, until it does"
                );
            }
            None if self.is_away.swap(false, Relaxed) => {
                log::info!("the provider {issuer} gives tokens again");
            }
            _ => {}
        }
    }

    async fn turn(self: Arc<Self>) -> Duration {
        self.known.turn(REFRESH, self.fetch()).await
    }

    async fn fetch(&self) -> Result<Known, String> {
        let text = fetched::get(&self.issuer.discovery).await?;
        let known = Known::read(&text, &self.issuer)?;
        if let Source::Url(keys) = &known.keys {
            keys.clone().start();
        }
        Ok(known)
    }
}

impl Known {
    fn read(text: &[u8], issuer: &Issuer) -> Result<Self, String> {
        let told: Metadata = serde_json::from_slice(text).map_err(|why| why.to_string())?;
        if told.issuer != issuer.text {
            return Err(format!("it says that it is `{}`", told.issuer));
        }
        // Whoever is asked over TLS sends nobody, and no secret, elsewhere than over TLS.
        let scheme = if issuer.text.starts_with("https:") { "https://" } else { "http" };
        let places = [&told.authorization_endpoint, &told.token_endpoint, &told.jwks_uri];
        for place in places.into_iter().chain(&told.end_session_endpoint) {
            let is_plain = place.bytes().all(|byte| byte.is_ascii_graphic());
            if !place.starts_with(scheme) || !is_plain || place.contains('#') {
                return Err(format!("`{place}` is no address that can be asked"));
            }
        }
        let url = |text: &str| text.parse::<Url>().map_err(|_| format!("`{text}` is no URL"));
        let methods = told.token_endpoint_auth_methods_supported;
        let is_listed = |name: &str| methods.iter().flatten().any(|method| method == name);
        let keys = Remote::of("`oidc`", url(&told.jwks_uri)?, REFRESH_KEYS);
        Ok(Self {
            is_secret_in_body: is_listed("client_secret_post") && !is_listed("client_secret_basic"),
            says_issuer: told.authorization_response_iss_parameter_supported,
            token: url(&told.token_endpoint)?,
            authorization: told.authorization_endpoint,
            end_session: told.end_session_endpoint,
            keys: Source::Url(keys),
        })
    }
}

impl Errand for Provider {
    fn start(self: Arc<Self>) {
        self.task.run(&self, Self::turn);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(issuer: &str, change: impl FnOnce(&mut Value)) -> Result<Known, String> {
        let mut told = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/auth"),
            "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/keys"),
        });
        change(&mut told);
        Known::read(told.to_string().as_bytes(), &issuer.parse().unwrap())
    }

    #[test]
    fn a_provider_is_who_it_says_and_is_asked_over_tls() {
        let known = read("https://login.test/a", |_| {}).unwrap();
        assert_eq!(known.authorization, "https://login.test/a/auth");
        assert!(!known.is_secret_in_body && !known.says_issuer && known.end_session.is_none());
        let known = read("https://login.test/a", |told| {
            told["token_endpoint_auth_methods_supported"] = json!(["client_secret_post"]);
        });
        assert!(known.unwrap().is_secret_in_body);
        for (key, value) in [
            ("issuer", "https://login.test/a/"),
            ("issuer", "https://evil.test/a"),
            ("token_endpoint", "http://login.test/a/token"),
            ("jwks_uri", "http://login.test/a/keys"),
            ("authorization_endpoint", "javascript:alert(1)"),
            ("authorization_endpoint", "https://login.test/\r\nx: y"),
            ("end_session_endpoint", "/out"),
        ] {
            let why = read("https://login.test/a", |told| told[key] = json!(value));
            assert!(why.is_err(), "{key}: {value}");
        }
        assert!(Known::read(b"<html>", &"https://login.test".parse().unwrap()).is_err());
    }

    #[test]
    fn an_issuer_is_a_url_without_a_query() {
        let issuer: Issuer = "https://login.test/a/".parse().unwrap();
        assert_eq!(issuer.discovery.path, "/a/.well-known/openid-configuration");
        assert_eq!(issuer.to_string(), "https://login.test/a/");
        for text in ["login.test", "https://login.test/?a", "https://login.test/#a", "ftp://a"] {
            assert_eq!(text.parse::<Issuer>(), Err(NoIssuer(text.to_owned())), "{text}");
        }
    }
}
