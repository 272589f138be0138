//! What a CA finds when it looks whether a name is ours, for as long as an order is in flight.
//!
//! Reading takes no lock: a request that asks for a token, or a handshake that offers nothing but
//! `acme-tls/1`, looks into a table that is replaced whole. Others never look.

use std::{collections::HashMap, fmt, sync::Arc};

use arc_swap::ArcSwap;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::PrivateKeyDer,
    server::ClientHello,
    sign::{CertifiedKey, SingleCertAndKey},
};

/// Where a CA asks for a token (RFC 8555 §8.3).
const WELL_KNOWN: &str = "/.well-known/acme-challenge/";
/// What it offers in a handshake, and nothing else (RFC 8737 §6.2).
const ACME_TLS: &[u8] = b"acme-tls/1";

/// The answers that are found now.
#[derive(Default)]
pub struct Challenges {
    answers: ArcSwap<Answers>,
}

#[derive(Clone, Default)]
struct Answers {
    /// By token.
    pages: HashMap<String, Arc<str>>,
    /// By name.
    handshakes: HashMap<String, Arc<ServerConfig>>,
}

impl Challenges {
    /// The page that a CA asks for; `None` for anything else.
    pub fn page(&self, path: &str) -> Option<Arc<str>> {
        let token = path.strip_prefix(WELL_KNOWN)?;
        self.answers.load().pages.get(token).cloned()
    }

    /// How a CA's handshake is answered; `None` for that of anybody else.
    pub fn handshake(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        let mut offered = hello.alpn()?;
        if offered.next() != Some(ACME_TLS) || offered.next().is_some() {
            return None;
        }
        let name = hello.server_name()?.to_ascii_lowercase();
        self.answers.load().handshakes.get(&name).cloned()
    }

    /// Answers who asks for a token, until the guard is dropped.
    pub(super) fn publish_page(self: &Arc<Self>, token: &str, text: &str) -> Published {
        let (token, text) = (token.to_owned(), Arc::<str>::from(text));
        self.change(|answers| drop(answers.pages.insert(token.clone(), text.clone())));
        Published { challenges: self.clone(), key: Key::Page(token) }
    }

    /// Answers handshakes for a name by the digest of an answer, until the guard is dropped.
    pub(super) fn publish_handshake(
        self: &Arc<Self>,
        name: &str,
        digest: &[u8],
    ) -> Result<Published, Unanswerable> {
        let config = Arc::new(config(name, digest)?);
        let name = name.to_ascii_lowercase();
        self.change(|answers| drop(answers.handshakes.insert(name.clone(), config.clone())));
        Ok(Published { challenges: self.clone(), key: Key::Handshake(name) })
    }

    fn change(&self, edit: impl Fn(&mut Answers)) {
        self.answers.rcu(|answers| {
            let mut answers = Answers::clone(answers);
            edit(&mut answers);
            answers
        });
    }
}

/// An answer that is found while this lives.
pub(super) struct Published {
    challenges: Arc<Challenges>,
    key: Key,
}

enum Key {
    Page(String),
    Handshake(String),
}

impl Drop for Published {
    fn drop(&mut self) {
        self.challenges.change(|answers| match &self.key {
            Key::Page(token) => drop(answers.pages.remove(token)),
            Key::Handshake(name) => drop(answers.handshakes.remove(name)),
        });
    }
}

/// Why no handshake can be answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswerable {
    /// No certificate could be made.
    #[error("the certificate for the challenge cannot be made: {0}")]
    Rcgen(#[from] rcgen::Error),
    /// It could not be used.
    #[error("the certificate for the challenge cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
}

/// A certificate for the name alone, with the digest in an extension that is critical, so that
/// nobody takes it for one to be used (RFC 8737 §3).
fn config(name: &str, digest: &[u8]) -> Result<ServerConfig, Unanswerable> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let chain = vec![params.self_signed(&key)?.der().clone()];
    let provider = Arc::new(aws_lc_rs::default_provider());
    // rustls itself reads no certificate with that extension, so it is not asked to compare them.
    let key = provider.key_provider.load_private_key(PrivateKeyDer::from(key))?;
    let pair = CertifiedKey::new(chain, key);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answers = self.answers.load();
        write!(f, "Challenges({}, {})", answers.pages.len(), answers.handshakes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_answered_while_its_order_is_in_flight() {
        let challenges = Arc::new(Challenges::default());
        let (a, b) = ("/.well-known/acme-challenge/a", "/.well-known/acme-challenge/b");
        assert_eq!(challenges.page(a), None);
        let first = challenges.publish_page("a", "a.key");
        let second = challenges.publish_page("b", "b.key");
        assert_eq!(challenges.page(a).as_deref(), Some("a.key"));
        drop(first);
        assert_eq!(challenges.page(a), None);
        assert_eq!(challenges.page(b).as_deref(), Some("b.key"));
        for other in ["/", "b", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/b/"] {
            assert_eq!(challenges.page(other), None, "{other}");
        }
        drop(second);
        assert_eq!(format!("{challenges:?}"), "Challenges(0, 0)");
    }

    #[test]
    fn a_certificate_for_a_challenge_names_its_digest_in_a_critical_extension() {
        let challenges = Arc::new(Challenges::default());
        let published = challenges.publish_handshake("A.test", &[7; 32]).unwrap();
        let config = challenges.answers.load().handshakes["a.test"].clone();
        assert_eq!(config.alpn_protocols, [ACME_TLS]);
        drop(published);
        assert_eq!(format!("{challenges:?}"), "Challenges(0, 0)");
    }
}
