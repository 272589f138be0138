//! Signals that are ours; Pingora answers those that stop or upgrade.

use std::{io, sync::Arc, thread};

use log::error;
use signal_hook::{
    consts::{SIGHUP, SIGUSR1},
    iterator::Signals,
};

use crate::{control::Control, panics};

/// Reloads the configuration at each `SIGHUP`, and opens the access log anew at each `SIGUSR1`.
///
/// # Errors
/// If the signals cannot be caught, or the thread not started.
pub(super) fn listen(control: Arc<Control>) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGUSR1])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            if let Err(panic) = panics::catch_now(|| answer(&control, signal)) {
                panic.count_task();
                error!("signals: panicked at {signal}: {panic}");
            }
        }
    })?;
    Ok(())
}

fn answer(control: &Control, signal: i32) {
    match signal {
        SIGHUP => control.ask_for_reload(),
        _ => {
            if let Some(log) = &control.live.load().access_log {
                log.reopen();
            }
        }
    }
}
