//! Signals that are ours; Pingora answers those that stop or upgrade.

use std::{io, sync::Arc, thread};

use signal_hook::{consts::SIGUSR1, iterator::Signals};

use crate::observe::access_log::AccessLog;

/// Opens the access log anew at each `SIGUSR1`, as after a rotation.
///
/// # Errors
/// If the signal cannot be caught, or the thread not started.
pub fn listen(access_log: Option<Arc<AccessLog>>) -> io::Result<()> {
    let mut signals = Signals::new([SIGUSR1])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _ in signals.forever() {
            if let Some(log) = &access_log {
                log.reopen();
            }
        }
    })?;
    Ok(())
}
