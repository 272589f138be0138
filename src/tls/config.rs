//! TLS on a listener as the operator writes it.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    acme,
    diagnostic::Span,
    yaml::{Short, Spanned},
};

/// What the clients of a listener are shown.
///
/// What the operator writes under a listener's `tls:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ListenerTls", extend("not" = { "properties": {
    "certificates": { "maxItems": 0 }, "acme": { "maxItems": 0 },
} }))]
pub struct Config {
    /// Certificates with their keys. A client is given the one for the name that it asks for:
    /// an exact name before a wildcard, and of several kinds of keys the first of ECDSA, Ed25519
    /// and RSA that it can verify. Default: `[]`, where there are others under `acme`.
    #[serde(default)]
    pub certificates: Spanned<Vec<CertificateConfig>>,
    /// Certificates that are obtained by ACME, after those above. Needs `acme` at the top level.
    /// Until one is there, clients are shown one that vouches for itself. Default: `[]`.
    #[serde(default)]
    pub acme: Vec<Spanned<Short<acme::config::CertificateConfig>>>,
    /// What a client gets that asks for a name in no certificate, or for none. Default: `first`.
    #[serde(default)]
    pub unknown_names: UnknownNames,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Certificate")]
pub struct CertificateConfig {
    /// The file of the certificate in PEM, seen from the folder of the main file; those that
    /// signed it follow in the same file. It is read again at every reload.
    pub cert: Spanned<String>,
    /// The file of its private key in PEM, not encrypted.
    pub key: Spanned<String>,
}

/// What a client gets whose name is in no certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownNames {
    /// The first certificate.
    #[default]
    First,
    /// The alert `unrecognized_name`, and no connection.
    Refuse,
}

impl UnknownNames {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Refuse => "refuse",
        }
    }
}

impl Config {
    /// Where a certificate is written, by its place among all.
    pub fn place(&self, index: usize) -> Option<Span> {
        let files = &self.certificates.value;
        let obtained = || self.acme.get(index.checked_sub(files.len())?).map(|one| one.span);
        files.get(index).map(|pair| pair.cert.span).or_else(obtained)
    }

    /// The files that are read, seen from the folder of the main file.
    pub fn files(&self, folder: &Path) -> impl Iterator<Item = PathBuf> {
        let pairs = self.certificates.value.iter();
        pairs.flat_map(move |pair| [&pair.cert, &pair.key].map(|path| folder.join(&path.value)))
    }
}
