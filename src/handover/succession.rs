//! The successor's way to being alone, as a background service: it says when it serves, and waits
//! for the last word of its predecessor.
//!
//! Three things can end the wait. "Over to you": it takes its predecessor's place. The predecessor
//! took its word back: it must leave, since that one serves on. The predecessor died: it serves.
//! A conversation that ends without a word counts as the third only if the process is seen to be
//! dead, so that there are never two servers by accident.

use std::{
    process,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use log::{error, info, warn};
use pingora_core::{
    server::ShutdownWatch,
    services::{ServiceReadyNotifier, background::BackgroundService},
};
use tokio::{sync::watch, time};

use crate::{
    control::{Control, hold::Hold},
    downstream::config::Address,
    handover::{
        channel::{Channel, ChannelError},
        message::Message,
        successor::Predecessor,
    },
    listener::sockets::{Shared, Sockets},
    panics,
};

/// How long a predecessor that fell silent may take to be seen dead.
const DEATH_WITHIN: Duration = Duration::from_secs(5);
/// How long taking the pid file and the admin socket may hold the predecessor up.
const IN_PLACE_WITHIN: Duration = Duration::from_secs(5);

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Open,
    Alone,
    TakenBack,
}

/// What others see of a succession. Clones see the same.
#[derive(Clone, Debug)]
pub struct Outcome {
    standing: watch::Receiver<Standing>,
}

impl Outcome {
    /// Waits until this process must leave; for ever if that does not happen.
    pub async fn taken_back(&self) {
        let mut standing = self.standing.clone();
        let is_over = standing.wait_for(|now| *now == Standing::TakenBack).await.is_err();
        if is_over {
            std::future::pending::<()>().await;
        }
    }

    /// Whether this process must leave, or had to.
    pub fn is_taken_back(&self) -> bool {
        *self.standing.borrow() == Standing::TakenBack
    }
}

/// The service. It is ready when this process is alone.
pub struct Succession {
    parts: Mutex<Option<Parts>>,
    sockets: Sockets,
    /// Turns true when commands reach this process.
    in_place: watch::Receiver<bool>,
    standing: watch::Sender<Standing>,
}

struct Parts {
    predecessor: Predecessor,
    hold: Hold,
}

impl Succession {
    /// Goes on with a conversation. Nothing changes in `control` until it is over.
    pub fn new(
        predecessor: Predecessor,
        control: &Arc<Control>,
        sockets: Sockets,
        in_place: watch::Receiver<bool>,
    ) -> Self {
        sockets.share(Shared::These(predecessor.claimed.clone()));
        let hold = control.hold_from_the_start();
        let parts = Mutex::new(Some(Parts { predecessor, hold }));
        Self { parts, sockets, in_place, standing: watch::Sender::default() }
    }

    /// How it ends, for others to see.
    pub fn outcome(&self) -> Outcome {
        Outcome { standing: self.standing.subscribe() }
    }

    /// Says when this process serves, and listens for the last word.
    async fn last_word(
        &self,
        predecessor: &Predecessor,
        channel: &mut Channel,
        mut shutdown: ShutdownWatch,
    ) -> Result<(), Silence> {
        let mut is_serving = false;
        let claimed = predecessor.claimed.iter().map(Address::to_string).collect();
        let serving = Message::Serving { pid: process::id(), goes_on_with: Some(claimed) };
        loop {
            tokio::select! {
                heard = channel.receive() => match heard {
                    Ok((Message::OverToYou, _)) => return Ok(()),
                    Ok((Message::TakenBack { why }, _)) => return Err(Silence::TakenBack(why)),
                    Ok(_) => {}
                    Err(why) => return Err(Silence::Broken(why)),
                },
                () = stopping(&mut shutdown) => {
                    let why = "the successor was told to stop".to_owned();
                    let _ = channel.say(&Message::Refused { why: why.clone() }).await;
                    return Err(Silence::TakenBack(why));
                }
                () = self.sockets.opened(), if !is_serving => {
                    is_serving = true;
                    // If nobody hears it, the next look at the channel tells why.
                    let _ = channel.say(&serving).await;
                }
            }
        }
    }

    /// Comes to be alone; the error is why it must leave.
    async fn succeed(
        &self,
        predecessor: &Predecessor,
        channel: &mut Channel,
        shutdown: ShutdownWatch,
        ready: ServiceReadyNotifier,
    ) -> Result<(), String> {
        let pid = predecessor.pid;
        match self.last_word(predecessor, channel, shutdown).await {
            Ok(()) => {
                self.take_over(predecessor, ready).await;
                // It leaves in any case: nothing is lost if this is not heard.
                let _ = channel.say(&Message::Alone).await;
                info!("upgrade: serves alone; process {pid} drains");
            }
            Err(Silence::TakenBack(why)) => return Err(why),
            Err(Silence::Broken(why)) => {
                if !predecessor.is_dead_within(DEATH_WITHIN).await {
                    return Err(format!("{why}, and process {pid} lives on"));
                }
                warn!("upgrade: process {pid} died before it had handed over; serves in its place");
                self.sockets.opened().await;
                self.take_over(predecessor, ready).await;
            }
        }
        Ok(())
    }

    /// Takes the place of the predecessor: from here on, this process is the one.
    async fn take_over(&self, predecessor: &Predecessor, ready: ServiceReadyNotifier) {
        predecessor.remove_unclaimed();
        ready.notify_ready();
        let mut in_place = self.in_place.clone();
        let taken = async { in_place.wait_for(|taken| *taken).await.is_ok() };
        let _ = time::timeout(IN_PLACE_WITHIN, taken).await;
    }

    async fn leave(&self, why: &str) {
        error!("upgrade: refused: {why}; this process leaves");
        self.standing.send_replace(Standing::TakenBack);
        std::future::pending::<()>().await;
    }
}

async fn stopping(shutdown: &mut ShutdownWatch) {
    let _ = shutdown.wait_for(|stopping| *stopping).await;
}

/// Why there is no last word.
enum Silence {
    TakenBack(String),
    Broken(ChannelError),
}

#[async_trait]
impl BackgroundService for Succession {
    async fn start_with_ready_notifier(
        &self,
        shutdown: ShutdownWatch,
        ready: ServiceReadyNotifier,
    ) {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Parts { mut predecessor, hold }) = parts else { return };
        let mut channel = match predecessor.take_channel() {
            Ok(channel) => channel,
            Err(why) => return self.leave(&format!("the conversation broke: {why}")).await,
        };
        // Until it is alone, a process that cannot go on leaves its predecessor in force.
        let succeeded = self.succeed(&predecessor, &mut channel, shutdown, ready);
        match panics::catch(succeeded).await {
            Ok(Ok(())) => {
                self.sockets.share(Shared::Nothing);
                self.standing.send_replace(Standing::Alone);
                drop(hold);
            }
            Ok(Err(why)) => self.leave(&why).await,
            Err(panic) => {
                panic.count_task();
                drop(channel);
                self.leave(&format!("a mistake in this program: {panic}")).await;
            }
        }
    }
}
