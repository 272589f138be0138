//! How connections are made, as the operator writes it, and what is made of it.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    time::SystemTime,
};

use rustls::pki_types::ServerName;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

use crate::{
    diagnostic::{Problem, Problems, Span},
    tls::{
        config::OwnCertificateConfig,
        origin::{self, Client},
    },
    upstream::{
        link::{Link, Tls},
        proxy_header::Version,
    },
    yaml::{self, Short, Spanned, Word},
};

/// TLS toward the backends of an upstream. `on` is the same as `{}`.
///
/// What the operator writes under an upstream's `tls:`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "UpstreamTls")]
pub struct TlsConfig {
    /// The name, or the address, that backends are asked for and that must be in their
    /// certificates. Default: the host name that each stands under in `backends`; the `Host` of
    /// the request never matters.
    pub sni: Option<Spanned<Sni>>,
    /// Whether a backend must prove who it is. Default: `on`.
    pub verify: Spanned<Verify>,
    /// A file of certificates in PEM: backends must be vouched for by one of them. It is seen from
    /// the folder of the main file, and read again at every reload.
    /// Default: those that the system trusts, as they were when the process began.
    pub ca: Option<Spanned<String>>,
    /// What backends are shown that ask who is there. Default: nothing.
    pub client_cert: Option<OwnCertificateConfig>,
}

/// Whether a backend must prove who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// By a certificate for its name, which has not expired, from somebody who is trusted.
    #[default]
    On,
    /// Anybody who answers is believed.
    Off,
}

impl FromStr for TlsConfig {
    type Err = NotOn;

    fn from_str(text: &str) -> Result<Self, NotOn> {
        match text {
            "on" => Ok(Self::default()),
            _ => Err(NotOn(text.to_owned())),
        }
    }
}

impl Word for TlsConfig {
    fn word(_: &mut SchemaGenerator) -> Schema {
        yaml::words(&[("on", "With everything verified, by what the system trusts.")])
    }
}

/// The only word that TLS knows.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no way to do TLS\nhelp: write `on`, or a mapping such as `{{ ca: ca.pem }}`; leave `tls` out for plaintext"
)]
pub struct NotOn(String);

/// A name or an address that a certificate may have.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "ServerName", example = &"app.internal")]
#[schemars(extend("pattern" = r"^([A-Za-z0-9._-]+|[0-9A-Fa-f:.]+)$"))]
pub struct Sni(String);

impl FromStr for Sni {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Self, NoName> {
        match ServerName::try_from(text) {
            Ok(_) => Ok(Self(text.trim_end_matches('.').to_owned())),
            Err(_) => Err(NoName(text.to_owned())),
        }
    }
}

/// What is no name of a server.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no name of a server\nhelp: write the name in its certificate, such as `app.internal`, without a port"
)]
pub struct NoName(String);

impl<'de> Deserialize<'de> for Sni {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a name such as `app.internal`")
    }
}

/// Which HTTP is spoken with backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "HttpVersion")]
#[schemars(extend("type" = ["string", "integer"], "enum" = [1, 2, "1", "2", "auto"]))]
pub enum Http {
    /// HTTP/1.1.
    #[default]
    One,
    /// HTTP/2, and nothing else.
    Two,
    /// What the backend chooses when the connection is made.
    Auto,
}

impl Http {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::Two => "2",
            Self::Auto => "auto",
        }
    }
}

impl FromStr for Http {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        match text {
            "1" => Ok(Self::One),
            "2" => Ok(Self::Two),
            "auto" => Ok(Self::Auto),
            _ => Err(NoVersion(text.to_owned())),
        }
    }
}

/// What is no version of HTTP.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no HTTP that is spoken with backends\nhelp: write `1`, `2`, or `auto`")]
pub struct NoVersion(String);

impl<'de> Deserialize<'de> for Http {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "`1`, `2`, or `auto`")
    }
}

impl Link {
    /// Reads the files of what was written; `unnamed` are the backends without a host name.
    pub(in crate::upstream) fn read(
        tls: Option<&Spanned<Short<TlsConfig>>>,
        http: &Spanned<Http>,
        proxy_protocol: Option<Version>,
        unnamed: impl Iterator<Item = (String, Span)>,
        folder: &Path,
        problems: &mut Problems,
    ) -> Option<Self> {
        let http = match (tls, http.value) {
            (None, Http::Auto) => {
                let message = "`http: auto` does nothing without `tls`: backends choose in its \
                               handshake";
                let help = "write `2` if they speak HTTP/2 in plaintext, or leave `http` out";
                problems.push(Problem::error(message).at(http.span).help(help));
                Http::One
            }
            (_, http) => http,
        };
        let Some(written) = tls else { return Some(Self { tls: None, http, proxy_protocol }) };
        let tls = written.value.0.read(written.span, folder, problems);
        let written = &written.value.0;
        if written.verify.value == Verify::On && written.sni.is_none() {
            for (backend, span) in unnamed {
                let message = format!("{backend} has no name that it could prove");
                let help = "name what is in its certificate, as in `tls: { sni: app.internal }`, \
                            or list the backend by its name";
                problems.push(Problem::error(message).at(span).help(help));
            }
        }
        Some(Self { tls: Some(tls?), http, proxy_protocol })
    }
}

impl TlsConfig {
    /// The files that are read, seen from the folder of the main file.
    pub fn files(&self, folder: &Path) -> impl Iterator<Item = PathBuf> {
        let pair = self.client_cert.iter().flat_map(|pair| [&pair.cert, &pair.key]);
        self.ca.iter().chain(pair).map(|path| folder.join(&path.value))
    }

    /// Reads the files; `None` if something is wrong with one of them.
    fn read(&self, place: Span, folder: &Path, problems: &mut Problems) -> Option<Tls> {
        let verifies = self.verify.value == Verify::On;
        if !verifies {
            let message = "`verify: off` believes anybody who answers at a backend's address";
            let help = "name who vouches for the backends, as in `ca: ca.pem`, and what is in \
                        their certificates, as in `sni: app.internal`";
            problems.push(Problem::warning(message).at(self.verify.span).help(help));
        }
        if let (Some(ca), false) = (&self.ca, verifies) {
            let problem = Problem::error("`ca` does nothing beside `verify: off`").at(ca.span);
            problems.push(problem.help("remove one of the two"));
        }
        // Pingora wants them also where nothing is verified.
        if let (None, Err(why)) = (&self.ca, origin::system_roots()) {
            let message = format!("the certificates that the system trusts cannot be used: {why}");
            let help = "install them (Debian's package is `ca-certificates`) and restart, or name \
                        who vouches for the backends, as in `ca: ca.pem`";
            problems.push(Problem::error(message).at(place).help(help));
        }
        let authorities = self.ca.as_ref().map(|ca| origin::authorities(ca, folder));
        let authorities = authorities.transpose().map_err(|problem| problems.push(problem));
        let client = self.client_cert.as_ref();
        let client = client.map(|pair| Client::read(pair, folder, SystemTime::now(), problems));
        Some(Tls {
            name: self.sni.as_ref().map(|name| name.value.0.clone()),
            verifies,
            authorities: authorities.ok()?,
            client: match client {
                None => None,
                Some(read) => Some(read?),
            },
        })
    }

    /// What is in force, setting by setting.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let of_each = || "the name of each backend".to_owned();
        let verify = if self.verify.value == Verify::On { "on" } else { "off" };
        let mut settings = vec![
            ("tls.sni", self.sni.as_ref().map_or_else(of_each, |name| name.value.0.clone())),
            ("tls.verify", verify.to_owned()),
        ];
        if self.verify.value == Verify::On {
            let system = || "what the system trusts".to_owned();
            settings.push(("tls.ca", self.ca.as_ref().map_or_else(system, |ca| ca.value.clone())));
        }
        if let Some(pair) = &self.client_cert {
            settings.push(("tls.client_cert.cert", pair.cert.value.clone()));
        }
        settings
    }
}
