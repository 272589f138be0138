//! Methods that a route names.

use std::{fmt, str::FromStr};

use http::{HeaderValue, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::yaml;

/// One method, in capitals.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "Method", example = &"GET", example = &"POST")]
#[schemars(extend("pattern" = "^[A-Z0-9!#$%&'*+.^_`|~-]+$", "not" = { "enum": ["CONNECT", "TRACE"] }))]
pub struct MethodName(pub Method);

/// Why a method cannot be matched.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MethodError {
    /// It is no word, or a wildcard.
    #[error(
        "`{0}` is no method\nhelp: write one word, such as `GET`; leave `methods` out to match any"
    )]
    NotAMethod(String),
    /// It is not in capitals.
    #[error("`{0}` would never match: methods are compared with their case\nhelp: write `{1}`")]
    NotInCapitals(String, String),
    /// It is refused before routes are asked.
    #[error(
        "`{0}` would never match: it gets 405 before any route is asked\nhelp: remove it from this list"
    )]
    Refused(String),
}

impl FromStr for MethodName {
    type Err = MethodError;

    fn from_str(text: &str) -> Result<Self, MethodError> {
        let capitals = text.to_ascii_uppercase();
        match Method::from_str(text) {
            Ok(_) if !text.bytes().any(|byte| byte.is_ascii_alphanumeric()) => {
                Err(MethodError::NotAMethod(text.to_owned()))
            }
            Ok(_) if matches!(capitals.as_str(), "CONNECT" | "TRACE") => {
                Err(MethodError::Refused(text.to_owned()))
            }
            // A client may send `get`, which is another method, but none does: it is a slip.
            Ok(_) if capitals != text => Err(MethodError::NotInCapitals(text.to_owned(), capitals)),
            Ok(method) => Ok(Self(method)),
            Err(_) => Err(MethodError::NotAMethod(text.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for MethodName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a method such as `GET`")
    }
}

/// The methods that a route takes.
///
/// INVARIANT: sorted, each once, and with `GET` there is `HEAD`, which asks for the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Methods(Vec<Method>);

impl FromIterator<Method> for Methods {
    fn from_iter<I: IntoIterator<Item = Method>>(methods: I) -> Self {
        let mut all: Vec<Method> = methods.into_iter().collect();
        if all.contains(&Method::GET) {
            all.push(Method::HEAD);
        }
        all.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        all.dedup();
        Self(all)
    }
}

impl Methods {
    /// Whether this method is taken.
    pub fn contains(&self, method: &Method) -> bool {
        self.0.contains(method)
    }

    /// Whether all of the others are taken.
    pub fn contains_all(&self, others: &Self) -> bool {
        others.0.iter().all(|method| self.contains(method))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Walks through them in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Method> {
        self.0.iter()
    }

    /// The value of `Allow`: `GET, HEAD, POST`.
    pub fn to_allow(&self) -> HeaderValue {
        let names: Vec<&str> = self.iter().map(Method::as_str).collect();
        HeaderValue::from_str(&names.join(", ")).expect("methods are tokens")
    }
}

impl<'a> IntoIterator for &'a Methods {
    type Item = &'a Method;
    type IntoIter = std::slice::Iter<'a, Method>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Methods {
    /// `GET, HEAD or POST`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, method) in self.iter().enumerate() {
            let separator = match index {
                0 => "",
                index if index + 1 == self.len() => " or ",
                _ => ", ",
            };
            write!(f, "{separator}{method}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn methods(names: &[&str]) -> Methods {
        names.iter().map(|name| name.parse::<MethodName>().unwrap().0).collect()
    }

    #[test]
    fn get_takes_head_and_the_order_does_not_count() {
        let both = methods(&["POST", "GET"]);
        assert_eq!(both, methods(&["GET", "HEAD", "POST"]));
        assert!(both.contains(&Method::HEAD) && !both.contains(&Method::PUT));
        assert_eq!(both.to_allow(), "GET, HEAD, POST");
        assert_eq!(both.to_string(), "GET, HEAD or POST");
        assert_eq!(methods(&["POST"]).to_string(), "POST");
        assert!(both.contains_all(&methods(&["GET"])) && !methods(&["HEAD"]).contains_all(&both));
    }

    #[test]
    fn what_no_request_can_have_is_refused() {
        let told = |text: &str| text.parse::<MethodName>().unwrap_err();
        let slip = MethodError::NotInCapitals("get".to_owned(), "GET".to_owned());
        assert_eq!(told("get"), slip);
        assert!(matches!(told("Purge"), MethodError::NotInCapitals(..)));
        assert!(matches!(told("TRACE"), MethodError::Refused(_)));
        assert!(matches!(told("connect"), MethodError::Refused(_)));
        for text in ["", "*", "GET,POST", "GET POST", "Ä"] {
            assert_eq!(told(text), MethodError::NotAMethod(text.to_owned()));
        }
        assert_eq!("PROPFIND".parse::<MethodName>().unwrap().0.as_str(), "PROPFIND");
    }
}
