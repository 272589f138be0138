//! Socket activation: sockets that systemd bound are used by the listeners at their address.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt as _, net::UnixListener},
    },
};

use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::support::{Client, Crestline, Origin, curl, eventually, get, soon};

/// A listening socket, its address, and its kernel object.
fn listening() -> (OwnedFd, String, u64) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let socket = OwnedFd::from(socket);
    let inode = rustix::fs::fstat(&socket).unwrap().st_ino;
    (socket, address, inode)
}

fn yaml(origin: &Origin, listeners: &[&str]) -> String {
    let listeners: Vec<_> = listeners.iter().map(|at| format!("{{ address: \"{at}\" }}")).collect();
    format!(
        "listeners: [{}]\nupstreams: {{ app: {{ backends: [\"{origin}\"] }} }}",
        listeners.join(", ")
    )
}

/// And the one that was not handed in is bound as usual.
#[tokio::test]
async fn a_socket_that_was_handed_in_is_used_by_its_listener() {
    let origin = Origin::replying("hello");
    let (socket, address, inode) = listening();
    let mut early = Client::connect(&address).await;
    early.send(get("/early")).await;
    let listeners = ["127.0.0.1:0", &address];
    let proxy = Crestline::start_handed([Some(socket), None], &yaml(&origin, &listeners)).await;

    assert_eq!(early.answer().await.text(), "hello", "connections wait for the start");
    assert_eq!(proxy.addresses[1], address);
    for address in &proxy.addresses {
        assert_eq!(Client::connect(address).await.exchange(get("/")).await.text(), "hello");
    }
    let link = fs::read_dir(format!("/proc/{}/fd", proxy.id())).unwrap();
    // Others come and go meanwhile.
    let links = link.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let held = links.filter(|link| link.as_os_str() == format!("socket:[{inode}]").as_str());
    assert_eq!(held.count(), 3, "to accept, to be watched, and for a successor");
}

/// systemd keeps it for the next process: whatever a stop does to the sockets of a process itself
/// must not be done to this one.
#[tokio::test]
async fn a_socket_that_was_handed_in_outlives_a_stop() {
    let origin = Origin::replying("hello");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let unix = OwnedFd::from(UnixListener::bind(&path).unwrap());
    let (tcp, address, _) = listening();
    let listeners = [&address, &format!("unix:{}", path.display())];
    let yaml = yaml(&origin, &listeners.map(String::as_str));
    for start in 0..2 {
        let sockets = [Some(tcp.try_clone().unwrap()), Some(unix.try_clone().unwrap())];
        let mut proxy = Crestline::start_handed(sockets, &yaml).await;
        assert_eq!(proxy.get("/").await.text(), "hello", "start {start}");
        let output = curl(&["--unix-socket", path.to_str().unwrap(), "http://a.test/"]).await;
        assert_eq!(output.stdout, b"hello", "start {start}");
        proxy.signal(Signal::TERM);
        eventually("its end", || !proxy.is_running()).await;
    }
    soon("a place in the queue", TcpStream::connect(&address)).await.unwrap();
}

/// However many successors there were: each is told whose it is.
#[tokio::test]
async fn a_socket_that_was_handed_in_outlives_upgrades_and_a_stop() {
    let origin = Origin::replying("hello");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let unix = OwnedFd::from(UnixListener::bind(&path).unwrap());
    let (tcp, address, _) = listening();
    let listeners = [&address, &format!("unix:{}", path.display())];
    let sockets = [Some(tcp.try_clone().unwrap()), Some(unix.try_clone().unwrap())];
    let yaml = yaml(&origin, &listeners.map(String::as_str));
    let proxy = Crestline::start_handed(sockets, &yaml).await;
    proxy.logs("admin: socket opened").await;
    for _ in 0..2 {
        let told = proxy.command(&["upgrade"]).await;
        assert_eq!(told.code, Some(0), "{}", told.stderr);
    }
    assert_eq!(proxy.get("/").await.text(), "hello");
    let told = proxy.command(&["drain"]).await;
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    soon("a place in the queue", TcpStream::connect(&address)).await.unwrap();
    std::os::unix::net::UnixStream::connect(&path).unwrap();
}

/// Its mode stays what the unit said.
#[tokio::test]
async fn sockets_of_both_families_are_told_apart_by_their_address() {
    let origin = Origin::replying("hello");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let unix = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let (tcp, address, _) = listening();
    let listeners = [&address, &format!("unix:{}", path.display())];
    let sockets = [Some(OwnedFd::from(unix)), Some(tcp)];
    let yaml = yaml(&origin, &listeners.map(String::as_str));
    let proxy = Crestline::start_handed(sockets, &yaml).await;

    assert_eq!(proxy.addresses, listeners.map(String::clone));
    assert_eq!(proxy.get("/").await.text(), "hello");
    let output = curl(&["--unix-socket", path.to_str().unwrap(), "http://a.test/"]).await;
    assert_eq!(output.stdout, b"hello");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_socket_that_no_listener_wants_ends_the_start() {
    let origin = Origin::replying("hello");
    let ((wanted, first, _), (unwanted, second, _)) = (listening(), listening());
    let sockets = [Some(wanted), Some(unwanted)];
    let finished = Crestline::run_handed(sockets, &yaml(&origin, &[&first])).await;

    let told = format!(
        "error: systemd handed in `second` at {second}, and no listener has that address\n\
         help: add `{{ address: \"{second}\" }}` under `listeners`, or take it out of its unit\n"
    );
    assert_eq!((finished.code, finished.stderr), (Some(78), told));
    TcpStream::connect(&first).await.expect_err("nothing is left behind");
}

/// The usual one: a unit with a port alone means both families.
#[tokio::test]
async fn a_listener_of_the_same_port_is_named_when_the_address_differs() {
    let origin = Origin::replying("hello");
    let (socket, address, _) = listening();
    let any = address.replace("127.0.0.1", "0.0.0.0");
    let finished = Crestline::run_handed([Some(socket), None], &yaml(&origin, &[&any])).await;

    let told = format!(
        "error: systemd handed in `first` at {address}, and no listener has that address\n\
         help: write `{{ address: \"{address}\" }}` for {any}, or `ListenStream={any}` in its unit\n"
    );
    assert_eq!((finished.code, finished.stderr), (Some(78), told));
}

#[tokio::test]
async fn what_is_no_listening_stream_socket_ends_the_start() {
    let origin = Origin::replying("hello");
    let datagrams = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    let (listener, address, _) = listening();
    let connection = std::net::TcpStream::connect(&address).unwrap();
    let file = OwnedFd::from(fs::File::open("/dev/null").unwrap());
    let told = [
        (datagrams, "which is no stream socket"),
        (OwnedFd::from(connection), "which does not listen"),
        (file, "which is no stream socket"),
    ];
    for (socket, reason) in told {
        let yaml = yaml(&origin, &["127.0.0.1:0"]);
        let finished = Crestline::run_handed([Some(socket), None], &yaml).await;
        assert_eq!(finished.code, Some(78), "{}", finished.stderr);
        let first = format!("error: systemd handed in `first`, {reason}\n");
        assert!(finished.stderr.starts_with(&first), "{}", finished.stderr);
    }
    drop(listener);
}
