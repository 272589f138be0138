//! TLS on the admin listener as the operator writes it.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    tls::config::{
        CertificateConfig, ClientCertificatesConfig, Config, ForwardConfig, Mode, UnknownNames,
    },
    yaml::Spanned,
};

/// What programs are shown that ask the admin listener, and what they may show.
///
/// What the operator writes under `admin`'s `tls:`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AdminTls")]
pub struct AdminTls {
    /// The file of the certificate in PEM, seen from the folder of the main file; those that
    /// signed it follow in the same file. It is read again at every reload.
    pub cert: Spanned<String>,
    /// The file of its private key in PEM, not encrypted.
    pub key: Spanned<String>,
    /// Clients with a certificate of these authorities may ask and change without the `token`;
    /// one that shows another is refused. Default: none is asked for.
    #[serde(default)]
    pub client_certificates: Option<AdminClients>,
}

/// Whose certificates the admin listener takes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AdminClients")]
pub struct AdminClients {
    /// The file of the authorities that sign them, in PEM. It is read again at every reload.
    pub ca: Spanned<String>,
    /// Files of lists of revoked certificates, in PEM, read again at every reload. If there is
    /// any, whoever signed a client's certificate, or one between it and `ca`, must have a list
    /// here. Default: `[]`.
    #[serde(default)]
    pub crl: Vec<Spanned<String>>,
}

impl AdminTls {
    /// The same as of a listener whose clients need not show a certificate: probes have none.
    pub fn listener(&self) -> Config {
        let Self { cert, key, client_certificates } = self.clone();
        let pair = CertificateConfig { cert, key, ocsp: None };
        Config {
            certificates: Spanned::new(vec![pair]),
            acme: Vec::new(),
            unknown_names: UnknownNames::First,
            client_certificates: client_certificates.map(|AdminClients { ca, crl }| {
                let (mode, forward) = (Mode::Optional, ForwardConfig::default());
                ClientCertificatesConfig { mode, ca, crl, forward }
            }),
            key_log: None,
        }
    }

    /// The files that are read, seen from the folder of the main file.
    pub fn files(&self, folder: &Path) -> Vec<PathBuf> {
        self.listener().files(folder).collect()
    }
}
