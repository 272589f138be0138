//! The URL of a service that policies ask.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{client::endpoint::Endpoint, yaml};

/// The URL that is asked: a service, and a path.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "QuestionUrl", example = &"http://127.0.0.1:9000/verify")]
#[schemars(extend("pattern" = r"^https?://[^/?#@]+(/[^#]*)?$"))]
pub struct Url {
    /// The service.
    pub(super) endpoint: Endpoint,
    /// The path, with its query.
    pub(super) path: String,
}

/// What is no such URL.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no URL that can be asked\nhelp: write `http://HOST:PORT/PATH`, or `https://…`")]
pub struct NoUrl(String);

impl FromStr for Url {
    type Err = NoUrl;

    fn from_str(text: &str) -> Result<Self, NoUrl> {
        let wrong = || NoUrl(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let endpoint = format!("{scheme}://{host}").parse().map_err(|_| wrong())?;
        path.parse::<http::uri::PathAndQuery>().map_err(|_| wrong())?;
        Ok(Self { endpoint, path: path.to_owned() })
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a URL such as `http://127.0.0.1:9000/verify`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_service_and_a_path() {
        let url: Url = "http://127.0.0.1:9000/verify?a=1".parse().unwrap();
        assert_eq!(
            (url.endpoint.to_string().as_str(), &*url.path),
            ("http://127.0.0.1:9000", "/verify?a=1")
        );
        assert_eq!("https://auth.test".parse::<Url>().unwrap().path, "/");
        for text in ["/verify", "ftp://a/b", "http://", "unix:/run/a", "http://a b/", "http://u@h/"]
        {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }
}
