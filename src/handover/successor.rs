//! The successor's beginning: it waits for its predecessor, and is handed everything.
//!
//! All of this happens before the process runs, and may fork: the runtime that it needs has no
//! thread and is gone afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::{fd::OwnedFd, unix::fs::FileTypeExt},
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::Duration,
};

use log::{info, warn};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::{
    runtime::Builder,
    task,
    time::{self, Instant},
};

use crate::{
    downstream::config::Address,
    handover::{
        channel::{Channel, ChannelError, Detached},
        door::{Door, Visitor},
        message::{Known, Message, Name, PROTOCOL},
        told,
    },
    listener::bind::Bound,
    snapshot::Snapshot,
    tls::tickets::TicketKey,
    upstream::balance::sticky::Told as StickyKey,
    upstream::memory::Memory,
};

/// How long a successor waits for its predecessor: time for a person to send a signal.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long a visitor may take to say what it has to offer.
const OFFER_WITHIN: Duration = Duration::from_secs(5);

/// Why there is nothing to succeed to.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// It could not even wait.
    #[error("{0}")]
    Door(String),
    /// Nobody came.
    #[error(
        "no process handed its sockets over at {path} within {patience:?}\n\
         help: send SIGQUIT to the running process; both must have the same `upgrade_sock`"
    )]
    Nobody {
        /// Where it waited.
        path: String,
        /// How long.
        patience: Duration,
    },
}

/// What a successor was handed.
pub struct Inheritance {
    sockets: Vec<(Name, OwnedFd)>,
    configuration: Known,
    backends: BTreeMap<String, Vec<Memory>>,
    ticket_keys: Vec<TicketKey>,
    sticky_key: Option<StickyKey>,
    predecessor: Predecessor,
}

/// The process that the successor takes over from, while both live.
pub struct Predecessor {
    channel: Option<Detached>,
    pub(super) pid: u32,
    /// Tells when it dies; `None` where the system cannot.
    life: Option<Arc<OwnedFd>>,
    /// Where the sockets are bound that both listen on.
    pub(super) claimed: BTreeSet<Address>,
    /// Unix sockets that nobody listens on once it has left.
    unclaimed: Vec<PathBuf>,
}

impl Predecessor {
    fn new(channel: Option<Detached>, pid: u32, life: Option<Arc<OwnedFd>>) -> Self {
        Self { channel, pid, life, claimed: BTreeSet::new(), unclaimed: Vec::new() }
    }
}

/// Waits for a predecessor at `path`, and takes what it has.
///
/// # Errors
/// If it cannot wait there, or nobody comes in time.
pub fn wait(path: &Path, patience: Duration) -> Result<Inheritance, WaitError> {
    let broken = |why: io::Error| WaitError::Door(format!("cannot wait at {}: {why}", told(path)));
    let runtime = Builder::new_current_thread().enable_io().enable_time().build();
    runtime.map_err(broken)?.block_on(async {
        let door = Door::open(path).await.map_err(WaitError::Door)?;
        info!("upgrade: waits at {} for the sockets of the running process", told(path));
        let found = time::timeout(patience, first_offer(&door)).await;
        let nobody = |_| WaitError::Nobody { path: path.display().to_string(), patience };
        found.map_err(nobody)?.map_err(broken)
    })
}

/// Waits for the first visitor that is a predecessor; others change nothing.
async fn first_offer(door: &Door) -> io::Result<Inheritance> {
    loop {
        let Visitor { mut channel, pid } = door.next().await?;
        let life = pid.and_then(Pid::from_raw);
        let life = life.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).map(Arc::new);
        let offer = time::timeout(OFFER_WITHIN, listen(&mut channel)).await;
        let told_as = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
        match offer {
            Ok(Ok(offer)) => {
                let Offer { sockets, configuration, backends, ticket_keys, sticky_key, pid } =
                    offer;
                let (count, version) = (sockets.len(), configuration.version);
                info!("upgrade: process {pid} handed {count} sockets over, and v{version}");
                let predecessor = Predecessor::new(Some(channel.detach()?), pid, life);
                return Ok(Inheritance {
                    sockets,
                    configuration,
                    backends,
                    ticket_keys,
                    sticky_key,
                    predecessor,
                });
            }
            Ok(Err(ChannelError::Closed)) => {} // somebody looked whether we wait
            Ok(Err(why)) => warn!("upgrade: a visitor{told_as} was turned away: {why}"),
            Err(_) => warn!("upgrade: a visitor{told_as} was turned away: it offered nothing"),
        }
    }
}

struct Offer {
    sockets: Vec<(Name, OwnedFd)>,
    configuration: Known,
    backends: BTreeMap<String, Vec<Memory>>,
    ticket_keys: Vec<TicketKey>,
    sticky_key: Option<StickyKey>,
    pid: u32,
}

/// Introduces this process, and listens to all that is offered.
async fn listen(channel: &mut Channel) -> Result<Offer, ChannelError> {
    let program = env!("CARGO_PKG_VERSION").to_owned();
    channel.say(&Message::Hello { protocol: PROTOCOL, program, pid: process::id() }).await?;
    let (first, _) = channel.receive().await?;
    let Message::Offer { protocol, pid, configuration, sockets: count, backends: more, .. } = first
    else {
        return Err(ChannelError::Nonsense(format!("it began with {first:?}")));
    };
    if protocol != PROTOCOL {
        let why = format!("it speaks version {protocol} of the conversation, not {PROTOCOL}");
        channel.say(&Message::Refused { why: why.clone() }).await?;
        return Err(ChannelError::Nonsense(why));
    }
    let (mut sockets, mut told) = (Vec::new(), 0);
    let mut backends = BTreeMap::<String, Vec<Memory>>::new();
    let (mut ticket_keys, mut sticky_key) = (Vec::new(), None);
    while sockets.len() < count || told < more {
        match channel.receive().await? {
            (Message::Sockets { list }, descriptors) => {
                if list.len() != descriptors.len() {
                    let why = "not every socket came with its descriptor".to_owned();
                    return Err(ChannelError::Nonsense(why));
                }
                sockets.extend(list.into_iter().zip(descriptors));
            }
            (Message::Backends { upstream, list }, _) => {
                told += 1;
                backends.entry(upstream).or_default().extend(list);
            }
            (Message::TicketKeys { list }, _) => ticket_keys = list,
            (Message::StickyKey { key }, _) => sticky_key = Some(key),
            (Message::TakenBack { .. }, _) => return Err(ChannelError::Closed),
            _ => {}
        }
    }
    channel.say(&Message::Received).await?;
    Ok(Offer { sockets, configuration, backends, ticket_keys, sticky_key, pid })
}

impl Inheritance {
    /// Takes the socket of each listener that the predecessor has, in the order of the listeners.
    /// What nobody claims is closed here.
    pub fn claim(&mut self, listeners: &[Address]) -> Vec<Option<Bound>> {
        let mut claimed: Vec<Option<Bound>> = listeners.iter().map(|_| None).collect();
        // Ports that are written count before those that the system chose.
        let is_written =
            |address: &Address| !matches!(address, Address::Socket(at) if at.port() == 0);
        for round in [true, false] {
            for (place, address) in claimed.iter_mut().zip(listeners) {
                if is_written(address) == round {
                    *place = self.claim_one(address);
                }
            }
        }
        for (name, socket) in self.sockets.drain(..) {
            info!("listener: {} removed", name.bound);
            drop(socket);
            if name.is_ours
                && let Ok(Address::Unix(path)) = name.bound.parse()
            {
                self.predecessor.unclaimed.push(path);
            }
        }
        claimed
    }

    fn claim_one(&mut self, written: &Address) -> Option<Bound> {
        let index = self.sockets.iter().position(|(name, _)| name.is(written))?;
        let (name, socket) = self.sockets.remove(index);
        let address: Address = name.bound.parse().ok()?;
        self.predecessor.claimed.insert(address.clone());
        Some(Bound::taken_over(address, socket, name.is_ours))
    }

    /// Lets a configuration that is about to serve go on where the predecessor's was.
    pub fn pass_to(&mut self, snapshot: &mut Snapshot, fingerprint: u64) {
        snapshot.version = self.configuration.version_of(fingerprint);
        snapshot.tickets.recall(std::mem::take(&mut self.ticket_keys), Instant::now());
        if let Some(key) = self.sticky_key.take() {
            snapshot.sticky.recall(&key);
            snapshot.upstreams.values().for_each(|upstream| upstream.sign_anew());
        }
        for (name, memories) in std::mem::take(&mut self.backends) {
            if let Some(upstream) = snapshot.upstreams.get(&name) {
                upstream.recall(memories);
            }
        }
    }

    /// Tells the predecessor why this process cannot succeed it.
    pub fn refuse(mut self, why: &str) {
        let runtime = Builder::new_current_thread().enable_io().build();
        let refused = runtime.and_then(|runtime| {
            runtime.block_on(async {
                let mut channel = self.predecessor.take_channel()?;
                let refusal = Message::Refused { why: why.to_owned() };
                channel.say(&refusal).await.map_err(io::Error::other)
            })
        });
        if let Err(broken) = refused {
            warn!("upgrade: the running process was not told: {broken}");
        }
    }

    /// What is left when all is taken: the conversation.
    pub fn into_predecessor(self) -> Predecessor {
        self.predecessor
    }
}

impl Predecessor {
    /// Removes Unix sockets that the predecessor listened on and this process does not: nobody
    /// else can have taken their places while it lived.
    pub(super) fn remove_unclaimed(&self) {
        for path in &self.unclaimed {
            let is_socket = |found: std::fs::Metadata| found.file_type().is_socket();
            if std::fs::symlink_metadata(path).is_ok_and(is_socket)
                && let Err(why) = std::fs::remove_file(path)
            {
                warn!("listener: {} was not removed: {why}", told(path));
            }
        }
    }

    /// The conversation, to go on with in this runtime; once.
    pub(super) fn take_channel(&mut self) -> io::Result<Channel> {
        let gone = || io::Error::other("somebody else goes on with it");
        self.channel.take().ok_or_else(gone)?.attach()
    }

    /// Waits until it is dead; false if it still lives after this time. Where the system cannot
    /// tell, its silence must do.
    pub(super) async fn is_dead_within(&self, time: Duration) -> bool {
        let Some(life) = self.life.clone() else { return true };
        let Ok(time) = Timespec::try_from(time) else { return false };
        let seen = task::spawn_blocking(move || {
            poll(&mut [PollFd::new(&life, PollFlags::IN)], Some(&time)) == Ok(1)
        });
        seen.await.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd as _};

    use super::*;

    fn inheritance(sockets: &[(&str, &str)]) -> Inheritance {
        let socket = |(written, bound): &(&str, &str)| {
            let [written, bound] = [written, bound].map(|text| (*text).to_owned());
            let name = Name { is_ours: bound != "unix:/theirs", written, bound };
            (name, File::open("/dev/null").unwrap().as_fd().try_clone_to_owned().unwrap())
        };
        Inheritance {
            sockets: sockets.iter().map(socket).collect(),
            configuration: Known { version: 1, fingerprint: 0 },
            backends: BTreeMap::new(),
            ticket_keys: Vec::new(),
            sticky_key: None,
            predecessor: Predecessor::new(None, 1, None),
        }
    }

    /// Which socket each listener gets, and which Unix sockets nobody claims.
    fn claimed(sockets: &[(&str, &str)], listeners: &[&str]) -> (Vec<String>, Vec<PathBuf>) {
        let mut inheritance = inheritance(sockets);
        let listeners: Vec<Address> = listeners.iter().map(|text| text.parse().unwrap()).collect();
        let claimed = inheritance.claim(&listeners).into_iter();
        let told = |bound: Option<Bound>| bound.map_or("-".to_owned(), |it| it.address.to_string());
        (claimed.map(told).collect(), inheritance.predecessor.unclaimed)
    }

    #[test]
    fn each_listener_gets_the_socket_of_its_address() {
        let old = [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1:0", "127.0.0.1:4001"),
            ("127.0.0.1:0", "127.0.0.1:4002"),
            ("unix:/a", "unix:/a"),
            ("unix:/b", "unix:/b"),
            ("unix:/theirs", "unix:/theirs"),
        ];
        let (got, left) = claimed(&old, &["unix:/b", "0.0.0.0:80", "127.0.0.1:0", "[::1]:80"]);
        assert_eq!(got, ["unix:/b", "-", "127.0.0.1:4001", "-"]);
        assert_eq!(left, [PathBuf::from("/a")], "what systemd has is for systemd to remove");

        let turned = ["127.0.0.1:0", "127.0.0.1:4001", "127.0.0.1:0", "127.0.0.1:80"];
        let (got, _) = claimed(&old, &turned);
        let expected = ["127.0.0.1:4002", "127.0.0.1:4001", "-", "127.0.0.1:80"];
        assert_eq!(got, expected, "a port that is written is not given to one that is not");
    }

    #[test]
    fn a_successor_that_nobody_meets_gives_up_and_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upgrade.sock");
        let why = wait(&path, Duration::from_millis(10)).map(drop).unwrap_err().to_string();
        let expected =
            format!("no process handed its sockets over at {} within 10ms\nhelp: ", path.display());
        assert!(why.starts_with(&expected), "{why}");
        assert!(!path.exists());
    }
}
