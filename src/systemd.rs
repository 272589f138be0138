//! What a service manager is told, and what it hands in: systemd's notify protocol
//! (`sd_notify(3)`), and sockets that are open already (`sd_listen_fds(3)`).
//!
//! A process that systemd did not start has no `NOTIFY_SOCKET`, and then nothing here does
//! anything. The variables are read once and stay in the environment, since they cannot be taken
//! out of it without races: who starts another program says with [`hide_from`] or [`pass_on`]
//! whether it may speak for the service.

pub mod sockets;
mod watchdog;

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process::{self, Command},
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use log::warn;
use rustix::time::{ClockId, clock_gettime};

const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";
const LISTEN: [&str; 3] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// How long a message may wait for room at systemd's end.
const SEND_MAX: Duration = Duration::from_secs(1);

/// The line to the service manager of this process.
static NOTIFIER: LazyLock<Notifier> = LazyLock::new(Notifier::from_env);

/// Tells that the process serves, and answers the watchdog from now on. Call it where connections
/// are worked on: it is their threads that are vouched for.
pub fn serves() {
    NOTIFIER.send("READY=1\nSTATUS=serving");
    if let Some(timeout) = NOTIFIER.watchdog {
        tokio::spawn(watchdog::answer(&NOTIFIER, timeout / watchdog::TIMES));
    }
}

/// Tells that a reload begins. It is over when the guard is dropped, whatever came of it.
pub fn reloading() -> Reloading {
    NOTIFIER.reloading()
}

/// Tells that a stop begins.
pub fn stopping() {
    NOTIFIER.send("STOPPING=1\nSTATUS=stopping: requests in flight finish");
}

/// Makes another process the main one of the service. This one is silent from then on: what it
/// does while its last requests finish is not what the service does.
pub fn hand_over(successor: u32) {
    NOTIFIER.hand_over(successor);
}

/// Keeps a program that is about to be started from speaking for the service.
pub fn hide_from(command: &mut Command) {
    pass_on(command);
    command.env_remove(NOTIFY_SOCKET).env_remove(WATCHDOG_USEC);
}

/// Lets a successor that is about to be started speak for the service. Sockets reach it another
/// way, and the watchdog is its own.
pub fn pass_on(command: &mut Command) {
    command.env_remove(WATCHDOG_PID);
    for name in LISTEN {
        command.env_remove(name);
    }
}

/// Where messages go, if anybody listens.
struct Notifier {
    to: Option<SocketAddr>,
    watchdog: Option<Duration>,
    silent: AtomicBool,
}

/// A reload that goes on.
#[must_use = "the reload is over when this is dropped"]
pub struct Reloading {
    notifier: &'static Notifier,
    outcome: String,
}

impl Reloading {
    /// Says in words what came of it; of several lines, the first counts.
    pub fn ends_with(mut self, outcome: &str) {
        outcome.lines().next().unwrap_or_default().clone_into(&mut self.outcome);
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        self.notifier.send(&format!("READY=1\nSTATUS={}", self.outcome));
    }
}

impl Notifier {
    fn from_env() -> Self {
        let to = env::var_os(NOTIFY_SOCKET).and_then(|name| match address(&name) {
            Ok(address) => Some(address),
            Err(why) => {
                warn!("systemd: {NOTIFY_SOCKET} is {}: {why}", name.display());
                None
            }
        });
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let is_ours = number(WATCHDOG_PID).is_none_or(|id| id == u64::from(process::id()));
        let timeout = number(WATCHDOG_USEC).filter(|micros| is_ours && 0 < *micros);
        let watchdog = timeout.filter(|_| to.is_some()).map(Duration::from_micros);
        Self { to, watchdog, silent: AtomicBool::new(false) }
    }

    fn reloading(&'static self) -> Reloading {
        // systemd takes a READY=1 for the end of this reload only if it is younger than this.
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reloading"));
        Reloading { notifier: self, outcome: "serving".to_owned() }
    }

    fn hand_over(&self, successor: u32) {
        self.send(&format!("MAINPID={successor}\nSTATUS=serving"));
        self.silent.store(true, SeqCst);
    }

    /// Sends what cannot be sent later; a service manager that does not take it is worth a line.
    fn send(&self, message: &str) {
        let Some(to) = self.to.as_ref().filter(|_| !self.silent.load(SeqCst)) else { return };
        if let Err(why) = send(to, message) {
            let first = message.lines().next().unwrap_or_default();
            warn!("systemd: {first} was not taken: {why}");
        }
    }
}

fn send(to: &SocketAddr, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_MAX))?;
    socket.send_to_addr(message.as_bytes(), to)?;
    Ok(())
}

/// A path, or after an `@` a name without one.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "no Unix socket")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use pingora_runtime::Runtime;

    use super::*;

    fn listening(socket: &UnixDatagram) -> &'static Notifier {
        let to = Some(socket.local_addr().unwrap());
        Box::leak(Box::new(Notifier { to, watchdog: None, silent: AtomicBool::new(false) }))
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// Whichever thread it is: sooner or later a sign falls on it.
    #[test]
    fn a_thread_that_hangs_ends_the_signs_of_life() {
        let (_folder, socket) = bound();
        let notifier = listening(&socket);
        let runtime = Runtime::new_no_steal(2, "workers");
        let (resume, blocked) = mpsc::channel::<()>();
        runtime.get_handle().spawn(watchdog::answer(notifier, Duration::from_millis(1)));
        assert_eq!(received(&socket), "WATCHDOG=1");

        runtime.get_handle().spawn(async move { blocked.recv().unwrap() });
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        while socket.recv(&mut [0; 64]).is_ok() {}
        resume.send(()).unwrap();
        assert_eq!(received(&socket), "WATCHDOG=1");
        runtime.shutdown_timeout(Duration::from_secs(1));
    }

    fn is_empty(socket: &UnixDatagram) -> bool {
        socket.set_nonblocking(true).unwrap();
        socket.recv(&mut [0; 1]).is_err_and(|why| why.kind() == io::ErrorKind::WouldBlock)
    }

    fn bound() -> (tempfile::TempDir, UnixDatagram) {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        (folder, socket)
    }

    #[test]
    fn a_reload_begins_with_its_time_and_ends_ready() {
        let (_folder, socket) = bound();
        let reloading = listening(&socket).reloading();
        let message = received(&socket);
        let lines: Vec<&str> = message.lines().collect();
        assert_eq!((lines[0], lines[2]), ("RELOADING=1", "STATUS=reloading"));
        let micros: u64 = lines[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(0 < micros);

        reloading.ends_with("v1 → v2: route shop changed\nand more");
        assert_eq!(received(&socket), "READY=1\nSTATUS=v1 → v2: route shop changed");
    }

    /// Such as one whose task was dropped.
    #[test]
    fn a_reload_that_is_given_up_ends_ready() {
        let (_folder, socket) = bound();
        drop(listening(&socket).reloading());
        received(&socket);
        assert_eq!(received(&socket), "READY=1\nSTATUS=serving");
    }

    #[test]
    fn who_has_handed_over_says_nothing_more() {
        let (_folder, socket) = bound();
        let notifier = listening(&socket);
        notifier.hand_over(4711);
        assert_eq!(received(&socket), "MAINPID=4711\nSTATUS=serving");
        notifier.send("STOPPING=1");
        drop(notifier.reloading());
        assert!(is_empty(&socket));
    }

    #[test]
    fn a_socket_may_have_a_name_without_a_file() {
        let name = format!("@crestline-test-{}", process::id());
        let to = address(OsStr::new(&name)).unwrap();
        let socket = UnixDatagram::bind_addr(&to).unwrap();
        send(&to, "READY=1").unwrap();
        assert_eq!(received(&socket), "READY=1");
        for wrong in ["", "vsock:2:1234", "relative/path"] {
            assert!(address(OsStr::new(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn children_are_told_only_what_is_theirs() {
        let removed = |command: &Command| -> Vec<String> {
            let gone = command.get_envs().filter(|(_, value)| value.is_none());
            gone.map(|(name, _)| name.to_str().unwrap().to_owned()).collect()
        };
        let (mut stranger, mut successor) = (Command::new("x"), Command::new("x"));
        hide_from(&mut stranger);
        pass_on(&mut successor);
        let sockets = ["LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID"];
        assert_eq!(removed(&successor), [&sockets[..], &["WATCHDOG_PID"]].concat());
        let notify = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];
        assert_eq!(removed(&stranger), [&sockets[..], &notify].concat());
    }
}
