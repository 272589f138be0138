//! The access log as the operator writes it.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use http::{HeaderName, header};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::{
    diagnostic::{Problem, Problems, Span},
    field::Lookup,
    observe::access_log::{
        form::{Extra, Form, Format},
        secrets::Secrets,
        syslog,
        target::{self, Target},
    },
    otlp,
    units::Percent,
    yaml::{self, Short, Spanned, Word},
};

/// Where the access log goes, and in which form.
///
/// What the operator writes under `access_log:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AccessLog")]
pub struct Config {
    /// `stdout`, or the path of a file. Default: `stdout`.
    pub path: Spanned<String>,
    /// Where a receiver of syslog listens, which gets each line as a message (RFC 5424):
    /// `udp://HOST:PORT`, `tcp://HOST:PORT`, `unix:/dev/log`, or a mapping with more.
    /// Default: none, lines go to `path`.
    pub syslog: Option<Spanned<Short<syslog::config::Config>>>,
    /// A receiver of OpenTelemetry, which gets each line as a log record with its fields as
    /// attributes. Default: none, lines go to `path`.
    #[schemars(with = "otlp::config::Config")]
    pub otlp: Option<Spanned<otlp::config::Config>>,
    /// The format of a line. Default: `json`.
    pub format: Format,
    /// Fields of the request that `json` and `logfmt` show as well, as `request.NAME`.
    /// Default: `[]`.
    pub request_headers: Vec<Lookup>,
    /// Fields of the answer that they show, as `response.NAME`. Default: `[]`.
    pub response_headers: Vec<Lookup>,
    /// Whose values are not shown. Default: `{}`.
    pub redact: Redact,
    /// The share of good requests that have a line, chosen by chance. What failed, was refused, or
    /// had a status of 400 or more, always has one. Default: `100%`.
    pub sample: Percent,
    #[serde(skip)]
    is_off: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: Spanned::new("stdout".to_owned()),
            syslog: None,
            otlp: None,
            format: Format::default(),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            redact: Redact::default(),
            sample: Percent::new(100),
            is_off: false,
        }
    }
}

/// Whose values `[hidden]` stands for: secrets that would let whoever reads the log in.
///
/// What the operator writes under `redact:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Redact")]
pub struct Redact {
    /// Fields of requests and answers. Default: `[authorization, cookie, proxy-authorization,
    /// set-cookie, x-api-key]`.
    pub headers: Vec<Lookup>,
    /// Parameters of queries, in any case, wherever a path or a `Referer` is shown. Default:
    /// `[access_token, api_key, client_secret, id_token, password, refresh_token, secret,
    /// signature, token]`.
    pub query: Vec<String>,
}

const HEADERS: [HeaderName; 5] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::PROXY_AUTHORIZATION,
    header::SET_COOKIE,
    HeaderName::from_static("x-api-key"),
];
const QUERY: [&str; 9] = [
    "access_token",
    "api_key",
    "client_secret",
    "id_token",
    "password",
    "refresh_token",
    "secret",
    "signature",
    "token",
];

impl Default for Redact {
    fn default() -> Self {
        let (headers, query) = (HEADERS.map(Lookup), QUERY.map(str::to_owned));
        Self { headers: headers.into(), query: query.into() }
    }
}

impl Redact {
    fn build(&self) -> Secrets {
        let headers = self.headers.iter().map(|name| name.0.clone()).collect();
        Secrets { headers, query: self.query.clone() }
    }
}

impl FromStr for Config {
    type Err = NotOff;

    fn from_str(text: &str) -> Result<Self, NotOff> {
        match text {
            "off" => Ok(Self { is_off: true, ..Self::default() }),
            _ => Err(NotOff(text.to_owned())),
        }
    }
}

impl Word for Config {
    fn word(_: &mut SchemaGenerator) -> Schema {
        yaml::words(&[("off", "Writes no access log.")])
    }
}

/// The only word that the access log knows.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no access log\nhelp: write `off`, or a mapping such as `{{ path: stdout, format: json }}`"
)]
pub struct NotOff(String);

impl Config {
    /// Where the lines go, and in which form; `None` if there is no log. Whether a file
    /// can be opened is tried.
    pub fn build(&self, folder: &Path, problems: &mut Problems) -> Option<(Form, Target)> {
        if self.is_off {
            return None;
        }
        let (target, place) = match (&self.otlp, &self.syslog) {
            (Some(otlp), _) => (Target::Otlp(Box::new(otlp.build(folder, problems)?)), otlp.span),
            (None, Some(syslog)) => (Target::Syslog(syslog.receiver()), syslog.span),
            (None, None) if self.path.value == "stdout" => (Target::Stdout, self.path.span),
            (None, None) => (Target::File(PathBuf::from(&self.path.value)), self.path.span),
        };
        self.check_is_one(place, problems);
        if let Err(why) = target::probe(&target) {
            let message = match &self.syslog {
                None => format!("access log `{}` cannot be opened: {why}", self.path.value),
                Some(to) => format!("syslog at `{}` cannot be reached: {why}", to.address.value),
            };
            problems.push(Problem::error(message).at(place));
        }
        Some((self.form(), target))
    }

    fn check_is_one(&self, place: Span, problems: &mut Problems) {
        let places = [
            ("path", self.path.span != Span::default()),
            ("syslog", self.syslog.is_some()),
            ("otlp", self.otlp.is_some()),
        ];
        let written: Vec<_> = places.iter().filter(|(_, is_there)| *is_there).collect();
        if let [(first, _), (second, _), ..] = written[..] {
            let message = format!("`{first}` and `{second}` are two places for the same lines");
            problems.push(Problem::error(message).at(place).help("remove one of the two"));
        }
    }

    fn form(&self) -> Form {
        let extras = |message: &str, names: &[Lookup]| {
            names.iter().map(|name| Extra::new(message, name.0.clone())).collect()
        };
        Form {
            format: self.format.clone(),
            request: extras("request", &self.request_headers),
            response: extras("response", &self.response_headers),
            secrets: self.redact.build(),
            sample: self.sample.as_fraction(),
        }
    }
}
