//! Who vouches for a service that is asked.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    client::WantsClientCert,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::diagnostic::{Problem, Span};

/// Who vouches for a service.
#[derive(Clone, Debug)]
pub enum Roots {
    /// Those that the system trusts, read when they are needed.
    System,
    /// Those of a file.
    Given(Vec<CertificateDer<'static>>),
}

impl Roots {
    /// Reads a file of certificates in PEM; `written` is how the operator wrote its path, and
    /// `whose` what they vouch for.
    pub fn of_file(path: &Path, written: &str, whose: &str, place: Span) -> Result<Self, Problem> {
        let told = |message: String, help: &str| Problem::error(message).at(place).help(help);
        let text = fs::read(path).map_err(|why| {
            let help = "check the path, and that the user who runs Crestline may read the file";
            told(format!("cannot read `{written}`: {why}"), help)
        })?;
        Self::of_text(&text).ok_or_else(|| {
            let help = format!("name the file of the certificate that signed that of {whose}");
            told(format!("`{written}` holds no certificates of a CA in PEM"), &help)
        })
    }

    /// Reads certificates in PEM; `None` if there are none, or one that can vouch for nobody.
    pub fn of_text(text: &[u8]) -> Option<Self> {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        let fit = |der: &CertificateDer<'static>| RootCertStore::empty().add(der.clone()).is_ok();
        let all = all.ok().filter(|all| !all.is_empty() && all.iter().all(fit))?;
        Some(Self::Given(all))
    }

    /// How a handshake is made with a service that one of them vouches for.
    pub fn verifier(&self) -> Result<rustls::ConfigBuilder<ClientConfig, WantsClientCert>, String> {
        let mut store = RootCertStore::empty();
        let certificates = match self {
            Self::Given(certificates) => certificates.clone(),
            Self::System => rustls_native_certs::load_native_certs().certs,
        };
        store.add_parsable_certificates(certificates);
        if store.is_empty() {
            return Err("the system trusts no CA; install the package ca-certificates".to_owned());
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder =
            builder.with_safe_default_protocol_versions().map_err(|why| why.to_string())?;
        Ok(builder.with_root_certificates(store))
    }
}
