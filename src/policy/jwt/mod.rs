//! Who may ask, by a signed token (RFC 7519).

mod keys;
mod source;

use std::{collections::BTreeMap, path::Path, str::FromStr, sync::Arc};

use http::{
    HeaderName, HeaderValue,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use jsonwebtoken::{Algorithm, Validation, decode, decode_header, errors::ErrorKind};
use pingora::Result;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::{
    field::{Lookup, Name},
    policy::{
        contract::{Build, Facts, Flow, Hooks, Request, Written},
        jwt::{
            keys::Keys,
            source::{KeysConfig, Source},
        },
        variable::cookies,
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
    #[serde(default = "algorithms")]
    pub algorithms: Spanned<Vec<AlgorithmName>>,
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

fn algorithms() -> Spanned<Vec<AlgorithmName>> {
    use Algorithm::{ES256, EdDSA, PS256, RS256};
    Spanned::new([RS256, PS256, ES256, EdDSA].map(AlgorithmName).into())
}

fn leeway() -> Duration {
    Duration::from_secs(30)
}

fn forward() -> bool {
    true
}

/// An algorithm of signatures with a public key (RFC 7518 §3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "JwtAlgorithm", example = &"ES256")]
#[schemars(extend("enum" = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]))]
pub struct AlgorithmName(Algorithm);

/// What is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no algorithm that tokens are verified with here\nhelp: {1}")]
pub struct NoAlgorithm(String, &'static str);

impl FromStr for AlgorithmName {
    type Err = NoAlgorithm;

    fn from_str(text: &str) -> Result<Self, NoAlgorithm> {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let known = [RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA];
        let found = known.into_iter().find(|known| format!("{known:?}") == text);
        found.map(Self).ok_or_else(|| {
            let help = if text.starts_with("HS") || text == "none" {
                "only signatures with a public key count: who knows that could make tokens of the others"
            } else {
                "write RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA"
            };
            NoAlgorithm(text.to_owned(), help)
        })
    }
}

impl<'de> Deserialize<'de> for AlgorithmName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "an algorithm such as `ES256`")
    }
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
    source: Arc<Source>,
    algorithms: Box<[Algorithm]>,
    issuer: Option<String>,
    audience: Box<[String]>,
    leeway: u64,
    require: Box<[(String, String)]>,
    tell: Box<[(HeaderName, String)]>,
    from: From,
    forward: bool,
}

impl Config {
    /// Reads the file of keys, or finds those that were fetched before.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        if self.algorithms.is_empty() {
            let help = "write `[RS256]`, or remove `algorithms`";
            cx.problem_at(self.algorithms.span, "there is no algorithm", help);
            return None;
        }
        if matches!(self.from, From::Cookie(_)) && !self.forward {
            let help =
                "remove `forward: false`, or `request_headers: { remove: [cookie] }` takes all off";
            cx.problem("a token in a cookie is not taken off its field", help);
            return None;
        }
        let tell = self.tell.iter().map(|(name, claim)| (name.to_header(), claim.clone()));
        Some(Policy {
            source: source::build(&self.keys, cx)?,
            algorithms: self.algorithms.iter().map(|name| name.0).collect(),
            issuer: self.issuer.clone(),
            audience: self.audience.clone().into(),
            leeway: self.leeway.0.as_secs(),
            require: self.require.clone().into_iter().collect(),
            tell: tell.collect(),
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

    async fn claims(&self, facts: &Facts<'_>) -> Result<Map<String, Value>, No> {
        let token = self.shown(facts).ok_or(No::Token)?;
        let header = decode_header(token).map_err(|_| No::Token)?;
        // What must be understood, and is not, makes a token useless (RFC 7515 §4.1.11).
        if !self.algorithms.contains(&header.alg) || header.crit.is_some() {
            return Err(No::Token);
        }
        let id = header.kid.as_deref();
        let mut keys = self.source.keys(false).await.ok_or(No::Keys)?;
        if !keys.has(id, header.alg) {
            // Perhaps it was signed with a key that is newer than what is known.
            keys = self.source.keys(true).await.ok_or(No::Keys)?;
        }
        let claims = self.verified(token, id, header.alg, &keys).ok_or(No::Token)?;
        let has_all = self.require.iter().all(|(name, wanted)| has(&claims, name, wanted));
        if has_all { Ok(claims) } else { Err(No::Claim) }
    }

    fn verified(
        &self,
        token: &str,
        id: Option<&str>,
        algorithm: Algorithm,
        keys: &Keys,
    ) -> Option<Map<String, Value>> {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.leeway;
        validation.validate_nbf = true;
        validation.validate_aud = !self.audience.is_empty();
        let mut required = vec!["exp"];
        if !self.audience.is_empty() {
            validation.set_audience(&self.audience);
            required.push("aud");
        }
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        keys.fit(id, algorithm).find_map(|key| {
            match decode::<Map<String, Value>>(token, key, &validation) {
                Ok(token) => Some(token.claims),
                Err(why) => {
                    if !matches!(why.kind(), ErrorKind::InvalidSignature) {
                        log::debug!("a token was refused: {why}");
                    }
                    None
                }
            }
        })
    }
}

/// Whether a claim has a value: as it is, or among others. Only of scopes is it one of several
/// words (RFC 8693 §4.2): users may have others written.
fn has(claims: &Map<String, Value>, name: &str, wanted: &str) -> bool {
    match claims.get(name) {
        Some(Value::String(text)) if matches!(name, "scope" | "scp") => {
            text.split(' ').any(|word| word == wanted)
        }
        Some(Value::String(text)) => text == wanted,
        Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(wanted)),
        Some(Value::Bool(is)) => is.to_string() == wanted,
        Some(Value::Number(number)) => number.to_string() == wanted,
        _ => false,
    }
}

/// A claim as a field: texts as they are, lists of texts with commas, if there are none in them.
fn value(claim: &Value) -> Option<HeaderValue> {
    let text = match claim {
        Value::String(text) => text.clone(),
        Value::Bool(is) => is.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Array(all) => {
            let texts: Vec<_> = all.iter().filter_map(Value::as_str).collect();
            // One of them would be taken for two.
            if texts.iter().any(|text| text.contains(',')) {
                return None;
            }
            texts.join(",")
        }
        Value::Null | Value::Object(_) => return None,
    };
    HeaderValue::try_from(text).ok()
}

impl Written for Config {
    fn files(&self) -> Vec<&Path> {
        self.keys.value.file.iter().map(|file| file.value.as_path()).collect()
    }
}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let challenge = |status: u16, error: &'static str| {
            Reply::status(status).with(WWW_AUTHENTICATE, HeaderValue::from_static(error))
        };
        let (reason, reply) = match Box::pin(self.claims(&request.facts)).await {
            Ok(claims) => {
                for (field, name) in &self.tell {
                    if let Some(value) = claims.get(name).and_then(value) {
                        request.notes.to_origin.push((field.clone(), value));
                    }
                }
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

    /// What the token says is put in after all policies; a client's own words are not.
    fn on_upstream_request(&self, header: &mut RequestHeader, _: &Facts<'_>) -> Result<()> {
        for (name, _) in &self.tell {
            header.remove_header(name);
        }
        match &self.from {
            _ if self.forward => {}
            From::Bearer => drop(header.remove_header(&AUTHORIZATION)),
            From::Header(name) => drop(header.remove_header(&name.0)),
            // Refused when the file is read.
            From::Cookie(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::tests::{Given, problems};

    #[test]
    fn a_claim_has_a_value_as_it_is_or_among_others() {
        let claims = json!({
            "scope": "read write", "role": "not admin", "groups": ["a", "b"], "is": true, "n": 7,
        });
        let claims = claims.as_object().unwrap();
        for (name, wanted) in [("scope", "read"), ("groups", "b"), ("is", "true"), ("n", "7")] {
            assert!(has(claims, name, wanted), "{name}");
        }
        for (name, wanted) in [("scope", "rea"), ("role", "admin"), ("groups", "c"), ("none", "")] {
            assert!(!has(claims, name, wanted), "{name}");
        }
    }

    #[test]
    fn no_text_of_a_list_is_told_as_two() {
        assert_eq!(value(&json!(["a", "b"])).unwrap(), "a,b");
        assert_eq!(value(&json!(["a", "x,admin"])), None);
        assert_eq!(value(&json!("x,y")).unwrap(), "x,y");
    }

    #[test]
    fn of_two_cookies_neither_is_the_token() {
        let policy = Policy {
            source: Arc::new(Source::File(Arc::new(Keys::none()))),
            algorithms: Box::new([]),
            issuer: None,
            audience: Box::new([]),
            leeway: 0,
            require: Box::new([]),
            tell: Box::new([]),
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
