//! TLS on a listener as the operator writes it.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    acme,
    diagnostic::Span,
    field::Name,
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
    /// Asks clients for certificates of their own. Default: none are asked for.
    #[serde(default)]
    pub client_certificates: Option<ClientCertificatesConfig>,
    /// A file to which the secrets of all connections are written, in the format of NSS, so that a
    /// debugger can decrypt what was recorded: only to find a mistake, since whoever reads the file
    /// can do the same. It has mode 0600. Default: none is written.
    #[serde(default)]
    pub key_log: Option<Spanned<String>>,
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
    /// A file with an OCSP response for it, in DER, that is shown to clients that ask for one
    /// until it expires (RFC 6960). It is read again at every reload. Default: none.
    #[serde(default)]
    pub ocsp: Option<Spanned<String>>,
}

/// A certificate by which origins know this proxy, and its key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "OwnCertificate")]
pub struct OwnCertificateConfig {
    /// The file of the certificate in PEM, seen from the folder of the main file; those that
    /// signed it follow in the same file. It is read again at every reload.
    pub cert: Spanned<String>,
    /// The file of its private key in PEM, not encrypted.
    pub key: Spanned<String>,
}

/// Certificates of clients.
///
/// What the operator writes under `client_certificates:`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ClientCertificates")]
pub struct ClientCertificatesConfig {
    /// Whether a client must show one. Default: `required`.
    #[serde(default)]
    pub mode: Mode,
    /// The file of the authorities that sign them, in PEM. It is read again at every reload.
    pub ca: Spanned<String>,
    /// Files of lists of revoked certificates, in PEM, read again at every reload. If there is
    /// any, whoever signed a client's certificate, or one between it and `ca`, must have a list
    /// here. Default: `[]`.
    #[serde(default)]
    pub crl: Vec<Spanned<String>>,
    /// Fields by which origins are told who a client is. What clients send in them is removed,
    /// on all listeners. Default: `{}`.
    #[serde(default)]
    pub forward: ForwardConfig,
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ClientCertificatesMode")]
pub enum Mode {
    /// Without a good one there is no connection.
    #[default]
    Required,
    /// One that is shown must be good; a client may show none.
    Optional,
}

impl Mode {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optional => "optional",
        }
    }
}

/// Fields by which origins are told who a client is; those that are left out are not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ForwardedClient")]
pub struct ForwardConfig {
    /// The name in its certificate: `CN=alice,O=Example` (RFC 4514). Default: it is not
    /// sent.
    #[serde(default)]
    pub subject: Option<Spanned<Name>>,
    /// The other names in it: `DNS:a.test,URI:spiffe://a.test/b`. Default: they are not sent.
    #[serde(default)]
    pub sans: Option<Spanned<Name>>,
    /// SHA-256 of it, in 64 hexadecimal digits. Default: it is not sent.
    #[serde(default)]
    pub fingerprint: Option<Spanned<Name>>,
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
        let pairs = pairs.flat_map(|pair| [&pair.cert, &pair.key].into_iter().chain(&pair.ocsp));
        let clients = self.client_certificates.iter();
        let clients = clients.flat_map(|clients| [&clients.ca].into_iter().chain(&clients.crl));
        pairs.chain(clients).map(move |path| folder.join(&path.value))
    }

    /// What is in force, setting by setting; what was not written has its default.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![("tls.unknown_names", self.unknown_names.as_str().to_owned())];
        match &self.client_certificates {
            None => settings.push(("tls.client_certificates", "off".to_owned())),
            Some(clients) => {
                let mode = clients.mode.as_str().to_owned();
                settings.push(("tls.client_certificates.mode", mode));
            }
        }
        settings.extend(self.key_log.iter().map(|path| ("tls.key_log", path.value.clone())));
        settings
    }
}
