//! Where the keys of `jwt` come from, as the operator writes it.

use std::{path::PathBuf, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    policy::{
        contract::Build,
        jwks::{Keys, Remote, Source},
        url::Url,
    },
    units::{self, Duration},
    yaml::Spanned,
};

/// Where public keys come from: a `file` or a `url`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "JwtKeys")]
pub struct KeysConfig {
    /// A file, seen from the folder of the main file. Default: none.
    #[serde(default)]
    pub file: Option<Spanned<PathBuf>>,
    /// A URL, such as `https://login.example.com/.well-known/jwks.json`. Default: none.
    #[serde(default)]
    pub url: Option<Url>,
    /// After how long a URL is asked again, beside requests and from the start on. For a token of
    /// an unknown key it is asked as well, at most every 5 s. The last good keys count until there
    /// are newer ones, whatever the service does. Default: `10m`.
    #[serde(default = "refresh", deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub refresh: Duration,
}

fn refresh() -> Duration {
    Duration::from_secs(600)
}

/// Reads the file, or finds what is known of the URL.
pub(super) fn build(written: &Spanned<KeysConfig>, cx: &mut Build<'_>) -> Option<Source> {
    let config = &written.value;
    match (&config.file, &config.url) {
        (Some(file), None) => {
            let text = cx.read(&file.value, file.span)?;
            match Keys::read(&text) {
                Ok(keys) => Some(Source::File(Arc::new(keys))),
                Err(why) => {
                    let message = format!("`{}` is no set of keys: {why}", file.value.display());
                    let help = "write a JWK Set (RFC 7517): `{ \"keys\": [ … ] }`";
                    cx.problem_at(file.span, message, help);
                    None
                }
            }
        }
        (None, Some(url)) => Some(Source::Url(Remote::of("`jwt`", url.clone(), config.refresh.0))),
        _ => {
            let help = "write one of both: `{ file: keys.json }` or `{ url: https://… }`";
            cx.problem_at(written.span, "where the keys are is not said, or said twice", help);
            None
        }
    }
}
