//! What the service manager is told, in systemd's notify protocol.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{self, SocketAddr},
    },
    process,
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{net::UnixDatagram, time::Instant};

use crate::support::{Crestline, Finished, Origin, eventually, soon};

/// The end at which systemd listens.
struct Manager {
    socket: UnixDatagram,
    name: String,
    _folder: Option<TempDir>,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, name: path.display().to_string(), _folder: Some(folder) }
    }

    /// At a name without a file, which begins with `@` where it is told.
    fn without_a_file() -> Self {
        let name = format!("crestline-manager-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = net::UnixDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = UnixDatagram::from_std(socket).unwrap();
        Self { socket, name: format!("@{name}"), _folder: None }
    }

    /// Starts a Crestline that talks to this end.
    async fn start(&self, origin: &Origin, environment: &[(&str, &str)], more: &str) -> Crestline {
        let environment = [&[("NOTIFY_SOCKET", self.name.as_str())], environment].concat();
        Crestline::start_among(&[], &environment, &yaml(origin, more)).await
    }

    /// The next message.
    async fn told(&self) -> String {
        let mut buffer = [0; 4096];
        let length = soon("a message", self.socket.recv(&mut buffer)).await.unwrap();
        str::from_utf8(&buffer[..length]).unwrap().to_owned()
    }

    /// Whether nothing waits to be read.
    fn has_been_told_all(&self) -> bool {
        let next = self.socket.try_recv(&mut [0; 1]);
        next.is_err_and(|why| why.kind() == io::ErrorKind::WouldBlock)
    }
}

fn yaml(origin: &Origin, more: &str) -> String {
    format!("grace_period_seconds: 1\nupstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n{more}")
}

/// The time stamp of the beginning of a reload, which is all of the message but its words.
fn stamp(message: &str) -> u64 {
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!((lines[0], lines[2], lines.len()), ("RELOADING=1", "STATUS=reloading", 3));
    lines[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap()
}

/// Not before: the first message is also the one that says ready.
#[tokio::test]
async fn ready_is_told_when_requests_are_answered() {
    let origin = Origin::replying("hello");
    let manager = Manager::new();
    let proxy = manager.start(&origin, &[], "").await;

    assert_eq!(manager.told().await, "READY=1\nSTATUS=serving");
    assert_eq!(proxy.log_with("first round over").len(), 1);
    assert_eq!(proxy.get("/").await.text(), "hello");
    assert!(manager.has_been_told_all());
}

#[tokio::test]
async fn the_manager_may_listen_at_an_abstract_name() {
    let origin = Origin::replying("hello");
    let manager = Manager::without_a_file();
    let _proxy = manager.start(&origin, &[], "").await;
    assert_eq!(manager.told().await, "READY=1\nSTATUS=serving");
}

#[tokio::test]
async fn a_start_that_fails_never_tells_ready() {
    let manager = Manager::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crestline.yaml");
    std::fs::write(&file, "upstreams: { app: { backends: [] } }").unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_crestline"));
    command.arg("-c").arg(&file).env("NOTIFY_SOCKET", &manager.name);
    let output = soon("the end", command.output()).await.unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(manager.has_been_told_all());
}

#[tokio::test]
async fn a_reload_is_told_from_its_beginning_to_its_end() {
    let origin = Origin::replying("hello");
    let manager = Manager::new();
    let proxy = manager.start(&origin, &[], "").await;
    manager.told().await;

    // By command: the end is told before the command ends.
    let changed = "routes: [{ name: all, upstream: app }]";
    let receipt = proxy.reload(&yaml(&origin, changed)).await;
    let first = stamp(&manager.told().await);
    assert_eq!(manager.told().await, format!("READY=1\nSTATUS=serving {receipt}"));
    assert!(manager.has_been_told_all());

    // By signal.
    proxy.rewrite(&yaml(&origin, ""));
    proxy.signal(Signal::HUP);
    let second = stamp(&manager.told().await);
    assert!(manager.told().await.starts_with("READY=1\nSTATUS=serving v2 → v3: "));
    assert!(first < second, "time goes on");
}

#[tokio::test]
async fn a_reload_that_is_refused_ends_ready() {
    let origin = Origin::replying("hello");
    let manager = Manager::new();
    let proxy = manager.start(&origin, &[], "").await;
    manager.told().await;

    proxy.refuses(&yaml(&origin, "routes: [{ name: all, upstream: nobody }]")).await;
    proxy.signal(Signal::HUP);
    for _by in ["command", "signal"] {
        stamp(&manager.told().await);
        let refused = "READY=1\nSTATUS=serving; a reload was refused, and nothing was changed";
        assert_eq!(manager.told().await, refused);
    }
}

#[tokio::test]
async fn a_stop_is_told_when_it_begins() {
    let origin = Origin::replying("hello");
    for signal in [Signal::TERM, Signal::INT] {
        let manager = Manager::new();
        let mut proxy = manager.start(&origin, &[], "").await;
        manager.told().await;
        proxy.signal(signal);
        let told = manager.told().await;
        assert_eq!(told, "STOPPING=1\nSTATUS=stopping: requests in flight finish", "{signal:?}");
        soon("its end", async {
            while proxy.is_running() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(manager.has_been_told_all(), "nothing follows");
    }
}

/// Three times as often as systemd asks for, and never faster.
#[tokio::test]
async fn the_watchdog_is_answered_at_its_rate() {
    const SIGNS: u32 = 10;
    let origin = Origin::replying("hello");
    let manager = Manager::new();
    let _proxy = manager.start(&origin, &[("WATCHDOG_USEC", "300000")], "").await;
    assert_eq!(manager.told().await, "READY=1\nSTATUS=serving");

    let mut first = None;
    for _ in 0..SIGNS {
        assert_eq!(manager.told().await, "WATCHDOG=1");
        first.get_or_insert_with(Instant::now);
    }
    let took = first.unwrap().elapsed();
    let least = Duration::from_millis(100) * (SIGNS - 2);
    assert!(least <= took, "{SIGNS} signs in {took:?}");
}

/// Not of this process, or not at all.
#[tokio::test]
async fn nobody_elses_watchdog_is_answered() {
    let origin = Origin::replying("hello");
    let environment = [("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")];
    let manager = Manager::new();
    let proxy = manager.start(&origin, &environment, "").await;
    assert_eq!(manager.told().await, "READY=1\nSTATUS=serving");
    proxy.signal(Signal::TERM);
    assert!(manager.told().await.starts_with("STOPPING=1\n"), "no sign came between");
}

/// The successor says that it is ready before it becomes the main process, and the old one says
/// nothing after that: what it does then is not what the service does.
#[tokio::test]
async fn an_upgrade_makes_the_successor_the_main_process() {
    let origin = Origin::replying("hello");
    let manager = Manager::new();
    let mut proxy = manager.start(&origin, &[], "").await;
    assert_eq!(manager.told().await, "READY=1\nSTATUS=serving");
    let told = proxy.command(&["upgrade", "--binary", "/bin/false"]).await;
    assert_eq!(told.code, Some(1), "{}", told.stderr);
    assert!(manager.has_been_told_all(), "an upgrade that does not happen is no news");

    for _ in 0..2 {
        let told = proxy.command(&["upgrade"]).await;
        assert_eq!(told.code, Some(0), "{}", told.stderr);
        let new = proxy.in_force().unwrap();
        assert_eq!(manager.told().await, "READY=1\nSTATUS=serving");
        assert_eq!(manager.told().await, format!("MAINPID={new}\nSTATUS=serving"));
    }
    eventually("the end of the old process", || !proxy.is_running()).await;
    assert!(manager.has_been_told_all());

    let receipt = proxy.reload(&yaml(&origin, "routes: [{ name: all, upstream: app }]")).await;
    stamp(&manager.told().await);
    assert_eq!(manager.told().await, format!("READY=1\nSTATUS=serving {receipt}"));
    let told = proxy.command(&["drain"]).await;
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert_eq!(manager.told().await, "STOPPING=1\nSTATUS=stopping: requests in flight finish");
    assert!(manager.has_been_told_all());
}

#[tokio::test]
async fn the_watchdog_is_answered_by_the_successor() {
    let origin = Origin::replying("hello");
    let manager = Manager::new();
    let mut proxy = manager.start(&origin, &[("WATCHDOG_USEC", "300000")], "").await;
    let told = proxy.command(&["upgrade"]).await;
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    eventually("the end of the old process", || !proxy.is_running()).await;
    while !manager.has_been_told_all() {}
    assert_eq!(manager.told().await, "WATCHDOG=1");
}

/// Commands that talk to the process are run with its environment, as `ExecReload=` is.
#[tokio::test]
async fn a_command_does_not_speak_for_the_service() {
    let origin = Origin::replying("hello");
    let manager = Manager::new();
    let proxy = manager.start(&origin, &[], "").await;
    manager.told().await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_crestline"));
    command.arg("-c").arg(proxy.file()).arg("status").env("NOTIFY_SOCKET", &manager.name);
    let output = soon("status", command.output()).await.unwrap();
    assert!(output.status.success());
    assert!(manager.has_been_told_all());
}

#[tokio::test]
async fn a_manager_that_is_gone_costs_a_line_in_the_log() {
    let origin = Origin::replying("hello");
    let environment = [("NOTIFY_SOCKET", "/no/such/socket")];
    let proxy = Crestline::start_among(&[], &environment, &yaml(&origin, "")).await;
    proxy.logs("systemd: READY=1 was not taken: No such file or directory").await;
    let Finished { code, .. } = proxy.command(&["reload"]).await;
    assert_eq!(code, Some(0));
    assert_eq!(proxy.get("/").await.text(), "hello");
}
