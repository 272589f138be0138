//! Certificates that are obtained by ACME (RFC 8555), and renewed in time.
//!
//! [`Acme`] is what the configuration asks for: each certificate ([`Managed`]) is read from the
//! storage, or stands in for itself until it is obtained. Whoever runs it asks what is due and
//! lets it be renewed; nothing here starts by itself, so that a configuration that is only checked
//! asks no CA.
//!
//! INVARIANT: a certificate that is shown came whole from the storage, or vouches for itself; what
//! a CA answers is written there before it is shown.

mod account;
pub mod challenges;
mod client;
pub mod config;
mod managed;
mod order;
mod pair;
mod schedule;
mod storage;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use instant_acme::CertificateIdentifier;
use log::{debug, error, info};
use tokio::{task, time};

pub use managed::{Managed, Standing};
pub use pair::Pair;
pub use schedule::instant;

use crate::{
    acme::{
        account::Accounts,
        challenges::Challenges,
        config::{CertificateConfig, Config},
        managed::Due,
        order::Order,
        storage::Storage,
    },
    client::roots::Roots,
    diagnostic::{Problem, Problems},
    yaml::{Short, Spanned},
};

/// How long an order may take, from its begin to the certificate.
const ORDER_WITHIN: Duration = Duration::from_secs(10 * 60);
/// How soon it is looked again when another process is at it.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What is obtained, from whom, and where it is kept.
#[derive(Debug)]
pub struct Acme {
    storage: Arc<Storage>,
    accounts: Accounts,
    challenges: Arc<Challenges>,
    certificates: Vec<Arc<Managed>>,
}

impl Acme {
    /// Reads from the storage what is there of the certificates that are wanted. What runs for a
    /// predecessor, and is the same, goes on.
    pub fn assemble<'a>(
        config: &Spanned<Config>,
        folder: &Path,
        wanted: impl Iterator<Item = &'a Spanned<Short<CertificateConfig>>>,
        predecessor: Option<&Self>,
        problems: &mut Problems,
    ) -> Option<Arc<Self>> {
        config.check(problems);
        let storage = Storage::at(&folder.join(&config.storage.value), &config.directory);
        if let Err(why) = storage.check() {
            let problem =
                Problem::error(format!("`{}` cannot keep certificates: {why}", config.storage));
            let help = "name a folder that the user who runs Crestline may write to, as `storage`";
            problems.push(problem.at(config.storage.span).help(help));
            return None;
        }
        let roots = match &config.ca {
            None => Roots::System,
            Some(ca) => {
                let read = Roots::of_file(&folder.join(&ca.value), ca, "the directory", ca.span);
                read.map_err(|problem| problems.push(problem)).ok()?
            }
        };
        let storage = Arc::new(storage);
        let mut certificates: Vec<Arc<Managed>> = Vec::new();
        for one in wanted {
            if certificates.iter().any(|known| known.is(&one.value)) {
                continue; // two listeners show it
            }
            let old = predecessor.filter(|old| old.storage == storage);
            let old = old.and_then(|old| old.certificates.iter().find(|old| old.is(&one.value)));
            let kept = old.cloned().map(Ok);
            match kept.unwrap_or_else(|| Managed::read(&one.value, &storage, problems, one.span)) {
                Ok(managed) => certificates.push(managed),
                Err(why) => {
                    let message = format!("no certificate can be made for these names: {why}");
                    problems.push(Problem::error(message).at(one.span));
                }
            }
        }
        Some(Arc::new(Self {
            accounts: Accounts::new(config, roots, storage.clone()),
            storage,
            challenges: predecessor.map(|old| old.challenges.clone()).unwrap_or_default(),
            certificates,
        }))
    }

    /// What a CA finds when it looks whether the names are ours.
    pub fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    /// The certificates, in the order of the file.
    pub fn certificates(&self) -> &[Arc<Managed>] {
        &self.certificates
    }

    /// The certificate that was asked for so.
    pub fn find(&self, wanted: &CertificateConfig) -> Option<&Arc<Managed>> {
        self.certificates.iter().find(|managed| managed.is(wanted))
    }

    /// Whatever failed may be tried again at once, unless the CA said when.
    pub fn try_again(&self) {
        self.certificates.iter().for_each(|managed| managed.try_again());
    }

    /// Does what is due of one certificate: a CA answers no faster for being asked for several at
    /// a time. May be dropped at any time; what was begun is begun again then.
    pub async fn advance(&self, now: SystemTime) -> Advance {
        let all = || self.certificates.iter();
        let Some(managed) = all().find(|one| one.due(now) == Some(Due::Renewal)) else {
            let Some(managed) = all().find(|one| one.due(now) == Some(Due::Question)) else {
                return Advance::Nothing;
            };
            self.ask(managed, now).await;
            return Advance::Done;
        };
        self.renew(managed, now).await
    }

    /// Orders a certificate, unless another process has just done so, or is at it.
    async fn renew(&self, managed: &Arc<Managed>, now: SystemTime) -> Advance {
        let _lock = match self.storage.lock() {
            Ok(Some(lock)) => lock,
            Ok(None) => {
                debug!("acme: another process has the storage; {managed} waits");
                managed.wait_until(now + LOOK_AGAIN);
                return Advance::Done;
            }
            Err(why) => {
                fail(managed, &format!("the storage cannot be written: {why}"), None);
                return Advance::Done;
            }
        };
        if managed.read_again(&self.storage, now) {
            info!("acme: certificate for {managed} was obtained by another process");
            return Advance::Obtained;
        }
        let mut ordered = self.order(managed).await;
        if ordered.as_ref().is_err_and(order::Error::is_account_unknown) {
            self.accounts.forget().await;
            ordered = self.order(managed).await;
        }
        match ordered {
            Ok(()) => Advance::Obtained,
            Err(why) => {
                fail(managed, &why.to_string(), self.accounts.named_time());
                Advance::Done
            }
        }
    }

    async fn order(&self, managed: &Arc<Managed>) -> Result<(), order::Error> {
        info!("acme: ordering a certificate for {managed}, by {}", managed.challenge.as_str());
        self.accounts.named_time(); // of another order
        let account = self.accounts.get().await?;
        let order = Order { managed, account: &account, challenges: &self.challenges };
        let placed = time::timeout(ORDER_WITHIN, order.place()).await;
        let placed = placed.unwrap_or(Err(order::Error::TooSlow(ORDER_WITHIN)));
        let issued = placed?;
        let (storage, kept) = (self.storage.clone(), managed.clone());
        let written = task::spawn_blocking(move || {
            storage.write(&kept.names, &issued).map_err(order::Error::Storage)?;
            storage.read(&kept.names).map_err(order::Error::Read)
        });
        let pair = written.await.map_err(|_| order::Error::Stopped)??;
        let pair = pair.ok_or(order::Error::Stopped)?;
        let now = SystemTime::now();
        managed.obtained(pair, now);
        let Standing { expires, next, .. } = managed.standing(now);
        info!(
            "acme: certificate for {managed} obtained, good until {}; next renewal at {}",
            instant(expires),
            instant(next)
        );
        Ok(())
    }

    /// Asks the CA when it would like a certificate to be renewed (RFC 9773).
    async fn ask(&self, managed: &Managed, now: SystemTime) {
        let pair = managed.pair();
        let suggested = async {
            let id = CertificateIdentifier::try_from(&pair.chain[0]);
            let id = id.map_err(|why| order::Error::Other(why.clone()))?;
            let account = self.accounts.get().await?;
            Ok::<_, order::Error>(account.renewal_info(&id).await?)
        };
        match suggested.await {
            Ok((info, again)) => {
                let window = info.suggested_window;
                let window = (SystemTime::from(window.start), SystemTime::from(window.end));
                if managed.suggested(window, again, now) {
                    let at = instant(managed.standing(now).next);
                    let why = info.explanation_url.map(|url| format!(", see {url}"));
                    let why = why.unwrap_or_default();
                    info!("acme: the CA suggests to renew {managed} at {at}{why}");
                }
            }
            Err(why) => {
                debug!("acme: no renewal information for {managed}: {why}");
                managed.not_suggested(now);
            }
        }
    }
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// Nothing is due.
    Nothing,
    /// Something was done, or tried.
    Done,
    /// A certificate is new.
    Obtained,
}

/// Notes that an order failed, and tells why.
fn fail(managed: &Managed, why: &str, not_before: Option<SystemTime>) {
    let now = SystemTime::now();
    let pause = managed.failed(why, not_before, now);
    let meanwhile =
        if managed.standing(now).is_self_signed { "; it is self-signed meanwhile" } else { "" };
    let again = Duration::from_secs(pause.as_secs());
    error!("acme: no certificate for {managed}: {why}; tried again in {again:?}{meanwhile}");
}
