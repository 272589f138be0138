//! Header fields as the operator writes them: names and values that can stand in a message.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::yaml;

/// The name of a field; its case is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String", rename = "FieldName", example = &"x-edge")]
#[schemars(extend("pattern" = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", "not" = { "enum": RESERVED }))]
pub struct Name(String);

/// The value of a field: one line, without spaces at its ends. Numbers and booleans are taken as
/// they are written.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "FieldValue", example = &"crestline")]
#[schemars(extend("type" = ["string", "number", "boolean"], "pattern" = VALUE_PATTERN))]
pub struct Value(pub HeaderValue);

/// Fields that frame a message or belong to one connection: Crestline alone writes them.
const RESERVED: [&str; 8] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a value looks like; for schemas.
const VALUE_PATTERN: &str =
    r"^([^\u0000-\u0020\u007f]([^\u0000-\u0008\u000a-\u001f\u007f]*[^\u0000-\u0020\u007f])?)?$";

/// Why a name cannot be set, added or removed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is no field name.
    #[error(
        "`{0}` is no name of a field\nhelp: names are letters, digits and any of !#$%&'*+-.^_`|~"
    )]
    NotAName(String),
    /// It frames the message, or belongs to one connection.
    #[error("`{0}` cannot be changed here: it frames the message\nhelp: {1}")]
    Reserved(String, &'static str),
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = HeaderName::from_str(text).map_err(|_| NameError::NotAName(text.to_owned()))?;
        if RESERVED.contains(&name.as_str()) {
            let help = match name.as_str() {
                "host" => "write `host:` on the route to change the host",
                _ => "remove it from this list: Crestline writes this field itself",
            };
            return Err(NameError::Reserved(text.to_owned(), help));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Name {
    /// The name for lookups, in lower case.
    pub fn to_header(&self) -> HeaderName {
        HeaderName::from_str(&self.0).expect("it was one when it was read")
    }

    /// The name as it was written.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(self.0.clone())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "the name of a field")
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let visible = text.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control());
        if !visible || text.trim() != text {
            return Err(D::Error::custom(format!(
                "`{}` is no value of a field\nhelp: remove line breaks, control characters, and \
                 spaces at its ends",
                text.escape_debug()
            )));
        }
        HeaderValue::from_maybe_shared(Bytes::from(text)).map(Self).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_frames_the_message_is_refused() {
        assert!(matches!("Content-Length".parse::<Name>(), Err(NameError::Reserved(..))));
        assert!(matches!("a b".parse::<Name>(), Err(NameError::NotAName(_))));
        let host = "host".parse::<Name>().unwrap_err().to_string();
        assert!(host.contains("write `host:` on the route"), "{host}");
    }
}
