//! Public keys, of a JWK Set (RFC 7517).

use std::fmt;

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde_json::Value;

/// The keys of a set that signatures can be verified with.
pub(in crate::policy) struct Keys(Vec<Entry>);

struct Entry {
    id: Option<String>,
    key: DecodingKey,
    /// The algorithms that it is for.
    algorithms: Vec<Algorithm>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// Reads a set. Keys of other kinds, and secrets, are passed over.
    ///
    /// # Errors
    /// If it is none, or nothing in it can be used.
    pub(in crate::policy) fn read(text: &[u8]) -> Result<Self, String> {
        let set: Value =
            serde_json::from_slice(text).map_err(|why| format!("it is no JSON: {why}"))?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("it has no list of `keys`")?;
        let read = keys.iter().filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok());
        let entries: Vec<_> = read.filter_map(|key| Entry::of(&key)).collect();
        if entries.is_empty() {
            return Err("none of its keys verifies signatures".to_owned());
        }
        Ok(Self(entries))
    }

    /// A set without any.
    #[cfg(test)]
    pub(in crate::policy) fn none() -> Self {
        Self(Vec::new())
    }

    /// Whether one of them has the name that such a token says, so that no newer one is meant.
    pub(in crate::policy) fn names(&self, id: Option<&str>, algorithm: Algorithm) -> bool {
        let mut named = self.0.iter().filter(|entry| entry.algorithms.contains(&algorithm));
        id.is_some() && named.any(|entry| entry.id.as_deref() == id)
    }

    /// Those that could verify such a token.
    pub(in crate::policy) fn fit(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &DecodingKey> {
        let is_meant = move |entry: &&Entry| match (&entry.id, id) {
            (Some(own), Some(id)) => own == id,
            _ => true,
        };
        let fit = self.0.iter().filter(move |entry| entry.algorithms.contains(&algorithm));
        fit.filter(is_meant).map(|entry| &entry.key)
    }
}

impl Entry {
    fn of(key: &Jwk) -> Option<Self> {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let mut algorithms = match &key.algorithm {
            AlgorithmParameters::RSA(_) => vec![RS256, RS384, RS512, PS256, PS384, PS512],
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => vec![ES256],
                EllipticCurve::P384 => vec![ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(_) => vec![EdDSA],
            _ => return None,
        };
        if key.common.public_key_use.as_ref().is_some_and(|it| *it != PublicKeyUse::Signature) {
            return None;
        }
        if let Some(own) = &key.common.key_algorithm {
            algorithms.retain(|algorithm| format!("{algorithm:?}") == own.to_string());
        }
        let key_itself = DecodingKey::from_jwk(key).ok()?;
        Some(Self { id: key.common.key_id.clone(), key: key_itself, algorithms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_other_kinds_are_passed_over() {
        let set = r#"{ "keys": [
            { "kty": "oct", "k": "c2VjcmV0", "kid": "secret" },
            { "kty": "EC", "crv": "P-256", "kid": "a", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM" },
            { "kty": "EC", "crv": "P-256", "kid": "b", "use": "enc", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM" },
            { "kty": "new" }
        ] }"#;
        let keys = Keys::read(set.as_bytes()).unwrap();
        let fits = |id, algorithm| keys.fit(id, algorithm).next().is_some();
        assert!(fits(Some("a"), Algorithm::ES256) && fits(None, Algorithm::ES256));
        assert!(keys.names(Some("a"), Algorithm::ES256) && !keys.names(None, Algorithm::ES256));
        assert!(!keys.names(Some("c"), Algorithm::ES256));
        for (id, algorithm) in [
            (Some("secret"), Algorithm::HS256),
            (Some("a"), Algorithm::HS256),
            (Some("a"), Algorithm::ES384),
            (Some("a"), Algorithm::RS256),
            (Some("b"), Algorithm::ES256),
        ] {
            assert!(!fits(id, algorithm), "{id:?} {algorithm:?}");
        }
        for text in ["", "{}", r#"{ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] }"#] {
            assert!(Keys::read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
