//! Accepting on all listeners: watched while the process serves, and closed without a loss.
//!
//! Each listener has an accept loop of Pingora's own. A loop that ends while the process serves,
//! or a socket that listens no more, ends the process: it must not live on without a listener.
//! At a stop the loops go on until the kernel has no connection left that waits to be accepted;
//! only then are they told, and the sockets closed.

use std::{
    fs,
    future::poll_fn,
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use log::{info, warn};
use pingora_core::{
    apps::ServerApp,
    listeners::{L4BufferSettings, ListenerConfig, TcpSocketOptions},
    protocols::Stream,
    server::{ListenFds, ShutdownWatch},
    services::{Service as _, listening::Service as Accepting},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use socket2::{SockFilter, Socket};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{self, Instant},
};

use crate::{
    downstream::config::Address,
    drain::{Door, Drain, Order, State},
    listener::{admission::Admission, sockets::Sockets},
};

/// Reads go past Pingora's buffer; small answers leave in one piece.
const WRITE_BUFFER: usize = 1_460;
/// How often it is looked whether the sockets still listen.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same, for connections that wait to be accepted at a stop.
const QUEUE_EVERY: Duration = Duration::from_millis(1);
/// A process that cannot accept, for want of files perhaps, waits no longer for its queues.
const QUEUE_MAX: Duration = Duration::from_secs(2);
/// A handshake that has begun when the process is told to stop may take so long to be complete.
/// Not longer, since whoever begins one meanwhile asks again after a second only.
const HANDSHAKES: Duration = Duration::from_millis(20);
/// A program for the kernel: a packet with SYN and without ACK is dropped, every other one passes.
const NO_SYN: [(u16, u8, u8, u32); 5] = [
    (0x30, 0, 0, 13),       // load the flags of the TCP header
    (0x54, 0, 0, 0x12),     // SYN and ACK of them
    (0x15, 0, 1, 0x02),     // SYN alone?
    (0x06, 0, 0, 0),        // dropped
    (0x06, 0, 0, u32::MAX), // passes
];

/// Everybody may connect to a Unix socket, as by default with Pingora; its folder says who gets
/// there. One that was handed in or taken over keeps its mode.
pub(super) const UNIX_MODE: u32 = 0o666;

/// A socket that listens, held beside the accept loop that Pingora makes of it.
#[derive(Debug)]
pub(super) struct Watched {
    address: Address,
    socket: Socket,
    /// The file of a Unix socket that ends with this process.
    file: Option<u64>,
    /// How many connections may wait to be accepted.
    backlog: i32,
    /// Whether it ends with the last process that was handed it.
    is_ours: bool,
}

/// All of them, and who else listens on them.
pub(super) struct Doors<'a> {
    pub(super) sockets: Vec<Watched>,
    pub(super) others: &'a Sockets,
    pub(super) drain: &'a Arc<Drain>,
    pub(super) admission: &'a Admission,
}

impl Watched {
    /// Watches a socket; it `is_ours` unless systemd keeps it.
    pub(super) fn new(address: Address, socket: Socket, backlog: i32, is_ours: bool) -> Self {
        let file = match &address {
            Address::Unix(path) if is_ours => inode(path),
            _ => None,
        };
        Self { address, socket, file, backlog, is_ours }
    }

    /// Lets no more connections begin, so that the queue has an end; handshakes that have begun go
    /// on. The kernel would answer for a listening socket to its last moment, and reset what it
    /// then has in the queue. Whoever is not answered asks again, and is refused.
    fn seal(&self) -> io::Result<()> {
        match &self.address {
            Address::Socket(_) => {
                let program = NO_SYN.map(|(code, jt, jf, k)| SockFilter::new(code, jt, jf, k));
                self.socket.attach_filter(&program)
            }
            Address::Unix(path) if self.file.is_some() && self.file == inode(path) => {
                fs::remove_file(path)
            }
            Address::Unix(_) => Ok(()),
        }
    }

    /// Whether a connection waits to be accepted.
    fn has_queue(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        loop {
            match poll(&mut fds, Some(&Timespec::default())) {
                Err(Errno::INTR) => {}
                polled => return polled.is_ok_and(|ready| 0 < ready),
            }
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|found| found.ino())
}

/// One application behind several doors.
struct Entrance<A> {
    app: Arc<A>,
    /// Pingora's accept loop holds it, and each connection that came by it.
    _door: Door,
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Entrance<A> {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let (this, shutdown) = (self.clone(), shutdown.clone());
        // In a task of its own, since that of Pingora keeps room for a handshake of Pingora's.
        tokio::spawn(async move { this.app.process_new(stream, &shutdown).await });
        None
    }
}

/// Accepts for `app` until `shutdown`, and closes.
pub(super) async fn accept<A: ServerApp + Send + Sync + 'static>(
    app: &Arc<A>,
    doors: Doors<'_>,
    fds: ListenFds,
    mut shutdown: ShutdownWatch,
    tasks: usize,
) {
    let Doors { sockets, others, drain, admission } = doors;
    let (close, closing) = watch::channel(false);
    let mut loops = JoinSet::new();
    for socket in &sockets {
        let mut service = service(&socket.address, app.clone(), drain);
        let (fds, closing) = (Some(fds.clone()), closing.clone());
        let mut serving = Box::pin(async move { service.start_service(fds, closing, tasks).await });
        // Pingora takes the socket when it is first polled, and sets a backlog of its own.
        if poll_fn(|cx| Poll::Ready(serving.as_mut().poll(cx).is_pending())).await {
            loops.spawn(serving);
        } else {
            loops.spawn(std::future::ready(()));
        }
        if let Err(why) = socket.socket.listen(socket.backlog) {
            warn!("listener: the backlog of {} stays as it was: {why}", socket.address);
        }
    }
    let failed = tokio::select! {
        _ = shutdown.wait_for(|stopping| *stopping) => None,
        _ = loops.join_next() => Some("an accept loop ended".to_owned()),
        address = deaf(&sockets, admission) => Some(format!("{address} listens no more")),
    };
    if let Some(why) = failed {
        drain.order(Order::Fail(format!("listener: {why}")));
        return std::future::pending().await;
    }
    drain.advance(State::Leaving);
    empty(&sockets, others).await;
    close.send_replace(true);
    while loops.join_next().await.is_some() {}
    for Watched { address, .. } in sockets {
        info!("listener: {address} closed");
    }
    app.cleanup().await;
}

fn service<A: ServerApp + Send + Sync + 'static>(
    address: &Address,
    app: Arc<A>,
    drain: &Arc<Drain>,
) -> Accepting<Entrance<A>> {
    let entrance = Entrance { app, _door: drain.door() };
    let mut service = Accepting::new("listeners".to_owned(), entrance);
    let config = match address {
        Address::Socket(socket) => {
            ListenerConfig::tcp(socket.to_string()).tcp_socket_options(TcpSocketOptions::default())
        }
        Address::Unix(path) => {
            ListenerConfig::uds(path.display().to_string()).permissions(mode_of(path))
        }
    };
    service.add_listener(config.l4_buffer(L4BufferSettings::unbuffered().write(WRITE_BUFFER)));
    service
}

/// The mode of a socket that is there already, so that Pingora leaves it as it is.
fn mode_of(path: &Path) -> fs::Permissions {
    match fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => file.permissions(),
        _ => fs::Permissions::from_mode(UNIX_MODE),
    }
}

/// Waits until one of the sockets listens no more; Pingora's loop would go on for ever. Meanwhile
/// looks whether a file can be opened: without one, Pingora accepts nothing and tries again once a
/// second.
async fn deaf<'a>(sockets: &'a [Watched], admission: &Admission) -> &'a Address {
    loop {
        time::sleep(LOOK_EVERY).await;
        admission.look(sockets.iter().all(|watched| watched.socket.try_clone().is_ok()));
        let deaf = sockets.iter().find(|watched| !watched.socket.is_listener().unwrap_or(false));
        if let Some(watched) = deaf {
            return &watched.address;
        }
    }
}

/// Returns when no connection waits to be accepted, and none comes any more.
///
/// Sockets that another process has, too, stay as they are: it accepts what comes.
async fn empty(sockets: &[Watched], others: &Sockets) {
    let alone = sockets.iter().filter(|watched| others.is_alone_on(&watched.address));
    let mut is_sealed = false;
    for watched in alone.clone().filter(|watched| watched.is_ours) {
        match watched.seal() {
            Ok(()) => is_sealed = true,
            Err(why) => {
                warn!("listener: {} may lose connections that come now: {why}", watched.address);
            }
        }
    }
    if is_sealed {
        time::sleep(HANDSHAKES).await;
    }
    let start = Instant::now();
    while alone.clone().any(Watched::has_queue) && start.elapsed() < QUEUE_MAX {
        time::sleep(QUEUE_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
    };

    use super::*;
    use crate::{downstream::config::socket::Config as Options, listener::bind};

    fn listening(address: &Address) -> Watched {
        let bound = bind::bind(address, &Options::default()).unwrap();
        let (address, socket) = bound.into_parts();
        socket.listen(16).unwrap();
        socket.set_nonblocking(false).unwrap();
        Watched::new(address, socket, 16, true)
    }

    #[test]
    fn a_sealed_socket_keeps_what_it_has_and_takes_no_more() {
        let watched = listening(&Address::Socket("127.0.0.1:0".parse().unwrap()));
        let Address::Socket(address) = watched.address else { unreachable!() };
        assert!(!watched.has_queue());
        let mut client = TcpStream::connect(address).unwrap();
        watched.seal().unwrap();
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(200));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);

        assert!(watched.has_queue());
        let (mut accepted, _) = watched.socket.accept().unwrap();
        assert!(!watched.has_queue());
        client.write_all(b"hello").unwrap();
        let mut read = [0; 5];
        accepted.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"hello");
    }

    #[test]
    fn the_file_of_a_unix_socket_is_removed_unless_it_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.sock");
        let watched = listening(&Address::Unix(path.clone()));
        watched.seal().unwrap();
        assert!(!path.exists());
        let other = listening(&Address::Unix(path.clone()));
        watched.seal().unwrap();
        assert!(path.exists(), "it belongs to another");
        drop(other);
    }

    #[tokio::test]
    async fn a_socket_that_listens_no_more_is_noticed() {
        let watched = [listening(&Address::Socket("127.0.0.1:0".parse().unwrap()))];
        let admission = Admission::new(None);
        let early = time::timeout(LOOK_EVERY * 2, deaf(&watched, &admission)).await;
        assert!(early.is_err(), "it listens");
        watched[0].socket.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(deaf(&watched, &admission).await, &watched[0].address);
    }
}
