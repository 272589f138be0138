//! What the kernel is told of listening sockets, read back from the running process.

use std::{
    fs,
    io::Write as _,
    os::fd::OwnedFd,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::Socket;
use tokio::time::Instant;

use crate::support::{Crestline, Finished, Origin, PATIENCE, curl, get};

/// The listening socket of a process at an address, shared with it.
fn socket_of(pid: u32, address: &str) -> Socket {
    let process = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let process = pidfd_open(process, PidfdFlags::empty()).unwrap();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let descriptors =
        descriptors.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let sockets = descriptors.filter_map(|descriptor: i32| {
        Some(Socket::from(pidfd_getfd(&process, descriptor, PidfdGetfdFlags::empty()).ok()?))
    });
    let is_it = |socket: &Socket| {
        let local = socket.local_addr().ok().and_then(|local| local.as_socket());
        socket.is_listener().unwrap_or(false)
            && local.is_some_and(|local| local.to_string() == address)
    };
    sockets.into_iter().find(is_it).expect("it listens there")
}

/// The value of a numeric option of TCP that socket2 does not know; perl does not need to.
fn tcp_option(socket: &Socket, option: i32) -> i32 {
    let script = format!("print unpack('i', getsockopt(STDIN, 6, {option}))");
    let socket: OwnedFd = socket.try_clone().unwrap().into();
    let perl = Command::new("perl").args(["-e", &script]).stdin(Stdio::from(socket)).output();
    let told = perl.expect("perl is part of every Debian").stdout;
    str::from_utf8(&told).unwrap().parse().unwrap()
}

const TCP_FASTOPEN: i32 = 23;

/// How many connections may wait, as `ss` tells; `None` if nobody listens.
fn backlog(address: &str) -> Option<u32> {
    let (family, filter) = match address.strip_prefix("unix:") {
        Some(path) => ("-Hlx", path),
        None => ("-Hltn", address),
    };
    let output = Command::new("ss").args([family, "src", filter]).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let line = told.lines().find(|line| line.contains("LISTEN"))?;
    let mut state = line.split_whitespace().skip_while(|word| *word != "LISTEN");
    state.nth(2)?.parse().ok()
}

/// Waits for a backlog: Pingora sets its own at first.
async fn has_backlog(address: &str, wanted: u32) {
    let start = Instant::now();
    while backlog(address) != Some(wanted) {
        assert!(start.elapsed() < PATIENCE, "{address}: {:?}, not {wanted}", backlog(address));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn yaml(origin: &Origin, address: &str, socket: &str) -> String {
    format!(
        "
        listeners: [{{ address: \"{address}\", socket: {{ {socket} }} }}]
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        "
    )
}

const ALL: &str = "backlog: 77, reuse_port: true, user_timeout: 7s, fast_open: 33, dscp: 46, \
                   tcp_keepalive: { idle: 61s, every: 11s, count: 4 }";

fn assert_is_told_all(socket: &Socket) {
    assert!(socket.reuse_port().unwrap());
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(61));
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(11));
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
    assert_eq!(socket.tos_v4().unwrap(), 46 << 2);
}

#[tokio::test]
async fn a_listening_socket_is_told_what_the_file_says() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&yaml(&origin, "127.0.0.1:0", ALL)).await;
    assert_eq!(proxy.get("/").await.text(), "hello");
    let socket = socket_of(proxy.id(), proxy.address());
    assert_is_told_all(&socket);
    assert_eq!(tcp_option(&socket, TCP_FASTOPEN), 33);
    has_backlog(proxy.address(), 77).await;

    // And so are the connections that come by it.
    let mut client = proxy.client().await;
    assert_eq!(client.exchange(get("/")).await.text(), "hello");
    let output = Command::new("ss").args(["-Htnoe", "sport", &port(proxy.address())]).output();
    let told = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(told.contains("keepalive"), "{told}");
}

fn port(address: &str) -> String {
    format!("= :{}", address.rsplit(':').next().unwrap())
}

#[tokio::test]
async fn a_listener_at_an_ipv6_address_may_leave_ipv4_out() {
    let origin = Origin::replying("hello");
    let all = "ipv6_only: true, dscp: 10";
    let proxy = Crestline::start(&yaml(&origin, "[::]:0", all)).await;
    let socket = socket_of(proxy.id(), proxy.address());
    assert!(socket.only_v6().unwrap());
    assert_eq!(socket.tclass_v6().unwrap(), 10 << 2);
    let port = proxy.address().rsplit(':').next().unwrap();
    let status = ["-o", "/dev/null", "-w", "%{http_code}"];
    for (host, told) in [("[::1]", "200"), ("127.0.0.1", "000")] {
        let output = curl(&[&status[..], &[&format!("http://{host}:{port}/")]].concat()).await;
        assert_eq!(str::from_utf8(&output.stdout).unwrap(), told, "{host}");
    }
}

#[tokio::test]
async fn what_is_not_asked_for_is_the_kernel_s() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&yaml(&origin, "[::]:0", "")).await;
    let socket = socket_of(proxy.id(), proxy.address());
    assert!(!socket.only_v6().unwrap() && !socket.reuse_port().unwrap());
    assert!(!socket.keepalive().unwrap());
    assert_eq!((socket.tos_v4().unwrap(), socket.tclass_v6().unwrap()), (0, 0));
    assert_eq!(tcp_option(&socket, TCP_FASTOPEN), 0);
}

#[tokio::test]
async fn a_unix_socket_has_a_backlog() {
    let origin = Origin::replying("hello");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock").display().to_string();
    let _proxy = Crestline::start(&yaml(&origin, &format!("unix:{path}"), "backlog: 55")).await;
    has_backlog(&format!("unix:{path}"), 55).await;
}

/// Two processes share a port where both say so.
#[tokio::test]
async fn a_port_is_shared_where_both_say_so() {
    let origin = Origin::replying("hello");
    let first = Crestline::start(&yaml(&origin, "127.0.0.1:0", "reuse_port: true")).await;
    let shared = yaml(&origin, first.address(), "reuse_port: true");
    let second = Crestline::start(&shared).await;
    assert_eq!(first.address(), second.address());
    assert_eq!(first.get("/").await.text(), "hello");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crestline.yaml");
    let mut written = fs::File::create(&file).unwrap();
    written.write_all(yaml(&origin, first.address(), "").as_bytes()).unwrap();
    let Finished { code, stderr, .. } = Crestline::run(&["-c", file.to_str().unwrap()]).await;
    assert_eq!(code, Some(69), "{stderr}");
}

/// A reload says how it takes effect; an upgrade tells the same socket the new values.
#[tokio::test]
async fn an_upgrade_tells_an_open_socket_what_is_new() {
    let origin = Origin::replying("hello");
    let before = "reuse_port: true, dscp: 3";
    let proxy = Crestline::start(&yaml(&origin, "127.0.0.1:0", before)).await;
    let told = proxy.refuses(&yaml(&origin, "127.0.0.1:0", ALL)).await;
    assert!(told.contains("help: this takes effect with: crestline upgrade"), "{told}");
    let Finished { code, stderr, .. } = proxy.command(&["upgrade"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    let successor = proxy.in_force().unwrap();
    assert_ne!(successor, proxy.id());
    assert_is_told_all(&socket_of(successor, proxy.address()));
    has_backlog(proxy.address(), 77).await;
    assert_eq!(proxy.get("/").await.text(), "hello");
}

/// What a socket was bound with stays, and the old process serves on.
#[tokio::test]
async fn what_only_a_restart_changes_is_refused_by_reload_and_upgrade() {
    let origin = Origin::replying("hello");
    let mut proxy = Crestline::start(&yaml(&origin, "[::]:0", "")).await;
    for socket in ["ipv6_only: true", "reuse_port: true"] {
        let told = proxy.refuses(&yaml(&origin, "[::]:0", socket)).await;
        assert!(told.contains("help: this takes effect with a restart"), "{told}");
        let Finished { code, stderr, .. } = proxy.command(&["upgrade"]).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("takes effect with a restart"), "{stderr}");
        assert!(proxy.is_running());
        assert_eq!(proxy.get("/").await.text(), "hello");
    }
}
