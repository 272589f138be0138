//! Certificates of clients: who vouches for them, which were revoked, and what is asked for.

use std::{path::Path, sync::Arc, time::SystemTime};

use aws_lc_rs::digest::{Context, SHA256};
use http::HeaderName;
use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer},
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::{
    certificate::X509Certificate, prelude::FromDer, revocation_list::CertificateRevocationList,
};

use crate::{
    diagnostic::{Problem, Problems},
    tls::{
        config::{ClientCertificatesConfig, ForwardConfig, Mode},
        expiry::{self, Reminder, day},
        pem::Pem,
        tickets::Rules,
    },
    yaml::Spanned,
};

/// What a listener asks of its clients.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Whether a client must show a certificate.
    pub mode: Mode,
    /// How origins are told of them.
    pub forward: Forward,
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// Made of all that decides on a client.
    pub(super) rules: Rules,
    /// The files of lists, and when the next list was promised.
    lists: Vec<(String, SystemTime)>,
    read: SystemTime,
}

/// The fields by which origins are told of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forward {
    /// Its name.
    pub(super) subject: Option<HeaderName>,
    /// Its other names.
    pub(super) sans: Option<HeaderName>,
    /// The fingerprint of its certificate.
    pub(super) fingerprint: Option<HeaderName>,
}

impl Forward {
    fn of(config: &ForwardConfig) -> Self {
        let header = |name: &Option<Spanned<_>>| {
            name.as_ref().map(|name: &Spanned<crate::field::Name>| name.value.to_header())
        };
        let ForwardConfig { subject, sans, fingerprint } = config;
        Self { subject: header(subject), sans: header(sans), fingerprint: header(fingerprint) }
    }
}

impl Clients {
    /// Reads authorities and lists; `now` decides whether a list is out of date.
    pub(super) fn read(
        config: &ClientCertificatesConfig,
        folder: &Path,
        provider: &Arc<CryptoProvider>,
        now: SystemTime,
        problems: &mut Problems,
    ) -> Option<Self> {
        config.forward.check(problems);
        let ca = &config.ca;
        let authorities = Pem::read(&folder.join(&ca.value), ca)
            .and_then(Pem::into_authorities)
            .map_err(|problem| problems.push(problem.at(ca.span)));
        let lists = config.crl.iter().map(|file| read_lists(file, folder, now, problems));
        let lists: Vec<_> = lists.collect(); // each with its problems
        let (authorities, lists) =
            (authorities.ok()?, lists.into_iter().collect::<Option<Vec<_>>>()?);
        let mut roots = RootCertStore::empty();
        for (index, authority) in authorities.iter().enumerate() {
            if let Err(why) = roots.add(authority.clone()) {
                let message =
                    format!("certificate {} in `{ca}` can be no authority: {why}", index + 1);
                let help = "copy it anew from where it was made, or remove it from the file";
                problems.push(Problem::error(message).at(ca.span).help(help));
                return None;
            }
        }
        let all: Vec<_> = lists.iter().flat_map(|file| &file.ders).cloned().collect();
        if let Some(first) = config.crl.first()
            && !all.iter().any(|list| authorities.iter().any(|authority| is_of(list, authority)))
        {
            let message = format!("no list in `crl` is of an authority in `{ca}`");
            let help = "without a list of who signed it, a client's certificate is refused: \
                        add the lists of these authorities";
            problems.push(Problem::warning(message).at(first.span).help(help));
        }
        let rules = rules(config.mode, &authorities, &all);
        let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let builder = builder.with_crls(all);
        let builder = match config.mode {
            Mode::Required => builder,
            Mode::Optional => builder.allow_unauthenticated(),
        };
        let verifier = builder.build().map_err(|why| {
            let message = format!("the authorities in `{ca}` cannot be used: {why}");
            let help = "list the certificates of those who sign your clients' certificates";
            problems.push(Problem::error(message).at(ca.span).help(help));
        });
        Some(Self {
            mode: config.mode,
            forward: Forward::of(&config.forward),
            verifier: verifier.ok()?,
            rules,
            lists: lists.into_iter().filter_map(|file| Some((file.name, file.next?))).collect(),
            read: now,
        })
    }

    /// Whether both decide the same on every client, and tell origins the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.rules == other.rules && self.forward == other.forward
    }

    /// What is to be told of lists that are out of date.
    pub(super) fn reminders(&self, now: SystemTime) -> impl Iterator<Item = Reminder> {
        let stale = self.lists.iter().filter(move |(_, next)| *next <= now);
        stale.map(|(name, next)| {
            Reminder::new(format!("list {name}"), stale_list(name, *next), *next, self.read)
        })
    }
}

/// A file of lists of revoked certificates.
struct Lists {
    name: String,
    ders: Vec<CertificateRevocationListDer<'static>>,
    /// When the first of them is out of date.
    next: Option<SystemTime>,
}

fn read_lists(
    file: &Spanned<String>,
    folder: &Path,
    now: SystemTime,
    problems: &mut Problems,
) -> Option<Lists> {
    let name = file.value.as_str();
    let ders = Pem::read(&folder.join(name), name).and_then(Pem::into_revocations);
    let ders = ders.map_err(|problem| problems.push(problem.at(file.span))).ok()?;
    let mut next = None;
    for der in &ders {
        let parsed = usable(der).map_err(|why| {
            let message =
                format!("a list of revoked certificates in `{name}` cannot be used: {why}");
            let help = "fetch it anew: a complete list of version 2, by the authority itself";
            problems.push(Problem::error(message).at(file.span).help(help));
        });
        let parsed = parsed.ok()?;
        let until = parsed.map(expiry::at);
        next = next.into_iter().chain(until).min();
    }
    if let Some(next) = next.filter(|next| *next <= now) {
        let help = "who was revoked since is let in: fetch the next list";
        problems.push(Problem::warning(stale_list(name, next)).at(file.span).help(help));
    }
    Some(Lists { name: name.to_owned(), ders, next })
}

fn stale_list(name: &str, next: SystemTime) -> String {
    format!("the list of revoked certificates in `{name}` is out of date since {}", day(next))
}

/// When a list is out of date, if rustls can use it.
fn usable(der: &CertificateRevocationListDer<'static>) -> Result<Option<i64>, String> {
    // A verifier without authorities is refused, but only after it has read its lists.
    let mut roots = RootCertStore::empty();
    roots.roots.push(rustls::pki_types::TrustAnchor {
        subject: Vec::new().into(),
        subject_public_key_info: Vec::new().into(),
        name_constraints: None,
    });
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
    match builder.with_crls([der.clone()]).build() {
        Err(VerifierBuilderError::InvalidCrl(why)) => return Err(format!("{why:?}")),
        Err(why) => return Err(why.to_string()),
        Ok(_) => {}
    }
    let (_, parsed) = CertificateRevocationList::from_der(der).map_err(|why| why.to_string())?;
    Ok(parsed.next_update().map(|next| next.timestamp()))
}

/// Whether a list is by an authority, going by its name.
fn is_of(list: &CertificateRevocationListDer<'_>, authority: &CertificateDer<'_>) -> bool {
    match (CertificateRevocationList::from_der(list), X509Certificate::from_der(authority)) {
        (Ok((_, list)), Ok((_, authority))) => {
            list.issuer().as_raw() == authority.subject().as_raw()
        }
        _ => false,
    }
}

fn rules(
    mode: Mode,
    authorities: &[CertificateDer<'_>],
    lists: &[CertificateRevocationListDer<'_>],
) -> Rules {
    let mut context = Context::new(&SHA256);
    context.update(mode.as_str().as_bytes());
    let authorities = authorities.iter().map(|der| ("authority", der.as_ref()));
    let lists = lists.iter().map(|der| ("list", der.as_ref()));
    for (kind, der) in authorities.chain(lists) {
        context.update(kind.as_bytes());
        context.update(&der.len().to_be_bytes());
        context.update(der);
    }
    context.finish().as_ref().try_into().expect("SHA-256 makes 32 bytes")
}

impl ForwardConfig {
    /// The names, in the order of the manual.
    pub fn names(&self) -> impl Iterator<Item = &Spanned<crate::field::Name>> {
        [&self.subject, &self.sans, &self.fingerprint].into_iter().flatten()
    }

    fn check(&self, problems: &mut Problems) {
        let mut before: Vec<HeaderName> = Vec::new();
        for name in self.names() {
            let header = name.value.to_header();
            let text = header.as_str();
            let help = "choose a name of its own, such as `x-client-subject`";
            let message = if is_ours(text) {
                Some(format!("`{}` cannot tell of a client: it has a meaning already", name.value))
            } else if text.contains('_') {
                let why =
                    "many origins take `_` and `-` for the same, and clients may send the other";
                Some(format!("`{}` cannot tell of a client: {why}", name.value))
            } else if before.contains(&header) {
                Some(format!("`{}` stands twice under `forward`", name.value))
            } else {
                None
            };
            if let Some(message) = message {
                problems.push(Problem::error(message).at(name.span).help(help));
            }
            before.push(header);
        }
    }
}

/// Whether Crestline, or everybody, uses a field for something else: it is removed from requests.
fn is_ours(name: &str) -> bool {
    const TAKEN: [&str; 20] = [
        "accept",
        "accept-encoding",
        "accept-language",
        "authorization",
        "cache-control",
        "content-encoding",
        "content-type",
        "cookie",
        "date",
        "expect",
        "forwarded",
        "origin",
        "proxy",
        "range",
        "referer",
        "traceparent",
        "tracestate",
        "user-agent",
        "via",
        "x-request-id",
    ];
    TAKEN.contains(&name) || name.starts_with("x-forwarded-") || name.starts_with("sec-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_differ_if_anything_that_decides_differs() {
        let der = |byte: u8| CertificateDer::from(vec![byte]);
        let list = |byte: u8| CertificateRevocationListDer::from(vec![byte]);
        let all = [
            rules(Mode::Required, &[der(1)], &[]),
            rules(Mode::Optional, &[der(1)], &[]),
            rules(Mode::Required, &[der(2)], &[]),
            rules(Mode::Required, &[der(1), der(2)], &[]),
            rules(Mode::Required, &[der(1)], &[list(2)]),
            rules(Mode::Required, &[der(1)], &[list(3)]),
            [0; 32],
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
        assert_eq!(all[0], rules(Mode::Required, &[der(1)], &[]));
    }

    #[test]
    fn what_is_no_list_cannot_be_used() {
        let why = usable(&vec![0x30, 0].into()).unwrap_err();
        assert!(why.contains("ParseError") || why.contains("BadEncoding"), "{why}");
    }
}
