//! Certificates that are obtained: what listeners ask for, and whether a CA can find them.

use std::sync::Arc;

use crate::{
    acme::{
        Acme,
        config::{CertificateConfig, Challenge},
    },
    config::File,
    diagnostic::{Problem, Problems},
    downstream::config::{Address, Config},
    snapshot::Snapshot,
    yaml::{Short, Spanned},
};

/// Where a CA looks for a page (RFC 8555 §8.3), and makes a handshake (RFC 8737 §3).
const PLAINTEXT_PORT: u16 = 80;
const TLS_PORT: u16 = 443;

/// What listeners ask for, and the place where they do.
type Wanted<'a> = (&'a Config, &'a Spanned<Short<CertificateConfig>>);

/// Reads what is there of the certificates that listeners ask for.
pub(super) fn of(
    file: &File,
    predecessor: Option<&Snapshot>,
    problems: &mut Problems,
) -> Option<Arc<Acme>> {
    let wanted: Vec<Wanted<'_>> = file
        .listeners
        .iter()
        .filter_map(|listener| Some((listener, listener.tls.as_ref()?)))
        .flat_map(|(listener, tls)| tls.acme.iter().map(move |one| (listener, one)))
        .collect();
    // A part that could not be read may have been the one that is missed.
    let is_whole = !problems.has_errors();
    for (listener, one) in &wanted {
        one.value.check(problems);
        reachable(file, listener, one, problems);
    }
    disagreements(&wanted, problems);
    let Some(config) = &file.acme else {
        for (_, one) in wanted.into_iter().filter(|_| is_whole) {
            let problem = Problem::error("nobody is named who gives this certificate").at(one.span);
            let help = "write `acme: { accept_terms: true }` at the top level, for Let's Encrypt";
            problems.push(problem.help(help));
        }
        return None;
    };
    if wanted.is_empty() && is_whole {
        let problem = Problem::error("`acme` does nothing: no listener has a certificate of it");
        let help = "write `tls: { acme: [shop.example.com] }` on a listener, or remove it";
        problems.push(problem.at(config.span).help(help));
    }
    let old = predecessor.and_then(|old| old.acme.as_deref());
    Acme::assemble(config, &file.folder, wanted.iter().map(|(_, one)| *one), old, problems)
}

/// Tells where the CA would find nobody.
fn reachable(
    file: &File,
    listener: &Config,
    one: &Spanned<Short<CertificateConfig>>,
    problems: &mut Problems,
) {
    let port = |config: &Config| match config.address.value {
        Address::Socket(socket) => Some(socket.port()),
        Address::Unix(_) => None,
    };
    let answers = |other: &&Config| other.speaks_http() && other.tls.is_none();
    let mut plaintext = file.listeners.iter().filter(answers).peekable();
    match one.value.challenge {
        Challenge::Http if plaintext.peek().is_none() => {
            let message = "no listener answers http-01: all of them speak TLS";
            let help = "add `- address: 0.0.0.0:80` to `listeners`, or write \
                        `challenge: tls-alpn-01`";
            problems.push(Problem::error(message).at(one.span).help(help));
        }
        Challenge::Http if !plaintext.any(|other| port(other) == Some(PLAINTEXT_PORT)) => {
            let message = "http-01 is asked on port 80, where no plaintext listener is";
            let help = "let port 80 be sent to a plaintext listener, or add one there";
            problems.push(Problem::warning(message).at(one.span).help(help));
        }
        Challenge::TlsAlpn if port(listener) != Some(TLS_PORT) => {
            let message = "tls-alpn-01 is asked on port 443, and this listener has another";
            let help = "let port 443 be sent to it as it comes, TLS and all";
            problems.push(Problem::warning(message).at(one.span).help(help));
        }
        Challenge::Http | Challenge::TlsAlpn => {}
    }
}

/// Tells certificates for the same names that are to be obtained in two ways.
fn disagreements(wanted: &[Wanted<'_>], problems: &mut Problems) {
    for (index, (_, one)) in wanted.iter().enumerate() {
        let differs = |(_, other): &&Wanted<'_>| {
            other.value.sorted() == one.value.sorted()
                && other.value.challenge != one.value.challenge
        };
        if wanted[..index].iter().any(|other| differs(&other)) {
            let message = "these names have another challenge on another listener";
            let help = "write the same `challenge` for both: they share one certificate";
            problems.push(Problem::error(message).at(one.span).help(help));
        }
    }
}
