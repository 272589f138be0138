//! ACME as the operator writes it: the CA at the top level, and certificates on listeners.

use std::{fmt, net::IpAddr, str::FromStr};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use http::Uri;
use instant_acme::LetsEncrypt;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

use crate::{
    diagnostic::{Problem, Problems},
    yaml::{self, Spanned, Word},
};

/// The longest host name that a certificate can have (RFC 1035 §2.3.4).
const NAME_LENGTH_MAX: usize = 253;
/// The longest part of one.
const LABEL_LENGTH_MAX: usize = 63;
/// So many names in a certificate are what CAs give at most.
const NAMES_MAX: usize = 100;

/// Where certificates are obtained that listeners name under `tls: { acme: … }` (RFC 8555).
///
/// What the operator writes under `acme:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Acme")]
pub struct Config {
    /// Whether the terms of the CA are accepted. It gives no certificate unless it is `true`.
    #[schemars(extend("const" = true))]
    pub accept_terms: Spanned<bool>,
    /// The directory of the CA. Default: `https://acme-v02.api.letsencrypt.org/directory`,
    /// which is Let's Encrypt's.
    #[serde(default)]
    pub directory: Directory,
    /// Whom the CA may write to, such as `mailto:admin@example.com`. Default: `[]`.
    #[serde(default)]
    pub contact: Vec<Contact>,
    /// The folder in which the account and the certificates are kept with their keys, seen from
    /// that of the main file. It is made when it is missing, readable by nobody else.
    /// Default: `/var/lib/crestline/acme`.
    #[serde(default = "storage")]
    pub storage: Spanned<String>,
    /// Certificates in PEM of those who vouch for the directory itself, where that is not known
    /// to the system: a CA of one's own. Default: none, those that the system trusts.
    #[serde(default)]
    pub ca: Option<Spanned<String>>,
    /// The account with the CA outside of ACME, where it wants one (RFC 8555 §7.3.4).
    /// Default: none.
    #[serde(default)]
    pub external_account: Option<ExternalAccount>,
}

fn storage() -> Spanned<String> {
    Spanned::new("/var/lib/crestline/acme".to_owned())
}

/// An account with a CA outside of ACME.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalAccount {
    /// The identifier that the CA gave.
    pub key_id: String,
    /// The key that the CA gave, in base64url; better kept in a file: `${file:/run/secrets/eab}`.
    pub hmac_key: HmacKey,
}

/// A certificate that is obtained by ACME: a name, or a mapping with several.
///
/// What the operator writes in the list under a listener's `tls: { acme: … }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AcmeCertificate")]
pub struct CertificateConfig {
    /// Its names, all in one certificate.
    #[schemars(length(min = 1, max = NAMES_MAX))]
    pub names: Spanned<Vec<Spanned<Name>>>,
    /// How the CA looks whether the names are ours. Default: `http-01`.
    #[serde(default)]
    pub challenge: Challenge,
}

/// How a CA looks whether a name is ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "AcmeChallenge")]
pub enum Challenge {
    /// It asks for a page on port 80, which a plaintext listener answers (RFC 8555 §8.3).
    #[default]
    #[serde(rename = "http-01")]
    Http,
    /// It makes a handshake on port 443 with this listener (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
}

impl Challenge {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http-01",
            Self::TlsAlpn => "tls-alpn-01",
        }
    }
}

impl FromStr for CertificateConfig {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = Spanned::new(text.parse()?);
        Ok(Self { names: Spanned::new(vec![name]), challenge: Challenge::default() })
    }
}

impl Word for CertificateConfig {
    fn word(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Name>()
    }
}

/// A host name in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String", rename = "AcmeName", example = &"shop.example.com")]
#[schemars(extend("pattern" = r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$"))]
pub struct Name(pub String);

/// Why there is no certificate for a name by ACME.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has a wildcard.
    #[error(
        "`{0}` has a wildcard, which CAs give by DNS-01 only\nhelp: list the names one by one, or obtain it with another program and name its files under `certificates`"
    )]
    Wildcard(String),
    /// It is an address.
    #[error("`{0}` is an address\nhelp: write host names, such as `shop.example.com`")]
    Address(String),
    /// It is no host name.
    #[error(
        "`{0}` is no host name\nhelp: write a name such as `shop.example.com`; letters beyond ASCII as `xn--…`"
    )]
    NotAName(String),
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.contains('*') {
            return Err(NameError::Wildcard(text.to_owned()));
        }
        if text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return Err(NameError::Address(text.to_owned()));
        }
        let is_label = |label: &str| {
            (1..=LABEL_LENGTH_MAX).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if NAME_LENGTH_MAX < text.len() || !text.split('.').all(is_label) {
            return Err(NameError::NotAName(text.to_owned()));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a host name such as `shop.example.com`")
    }
}

/// The URL of a CA's directory.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "AcmeDirectory")]
#[schemars(example = &"https://acme-v02.api.letsencrypt.org/directory")]
#[schemars(extend("pattern" = "^https://[^/ ]+(/[^ ]*)?$"))]
pub struct Directory(pub String);

/// What is no directory.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no directory of a CA\nhelp: write its URL, which begins with `https://`")]
pub struct NotADirectory(String);

impl Default for Directory {
    fn default() -> Self {
        Self(LetsEncrypt::Production.url().to_owned())
    }
}

impl FromStr for Directory {
    type Err = NotADirectory;

    fn from_str(text: &str) -> Result<Self, NotADirectory> {
        let uri: Option<Uri> = text.parse().ok();
        let is_one = uri.is_some_and(|uri| {
            uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty())
        });
        if is_one { Ok(Self(text.to_owned())) } else { Err(NotADirectory(text.to_owned())) }
    }
}

impl<'de> Deserialize<'de> for Directory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "the URL of a directory")
    }
}

/// An address that a CA may write to.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "AcmeContact", example = &"mailto:admin@example.com")]
#[schemars(extend("pattern" = "^mailto:[^@ ]+@[^@ ]+$"))]
pub struct Contact(pub String);

/// What nobody can write to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no contact\nhelp: write `mailto:admin@example.com`")]
pub struct NotAContact(String);

impl FromStr for Contact {
    type Err = NotAContact;

    fn from_str(text: &str) -> Result<Self, NotAContact> {
        let address = text.strip_prefix("mailto:").and_then(|address| address.split_once('@'));
        let is_part = |part: &str| !part.is_empty() && !part.contains(['@', ' ']);
        match address {
            Some((user, host)) if is_part(user) && is_part(host) => Ok(Self(text.to_owned())),
            _ => Err(NotAContact(text.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for Contact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a contact such as `mailto:admin@example.com`")
    }
}

/// A key that is kept to itself.
#[derive(Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "AcmeHmacKey", example = &"c2VjcmV0")]
#[schemars(extend("pattern" = "^[A-Za-z0-9_-]+=*$"))]
pub struct HmacKey(pub Vec<u8>);

/// What is no key. It is not told: it may be a typing error away from one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no key in base64url\nhelp: copy it anew from where the CA shows it")]
pub struct NotAKey;

impl FromStr for HmacKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let key = BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        key.ok().filter(|key| !key.is_empty()).map(Self).ok_or(NotAKey)
    }
}

impl<'de> Deserialize<'de> for HmacKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a key in base64url")
    }
}

impl fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacKey")
    }
}

impl Config {
    /// Tells what a CA would refuse.
    pub(super) fn check(&self, problems: &mut Problems) {
        if !self.accept_terms.value {
            let problem = Problem::error("the terms of the CA are not accepted");
            let help =
                "read them, and write `accept_terms: true`; without, it gives no certificate";
            problems.push(problem.at(self.accept_terms.span).help(help));
        }
    }
}

impl CertificateConfig {
    /// Its names in order, each once.
    pub fn sorted(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.names.value.iter().map(|name| name.0.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Tells names that are none, too many, or twice the same.
    pub fn check(&self, problems: &mut Problems) {
        let names = &self.names;
        let count = names.value.len();
        if count == 0 || NAMES_MAX < count {
            let message = format!("a certificate has 1 to {NAMES_MAX} names, and this one {count}");
            let help = "list the hosts that it stands for; share many among several certificates";
            problems.push(Problem::error(message).at(names.span).help(help));
        }
        for (index, name) in names.value.iter().enumerate() {
            if names.value[..index].contains(name) {
                let problem = Problem::error(format!("`{}` stands twice here", name.0));
                problems.push(problem.at(name.span).help("remove one of them"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hosts_and_nothing_else() {
        let read = |text: &str| text.parse::<Name>().map(|name| name.0);
        for good in ["a", "shop.example.com", "xn--mller-kva.example", "1.a"] {
            assert_eq!(read(good).as_deref(), Ok(good));
        }
        assert_eq!(read("Shop.Example.COM").as_deref(), Ok("shop.example.com"));
        let long = format!("{}.example.com", "a".repeat(64));
        for bad in ["", "a..b", "a.", ".a", "-a.b", "a-.b", "a_b", "müller.de", "a:80", &long] {
            assert_eq!(read(bad), Err(NameError::NotAName(bad.to_owned())), "{bad}");
        }
        for bad in ["*.a.test", "*"] {
            assert_eq!(read(bad), Err(NameError::Wildcard(bad.to_owned())));
        }
        for bad in ["192.0.2.1", "::1", "[::1]"] {
            assert_eq!(read(bad), Err(NameError::Address(bad.to_owned())));
        }
    }

    #[test]
    fn keys_are_read_with_padding_and_without_and_never_shown() {
        let key: HmacKey = "_-8".parse().unwrap();
        assert_eq!(key.0, [0xff, 0xef]);
        assert_eq!("_-8=".parse(), Ok(key.clone()));
        assert_eq!(format!("{key:?}"), "HmacKey");
        for bad in ["", "=", "a/b+", "é"] {
            assert_eq!(bad.parse::<HmacKey>(), Err(NotAKey), "{bad}");
        }
    }
}
