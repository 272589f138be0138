//! The name of a cookie.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::yaml;

/// The name of a cookie: a token of RFC 9110, as RFC 6265 wants it.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "CookieName", example = &"sid")]
#[schemars(extend("pattern" = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
pub struct Token(String);

/// What is no name of a cookie.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no name of a cookie\nhelp: names are letters, digits and any of !#$%&'*+-.^_`|~")]
pub struct NotAToken(String);

impl Token {
    /// A name that is known to be one.
    pub(super) fn of(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Token {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if text.is_empty() || !text.bytes().all(is_token) {
            return Err(NotAToken(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "the name of a cookie")
    }
}
