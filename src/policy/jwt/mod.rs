//! Who may ask, by a signed token (RFC 7519).

mod source;

use std::{collections::BTreeMap, path::Path, str::FromStr, sync::Arc};

use http::{
    HeaderName, HeaderValue,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use pingora::Result;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{
    field::{Lookup, Name},
    policy::{
        claims::{Claims, Wanted},
        contract::{Build, Facts, Flow, Hooks, Request, Written},
        errand::Errand,
        jwks::Source,
        jwt::source::KeysConfig,
        token::{self, Algorithms, Rules},
        variable::{Variable, Word, cookies},
    },
    reason::Reason,
    reply::Reply,
    units::Duration,
    yaml::{self, Spanned},
};

/// A longer token is none.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Lets in who shows a token that was signed with one of these keys, is of this issuer and for this
/// audience, and has not expired; others get `401`, or `403` where only a claim is missing. While
/// there never were any keys, nobody is let in, and clients get `503`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Jwt")]
pub struct Config {
    /// The public keys (a JWK Set, RFC 7517): of a file, or of a URL that is asked again and
    /// again.
    pub keys: Spanned<KeysConfig>,
    /// The algorithms that count. None is one that a public key could be taken for the secret of.
    /// Default: `[RS256, PS256, ES256, EdDSA]`.
    #[serde(default = "token::algorithms")]
    pub algorithms: Algorithms,
    /// Who must have issued the token (`iss`). Default: anybody.
    #[serde(default)]
    pub issuer: Option<String>,
    /// For whom it must be (`aud`): one of these. Default: anybody.
    #[serde(default)]
    pub audience: Vec<String>,
    /// By how much the clocks may differ. Default: `30s`.
    #[serde(default = "leeway")]
    pub leeway: Duration,
    /// Claims that must have a value, be it the only one, one of a list, or, of `scope` and `scp`,
    /// one of several words. Default: `{}`.
    #[serde(default)]
    pub require: BTreeMap<String, String>,
    /// Fields that tell origins of claims, each with the name of its claim; what a client says in
    /// them is replaced, or removed where the token has no such claim. Default: `{}`.
    #[serde(default)]
    pub tell: BTreeMap<Name, String>,
    /// Where the token stands: `bearer` (`Authorization: Bearer TOKEN`), `header.NAME` or
    /// `cookie.NAME`. Default: `bearer`.
    #[serde(default)]
    pub from: From,
    /// Whether origins are sent the token itself. Default: `true`.
    #[serde(default = "forward")]
    pub forward: bool,
}

fn leeway() -> Duration {
    Duration::from_secs(30)
}

fn forward() -> bool {
    true
}

/// Where a token stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "TokenPlace", example = &"bearer", example = &"cookie.session")]
#[schemars(extend("pattern" = "^(bearer|header\\..+|cookie\\..+)$"))]
pub enum From {
    /// In `Authorization`.
    #[default]
    Bearer,
    /// In another field.
    Header(Lookup),
    /// In a cookie.
    Cookie(String),
}

/// What is no place of a token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no place of a token\nhelp: write `bearer`, `header.NAME` or `cookie.NAME`")]
pub struct NoPlace(String);

impl FromStr for From {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let wrong = || NoPlace(text.to_owned());
        match text.split_once('.') {
            None if text == "bearer" => Ok(Self::Bearer),
            Some(("header", name)) => {
                name.parse().map(Lookup).map(Self::Header).map_err(|_| wrong())
            }
            Some(("cookie", name)) if !name.is_empty() => Ok(Self::Cookie(name.to_owned())),
            _ => Err(wrong()),
        }
    }
}

impl<'de> Deserialize<'de> for From {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a place such as `bearer`")
    }
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    source: Source,
    rules: Rules,
    wanted: Wanted,
    from: From,
    forward: bool,
}

impl Config {
    /// Reads the file of keys, or finds those that were fetched before.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        let algorithms = token::ready(&self.algorithms, cx)?;
        if matches!(self.from, From::Cookie(_)) && !self.forward {
            let help =
                "remove `forward: false`, or `request_headers: { remove: [cookie] }` takes all off";
            cx.problem("a token in a cookie is not taken off its field", help);
            return None;
        }
        Some(Policy {
            source: source::build(&self.keys, cx)?,
            rules: Rules {
                algorithms,
                issuer: self.issuer.clone(),
                audience: self.audience.clone().into(),
                leeway: self.leeway.0.as_secs(),
            },
            wanted: Wanted::new(&self.require, &self.tell),
            from: self.from.clone(),
            forward: self.forward,
        })
    }
}

/// Why a token does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum No {
    /// It is none, or not of these keys, or of another time.
    Token,
    /// It is good, and lacks a claim.
    Claim,
    /// There are no keys.
    Keys,
}

impl Policy {
    /// The token that a request shows; two are none.
    fn shown<'a>(&self, facts: &Facts<'a>) -> Option<&'a str> {
        let field = |name: &HeaderName| {
            let mut fields = facts.headers().get_all(name).iter();
            let first = fields.next()?;
            if fields.next().is_some() { None } else { Some(first.as_bytes()) }
        };
        let token = match &self.from {
            From::Bearer => {
                let (scheme, token) = field(&AUTHORIZATION)?.split_at_checked(7)?;
                if !scheme.eq_ignore_ascii_case(b"bearer ") {
                    return None;
                }
                token.trim_ascii()
            }
            From::Header(name) => field(&name.0)?,
            From::Cookie(name) => {
                let mut all = cookies(facts, name);
                let first = all.next()?;
                if all.next().is_some() {
                    return None;
                }
                first
            }
        };
        str::from_utf8(token).ok().filter(|token| token.len() <= TOKEN_BYTES_MAX)
    }

    async fn claims(&self, facts: &Facts<'_>) -> Result<Claims, No> {
        let token = self.shown(facts).ok_or(No::Token)?;
        let claims = self.rules.claims(token, &self.source).await.map_err(|no| match no {
            token::No::Token => No::Token,
            token::No::Keys => No::Keys,
        })?;
        if self.wanted.is_in(&claims) { Ok(claims) } else { Err(No::Claim) }
    }
}

impl Written for Config {
    fn files(&self) -> Vec<&Path> {
        self.keys.value.file.iter().map(|file| file.value.as_path()).collect()
    }

    fn tells(&self, variable: &Variable) -> bool {
        matches!(variable, Variable::One(Word::User) | Variable::Claim(_))
    }
}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let challenge = |status: u16, error: &'static str| {
            Reply::status(status).with(WWW_AUTHENTICATE, HeaderValue::from_static(error))
        };
        let (reason, reply) = match Box::pin(self.claims(&request.facts)).await {
            Ok(claims) => {
                self.wanted.tell(claims, request);
                return Flow::Continue;
            }
            // RFC 6750 §3.1.
            Err(No::Token) if self.shown(&request.facts).is_none() => {
                (Reason::TokenDenied, challenge(401, "Bearer"))
            }
            Err(No::Token) => {
                (Reason::TokenDenied, challenge(401, "Bearer error=\"invalid_token\""))
            }
            Err(No::Claim) => {
                (Reason::TokenDenied, challenge(403, "Bearer error=\"insufficient_scope\""))
            }
            Err(No::Keys) => (Reason::AuthAway, Reply::unavailable(1)),
        };
        request.notes.reason = Some(reason);
        Flow::Respond(reply)
    }

    fn on_upstream_request(&self, header: &mut RequestHeader, _: &Facts<'_>) -> Result<()> {
        self.wanted.cleanse(header);
        match &self.from {
            _ if self.forward => {}
            From::Bearer => drop(header.remove_header(&AUTHORIZATION)),
            From::Header(name) => drop(header.remove_header(&name.0)),
            // Refused when the file is read.
            From::Cookie(_) => {}
        }
        Ok(())
    }

    fn errand(&self) -> Option<Arc<dyn Errand>> {
        match &self.source {
            Source::Url(remote) => Some(remote.clone()),
            Source::File(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{
        jwks::Keys,
        tests::{Given, problems},
    };

    #[test]
    fn of_two_cookies_neither_is_the_token() {
        let policy = Policy {
            source: Source::File(Arc::new(Keys::none())),
            rules: Rules {
                algorithms: Box::new([]),
                issuer: None,
                audience: Box::new([]),
                leeway: 0,
            },
            wanted: Wanted::new(&BTreeMap::new(), &BTreeMap::new()),
            from: "cookie.t".parse().unwrap(),
            forward: true,
        };
        let one = Given::request("GET", "/").field("cookie", "a=1; t=abc");
        assert_eq!(policy.shown(&one.facts()), Some("abc"));
        let two = Given::request("GET", "/").field("cookie", "t=abc; t=def");
        assert_eq!(policy.shown(&two.facts()), None);
    }

    #[test]
    fn a_cookie_that_would_stay_is_refused() {
        let yaml = "{ keys: { url: 'http://127.0.0.1/' }, from: cookie.t, forward: false }";
        let told = problems(yaml, |config: &Config, cx| config.build(cx));
        assert_eq!(told, ["a token in a cookie is not taken off its field"]);
    }
}
