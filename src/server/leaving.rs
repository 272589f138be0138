//! A graceful stop: first it is said, then nothing new is taken, and when nothing is left the
//! process leaves.
//!
//! Pingora's main thread sleeps for the whole grace period whatever is left, so the process is
//! ended beside it.

use std::{sync::Arc, time::Duration};

use log::{info, warn};
use tokio::time;

use crate::{
    control::Control,
    drain::{Drain, Load, State},
};

/// How often it is looked whether anything is left.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How the process leaves.
pub(super) struct Leaving {
    drain: Arc<Drain>,
    control: Arc<Control>,
    /// What is in flight when the listeners are closed gets this long.
    grace: Duration,
    /// Tunnels get this long to be closed when that is over.
    farewell: Duration,
}

impl Leaving {
    pub(super) fn new(
        drain: Arc<Drain>,
        control: Arc<Control>,
        grace: Duration,
        farewell: Duration,
    ) -> Self {
        Self { drain, control, grace, farewell }
    }

    pub(super) fn drain(&self) -> &Arc<Drain> {
        &self.drain
    }

    /// Says that the process will leave, and serves on for as long as it takes others to notice.
    pub(super) async fn announce(&self) {
        self.drain.advance(State::Draining);
        let lame_duck = self.control.live().load().file.lame_duck;
        match lame_duck {
            Some(time) => {
                info!("stop: draining; listeners close in {time}");
                time::sleep(time.0).await;
            }
            None => info!("stop: draining"),
        }
    }

    /// Returns when nothing is left, or the grace period is over.
    pub(super) async fn run(&self) {
        let mut states = self.drain.watch();
        let over = async {
            let _ = states.wait_for(|state| State::Leaving <= *state).await;
            time::sleep(self.grace).await;
        };
        tokio::select! {
            () = until(|| self.drain.is_empty()) => return info!("stop: nothing was left"),
            () = over => {}
        }
        self.drain.advance(State::Ending);
        let _ = time::timeout(self.farewell, until(|| self.drain.load().tunnels == 0)).await;
        let load = self.drain.load();
        if load == Load::default() {
            return info!("stop: left at the end of the grace period");
        }
        warn!("stop: left at the end of the grace period, with {load} cut off");
    }
}

/// Returns when something has held at two looks: counts of many threads are read one by one.
async fn until(holds: impl Fn() -> bool) {
    let mut held = false;
    loop {
        let holds = holds();
        if held && holds {
            return;
        }
        held = holds;
        time::sleep(LOOK_EVERY).await;
    }
}
