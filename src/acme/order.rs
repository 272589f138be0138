//! One order, from its begin to the certificate (RFC 8555 §7.4).

use std::{io, sync::Arc, time::Duration};

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier, NewOrder,
    OrderStatus, Problem, RetryPolicy,
};
use log::{debug, info};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use crate::acme::{
    challenges::{Challenges, Published, Unanswerable},
    config::Challenge,
    managed::Managed,
    storage::ReadError,
};

/// How long a CA may take to look at everything, and to sign.
const LOOKED_WITHIN: Duration = Duration::from_secs(4 * 60);
const SIGNED_WITHIN: Duration = Duration::from_secs(2 * 60);
/// How soon it is asked how far it is; each time a little later.
const LOOK_AFTER: Duration = Duration::from_millis(250);
const LATER_BY: f32 = 1.5;

const ACCOUNT_UNKNOWN: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The CA refused something.
    #[error("the CA says: {}", said(.0))]
    Refused(Problem),
    /// It found something else than it should.
    #[error("{0}")]
    NotValidated(String),
    /// It offers no challenge that could be met.
    #[error("the CA offers no {1} for {0}")]
    NoChallenge(String, &'static str),
    /// It takes too long.
    #[error("not done within {0:?}")]
    TooSlow(Duration),
    /// A challenge cannot be met.
    #[error(transparent)]
    Unanswerable(#[from] Unanswerable),
    /// A request for a certificate cannot be made.
    #[error("no request can be made: {0}")]
    Rcgen(#[from] rcgen::Error),
    /// What was obtained cannot be kept.
    #[error("the storage cannot be written: {0}")]
    Storage(io::Error),
    /// What was obtained is of no use.
    #[error("what the CA gave is of no use: {0}")]
    Read(#[from] ReadError),
    /// The account in the storage cannot be read.
    #[error("the account in {0} cannot be read ({1}); remove the file to register another one")]
    Account(String, serde_json::Error),
    /// The process is ending.
    #[error("the process is ending")]
    Stopped,
    /// Whatever else.
    #[error("{0}")]
    Other(String),
}

impl From<instant_acme::Error> for Error {
    fn from(why: instant_acme::Error) -> Self {
        match why {
            instant_acme::Error::Api(problem) => Self::Refused(problem),
            instant_acme::Error::Timeout(_) => Self::TooSlow(LOOKED_WITHIN),
            why => Self::Other(why.to_string()),
        }
    }
}

impl From<io::Error> for Error {
    fn from(why: io::Error) -> Self {
        Self::Storage(why)
    }
}

impl Error {
    /// Whether the CA has forgotten us.
    pub(super) fn is_account_unknown(&self) -> bool {
        matches!(self, Self::Refused(problem) if problem.r#type.as_deref() == Some(ACCOUNT_UNKNOWN))
    }
}

/// What a CA says is wrong, without the words of the protocol.
fn said(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or("no reason");
    let kind = kind.rsplit(':').next().unwrap_or(kind);
    let mut words = match &problem.detail {
        Some(detail) => format!("{detail} ({kind})"),
        None => kind.to_owned(),
    };
    for more in &problem.subproblems {
        words.push_str("; ");
        words.push_str(more.detail.as_deref().unwrap_or_default());
    }
    words
}

/// An order that is to be placed.
pub(super) struct Order<'a> {
    pub(super) managed: &'a Managed,
    pub(super) account: &'a Account,
    pub(super) challenges: &'a Arc<Challenges>,
}

impl Order<'_> {
    /// Places the order, answers while the CA looks, and returns the certificate with its new key
    /// in PEM. May be dropped at any time: nothing is answered any longer then.
    pub(super) async fn place(&self) -> Result<String, Error> {
        let mut order = self.begin().await?;
        let published = self.publish(&mut order).await?;
        if matches!(order.state().status, OrderStatus::Pending) {
            let policy = policy(LOOKED_WITHIN);
            let status = order.poll_ready(&policy).await;
            if !matches!(status, Ok(OrderStatus::Ready)) {
                let why = self.found(&mut order).await;
                return Err(match (why, status) {
                    (Some(why), _) => Error::NotValidated(why),
                    (None, Err(why)) => why.into(),
                    (None, Ok(_)) => Error::NotValidated("the CA gave no reason".to_owned()),
                });
            }
        }
        drop(published);
        debug!("acme: {} validated", self.managed);
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(self.managed.names.to_vec())?;
        params.distinguished_name = DistinguishedName::new();
        order.finalize_csr(params.serialize_request(&key)?.der()).await?;
        let chain = order.poll_certificate(&policy(SIGNED_WITHIN)).await?;
        Ok(format!("{}\n{}", chain.trim_end(), key.serialize_pem()))
    }

    /// Opens an order, as one that replaces the certificate that is there, if the CA knows of such.
    async fn begin(&self) -> Result<instant_acme::Order, Error> {
        let names = self.managed.names.iter();
        let identifiers: Vec<_> = names.map(|name| Identifier::Dns(name.clone())).collect();
        let pair = self.managed.pair();
        let replaced = CertificateIdentifier::try_from(&pair.chain[0]).ok();
        if let Some(replaced) = replaced.filter(|_| self.managed.has_suggestion()) {
            let order = NewOrder::new(&identifiers).replaces(replaced);
            match self.account.new_order(&order).await {
                Ok(order) => return Ok(order),
                Err(why) => debug!("acme: {} replaces nothing: {why}", self.managed),
            }
        }
        Ok(self.account.new_order(&NewOrder::new(&identifiers)).await?)
    }

    /// Answers for each name that the CA wants to look at, and asks it to.
    async fn publish(&self, order: &mut instant_acme::Order) -> Result<Vec<Published>, Error> {
        let wanted = match self.managed.challenge {
            Challenge::Http => ChallengeType::Http01,
            Challenge::TlsAlpn => ChallengeType::TlsAlpn01,
        };
        let mut published = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            let name = authorization.identifier().to_string();
            if authorization.status == AuthorizationStatus::Valid {
                continue; // the CA looked not long ago
            }
            let word = self.managed.challenge.as_str();
            let mut challenge = authorization
                .challenge(wanted.clone())
                .ok_or_else(|| Error::NoChallenge(name.clone(), word))?;
            let key = challenge.key_authorization();
            published.push(match self.managed.challenge {
                Challenge::Http => self.challenges.publish_page(&challenge.token, key.as_str()),
                Challenge::TlsAlpn => {
                    self.challenges.publish_handshake(&name, key.digest().as_ref())?
                }
            });
            challenge.set_ready().await?;
            info!("acme: {name} waits to be looked at, by {word}");
        }
        Ok(published)
    }

    /// What the CA found where it looked, if it says.
    async fn found(&self, order: &mut instant_acme::Order) -> Option<String> {
        let mut found = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let name = authorization.identifier().to_string();
            let Ok(state) = authorization.refresh().await else { continue };
            let errors = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
            found.extend(errors.map(|problem| format!("{name}: {}", said(problem))));
        }
        (!found.is_empty()).then(|| found.join("; "))
    }
}

fn policy(within: Duration) -> RetryPolicy {
    RetryPolicy::new().initial_delay(LOOK_AFTER).backoff(LATER_BY).timeout(within)
}
