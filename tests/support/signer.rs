//! Signed tokens, and the keys that verify them.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};

/// A key that signs tokens, and its public half.
pub(crate) struct Signer {
    pub(crate) key: EncodingKey,
    /// The public half, as a point.
    pub(crate) public: Vec<u8>,
    id: &'static str,
}

impl Signer {
    pub(crate) fn new(id: &'static str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        Self { key, public: pair.public_key_raw().to_vec(), id }
    }

    /// The public half, as a JWK.
    pub(crate) fn jwk(&self) -> Value {
        let [x, y] = [&self.public[1..33], &self.public[33..]]
            .map(|half| BASE64_URL_SAFE_NO_PAD.encode(half));
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id, "x": x, "y": y })
    }

    /// A signed token.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.id.to_owned());
        encode(&header, claims, &self.key).unwrap()
    }
}
