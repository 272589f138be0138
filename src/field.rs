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

/// The name of a field that is only looked at, which may be any but `Host`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "LookupName", example = &"x-version")]
#[schemars(extend("pattern" = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
pub struct Lookup(pub HeaderName);

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

/// Why a name cannot be set, added, removed or looked at.
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
    /// It is the host, which HTTP/2 does not send as a field.
    #[error(
        "`{0}` is not looked at as a field\nhelp: write `hosts`: it holds over every protocol, with any port"
    )]
    Host(String),
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = header_name(text)?;
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

fn header_name(text: &str) -> Result<HeaderName, NameError> {
    HeaderName::from_str(text).map_err(|_| NameError::NotAName(text.to_owned()))
}

impl FromStr for Lookup {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match header_name(text)? {
            http::header::HOST => Err(NameError::Host(text.to_owned())),
            name => Ok(Self(name)),
        }
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

impl<'de> Deserialize<'de> for Lookup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "the name of a field")
    }
}

/// The help for what [`is_value`] refuses.
pub const VALUE_HELP: &str = "remove line breaks, control characters, and spaces at its ends";

/// Whether a text can be the value of a field.
pub fn is_value(text: &str) -> bool {
    let visible = text.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control());
    visible && text.trim() == text
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if !is_value(&text) {
            let text = text.escape_debug();
            let message = format!("`{text}` is no value of a field\nhelp: {VALUE_HELP}");
            return Err(D::Error::custom(message));
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

    #[test]
    fn any_field_but_the_host_may_be_looked_at() {
        assert_eq!("Upgrade".parse(), Ok(Lookup(http::header::UPGRADE)));
        assert!(matches!("Host".parse::<Lookup>(), Err(NameError::Host(_))));
        assert!(matches!(":path".parse::<Lookup>(), Err(NameError::NotAName(_))));
    }
}
