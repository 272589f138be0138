//! A certificate with its key, as it is shown and as it is kept.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{PemObject, SectionKind},
    },
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

/// A certificate, those that signed it, and its key.
#[derive(Debug)]
pub struct Pair {
    /// The certificate itself, then those that signed it.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key that it names.
    pub key: PrivateKeyDer<'static>,
    /// From when on it is good.
    pub begins: SystemTime,
    /// When clients begin to refuse it.
    pub expires: SystemTime,
    /// Its names in lower case, sorted.
    names: Vec<String>,
}

/// Why a text holds no pair.
#[derive(Debug, thiserror::Error)]
pub(super) enum PairError {
    /// It is no PEM, or nothing of use.
    #[error("no certificate with its key in PEM")]
    NotPem,
    /// The certificate cannot be read.
    #[error("the certificate cannot be read")]
    NotACertificate,
    /// They do not belong together.
    #[error("{0}")]
    Mismatch(#[from] rustls::Error),
    /// It stands for other names.
    #[error("the certificate has other names: {0}")]
    OtherNames(String),
}

impl Pair {
    /// Reads a pair for these names, which must be whole and fit.
    pub(super) fn of_pem(text: &[u8], names: &[String]) -> Result<Self, PairError> {
        let (mut chain, mut key) = (Vec::new(), None);
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
            let (kind, der) = section.map_err(|_| PairError::NotPem)?;
            match kind {
                SectionKind::Certificate => chain.push(CertificateDer::from(der)),
                _ if key.is_none() => key = PrivateKeyDer::from_pem(kind, der),
                _ => {}
            }
        }
        let pair = Self::of(chain, key.ok_or(PairError::NotPem)?)?;
        let mut wanted = names.to_vec();
        wanted.sort_unstable();
        if pair.names == wanted {
            Ok(pair)
        } else {
            Err(PairError::OtherNames(pair.names.join(", ")))
        }
    }

    /// Makes one for these names that vouches for itself: something to be shown until there is a
    /// better one.
    pub(super) fn standing_in(names: &[String]) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let pair = Self::of(vec![certificate.der().clone()], PrivateKeyDer::from(key));
        pair.map_err(|_| rcgen::Error::CouldNotParseCertificate)
    }

    fn of(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, PairError> {
        let first = chain.first().ok_or(PairError::NotPem)?;
        let (_, parsed) =
            X509Certificate::from_der(first).map_err(|_| PairError::NotACertificate)?;
        let at = |seconds: i64| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        };
        let validity = parsed.validity();
        let extension = parsed.subject_alternative_name().ok().flatten();
        let listed = extension.iter().flat_map(|extension| &extension.value.general_names);
        let mut names: Vec<_> = listed
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                _ => None,
            })
            .collect();
        names.sort_unstable();
        let (begins, expires) =
            (at(validity.not_before.timestamp()), at(validity.not_after.timestamp()));
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &aws_lc_rs::default_provider())?;
        Ok(Self { chain, key, begins, expires, names })
    }
}
