//! The watchdog (`WatchdogSec=` of a unit): a sign of life that threads which hang cannot give.
//!
//! Each sign waits until one of the threads that work on connections has done a piece of work;
//! which one is left to chance. If one hangs, a sign soon falls on it, none follows, and systemd
//! starts the service anew.

use std::time::Duration;

use pingora_runtime::current_handle;
use tokio::time;

use crate::systemd::Notifier;

/// Signs within the time that systemd allows: one that comes late costs nothing.
pub(super) const TIMES: u32 = 3;

/// Answers for as long as the runtime lives.
pub(super) async fn answer(notifier: &'static Notifier, every: Duration) {
    while current_handle().spawn(async {}).await.is_ok() {
        notifier.send("WATCHDOG=1");
        time::sleep(every).await;
    }
}
