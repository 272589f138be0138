//! Files in PEM, and what is wrong with them.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use memchr::memmem;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
    pem::{PemObject, SectionKind},
};

use crate::diagnostic::Problem;

/// The largest file that is read: a chain takes a few thousand bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What an operator's file holds.
pub(super) struct Pem<'a> {
    /// The path as it was written.
    name: &'a str,
    certificates: Vec<CertificateDer<'static>>,
    revocations: Vec<CertificateRevocationListDer<'static>>,
    key: Option<PrivateKeyDer<'static>>,
    is_encrypted: bool,
    is_der: bool,
}

impl<'a> Pem<'a> {
    /// Reads the file at a path; `name` is what messages call it.
    pub(super) fn read(path: &Path, name: &'a str) -> Result<Self, Problem> {
        let bytes = bytes(path).map_err(|why| unreadable(name, &why))?;
        let finds = |word: &str| memmem::find(&bytes, word.as_bytes()).is_some();
        let mut pem = Self {
            name,
            certificates: Vec::new(),
            revocations: Vec::new(),
            key: None,
            is_encrypted: finds("ENCRYPTED PRIVATE KEY-----") || finds("Proc-Type: 4,ENCRYPTED"),
            // A sequence whose length takes two bytes: how all certificates and keys begin.
            is_der: bytes.starts_with(&[0x30, 0x82]),
        };
        if pem.is_encrypted {
            return Ok(pem); // its older form is no PEM that could be read
        }
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes) {
            let (kind, der) = section.map_err(|why| {
                Problem::error(format!("`{name}` is damaged: {why}"))
                    .help("copy it anew from where it was made")
            })?;
            match kind {
                SectionKind::Certificate => pem.certificates.push(der.into()),
                SectionKind::Crl => pem.revocations.push(der.into()),
                _ if pem.key.is_none() => pem.key = PrivateKeyDer::from_pem(kind, der),
                _ => {}
            }
        }
        Ok(pem)
    }

    /// The certificates, in order; at least one.
    pub(super) fn into_certificates(self) -> Result<Vec<CertificateDer<'static>>, Problem> {
        let name = self.name;
        if !self.certificates.is_empty() {
            return Ok(self.certificates);
        }
        Err(if self.key.is_some() || self.is_encrypted {
            Problem::error(format!("`{name}` holds a private key, and no certificate"))
                .help("name the file of the certificate under `cert`, that of its key under `key`")
        } else {
            let help = if self.is_der {
                format!("it looks like DER: convert it with `openssl x509 -inform der -in {name}`")
            } else {
                "one begins with `-----BEGIN CERTIFICATE-----`".to_owned()
            };
            Problem::error(format!("`{name}` holds no certificate in PEM")).help(help)
        })
    }

    /// Certificates of authorities; at least one.
    pub(super) fn into_authorities(self) -> Result<Vec<CertificateDer<'static>>, Problem> {
        let (name, is_der) = (self.name, self.is_der);
        if !self.certificates.is_empty() {
            return Ok(self.certificates);
        }
        let help = if is_der {
            format!("it looks like DER: convert it with `openssl x509 -inform der -in {name}`")
        } else {
            "put the certificates there of those who sign your clients' certificates; one begins \
             with `-----BEGIN CERTIFICATE-----`"
                .to_owned()
        };
        Err(Problem::error(format!("`{name}` holds no certificate in PEM")).help(help))
    }

    /// Lists of revoked certificates; at least one.
    pub(super) fn into_revocations(
        self,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, Problem> {
        let (name, is_der) = (self.name, self.is_der);
        if !self.revocations.is_empty() {
            return Ok(self.revocations);
        }
        let help = if is_der {
            format!("it looks like DER: convert it with `openssl crl -inform der -in {name}`")
        } else {
            "one begins with `-----BEGIN X509 CRL-----`".to_owned()
        };
        let message = format!("`{name}` holds no list of revoked certificates in PEM");
        Err(Problem::error(message).help(help))
    }

    /// The private key.
    pub(super) fn into_key(self) -> Result<PrivateKeyDer<'static>, Problem> {
        let name = self.name;
        if let Some(key) = self.key {
            return Ok(key);
        }
        Err(if self.is_encrypted {
            Problem::error(format!("the private key in `{name}` is encrypted")).help(format!(
                "nobody is there to type a passphrase: decrypt it with `openssl pkey -in {name}`, \
                 into a file that only Crestline's user may read"
            ))
        } else if !self.certificates.is_empty() {
            Problem::error(format!("`{name}` holds a certificate, and no private key"))
                .help("name the file of the certificate under `cert`, that of its key under `key`")
        } else {
            let help = if self.is_der {
                format!("it looks like DER: convert it with `openssl pkey -inform der -in {name}`")
            } else {
                "one begins with `-----BEGIN PRIVATE KEY-----`".to_owned()
            };
            Problem::error(format!("`{name}` holds no private key in PEM")).help(help)
        })
    }
}

/// What is told of a file that cannot be read.
pub(super) fn unreadable(name: &str, why: &io::Error) -> Problem {
    Problem::error(format!("cannot read `{name}`: {why}"))
        .help("check the path, and that the user who runs Crestline may read the file")
}

/// The bytes of a file.
pub(super) fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if FILE_BYTES_MAX < bytes.len() as u64 {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}
