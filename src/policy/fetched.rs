//! What a service was asked for, and is asked for again and again beside requests.
//!
//! INVARIANT: the last good answer stays, whatever the service does, and who can do with it waits
//! for nobody. Who needs one that there is not yet, or a newer one, waits for one question at
//! most; it is asked at most once in a while, and only so many wait at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Request, header::ACCEPT};
use http_body_util::Full;
use tokio::{
    sync::{Mutex, Semaphore},
    time::{self, Instant},
};

use crate::{
    client::endpoint::Files,
    policy::{errand, url::Url},
};

/// How long a question may take altogether.
const WITHIN: Duration = Duration::from_secs(5);
/// The time between two questions.
const PAUSE: Duration = Duration::from_secs(5);
/// The largest answer.
const BYTES_MAX: usize = 1024 * 1024;
/// So many requests wait for an answer at a time.
const WAITING_MAX: usize = 64;

/// What is known of a service.
#[derive(Debug)]
pub(super) struct Fetched<T> {
    /// What it is, for the process log: `the keys of jwt at https://…`.
    what: String,
    last: ArcSwapOption<T>,
    /// When it was asked last; held while it is asked.
    asked: Mutex<Option<Instant>>,
    waiting: Semaphore,
    failures: AtomicU32,
    is_away: AtomicBool,
}

impl<T> Fetched<T> {
    /// Begins with what is known already, if anything is.
    pub(super) fn new(what: String, last: Option<Arc<T>>) -> Self {
        Self {
            what,
            last: ArcSwapOption::new(last),
            asked: Mutex::new(None),
            waiting: Semaphore::new(WAITING_MAX),
            failures: AtomicU32::new(0),
            is_away: AtomicBool::new(false),
        }
    }

    /// The last good answer.
    pub(super) fn last(&self) -> Option<Arc<T>> {
        self.last.load_full()
    }

    /// The last good answer, after the service was asked once more, unless that was just done.
    pub(super) async fn newer(
        &self,
        fetch: impl Future<Output = Result<T, String>>,
    ) -> Option<Arc<T>> {
        let Ok(_waits) = self.waiting.try_acquire() else { return self.last() };
        let mut asked = self.asked.lock().await;
        // Who waited while it was asked has the same answer.
        if asked.is_none_or(|asked| PAUSE <= asked.elapsed()) {
            self.ask(&mut asked, fetch).await;
        }
        self.last()
    }

    /// Asks, and tells the pause until it is to be asked again: `refresh`, or less after a failure.
    pub(super) async fn turn(
        &self,
        refresh: Duration,
        fetch: impl Future<Output = Result<T, String>>,
    ) -> Duration {
        let mut asked = self.asked.lock().await;
        if self.ask(&mut asked, fetch).await {
            errand::varied(refresh)
        } else {
            errand::pause(self.failures.load(Relaxed)).min(refresh.max(PAUSE))
        }
    }

    /// Whether there is a good answer.
    async fn ask(
        &self,
        asked: &mut Option<Instant>,
        fetch: impl Future<Output = Result<T, String>>,
    ) -> bool {
        let fetched = time::timeout(WITHIN, fetch).await;
        // From its end: who waited meanwhile does not ask again at once.
        *asked = Some(Instant::now());
        let what = &self.what;
        match fetched.unwrap_or_else(|_| Err(format!("no answer within {WITHIN:?}"))) {
            Ok(answer) => {
                self.last.store(Some(Arc::new(answer)));
                self.failures.store(0, Relaxed);
                if self.is_away.swap(false, Relaxed) {
                    log::info!("{what} can be had again");
                }
                true
            }
            Err(why) => {
                self.failures.fetch_add(1, Relaxed);
                if !self.is_away.swap(true, Relaxed) {
                    let until = if self.last.load().is_some() {
                        "the last ones count until they can"
                    } else {
                        "nobody is let in until they can"
                    };
                    log::warn!("{what} could not be had: {why}; {until}");
                }
                false
            }
        }
    }
}

/// Asks for a document.
pub(super) async fn get(url: &Url) -> Result<Bytes, String> {
    let question = Request::get(&url.path).header(ACCEPT, "application/json");
    let question = question.body(Full::<Bytes>::default()).map_err(|why| why.to_string())?;
    let answer = url.endpoint.ask(question, &Files::default(), WITHIN).await?;
    if !answer.status.is_success() {
        return Err(format!("it answered {}", answer.status));
    }
    answer.whole(BYTES_MAX, WITHIN).await
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_service_that_is_slow_or_wrong_takes_nothing_away() {
        let fetched = Fetched::new("it".to_owned(), None);
        assert_eq!(fetched.newer(async { Err("wrong".to_owned()) }).await, None);
        let asked_at_once = fetched.newer(async { panic!("it was just asked") }).now_or_never();
        assert_eq!(asked_at_once, Some(None));
        time::sleep(PAUSE).await;
        assert_eq!(fetched.newer(async { Ok(1) }).await.as_deref(), Some(&1));
        time::sleep(PAUSE).await;
        let before = Instant::now();
        assert_eq!(fetched.newer(pending()).await.as_deref(), Some(&1), "slow");
        assert_eq!(before.elapsed(), WITHIN);
        let pause = fetched.turn(Duration::from_secs(600), async { Err("gone".to_owned()) }).await;
        assert!(pause <= Duration::from_secs(10), "sooner after failures: {pause:?}");
        assert_eq!(fetched.last().as_deref(), Some(&1));
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_wait() {
        let fetched: Fetched<u8> = Fetched::new("it".to_owned(), None);
        let mut waiting: Vec<_> =
            (0..WAITING_MAX).map(|_| Box::pin(fetched.newer(pending()))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        let one_more = fetched.newer(async { panic!("it is being asked") }).now_or_never();
        assert_eq!(one_more, Some(None));
        for one in waiting {
            assert_eq!(one.await, None, "one question for all");
        }
    }
}
