//! The account with a CA: registered once, kept in the storage, and known by its key.

use std::{fmt, sync::Arc, time::SystemTime};

use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use log::{info, warn};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::{
    acme::{
        client::{Client, Named},
        config::Config,
        order::Error,
        storage::Storage,
    },
    client::roots::Roots,
};

/// Finds the account, or registers one.
pub(super) struct Accounts {
    config: Config,
    roots: Roots,
    storage: Arc<Storage>,
    named: Named,
    /// Once it was found.
    account: Mutex<Option<Account>>,
}

/// What is kept of an account.
#[derive(Serialize, Deserialize)]
struct Kept {
    contact: Vec<String>,
    #[serde(flatten)]
    credentials: AccountCredentials,
}

impl Accounts {
    pub(super) fn new(config: &Config, roots: Roots, storage: Arc<Storage>) -> Self {
        let (named, account) = (Named::default(), Mutex::default());
        Self { config: config.clone(), roots, storage, named, account }
    }

    /// When the CA said that it may be asked again, if it refused something and said so.
    pub(super) fn named_time(&self) -> Option<SystemTime> {
        self.named.take()
    }

    /// The account.
    ///
    /// # Errors
    /// If it cannot be read, or the CA cannot be asked or does not want us.
    pub(super) async fn get(&self) -> Result<Account, Error> {
        let mut known = self.account.lock().await;
        if let Some(account) = &*known {
            return Ok(account.clone());
        }
        let account = match self.storage.account().map_err(Error::Storage)? {
            Some(text) => self.kept(&text).await?,
            None => self.register().await?,
        };
        Ok(known.insert(account).clone())
    }

    /// Forgets the account, which the CA knows no longer: the next order registers another one.
    pub(super) async fn forget(&self) {
        *self.account.lock().await = None;
        match self.storage.remove_account() {
            Ok(()) => warn!("acme: the CA does not know the account; another one is registered"),
            Err(why) => warn!("acme: an account that is unknown cannot be removed: {why}"),
        }
    }

    async fn kept(&self, text: &[u8]) -> Result<Account, Error> {
        let file = self.storage.account_file();
        let Kept { contact, credentials } = serde_json::from_slice(text)
            .map_err(|why| Error::Account(file.display().to_string(), why))?;
        let client = Client::new(&self.roots, self.named.clone())?;
        let builder = Account::builder_with_http(Box::new(client));
        let account = builder.from_credentials(credentials).await?;
        if contact != self.contact() {
            account.update_contacts(&self.contact_words()).await?;
            let Kept { credentials, .. } = serde_json::from_slice(text)
                .map_err(|why| Error::Account(file.display().to_string(), why))?;
            self.keep(credentials)?;
            info!("acme: the contact of the account was changed");
        }
        Ok(account)
    }

    async fn register(&self) -> Result<Account, Error> {
        let wanted = NewAccount {
            contact: &self.contact_words(),
            terms_of_service_agreed: self.config.accept_terms.value,
            only_return_existing: false,
        };
        let external = self.config.external_account.as_ref();
        let external =
            external.map(|one| ExternalAccountKey::new(one.key_id.clone(), &one.hmac_key.0));
        let client = Client::new(&self.roots, self.named.clone())?;
        let directory = self.config.directory.0.clone();
        let builder = Account::builder_with_http(Box::new(client));
        let (account, credentials) =
            builder.create(&wanted, directory.clone(), external.as_ref()).await?;
        self.keep(credentials)?;
        info!("acme: registered an account with {directory}");
        Ok(account)
    }

    fn keep(&self, credentials: AccountCredentials) -> Result<(), Error> {
        let text = serde_json::to_vec(&Kept { contact: self.contact(), credentials });
        let text = text.map_err(|why| Error::Other(why.to_string()))?;
        self.storage.write_account(&text).map_err(Error::Storage)
    }

    fn contact(&self) -> Vec<String> {
        self.config.contact.iter().map(|contact| contact.0.clone()).collect()
    }

    fn contact_words(&self) -> Vec<&str> {
        self.config.contact.iter().map(|contact| contact.0.as_str()).collect()
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Accounts({})", self.config.directory.0)
    }
}
