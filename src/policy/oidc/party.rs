//! The client of a provider: it turns in codes and refresh tokens, and believes only ID tokens that
//! are signed, of this provider, for this client, and of this sign-in.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use form_urlencoded::{Serializer, byte_serialize};
use http::{
    Request,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::Value;
use tokio::time;

use crate::{
    client::endpoint::Files,
    policy::{
        claims::Claims,
        oidc::{
            provider::{Known, Provider},
            session::{Renewal, Session, now},
            words,
        },
        secret::Secret,
        token::{self, Rules},
    },
};

/// How long a question to a provider may take.
pub(super) const WITHIN: Duration = Duration::from_secs(5);
/// Errors that say nothing of the session or the code (RFC 6749 §4.1.2.1, RFC 8628 §3.5).
const FOR_NOW: [&str; 3] = ["temporarily_unavailable", "server_error", "slow_down"];

/// The largest answer.
const BYTES_MAX: usize = 256 * 1024;

/// The client of a provider.
#[derive(Debug)]
pub(super) struct Party {
    pub(super) provider: Arc<Provider>,
    pub(super) id: String,
    pub(super) secret: Option<Secret>,
    /// What an ID token must be.
    pub(super) rules: Rules,
    /// The claims that a session keeps.
    pub(super) keep: Box<[String]>,
    /// How long a sign-in counts, in seconds.
    pub(super) life: u64,
}

/// Why there is no session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The provider says no, or what it says does not do.
    Denied(String),
    /// It cannot be asked now.
    Away(String),
}

/// What a provider gives for a code (RFC 6749 §5.1).
#[derive(Deserialize)]
struct Granted {
    id_token: Option<String>,
    refresh_token: Option<String>,
    expires_in: Option<Value>,
}

impl Granted {
    /// The seconds that it is good for; some providers write them as a text.
    fn good_for(&self) -> Option<u64> {
        let told = self.expires_in.as_ref()?;
        told.as_u64().or_else(|| told.as_str()?.parse().ok())
    }
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

impl Party {
    /// Begins a session with a code that the browser brought.
    pub(super) async fn begin(
        &self,
        code: &str,
        verifier: &str,
        redirect: &str,
        nonce: &str,
    ) -> Result<Session, Failure> {
        let known = self.known().await?;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect),
            ("code_verifier", verifier),
        ];
        let granted = self.ask(&known, &form).await?;
        let token = granted.id_token.as_deref();
        let token = token.ok_or_else(|| Failure::Denied("there is no ID token".to_owned()))?;
        let claims = self.verified(token, &known).await?;
        if claims.get("nonce").and_then(Value::as_str) != Some(nonce) {
            return Err(Failure::Denied("the ID token is of another sign-in".to_owned()));
        }
        self.session(&claims, &granted, now() + self.life, None)
    }

    /// Makes a session that goes on, if the provider says that it does.
    pub(super) async fn renew(&self, old: &Session) -> Result<Session, Failure> {
        let Some(renewal) = &old.renewal else {
            return Err(Failure::Denied("there is no refresh token".to_owned()));
        };
        let known = self.known().await?;
        let form = [("grant_type", "refresh_token"), ("refresh_token", renewal.token.as_str())];
        let granted = self.ask(&known, &form).await?;
        // Without a new ID token, the old one goes on (OpenID Connect Core 1.0 §12.2).
        let claims = match &granted.id_token {
            None => old.claims.clone(),
            Some(token) => {
                let claims = self.verified(token, &known).await?;
                if claims.get("sub") != old.claims.get("sub") {
                    return Err(Failure::Denied("the ID token is of another user".to_owned()));
                }
                claims
            }
        };
        self.session(&claims, &granted, old.until, Some(&renewal.token))
    }

    async fn known(&self) -> Result<Arc<Known>, Failure> {
        let known = self.provider.known().await;
        known.ok_or_else(|| Failure::Away("it has told nothing of itself yet".to_owned()))
    }

    fn session(
        &self,
        claims: &Claims,
        granted: &Granted,
        until: u64,
        old_token: Option<&str>,
    ) -> Result<Session, Failure> {
        let id = words::random::<16>();
        let id = id.ok_or_else(|| Failure::Away("there is no chance".to_owned()))?;
        let (now, exp) = (now(), claims.get("exp").and_then(Value::as_u64));
        let good_for = granted.good_for().or(exp.map(|exp| exp.saturating_sub(now)));
        // One that is not replaced is used again.
        let token = granted.refresh_token.as_deref().or(old_token);
        let renewal =
            token.map(|token| Renewal::of(token.to_owned(), good_for.unwrap_or(300), now));
        let kept = self.keep.iter();
        let kept = kept.filter_map(|name| Some((name.clone(), claims.get(name)?.clone())));
        Ok(Session { id, until, renewal, claims: kept.collect() })
    }

    async fn verified(&self, token: &str, known: &Known) -> Result<Claims, Failure> {
        let denied = |why: &str| Err(Failure::Denied(why.to_owned()));
        let claims = match self.rules.claims(token, &known.keys).await {
            Ok(claims) => claims,
            Err(token::No::Token) => return denied("its ID token does not do"),
            Err(token::No::Keys) => {
                return Err(Failure::Away("its keys could not be had".to_owned()));
            }
        };
        // OpenID Connect Core 1.0 §3.1.3.7.
        let party = claims.get("azp").map(|party| party.as_str() == Some(self.id.as_str()));
        let has_others =
            claims.get("aud").and_then(Value::as_array).is_some_and(|aud| 1 < aud.len());
        if party == Some(false) || party.is_none() && has_others {
            return denied("its ID token was given to another client");
        }
        if claims.get("sub").and_then(Value::as_str).is_none_or(str::is_empty) {
            return denied("its ID token names nobody");
        }
        Ok(claims)
    }

    async fn ask(&self, known: &Known, form: &[(&str, &str)]) -> Result<Granted, Failure> {
        let asked = time::timeout(WITHIN, self.try_ask(known, form)).await;
        let late = || Err(Failure::Away(format!("no answer within {WITHIN:?}")));
        let granted = asked.unwrap_or_else(|_| late());
        self.provider.answered(match &granted {
            Err(Failure::Away(why)) => Some(why),
            _ => None,
        });
        granted
    }

    async fn try_ask(&self, known: &Known, form: &[(&str, &str)]) -> Result<Granted, Failure> {
        let away = |why: String| Failure::Away(why);
        let question = self.question(known, form).map_err(|why| away(why.to_string()))?;
        let files = Files::default();
        let answer = known.token.endpoint.ask(question, &files, WITHIN).await.map_err(away)?;
        let status = answer.status;
        let text = answer.whole(BYTES_MAX, WITHIN).await.map_err(away)?;
        if status.is_success() {
            return serde_json::from_slice(&text)
                .map_err(|why| away(format!("it answered nonsense: {why}")));
        }
        let refused = serde_json::from_slice::<Refused>(&text).ok();
        let is_busy = matches!(status.as_u16(), 408 | 425 | 429);
        match refused.filter(|_| status.is_client_error() && !is_busy) {
            Some(refused) if FOR_NOW.contains(&&*refused.error) => {
                Err(away(format!("it answered {status}: {:?}", refused.error)))
            }
            Some(refused) if refused.error == "invalid_client" => {
                let why = "it does not know the client: see `client_id`, `client_secret`";
                Err(away(why.to_owned()))
            }
            Some(refused) => Err(Failure::Denied(refused.error)),
            None => Err(away(format!("it answered {status}"))),
        }
    }

    /// What the provider is asked, with what proves who asks (RFC 6749 §2.3.1).
    fn question(
        &self,
        known: &Known,
        form: &[(&str, &str)],
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut body = Serializer::new(String::new());
        body.extend_pairs(form);
        let mut question = Request::post(&known.token.path)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json");
        match &self.secret {
            Some(Secret(secret)) if !known.is_secret_in_body => {
                // Both are encoded before they are joined.
                let coded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                let both = format!("{}:{}", coded(&self.id), coded(secret));
                let both = format!("Basic {}", BASE64_STANDARD.encode(both));
                question = question.header(AUTHORIZATION, both);
            }
            secret => {
                body.append_pair("client_id", &self.id);
                if let Some(Secret(secret)) = secret {
                    body.append_pair("client_secret", secret);
                }
            }
        }
        question.body(Full::new(Bytes::from(body.finish())))
    }
}
