//! The process in force, when it is to be succeeded: by hand (`SIGQUIT`), or by a program that it
//! starts itself (`crestline upgrade`).
//!
//! INVARIANT: nothing here touches what serves. Only [`Predecessor::handed_over`] lets the process
//! leave, and it does so only after the successor has said that it is alone.

use std::{
    collections::BTreeMap,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::Duration,
};

use log::{error, info, warn};
use tokio::{
    net::UnixStream,
    process::Child,
    sync::{mpsc, watch},
    time::{self, Instant},
};

use crate::{
    control::{Control, hold::Hold},
    handover::{
        channel::{Channel, ChannelError, DESCRIPTORS_MAX},
        door, is_trusted,
        launch::{self, Launch},
        message::{BACKENDS_MAX, Known, Message, Name, PROTOCOL},
        pid_file::PidFile,
        refusal::Refusal,
        step::{Event, Step, Steps},
        told,
        word::LastWord,
    },
    listener::sockets::{Open, Shared, Sockets},
    panics, systemd,
};

/// How long a successor may take until it serves, if nothing else is said.
pub const WITHIN: Duration = Duration::from_secs(60);
/// How long a signal may be ahead of the successor that it is meant for.
const SUCCESSOR_COMES_WITHIN: Duration = Duration::from_secs(2);
/// How often it is looked whether a successor waits.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a successor may take to say that it is alone.
const ALONE_WITHIN: Duration = Duration::from_secs(15);
/// How long a successor that was refused may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// How long a refusal may take to be said.
const SAID_WITHIN: Duration = Duration::from_secs(1);

/// What an upgrade is to be.
#[derive(Clone, Debug)]
pub struct Order {
    /// The program, if it is another one than that of this process.
    pub binary: Option<PathBuf>,
    /// How long the successor may take until it serves.
    pub within: Duration,
}

/// What this process needs to be succeeded.
pub struct Predecessor {
    control: Arc<Control>,
    sockets: Sockets,
    upgrade_sock: PathBuf,
    launch: Launch,
    pid_file: Option<PidFile>,
    handed_over: watch::Sender<bool>,
    word: LastWord,
}

/// A successor that serves.
struct Successor {
    pid: u32,
    /// The sockets that it goes on with.
    shared: Shared,
}

impl Predecessor {
    /// Prepares for the day that a successor comes.
    pub fn new(
        control: Arc<Control>,
        sockets: Sockets,
        upgrade_sock: PathBuf,
        launch: Launch,
        pid_file: Option<PidFile>,
    ) -> Arc<Self> {
        let (handed_over, word) = (watch::Sender::new(false), LastWord::default());
        Arc::new(Self { control, sockets, upgrade_sock, launch, pid_file, handed_over, word })
    }

    /// Waits until a successor has taken the place of this process.
    pub async fn handed_over(&self) {
        let mut handed_over = self.handed_over.subscribe();
        let _ = handed_over.wait_for(|done| *done).await;
    }

    /// Takes an upgrade back that is under way, if there is one: this process was told to stop,
    /// and its successor is to stop with it. True if it is too late for that, and the successor
    /// serves.
    pub async fn stop(&self) -> bool {
        tokio::select! {
            () = self.word.keep() => {}
            () = self.handed_over() => return true,
        }
        let settled = async {
            while self.control.is_held() {
                time::sleep(LOOK_EVERY).await;
            }
        };
        let _ = time::timeout(SAID_WITHIN, settled).await;
        false
    }

    /// Hands over to a successor that somebody else has started, and tells the log what came of it.
    pub async fn by_hand(self: Arc<Self>) {
        let (steps, _) = Steps::begin();
        let hold = match self.hold().await {
            Ok(hold) => hold,
            Err(why) => return error!("upgrade: refused: {why}; this process serves on"),
        };
        let given = async {
            let mut channel = self.find_successor().await?;
            self.give(&mut channel, WITHIN, &steps).await
        };
        let given = self.caught(given).await;
        self.settle(given, hold, &steps);
    }

    /// A panic in an upgrade is the end of that upgrade, and of nothing else.
    async fn caught(
        &self,
        giving: impl Future<Output = Result<Successor, Refusal>>,
    ) -> Result<Successor, Refusal> {
        panics::catch(giving).await.unwrap_or_else(|panic| {
            panic.count_task();
            self.word.was_in_vain();
            Err(Refusal::Panicked(panic))
        })
    }

    /// Lets the new program check the configuration, and begins an upgrade, which goes on whether
    /// its steps are listened to or not.
    ///
    /// # Errors
    /// If there is no upgrade to begin with.
    pub async fn upgrade(self: &Arc<Self>, order: Order) -> Result<mpsc::Receiver<Step>, Refusal> {
        let (steps, listener) = Steps::begin();
        let hold = self.hold().await?;
        if door::somebody_waits(&self.upgrade_sock).await {
            return Err(Refusal::SomebodyWaits(told(&self.upgrade_sock).to_string()));
        }
        let check = self.launch.check(self.launch.binary(order.binary.as_deref()));
        let too_slow =
            |_| Refusal::Binary(format!("the check took longer than {:?}", order.within));
        time::timeout(order.within, check).await.map_err(too_slow)??;
        steps.tell(Event::Checked);
        let this = self.clone();
        tokio::spawn(async move {
            let given = this.caught(this.start_and_give(&order, &steps)).await;
            this.settle(given, hold, &steps);
        });
        Ok(listener)
    }

    async fn hold(&self) -> Result<Hold, Refusal> {
        if self.sockets.get().is_none() {
            return Err(Refusal::NotServing);
        }
        Ok(self.control.hold().await?)
    }

    /// Tells how it ended; if this process leaves, nothing changes any more.
    fn settle(&self, given: Result<Successor, Refusal>, hold: Hold, steps: &Steps) {
        match given {
            Ok(Successor { pid, shared }) => {
                self.sockets.share(shared);
                info!("upgrade: process {pid} serves alone; this process drains");
                hold.keep();
                steps.tell(Event::Drains);
                systemd::hand_over(pid);
                self.handed_over.send_replace(true);
            }
            Err(why) => {
                error!("upgrade: refused: {why}; this process serves on");
                // A daemon writes the pid file as soon as it starts.
                if let Some(file) = &self.pid_file {
                    file.write();
                }
                drop(hold);
                steps.tell(Event::Refused { why: why.to_string() });
            }
        }
    }

    async fn start_and_give(&self, order: &Order, steps: &Steps) -> Result<Successor, Refusal> {
        let binary = self.launch.binary(order.binary.as_deref());
        let mut child = self.launch.start(binary, &self.upgrade_sock)?;
        steps.tell(Event::Started { pid: child.id().unwrap_or_default() });
        let given = self.give_to_child(&mut child, order.within, steps).await;
        match given {
            Ok(successor) => Ok(successor),
            Err(Refusal::Failed(why)) => {
                let ended = launch::end(child, ENDS_WITHIN).await;
                Err(Refusal::Failed(format!("{why} ({ended})")))
            }
            Err(why) => {
                launch::end(child, ENDS_WITHIN).await;
                Err(why)
            }
        }
    }

    async fn give_to_child(
        &self,
        child: &mut Child,
        within: Duration,
        steps: &Steps,
    ) -> Result<Successor, Refusal> {
        let began = Instant::now();
        let found = tokio::select! {
            found = knock(&self.upgrade_sock) => found,
            _ = child.wait() => return Err(Refusal::Failed("it did not wait for the sockets".to_owned())),
            () = time::sleep(within) => return Err(Refusal::TooSlow(within)),
            () = self.word.kept() => return Err(Refusal::Stopping),
        };
        let mut channel = self.vetted(found)?;
        self.give(&mut channel, within.saturating_sub(began.elapsed()), steps).await
    }

    /// Looks for a successor that was started by hand; it may be a moment behind the signal.
    async fn find_successor(&self) -> Result<Channel, Refusal> {
        let found = time::timeout(SUCCESSOR_COMES_WITHIN, knock(&self.upgrade_sock)).await;
        let nobody = |_| Refusal::NoSuccessor(told(&self.upgrade_sock).to_string());
        self.vetted(found.map_err(nobody)?)
    }

    fn vetted(&self, stream: UnixStream) -> Result<Channel, Refusal> {
        let channel = Channel::new(stream);
        let (user, _) = channel.peer().map_err(ChannelError::from)?;
        if is_trusted(user) {
            return Ok(channel);
        }
        Err(Refusal::Stranger(told(&self.upgrade_sock).to_string(), user))
    }

    /// Hands everything over, and waits until the successor is alone.
    async fn give(
        &self,
        channel: &mut Channel,
        within: Duration,
        steps: &Steps,
    ) -> Result<Successor, Refusal> {
        let serving = tokio::select! {
            biased;
            serving = time::timeout(within, self.introduce(channel, steps)) => {
                serving.unwrap_or(Err(Refusal::TooSlow(within)))
            }
            () = self.word.kept() => Err(Refusal::Stopping),
        };
        let why = match serving {
            Ok(successor) if self.word.give() => {
                let left = leave_to(channel).await;
                return left.map(|()| successor).inspect_err(|_| self.word.was_in_vain());
            }
            Ok(_) => Refusal::Stopping,
            Err(why) => why,
        };
        let word = Message::TakenBack { why: why.to_string() };
        let _ = time::timeout(SAID_WITHIN, channel.say(&word)).await;
        Err(why)
    }

    /// Says all that a successor must know, and waits until it serves.
    async fn introduce(&self, channel: &mut Channel, steps: &Steps) -> Result<Successor, Refusal> {
        let (Message::Hello { protocol, .. }, _) = channel.receive().await? else {
            return Err(Refusal::Failed("it did not introduce itself".to_owned()));
        };
        if protocol != PROTOCOL {
            let why = format!("it speaks version {protocol} of the conversation, not {PROTOCOL}");
            return Err(Refusal::Failed(why));
        }
        let sockets = self.offer(channel).await?;
        loop {
            match channel.receive().await?.0 {
                Message::Received => steps.tell(Event::HandedOver { sockets }),
                Message::Serving { pid, goes_on_with } => {
                    steps.tell(Event::Serving);
                    let addresses =
                        goes_on_with.map(|list| list.iter().map(|at| at.parse().ok()).collect());
                    let shared = addresses.flatten().map_or(Shared::All, Shared::These);
                    return Ok(Successor { pid, shared });
                }
                Message::Refused { why } => return Err(Refusal::Refused(why)),
                _ => {}
            }
        }
    }

    /// Sends the sockets, the keys of tickets, and what is known of backends; how many sockets
    /// there were.
    async fn offer(&self, channel: &mut Channel) -> Result<usize, Refusal> {
        let sockets = self.sockets.get().ok_or(Refusal::NotServing)?;
        let backends = self.backends();
        let offer = Message::Offer {
            protocol: PROTOCOL,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            pid: process::id(),
            configuration: self.configuration(),
            sockets: sockets.len(),
            backends: backends.len(),
        };
        channel.say(&offer).await?;
        // Before what is counted in the offer: a successor that does not know of it reads on.
        let snapshot = self.control.live().load_full();
        let list = snapshot.tickets.remembered(Instant::now());
        channel.say(&Message::TicketKeys { list }).await?;
        channel.say(&Message::StickyKey { key: snapshot.sticky.told() }).await?;
        let written = self.written();
        for some in sockets.chunks(DESCRIPTORS_MAX) {
            let name = |open: &Open| {
                let bound = open.address.to_string();
                let written = written.get(&bound).unwrap_or(&bound).clone();
                Name { written, bound, is_ours: open.is_ours }
            };
            let descriptors: Vec<_> = some.iter().map(|open| open.socket.as_fd()).collect();
            let list = some.iter().map(name).collect();
            channel.send(&Message::Sockets { list }, &descriptors).await?;
        }
        for message in &backends {
            channel.say(message).await?;
        }
        Ok(sockets.len())
    }

    fn configuration(&self) -> Known {
        let version = self.control.live().load().version;
        let versions = self.control.versions();
        let kept = versions.iter().find(|kept| kept.number == version);
        Known { version, fingerprint: kept.map_or(0, |kept| kept.texts.fingerprint()) }
    }

    /// The addresses in the configuration, by those that they were bound to.
    fn written(&self) -> BTreeMap<String, String> {
        let snapshot = self.control.live().load();
        let pairs = snapshot.listeners.iter().zip(&snapshot.file.listeners);
        let admin = snapshot.admin.iter().zip(&snapshot.file.admin);
        let admin = admin
            .map(|(bound, file)| (bound.address.to_string(), file.address.value.0.to_string()));
        pairs
            .map(|(bound, file)| (bound.address.to_string(), file.address.value.to_string()))
            .chain(admin)
            .collect()
    }

    fn backends(&self) -> Vec<Message> {
        let (snapshot, now) = (self.control.live().load(), Instant::now());
        let mut messages = Vec::new();
        for (name, upstream) in &snapshot.upstreams {
            messages.extend(
                upstream
                    .remembered(now)
                    .chunks(BACKENDS_MAX)
                    .map(|some| Message::Backends { upstream: name.clone(), list: some.to_vec() }),
            );
        }
        messages
    }
}

/// Gives the last word, and waits until the successor is alone. Its death is still seen.
async fn leave_to(channel: &mut Channel) -> Result<(), Refusal> {
    channel.say(&Message::OverToYou).await?;
    let alone = async {
        loop {
            match channel.receive().await?.0 {
                Message::Alone => return Ok(()),
                Message::Refused { why } => return Err(Refusal::Refused(why)),
                _ => {}
            }
        }
    };
    time::timeout(ALONE_WITHIN, alone).await.unwrap_or_else(|_| {
        warn!("upgrade: the successor serves, and did not say within {ALONE_WITHIN:?} that it is alone");
        Ok(())
    })
}

/// Knocks until somebody is there.
async fn knock(upgrade_sock: &Path) -> UnixStream {
    loop {
        if let Ok(stream) = UnixStream::connect(upgrade_sock).await {
            return stream;
        }
        time::sleep(LOOK_EVERY).await;
    }
}
