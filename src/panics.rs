//! Panics: caught where they can be answered for, counted, and told once.
//!
//! A panic is a mistake in this program, and must cost no more than what it happened in: one
//! request, or one round of a task that begins again. What is not caught here ends no more than
//! its own task of the runtime, and is told as Rust tells it.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt,
    future::poll_fn,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    pin::pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

static REQUESTS: AtomicU64 = AtomicU64::new(0);
static TASKS: AtomicU64 = AtomicU64::new(0);
static OTHERS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this thread runs something whose panic is caught.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// What was said of the panic that is being caught.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// How many there were since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Panics {
    /// Those that ended a request.
    pub requests: u64,
    /// Those after which a task in the background was started again.
    pub tasks: u64,
    /// Those that nobody caught.
    pub others: u64,
}

impl Panics {
    /// Reads the counts.
    pub fn get() -> Self {
        let [requests, tasks, others] =
            [&REQUESTS, &TASKS, &OTHERS].map(|count| count.load(Relaxed));
        Self { requests, tasks, others }
    }
}

/// A panic that was caught: what was said, and where.
#[derive(Debug)]
pub struct Panic(String);

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Panic {
    /// Counts it as the end of a request.
    pub fn count_request(&self) {
        REQUESTS.fetch_add(1, Relaxed);
    }

    /// Counts it as a mishap of a task.
    pub fn count_task(&self) {
        TASKS.fetch_add(1, Relaxed);
    }

    fn of(payload: &(dyn Any + Send)) -> Self {
        let said = SAID.take().or_else(|| in_words(payload).map(str::to_owned));
        Self(said.unwrap_or_else(|| "without a word".to_owned()))
    }
}

/// Leaves the telling of panics that are caught to those who catch them. Call it once.
pub fn take_note() {
    let others = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if CATCHING.get() {
            SAID.set(Some(described(info)));
        } else {
            OTHERS.fetch_add(1, Relaxed);
            others(info);
        }
    }));
}

fn described(info: &PanicHookInfo<'_>) -> String {
    let what = in_words(info.payload()).unwrap_or("without a word");
    match info.location() {
        Some(place) => format!("{what} (at {}:{})", place.file(), place.line()),
        None => what.to_owned(),
    }
}

fn in_words(payload: &(dyn Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
}

/// Runs a future to its end, or to a panic. It allocates nothing.
///
/// # Errors
/// If it panicked. What it had in hand must be fit to go on, or be dropped with it.
pub async fn catch<F: Future>(future: F) -> Result<F::Output, Panic> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_now(|| future.as_mut().poll(cx)) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => std::task::Poll::Ready(Err(panic)),
    })
    .await
}

/// Runs a function to its end, or to a panic.
///
/// # Errors
/// If it panicked, as for [`catch`].
pub fn catch_now<T>(act: impl FnOnce() -> T) -> Result<T, Panic> {
    let before = CATCHING.replace(true);
    let ran = panic::catch_unwind(AssertUnwindSafe(act));
    CATCHING.set(before);
    ran.map_err(|payload| Panic::of(payload.as_ref()))
}

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_caught_with_its_words_also_after_a_pause() {
        let caught = catch(async {
            yield_now().await;
            assert_eq!(1 + 1, 3, "sums");
        });
        let panic = caught.await.expect_err("a panic");
        assert!(panic.to_string().contains("sums"), "{panic}");
        assert_eq!(catch(async { 7 }).await.expect("a result"), 7);
    }

    #[test]
    fn a_panic_within_what_is_caught_and_caught_again_is_one() {
        let outer = catch_now(|| catch_now(|| panic!("inner")).map_err(|panic| panic.to_string()));
        let inner: Result<(), String> = outer.expect("caught within");
        assert!(inner.expect_err("a panic").contains("inner"));
    }
}
