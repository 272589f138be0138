//! The certificate that every proxy shows: ECDSA on P-256, signed by itself.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::CertificateDer;

use crate::Result;

/// The name that it stands for.
pub(crate) const NAME: &str = "bench.test";

/// A certificate and its key, as files.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Both in one file, as `HAProxy` reads them.
    pub(crate) both: PathBuf,
    pub(crate) der: CertificateDer<'static>,
}

impl Certificate {
    /// Makes one in `folder`.
    pub(crate) fn make(folder: &Path) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let made = CertificateParams::new([NAME.to_owned()])?.self_signed(&key)?;
        let (cert, key) = (made.pem(), key.serialize_pem());
        let write = |name: &str, text: &str| -> Result<PathBuf> {
            let path = folder.join(name);
            fs::write(&path, text)?;
            Ok(path)
        };
        Ok(Self {
            cert: write("cert.pem", &cert)?,
            key: write("key.pem", &key)?,
            both: write("both.pem", &(cert + &key))?,
            der: made.der().clone(),
        })
    }
}
