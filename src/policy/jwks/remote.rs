//! Keys of a service. Routes that name the same URL share what is known of it, over reloads too.

use std::{sync::Arc, time::Duration};

use crate::policy::{
    errand::{Errand, Task},
    fetched::{self, Fetched},
    jwks::Keys,
    shared::Shared,
    url::Url,
};

/// Those that are known in this process, by their URL and how often it is asked.
static ALL: Shared<(Url, Duration), Remote> = Shared::new();

/// The keys of a service.
#[derive(Debug)]
pub(in crate::policy) struct Remote {
    url: Url,
    refresh: Duration,
    keys: Fetched<Keys>,
    task: Task,
}

impl Remote {
    /// What is known of a URL; `whose` keys they are is told to the process log.
    pub(in crate::policy) fn of(whose: &str, url: Url, refresh: Duration) -> Arc<Self> {
        ALL.of((url.clone(), refresh), |others| {
            let last = others.find(&|(known, _)| *known == url);
            let last = last.and_then(|other| other.keys.last());
            let keys = Fetched::new(format!("the keys of {whose} at {}", url.endpoint), last);
            Self { url, refresh, keys, task: Task::default() }
        })
    }

    /// The keys; newer ones than those that are known, if that is wanted and can be had.
    pub(in crate::policy) async fn keys(&self, newer: bool) -> Option<Arc<Keys>> {
        match self.keys.last() {
            Some(known) if !newer => Some(known),
            _ => self.keys.newer(self.fetch()).await,
        }
    }

    async fn turn(self: Arc<Self>) -> Duration {
        self.keys.turn(self.refresh, self.fetch()).await
    }

    async fn fetch(&self) -> Result<Keys, String> {
        Keys::read(&fetched::get(&self.url).await?)
    }
}

impl Errand for Remote {
    fn start(self: Arc<Self>) {
        self.task.run(&self, Self::turn);
    }
}
