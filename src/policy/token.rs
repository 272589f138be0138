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
        let known = source.keys(false).await.ok_or(No::Keys)?;
        if let Some(claims) = self.verified(token, id, header.alg, &known) {
            return Ok(claims);
        }
        if known.names(id, header.alg) {
            return Err(No::Token);
        }
        // Perhaps it was signed with a key that is newer than what is known; where keys have no
        // names, only a try tells.
        let newer = source.keys(true).await.ok_or(No::Keys)?;
        self.verified(token, id, header.alg, &newer).ok_or(No::Token)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aws_lc_rs::{
        encoding::{AsDer, Pkcs8V1Der},
        rand::SystemRandom,
        rsa,
        signature::{Ed25519KeyPair, KeyPair as _},
    };
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    use jsonwebtoken::{EncodingKey, Header, encode, jwk::Jwk};
    use serde_json::json;

    use super::*;

    fn rules(algorithm: Algorithm) -> Rules {
        Rules { algorithms: [algorithm].into(), issuer: None, audience: [].into(), leeway: 0 }
    }

    /// Those of elliptic curves are what the integration tests sign with.
    #[tokio::test]
    async fn keys_of_each_kind_verify_what_they_signed_and_nothing_else() {
        let rsa = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let rsa: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
        // The key itself stands behind the head of PKCS #8.
        let rsa = EncodingKey::from_rsa_der(&rsa.as_ref()[26..]);
        let ed = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let x = Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap();
        let x = BASE64_URL_SAFE_NO_PAD.encode(x.public_key());
        let ed_jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x });
        let ed = EncodingKey::from_ed_der(ed.as_ref());
        let jwk = |algorithm| {
            let jwk = Jwk::from_encoding_key(&rsa, algorithm).unwrap();
            serde_json::to_value(jwk).unwrap()
        };
        let in_2100 = 4_102_444_800_u64;
        for (algorithm, key, jwk) in [
            (Algorithm::RS256, &rsa, jwk(Algorithm::RS256)),
            (Algorithm::PS256, &rsa, jwk(Algorithm::PS256)),
            (Algorithm::EdDSA, &ed, ed_jwk),
        ] {
            let keys = Keys::read(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
            let source = Source::File(Arc::new(keys));
            let claims = json!({ "sub": "ali", "exp": in_2100 });
            let token = encode(&Header::new(algorithm), &claims, key).unwrap();
            let verified = rules(algorithm).claims(&token, &source).await.unwrap();
            assert_eq!(verified["sub"], "ali", "{algorithm:?}");
            let others = rules(Algorithm::ES256).claims(&token, &source).await;
            assert_eq!(others, Err(No::Token), "{algorithm:?} is not allowed");
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let first = if signature.starts_with('A') { 'B' } else { 'A' };
            let changed = format!("{signed}.{first}{}", &signature[1..]);
            assert_eq!(rules(algorithm).claims(&changed, &source).await, Err(No::Token));
        }
    }
}
