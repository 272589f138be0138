//! The certificates of a listener, and which of them a client is given.
//!
//! It is kept over a reload as long as nothing in its files changes.

use std::{collections::HashMap, path::Path, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use rustls::{
    Error,
    crypto::aws_lc_rs,
    server::{ClientHello, WebPkiClientVerifier},
};

use crate::{
    acme::{Acme, challenges::Challenges},
    diagnostic::{Problem, Problems, Span},
    tls::{
        certificate::{Certificate, Shared},
        clients::Clients,
        config::{Config, UnknownNames},
        expiry::Reminder,
        key_log::KeyLogFile,
        names,
        tickets::{Ticketer, Tickets},
    },
    yaml::Spanned,
};

/// The keyring of a listener that is in force, replaced whole when a certificate in it was
/// obtained anew.
#[derive(Debug)]
pub struct Current(ArcSwap<Keyring>);

impl Current {
    /// What clients are shown now.
    pub fn now(&self) -> Arc<Keyring> {
        self.0.load_full()
    }

    /// Shows the certificates that were obtained since. Connections that are open live on.
    ///
    /// # Errors
    /// If one of them cannot be used; then nothing changes.
    pub fn renew(&self) -> Result<(), Error> {
        if let Some(renewed) = self.0.load().renewed(SystemTime::now())? {
            self.0.store(Arc::new(renewed));
        }
        Ok(())
    }
}

/// The certificates of a listener; at least one.
#[derive(Clone, Debug)]
pub struct Keyring {
    certificates: Vec<Arc<Certificate>>,
    exact: Index,
    /// By what stands behind `*.`.
    below: Index,
    unknown_names: UnknownNames,
    clients: Option<Clients>,
    key_log: Option<Arc<KeyLogFile>>,
    /// What a CA finds that looks for one; `None` if nothing is obtained.
    challenges: Option<Arc<Challenges>>,
    /// What handshakes are made with, whatever the certificate.
    shared: Shared,
    read: SystemTime,
}

/// What keyrings are made of beside what is written.
#[derive(Clone, Copy)]
pub struct Making<'a> {
    /// The folder of the main file.
    pub folder: &'a Path,
    /// What is obtained; `None` if nothing is.
    pub acme: Option<&'a Acme>,
    /// What sessions are sealed with.
    pub tickets: &'a Arc<Tickets>,
    /// The protocols that clients are offered (ALPN); none where bytes pass as they come.
    pub offers: &'a [&'static [u8]],
}

/// Certificates by name, in order of preference.
type Index = HashMap<String, Vec<usize>>;

impl Keyring {
    /// Reads the certificates of a listener. If nothing in them differs from its predecessor's,
    /// that one is kept.
    pub fn read(
        config: &Spanned<Config>,
        making: &Making<'_>,
        predecessor: Option<&Arc<Current>>,
        problems: &mut Problems,
    ) -> Option<Arc<Current>> {
        let Making { folder, acme, tickets, offers } = *making;
        let certificates = &config.certificates;
        if certificates.value.is_empty() && config.acme.is_empty() {
            let problem = Problem::error("this list of certificates is empty: TLS needs one");
            let help = "write `certificates: [{ cert: example.pem, key: example.key }]`";
            let is_written = certificates.span != Span::default();
            let span = if is_written { certificates.span } else { config.span };
            problems.push(problem.at(span).help(help));
            return None;
        }
        let (provider, now) = (Arc::new(aws_lc_rs::default_provider()), SystemTime::now());
        let clients = config.client_certificates.as_ref();
        let clients =
            clients.map(|clients| Clients::read(clients, folder, &provider, now, problems));
        let key_log = key_log(config, folder, problems);
        let no_rules = || (WebPkiClientVerifier::no_client_auth(), [0; 32]);
        let (verifier, rules) = match &clients {
            Some(Some(clients)) => (clients.verifier.clone(), clients.rules),
            _ => no_rules(),
        };
        let tickets = Arc::new(Ticketer::new(tickets.clone(), rules));
        let shared = Shared {
            provider,
            tickets,
            verifier,
            offers: offers.into(),
            key_log: key_log.clone().ok().flatten(),
        };
        let read = certificates.value.iter();
        let read: Vec<_> = read
            .map(|pair| Certificate::read(pair, folder, &shared, now, problems).map(Arc::new))
            .collect();
        let obtained = obtained(config, acme, &shared, now, problems);
        let certificates = read.into_iter().chain(obtained).collect::<Option<Vec<_>>>()?;
        let (exact, below) = indexes(&certificates, config, problems);
        let keyring = Self {
            certificates,
            exact,
            below,
            unknown_names: config.unknown_names,
            // What could not be read is never put in force without it.
            clients: clients.map_or(Some(None), |read| read.map(Some))?,
            key_log: key_log.ok()?,
            challenges: acme.map(|acme| acme.challenges().clone()),
            shared,
            read: now,
        };
        let kept = predecessor.filter(|old| old.now().is_same(&keyring));
        Some(kept.cloned().unwrap_or_else(|| Arc::new(Current(ArcSwap::from_pointee(keyring)))))
    }

    /// The certificates, in the order of the file.
    pub fn certificates(&self) -> &[Arc<Certificate>] {
        &self.certificates
    }

    /// What is asked of clients; `None` if no certificate is.
    pub fn clients(&self) -> Option<&Clients> {
        self.clients.as_ref()
    }

    /// What is to be told of it, day by day.
    pub fn reminders(&self, now: SystemTime) -> Vec<Reminder> {
        let certificates = self.certificates.iter().flat_map(|one| one.reminders(now));
        let clients = self.clients.iter().flat_map(|clients| clients.reminders(now));
        let key_log = self.key_log.iter().map(|file| {
            let path = file.path().display();
            let message = format!("the secrets of connections are written to {path} still");
            Reminder::new(format!("key log {path}"), message, self.read, self.read)
        });
        certificates.chain(clients).chain(key_log).collect()
    }

    /// Whether all certificates and what is done with them are the same.
    pub fn is_same(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.certificates, &other.certificates);
        self.unknown_names == other.unknown_names
            && self.shared.offers == other.shared.offers
            && self.challenges.is_some() == other.challenges.is_some()
            && ours.len() == theirs.len()
            && ours.iter().zip(theirs).all(|(one, other)| one.is_same(other))
            && self.key_log.as_ref().map(|file| file.path())
                == other.key_log.as_ref().map(|file| file.path())
            && match (&self.clients, &other.clients) {
                (Some(ours), Some(theirs)) => ours.is_same(theirs),
                (ours, theirs) => ours.is_none() && theirs.is_none(),
            }
    }

    /// The same with the certificates that were obtained since; `None` if none was. They have the
    /// names and the kind of key of those before them, so the order is the same.
    fn renewed(&self, now: SystemTime) -> Result<Option<Self>, Error> {
        if !self.certificates.iter().any(|certificate| certificate.is_outdated()) {
            return Ok(None);
        }
        let mut renewed = self.clone();
        for certificate in &mut renewed.certificates {
            if let Some(managed) = certificate.acme.clone().filter(|_| certificate.is_outdated()) {
                *certificate = Arc::new(Certificate::obtained(&managed, &self.shared, now)?);
            }
        }
        Ok(Some(renewed))
    }

    /// What a CA finds that looks for a certificate.
    pub(super) fn challenges(&self) -> Option<&Challenges> {
        self.challenges.as_deref()
    }

    /// The certificate for a name in lower case, for a client that can verify any.
    pub fn find(&self, name: Option<&str>) -> Option<&Arc<Certificate>> {
        self.choose(name, |_| true)
    }

    /// The certificate that a client is given; `None` refuses it.
    pub(super) fn answer(
        &self,
        name: Option<&str>,
        hello: &ClientHello<'_>,
    ) -> Option<&Arc<Certificate>> {
        self.choose(name, |certificate| certificate.suits(hello))
    }

    /// The first certificate for a name that suits, else the first for it, of which the client
    /// will say what it has against it.
    fn choose(
        &self,
        name: Option<&str>,
        suits: impl Fn(&Certificate) -> bool,
    ) -> Option<&Arc<Certificate>> {
        let exact = name.and_then(|name| self.exact.get(name));
        let below = name.and_then(|name| self.below.get(names::parent(name)?));
        let known = exact.into_iter().chain(below).flatten();
        let known = || known.clone().map(|index| &self.certificates[*index]);
        let all = self.certificates.iter();
        match (known().next(), self.unknown_names) {
            (Some(first), _) => known().find(|one| suits(one)).or(Some(first)),
            (None, UnknownNames::First) => {
                all.clone().find(|one| suits(one)).or(all.clone().next())
            }
            (None, UnknownNames::Refuse) => None,
        }
    }
}

/// The certificates that are obtained, as they are now; what is `None` was told.
fn obtained(
    config: &Config,
    acme: Option<&Acme>,
    shared: &Shared,
    now: SystemTime,
    problems: &mut Problems,
) -> Vec<Option<Arc<Certificate>>> {
    let all = config.acme.iter().map(|one| {
        let managed = acme?.find(&one.value)?; // what else is missing is told
        let unusable = |why| {
            let message = format!("a certificate in the storage cannot be used: {why}");
            problems.push(Problem::error(message).at(one.span).help("remove its file"));
        };
        Certificate::obtained(managed, shared, now).map(Arc::new).map_err(unusable).ok()
    });
    all.collect()
}

/// Which certificates have a name, and which one below a name.
fn indexes(
    certificates: &[Arc<Certificate>],
    config: &Config,
    problems: &mut Problems,
) -> (Index, Index) {
    let (mut exact, mut below) = (Index::new(), Index::new());
    for (index, certificate) in certificates.iter().enumerate() {
        let mut taken = Vec::new();
        let mut enter = |names: &mut Index, name: &String, shown: String| {
            let known = names.entry(name.clone()).or_default();
            let same = |other: &&usize| certificates[**other].kind == certificate.kind;
            match known.iter().find(same) {
                Some(_) => taken.push(shown),
                None => known.push(index),
            }
        };
        for name in certificate.names.exact() {
            enter(&mut exact, name, name.clone());
        }
        for name in certificate.names.below() {
            enter(&mut below, name, format!("*.{name}"));
        }
        if let Some(problem) = overlap(certificate, &taken) {
            problems.push(problem.at(config.place(index).unwrap_or_default()));
        }
    }
    let order = |index: &usize| certificates[*index].kind;
    let known = exact.values_mut().chain(below.values_mut());
    known.for_each(|known| known.sort_by_key(order));
    (exact, below)
}

/// The key log, if there is to be one.
fn key_log(
    config: &Config,
    folder: &Path,
    problems: &mut Problems,
) -> Result<Option<Arc<KeyLogFile>>, ()> {
    let Some(path) = &config.key_log else { return Ok(None) };
    let message = "the secrets of all connections of this listener are written to a file";
    let help = "who reads it can decrypt them: remove this key when the mistake is found";
    problems.push(Problem::warning(message).at(path.span).help(help));
    let file = KeyLogFile::new(path, folder);
    let file = file.map_err(|problem| problems.push(problem.at(path.span)));
    file.map(|file| Some(Arc::new(file)))
}

/// What is wrong with a certificate some of whose names other certificates have, with keys of
/// the same kind.
fn overlap(certificate: &Certificate, taken: &[String]) -> Option<Problem> {
    let first = taken.first()?;
    let kind = certificate.kind.as_str();
    let is_never_given = taken.len() == certificate.names.iter().count();
    let more = match taken.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    Some(if is_never_given {
        Problem::error(format!(
            "this certificate is never given to a client: another with {kind} comes before it for \
             `{first}`{more}"
        ))
        .help("remove one of them")
    } else {
        Problem::warning(format!(
            "this certificate is not given for `{first}`{more}: another with {kind} comes before it"
        ))
        .help("the first in the list is given; remove the name from one of them")
    })
}
