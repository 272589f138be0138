//! The certificates of a listener, and which of them a client is given.
//!
//! INVARIANT: session tickets are as old as the keyring. It is kept as long as nothing in it
//! changes, and a session that was begun with another certificate is never resumed.

use std::{collections::HashMap, path::Path, sync::Arc, time::SystemTime};

use rustls::{
    crypto::aws_lc_rs::{self, Ticketer},
    server::{ClientHello, ServerSessionMemoryCache},
};

use crate::{
    diagnostic::{Problem, Problems},
    tls::{
        certificate::{Certificate, Shared},
        config::{Config, UnknownNames},
        names,
    },
};

/// Sessions that are kept for clients of TLS 1.2 without tickets.
const SESSIONS_MAX: usize = 1024;

/// The certificates of a listener; at least one.
#[derive(Debug)]
pub struct Keyring {
    certificates: Vec<Arc<Certificate>>,
    exact: Index,
    /// By what stands behind `*.`.
    below: Index,
    unknown_names: UnknownNames,
}

/// Certificates by name, in order of preference.
type Index = HashMap<String, Vec<usize>>;

impl Keyring {
    /// Reads the certificates of a listener. If nothing in them differs from its predecessor's,
    /// that one is kept.
    pub fn read(
        config: &Config,
        folder: &Path,
        predecessor: Option<&Arc<Self>>,
        problems: &mut Problems,
    ) -> Option<Arc<Self>> {
        let certificates = &config.certificates;
        if certificates.value.is_empty() {
            let problem = Problem::error("this list of certificates is empty: TLS needs one");
            let help = "write `certificates: [{ cert: example.pem, key: example.key }]`";
            problems.push(problem.at(certificates.span).help(help));
            return None;
        }
        let shared = Shared {
            provider: Arc::new(aws_lc_rs::default_provider()),
            tickets: Ticketer::new()
                .map_err(|why| {
                    let problem = Problem::error(format!("TLS needs keys for its tickets: {why}"));
                    problems.push(problem.at(certificates.span));
                })
                .ok()?,
            sessions: ServerSessionMemoryCache::new(SESSIONS_MAX),
        };
        let now = SystemTime::now();
        let read = certificates.value.iter();
        let read: Vec<_> = read
            .map(|pair| Certificate::read(pair, folder, &shared, now, problems).map(Arc::new))
            .collect();
        let certificates = read.into_iter().collect::<Option<Vec<_>>>()?;
        let keyring = Self::new(certificates, config, problems);
        let kept = predecessor.filter(|old| old.is_same(&keyring));
        Some(kept.cloned().unwrap_or_else(|| Arc::new(keyring)))
    }

    fn new(certificates: Vec<Arc<Certificate>>, config: &Config, problems: &mut Problems) -> Self {
        let unknown_names = config.unknown_names;
        let mut keyring =
            Self { exact: Index::new(), below: Index::new(), certificates, unknown_names };
        for (index, certificate) in keyring.certificates.iter().enumerate() {
            let mut taken = Vec::new();
            let mut enter = |names: &mut Index, name: &String, shown: String| {
                let known = names.entry(name.clone()).or_default();
                let same = |other: &&usize| keyring.certificates[**other].kind == certificate.kind;
                match known.iter().find(same) {
                    Some(_) => taken.push(shown),
                    None => known.push(index),
                }
            };
            for name in certificate.names.exact() {
                enter(&mut keyring.exact, name, name.clone());
            }
            for name in certificate.names.below() {
                enter(&mut keyring.below, name, format!("*.{name}"));
            }
            if let Some(problem) = overlap(certificate, &taken) {
                problems.push(problem.at(config.certificates.value[index].cert.span));
            }
        }
        let order = |index: &usize| keyring.certificates[*index].kind;
        let known = keyring.exact.values_mut().chain(keyring.below.values_mut());
        known.for_each(|known| known.sort_by_key(order));
        keyring
    }

    /// The certificates, in the order of the file.
    pub fn certificates(&self) -> &[Arc<Certificate>] {
        &self.certificates
    }

    /// Whether all certificates and what is done with them are the same.
    pub fn is_same(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.certificates, &other.certificates);
        self.unknown_names == other.unknown_names
            && ours.len() == theirs.len()
            && ours.iter().zip(theirs).all(|(one, other)| one.is_same(other))
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
