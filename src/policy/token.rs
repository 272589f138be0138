//! Which signed tokens count (RFC 7519): the algorithms, the issuer, the audience and the times.

use std::str::FromStr;

use jsonwebtoken::{Algorithm, Validation, decode, decode_header, errors::ErrorKind};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{
    policy::{
        claims::Claims,
        contract::Build,
        jwks::{Keys, Source},
    },
    yaml::{self, Spanned},
};

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

/// The algorithms that an operator names.
pub(super) type Algorithms = Spanned<Vec<AlgorithmName>>;

/// Those that count if nothing is said.
pub(super) fn algorithms() -> Algorithms {
    use Algorithm::{ES256, EdDSA, PS256, RS256};
    Spanned::new([RS256, PS256, ES256, EdDSA].map(AlgorithmName).into())
}

/// What a token must be.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) algorithms: Box<[Algorithm]>,
    /// `None` for anybody.
    pub(super) issuer: Option<String>,
    /// One of these; none of them for anybody.
    pub(super) audience: Box<[String]>,
    /// By how many seconds clocks may differ.
    pub(super) leeway: u64,
}

/// Why a token does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum No {
    /// It is none, or not of these keys, or of another time.
    Token,
    /// There are no keys.
    Keys,
}

/// Makes a list of algorithms ready, in which there must be one.
pub(super) fn ready(written: &Algorithms, cx: &mut Build<'_>) -> Option<Box<[Algorithm]>> {
    if written.is_empty() {
        let help = "write `[RS256]`, or remove `algorithms`";
        cx.problem_at(written.span, "there is no algorithm", help);
        return None;
    }
    Some(written.iter().map(|name| name.0).collect())
}

impl Rules {
    /// The claims of a token that does.
    pub(super) async fn claims(&self, token: &str, source: &Source) -> Result<Claims, No> {
        let header = decode_header(token).map_err(|_| No::Token)?;
        // What must be understood, and is not, makes a token useless (RFC 7515 §4.1.11).
        if !self.algorithms.contains(&header.alg) || header.crit.is_some() {
            return Err(No::Token);
        }
        let id = header.kid.as_deref();
        let mut keys = source.keys(false).await.ok_or(No::Keys)?;
        if !keys.has(id, header.alg) {
            // Perhaps it was signed with a key that is newer than what is known.
            keys = source.keys(true).await.ok_or(No::Keys)?;
        }
        self.verified(token, id, header.alg, &keys).ok_or(No::Token)
    }

    fn verified(
        &self,
        token: &str,
        id: Option<&str>,
        algorithm: Algorithm,
        keys: &Keys,
    ) -> Option<Claims> {
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
        keys.fit(id, algorithm).find_map(|key| match decode::<Claims>(token, key, &validation) {
            Ok(token) => Some(token.claims),
            Err(why) => {
                if !matches!(why.kind(), ErrorKind::InvalidSignature) {
                    log::debug!("a token was refused: {why}");
                }
                None
            }
        })
    }
}
