//! What TLS toward origins is made with: whose signature on their certificates counts, and the
//! certificate that they are shown.
//!
//! Pingora makes the handshakes, with rustls; here its provider of cryptography is chosen, and
//! every file is read before Pingora sees what was in it, because Pingora panics over a bad one.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use rustls::{
    Error, InconsistentKeys, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::CertificateDer,
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::{
    diagnostic::{Problem, Problems},
    reason::Reason,
    tls::{
        config::OwnCertificateConfig,
        expiry::{SOON, at, day, days},
        pem::Pem,
    },
    yaml::Spanned,
};

/// A certificate that origins are shown, with its key, both in DER.
#[derive(Clone, PartialEq, Eq)]
pub struct Client {
    /// The certificate, then those that signed it.
    pub chain: Vec<Vec<u8>>,
    /// Its private key.
    pub key: Vec<u8>,
}

/// Makes aws-lc-rs what TLS is computed with wherever nothing else is named. Pingora would
/// otherwise name ring.
fn choose_provider() {
    // Whoever came first has chosen the same.
    let _ = CryptoProvider::install_default(aws_lc_rs::default_provider());
}

/// Whether the certificates that the system trusts can be used; if not, why.
///
/// They are read once: Pingora keeps what it read when the process began.
pub fn system_roots() -> Result<(), &'static str> {
    static ROOTS: OnceLock<Result<(), String>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        match pingora_rustls::load_platform_certs_incl_env_into_store(&mut roots) {
            Ok(()) if roots.is_empty() => Err("there are none".to_owned()),
            Ok(()) => Ok(()),
            Err(why) => Err(why.root_cause().to_string()),
        }
    });
    roots.as_ref().copied().map_err(String::as_str)
}

/// The file from which Pingora takes those whom it trusts: `None` is its own way to the system's.
/// It would panic if they cannot be used, and is given none then; whoever needs them was refused.
pub fn roots_for_pingora() -> Option<String> {
    choose_provider();
    system_roots().is_err().then(|| "/dev/null".to_owned())
}

/// The certificates in a file, whose signature is to count.
///
/// # Errors
/// If the file cannot be read, or a certificate in it is none that could sign others.
pub fn authorities(file: &Spanned<String>, folder: &Path) -> Result<Vec<Vec<u8>>, Problem> {
    let read = Pem::read(&folder.join(&file.value), file).and_then(Pem::into_certificates);
    let certificates = read.map_err(|problem| problem.at(file.span))?;
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        roots.add(certificate.clone()).map_err(|why| {
            let message = format!("certificate {} in `{file}` cannot be used: {why}", index + 1);
            let help = "copy it anew from where it was made, or take it out of the file";
            Problem::error(message).at(file.span).help(help)
        })?;
    }
    Ok(certificates.iter().map(|certificate| certificate.to_vec()).collect())
}

impl Client {
    /// Reads a certificate and its key; `now` decides whether it has expired.
    pub fn read(
        written: &OwnCertificateConfig,
        folder: &Path,
        now: SystemTime,
        problems: &mut Problems,
    ) -> Option<Self> {
        let OwnCertificateConfig { cert, key } = written;
        let mut told = |problem: Problem, span| problems.push(problem.at(span));
        let chain = Pem::read(&folder.join(&cert.value), cert)
            .and_then(Pem::into_certificates)
            .map_err(|problem| told(problem, cert.span));
        let private = Pem::read(&folder.join(&key.value), key)
            .and_then(Pem::into_key)
            .map_err(|problem| told(problem, key.span));
        let (chain, private) = (chain.ok()?, private.ok()?);
        match validity(&chain[0], cert, now) {
            Ok(None) => {}
            Ok(Some(problem)) => told(problem, cert.span),
            Err(problem) => {
                told(problem, cert.span);
                return None;
            }
        }
        let der = private.secret_der().to_vec();
        let signing = aws_lc_rs::default_provider().key_provider.load_private_key(private);
        let signing = signing.map_err(|why| {
            let message = format!("the private key in `{key}` cannot be used: {why}");
            let help = "use RSA with 2048 bits or more, or ECDSA on P-256, P-384 or P-521";
            told(Problem::error(message).help(help), key.span);
        });
        let pair = CertifiedKey::new(chain, signing.ok()?);
        match pair.keys_match() {
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                let message = format!(
                    "the private key in `{key}` does not belong to the first certificate in `{cert}`"
                );
                let help = format!(
                    "these two print the same for a pair: `openssl x509 -in {cert} -noout -pubkey`, \
                     `openssl pkey -in {key} -pubout`"
                );
                told(Problem::error(message).help(help), key.span);
                None
            }
            Err(why) => {
                let message = format!("the certificate in `{cert}` cannot be used: {why}");
                told(Problem::error(message).help("make another one"), cert.span);
                None
            }
            Ok(()) => {
                let chain = pair.cert.iter().map(|certificate| certificate.to_vec()).collect();
                Some(Self { chain, key: der })
            }
        }
    }
}

/// What origins will have against a certificate, or have already.
fn validity(
    der: &CertificateDer<'_>,
    file: &str,
    now: SystemTime,
) -> Result<Option<Problem>, Problem> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(|why| {
        Problem::error(format!("the first certificate in `{file}` cannot be read: {why}"))
            .help("copy it anew from where it was made")
    })?;
    let begins = at(parsed.validity().not_before.timestamp());
    let expires = at(parsed.validity().not_after.timestamp());
    let told = |message: String, help: &str| Ok(Some(Problem::warning(message).help(help)));
    if expires <= now {
        let message = format!("the client certificate in `{file}` expired on {}", day(expires));
        return told(message, "renew it: origins refuse it");
    }
    if now < begins {
        let message =
            format!("the client certificate in `{file}` is not valid before {}", day(begins));
        return told(message, "origins refuse it until then; check the clock");
    }
    if now + SOON <= expires {
        return Ok(None);
    }
    let left = days(now, expires);
    let s = if left == 1 { "" } else { "s" };
    let last = day(expires);
    let message = format!("the client certificate in `{file}` expires on {last}, in {left} day{s}");
    told(message, "renew it before: from then on, origins refuse it")
}

/// A fault in a handshake with an origin, told by what rustls says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its certificate is signed by nobody who is trusted, or damaged.
    BadCertificate,
    /// Its certificate has expired.
    Expired,
    /// Its certificate is for other names.
    WrongName,
    /// It refused the handshake, or the client certificate that it was shown or missed.
    Refused,
    /// It does not speak TLS.
    NotSpoken,
    /// The handshake was not over in time.
    Timeout,
    /// HTTP/2 was asked for, and it does not speak it.
    NoHttp2,
    /// Anything else.
    Other,
}

impl Fault {
    /// Reads what Pingora tells of a handshake, which is rustls's own words and no type.
    pub fn of(words: &str) -> Self {
        let says = |text: &str| words.contains(text);
        if says("invalid peer certificate") {
            return match () {
                () if says("certificate expired") || says("Expired") => Self::Expired,
                () if says("not valid for name") || says("NotValidForName") => Self::WrongName,
                () => Self::BadCertificate,
            };
        }
        match () {
            () if says("NoApplicationProtocol") => Self::NoHttp2,
            () if says("received fatal alert") => Self::Refused,
            () if says("corrupt message") => Self::NotSpoken,
            () => Self::Other,
        }
    }

    /// In one word, for the access log.
    pub fn as_str(self) -> &'static str {
        self.reason().as_str()
    }

    /// Why a request ended that had no more attempts.
    pub fn reason(self) -> Reason {
        match self {
            Self::BadCertificate => Reason::TlsBadCertificate,
            Self::Expired => Reason::TlsExpired,
            Self::WrongName => Reason::TlsWrongName,
            Self::Refused => Reason::TlsRefused,
            Self::NotSpoken => Reason::TlsNotSpoken,
            Self::Timeout => Reason::TlsTimeout,
            Self::NoHttp2 => Reason::NoHttp2,
            Self::Other => Reason::TlsError,
        }
    }

    /// In a few words, for the process log.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::BadCertificate => "its certificate is signed by nobody who is trusted",
            Self::Expired => "its certificate has expired",
            Self::WrongName => "its certificate is for other names",
            Self::Refused => "it refused the TLS handshake",
            Self::NotSpoken => "it does not speak TLS",
            Self::Timeout => "the TLS handshake took too long",
            Self::NoHttp2 => "it does not speak HTTP/2",
            Self::Other => "the TLS handshake failed",
        }
    }
}

/// The certificates of a list, as Pingora takes them.
pub type Authorities = Arc<pingora_core::protocols::tls::CaType>;

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, CertificateError, InvalidMessage, pki_types::ServerName};

    use super::*;

    /// Pingora hands on rustls's words alone; this notices when they change.
    #[test]
    fn the_words_of_rustls_are_understood() {
        let certificate = |why| Error::InvalidCertificate(why).to_string();
        let expected = ServerName::try_from("a.test").unwrap();
        let wrong = CertificateError::NotValidForNameContext {
            expected: expected.to_owned(),
            presented: vec!["b.test".to_owned()],
        };
        let (time, not_after) =
            (rustls::pki_types::UnixTime::now(), rustls::pki_types::UnixTime::now());
        let expired = CertificateError::ExpiredContext { time, not_after };
        let cases = [
            (certificate(CertificateError::UnknownIssuer), Fault::BadCertificate),
            (certificate(CertificateError::BadSignature), Fault::BadCertificate),
            (certificate(CertificateError::Expired), Fault::Expired),
            (certificate(expired), Fault::Expired),
            (certificate(CertificateError::NotValidForName), Fault::WrongName),
            (certificate(wrong), Fault::WrongName),
            (Error::AlertReceived(AlertDescription::HandshakeFailure).to_string(), Fault::Refused),
            (
                Error::AlertReceived(AlertDescription::NoApplicationProtocol).to_string(),
                Fault::NoHttp2,
            ),
            (Error::from(InvalidMessage::InvalidContentType).to_string(), Fault::NotSpoken),
            ("tls handshake eof".to_owned(), Fault::Other),
        ];
        for (words, fault) in cases {
            assert_eq!(Fault::of(&words), fault, "{words}");
        }
    }
}
