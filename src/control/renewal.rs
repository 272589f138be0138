//! Certificates that are obtained by ACME: what is due is done, and what is new is shown.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use log::error;
use tokio::time;

use crate::{acme::Advance, control::Control};

/// From one look at what is due to the next. It is looked at a clock that may be set.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Obtains and renews for as long as the process serves. While an upgrade is under way nothing is
/// ordered: the CA's questions might come to the other process.
pub(super) async fn run(control: Arc<Control>) {
    loop {
        let acme = control.live.load().acme.clone();
        let advance = match acme.filter(|_| !control.is_held()) {
            Some(acme) => acme.advance(SystemTime::now()).await,
            None => Advance::Nothing,
        };
        match advance {
            Advance::Obtained => control.show_obtained().await,
            Advance::Done => {}
            Advance::Nothing => time::sleep(LOOK_EVERY).await,
        }
    }
}

impl Control {
    /// Shows new clients what was obtained. It is no change of the configuration, and waits for
    /// one that is being made.
    async fn show_obtained(&self) {
        let _no_change_meanwhile = self.keepers.lock().await;
        let snapshot = self.live.load_full();
        for listener in &snapshot.listeners {
            if let Some(Err(why)) = listener.tls.as_ref().map(|tls| tls.renew()) {
                error!("acme: listener {} keeps its certificates: {why}", listener.address);
            }
        }
    }
}
