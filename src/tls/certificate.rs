//! A certificate that can be shown: its chain, its key, its names, and how long it is good.

use std::{fmt, path::Path, sync::Arc, time::SystemTime};

use rustls::{
    CipherSuite, Error, InconsistentKeys, ServerConfig, SignatureAlgorithm, SupportedCipherSuite,
    crypto::CryptoProvider,
    pki_types::CertificateDer,
    server::{ClientHello, NoServerSessionStorage, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::{
    acme::Managed,
    diagnostic::{Problem, Problems},
    tls::{
        config::CertificateConfig,
        expiry::{self, Reminder, SOON, day, days},
        key_log::KeyLogFile,
        names::Names,
        pem::Pem,
        staple::{Shown, Staple},
        tickets::Ticketer,
    },
};

/// What every client may speak over TLS, the better one first.
pub const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A certificate that a client may be given.
pub struct Certificate {
    /// Whom it stands for; at least one name.
    pub names: Names,
    /// When clients begin to refuse it.
    pub expires: SystemTime,
    /// The kind of its key.
    pub kind: Kind,
    /// Who obtains it by ACME; `None` if it is from files.
    pub acme: Option<Arc<Managed>>,
    /// What the handshake is made with, the certificate included.
    pub(super) config: Arc<ServerConfig>,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<CertifiedKey>,
    /// Those that a client must offer one of.
    suites: Vec<CipherSuite>,
    staple: Option<Staple>,
    read: SystemTime,
}

/// The kind of a key, in order of preference: RSA costs a server many times the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// On any curve.
    Ecdsa,
    /// Few clients know it.
    Ed25519,
    /// Known to all.
    Rsa,
}

impl Kind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ecdsa => "ECDSA",
            Self::Ed25519 => "Ed25519",
            Self::Rsa => "RSA",
        }
    }
}

/// What the certificates of a listener share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) tickets: Arc<Ticketer>,
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    pub(super) key_log: Option<Arc<KeyLogFile>>,
    /// The protocols that clients are offered (ALPN).
    pub(super) offers: Arc<[&'static [u8]]>,
}

impl Certificate {
    /// Reads a certificate and its key; `now` decides whether it has expired.
    pub(super) fn read(
        written: &CertificateConfig,
        folder: &Path,
        shared: &Shared,
        now: SystemTime,
        problems: &mut Problems,
    ) -> Option<Self> {
        let CertificateConfig { cert, key, .. } = written;
        let mut told = |problem: Problem, span| problems.push(problem.at(span));
        let chain = Pem::read(&folder.join(&cert.value), cert)
            .and_then(Pem::into_certificates)
            .map_err(|problem| told(problem, cert.span));
        let private = Pem::read(&folder.join(&key.value), key)
            .and_then(Pem::into_key)
            .map_err(|problem| told(problem, key.span));
        let chain = chain.ok()?;
        let leaf = leaf(&chain[0], cert).map_err(|problem| told(problem, cert.span)).ok()?;
        if let Some(problem) = leaf.problem(cert, now) {
            told(problem, cert.span);
        }
        let load = |private| {
            shared.provider.key_provider.load_private_key(private).map_err(|why| {
                Problem::error(format!("the private key in `{key}` cannot be used: {why}"))
                    .help("use RSA with 2048 bits or more, or ECDSA on P-256, P-384 or P-521")
            })
        };
        let signing = load(private.ok()?).map_err(|problem| told(problem, key.span)).ok()?;
        let certified = CertifiedKey::new(chain.clone(), signing);
        if let Err(why) = certified.keys_match() {
            let problem = mismatch(written, &certified, &why);
            told(problem, key.span);
            return None;
        }
        let staple = written.ocsp.as_ref().map(|ocsp| {
            let read = Staple::read(ocsp, folder, &leaf.serial, now)
                .map_err(|problem| told(problem, ocsp.span))?;
            if let Some(warning) = read.warning {
                told(warning, ocsp.span);
            }
            Ok::<_, ()>(read.staple)
        });
        let staple = staple.transpose().ok()?.flatten();
        let made = Self::made(leaf, certified, staple, shared, now).map_err(|why| {
            let problem =
                Problem::error(format!("the certificate in `{cert}` cannot be used: {why}"));
            told(problem.help("make another one"), cert.span);
        });
        made.ok()
    }

    /// The certificate that is obtained by ACME, as it is now.
    pub(super) fn obtained(
        managed: &Arc<Managed>,
        shared: &Shared,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let pair = managed.pair();
        let signing = shared.provider.key_provider.load_private_key(pair.key.clone_key())?;
        let certified = CertifiedKey::new(pair.chain.clone(), signing);
        let leaf = leaf(&pair.chain[0], "the storage")
            .map_err(|problem| Error::General(problem.message))?;
        let made = Self::made(leaf, certified, None, shared, now)?;
        Ok(Self { acme: Some(managed.clone()), ..made })
    }

    fn made(
        leaf: Leaf,
        certified: CertifiedKey,
        staple: Option<Staple>,
        shared: &Shared,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let Leaf { names, expires, .. } = leaf;
        let kind = match certified.key.algorithm() {
            SignatureAlgorithm::RSA => Kind::Rsa,
            SignatureAlgorithm::ECDSA => Kind::Ecdsa,
            _ => Kind::Ed25519,
        };
        let suites = suites(&shared.provider, &certified);
        let (chain, key) = (certified.cert.clone(), Arc::new(certified));
        let shown = Shown::new(key.clone(), staple.as_ref());
        let config = Arc::new(server_config(shared, shown)?);
        Ok(Self { names, expires, kind, acme: None, config, chain, key, suites, staple, read: now })
    }

    /// Whether another one was obtained in its place.
    pub(super) fn is_outdated(&self) -> bool {
        self.acme.as_ref().is_some_and(|managed| managed.pair().chain != self.chain)
    }

    /// Whether a client can verify what this certificate's key signs.
    pub(super) fn suits(&self, hello: &ClientHello<'_>) -> bool {
        self.key.key.choose_scheme(hello.signature_schemes()).is_some()
            && self.suites.iter().any(|suite| hello.cipher_suites().contains(suite))
    }

    /// Whether both are the same, whatever their files are called. The key is, too: each has
    /// the one that its certificate names. Who obtains it is, too: else it would not be renewed.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let obtained_by = |one: &Self| one.acme.as_ref().map(Arc::as_ptr);
        self.chain == other.chain
            && self.staple == other.staple
            && obtained_by(self) == obtained_by(other)
    }

    /// The day on which it expires, as people write it.
    pub fn last_day(&self) -> String {
        day(self.expires)
    }

    /// The last day of the OCSP response that is shown with it; `None` if there is none.
    pub fn staple_until(&self, now: SystemTime) -> Option<String> {
        let staple = self.staple.as_ref()?;
        match staple.until {
            Some(until) => (now < until).then(|| day(until)),
            None => Some("for ever".to_owned()),
        }
    }

    /// What is to be told of it, day by day. That one ends which is obtained by ACME is told when
    /// the last order failed, or when it is too late: else it is renewed in time.
    pub(super) fn reminders(&self, now: SystemTime) -> impl Iterator<Item = Reminder> {
        let Self { names, expires, read, .. } = self;
        let soon = expires.checked_sub(SOON).unwrap_or(SystemTime::UNIX_EPOCH);
        let is_cared_for = self
            .acme
            .as_ref()
            .is_some_and(|managed| now < *expires && managed.standing(now).error.is_none());
        let told = ending(names, *expires, now).filter(|_| !is_cared_for).map(|message| {
            let about = format!("certificate for {} until {expires:?}", names.all());
            Reminder::new(about, message, soon, *read)
        });
        let staple = self.staple.as_ref().and_then(|staple| staple.until);
        let staple = staple.filter(|until| *until <= now).map(|until| {
            let message = format!(
                "the OCSP response for {names} expired on {}: it is not shown any more",
                day(until)
            );
            Reminder::new(format!("staple for {}", names.all()), message, until, *read)
        });
        told.into_iter().chain(staple)
    }

    /// The days that it is good for still, begun ones not counted; negative once it expired.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        days(now, self.expires)
    }
}

/// What a client is shown first: the certificate itself, as opposed to who signed it.
struct Leaf {
    names: Names,
    begins: SystemTime,
    expires: SystemTime,
    common_name: Option<String>,
    serial: Vec<u8>,
}

fn leaf(der: &[u8], file: &str) -> Result<Leaf, Problem> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(|why| {
        Problem::error(format!("the first certificate in `{file}` cannot be read: {why}"))
            .help("copy it anew from where it was made")
    })?;
    let validity = parsed.validity();
    let mut common_names = parsed.subject().iter_common_name();
    Ok(Leaf {
        names: Names::of(&parsed),
        begins: expiry::at(validity.not_before.timestamp()),
        expires: expiry::at(validity.not_after.timestamp()),
        common_name: common_names.next().and_then(|name| name.as_str().ok()).map(str::to_owned),
        serial: parsed.raw_serial().to_vec(),
    })
}

impl Leaf {
    /// What clients would have against it.
    fn problem(&self, file: &str, now: SystemTime) -> Option<Problem> {
        if self.names.is_empty() {
            let common_name = match &self.common_name {
                Some(name) => format!("; its common name `{name}` does not count"),
                None => String::new(),
            };
            let message = format!("the certificate in `{file}` has no name that clients heed");
            let help = format!("issue it with its hosts as subjectAltName{common_name}");
            return Some(Problem::error(message).help(help));
        }
        let told = |message: String| Problem::warning(message).help("renew it: clients refuse it");
        let names = &self.names;
        if now < self.begins {
            let message =
                format!("the certificate for {names} is not valid before {}", day(self.begins));
            return Some(told(message).help("clients refuse it until then; check the clock"));
        }
        let help = "renew it before: from then on, clients refuse it";
        ending(names, self.expires, now).map(|message| {
            let problem = told(message);
            if now < self.expires { problem.help(help) } else { problem }
        })
    }
}

/// What is told of a certificate that expires soon, or did.
fn ending(names: &Names, expires: SystemTime, now: SystemTime) -> Option<String> {
    if expires <= now {
        return Some(format!("the certificate for {names} expired on {}", day(expires)));
    }
    let left = days(now, expires);
    let s = if left == 1 { "" } else { "s" };
    let soon =
        || format!("the certificate for {names} expires on {}, in {left} day{s}", day(expires));
    (expires < now + SOON).then(soon)
}

/// Why a key and a certificate do not fit.
fn mismatch(written: &CertificateConfig, pair: &CertifiedKey, why: &Error) -> Problem {
    let CertificateConfig { cert, key, .. } = written;
    if *why != Error::InconsistentKeys(InconsistentKeys::KeyMismatch) {
        let problem = Problem::error(format!("the certificate in `{cert}` cannot be used: {why}"));
        return problem.help("make another one, of X.509 version 3");
    }
    let fits = |der: &CertificateDer<'static>| {
        CertifiedKey::new(vec![der.clone()], pair.key.clone()).keys_match().is_ok()
    };
    let problem = Problem::error(format!(
        "the private key in `{key}` does not belong to the first certificate in `{cert}`"
    ));
    match pair.cert.iter().position(fits) {
        Some(index) => problem.help(format!(
            "it belongs to certificate {} of that file: put that one first, then those that signed it",
            index + 1
        )),
        None => problem.help(format!(
            "these two print the same for a pair: `openssl x509 -in {cert} -noout -pubkey`, \
             `openssl pkey -in {key} -pubout`"
        )),
    }
}

/// The cipher suites that a client may offer for this key. Those of TLS 1.3 go with any.
fn suites(provider: &CryptoProvider, pair: &CertifiedKey) -> Vec<CipherSuite> {
    let goes = |suite: &&SupportedCipherSuite| match suite {
        SupportedCipherSuite::Tls13(_) => true,
        SupportedCipherSuite::Tls12(suite) => pair.key.choose_scheme(suite.sign).is_some(),
    };
    provider.cipher_suites.iter().filter(goes).map(SupportedCipherSuite::suite).collect()
}

/// How a handshake is made. As rustls has it by default: two tickets of TLS 1.3, since clients use
/// each once and may open two connections, and no early data, which others could send again.
fn server_config(shared: &Shared, shown: Shown) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(shared.provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(shared.verifier.clone())
        .with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = shared.offers.iter().map(|name| name.to_vec()).collect();
    config.ticketer = shared.tickets.clone();
    // Every client of today takes tickets; sessions in memory would be a lock for all threads.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if let Some(key_log) = &shared.key_log {
        config.key_log = key_log.clone();
    }
    Ok(config)
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { names, kind, .. } = self;
        write!(f, "Certificate({} for {names})", kind.as_str())
    }
}
