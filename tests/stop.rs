//! Stopping: what is in flight finishes, nothing that was sent is lost, and nobody waits in vain.

use std::{
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};
use socket2::Socket;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{self, Instant},
};

use crate::support::{
    Client, Crestline, Ending, Origin, PATIENCE, UntilRefused, eventually, get, request, soon,
};

/// A stop that need not wait for anything takes no longer, however busy the machine is; the
/// grace period of these tests is much longer.
const AT_ONCE: Duration = Duration::from_secs(30);

async fn before(origin: &Origin, keys: &str) -> Crestline {
    let grace = if keys.contains("grace_period_seconds") { "" } else { "grace_period_seconds: 60" };
    let upstreams = format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}");
    Crestline::start_in_parts(&[&upstreams, grace, keys]).await
}

/// Waits for its end; how long that took.
async fn end(proxy: &mut Crestline) -> Duration {
    let start = Instant::now();
    eventually("the end of the process", || !proxy.is_running()).await;
    start.elapsed()
}

async fn is_closed(proxy: &Crestline) {
    proxy.logs(&format!("listener: {} closed", proxy.address())).await;
}

/// An origin that answers `/slow` when it is told to, and everything else at once.
fn slow(go: &Arc<Notify>) -> Origin {
    let go = go.clone();
    Origin::with(move |mut exchange| {
        let go = go.clone();
        async move {
            if exchange.request.target != "/slow" {
                return exchange.reply("fast").await;
            }
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nslow").await;
            go.notified().await;
            exchange.send("down").await;
            exchange.keep()
        }
    })
}

/// A client that has half of the answer to `/slow`.
async fn half_answered(proxy: &Crestline) -> Client {
    let mut client = proxy.client().await;
    client.send(get("/slow")).await;
    client.head().await;
    client
}

#[tokio::test]
async fn an_idle_process_leaves_at_once_with_idle_clients_too() {
    let origin = Origin::replying("hello");
    for idle in 0..3 {
        let mut proxy = before(&origin, "").await;
        let mut clients = Vec::new();
        for _ in 0..idle {
            let mut client = proxy.client().await;
            client.exchange(get("/")).await;
            clients.push(client);
        }
        proxy.signal(Signal::TERM);
        let took = end(&mut proxy).await;
        assert!(took < AT_ONCE, "{took:?}, with {idle} idle clients");
        for mut client in clients {
            assert_eq!(client.rest().await, (Vec::new(), Ending::Closed));
        }
        assert!(!proxy.admin_socket().exists());
        assert_eq!(proxy.access_lines().len(), idle, "what waits to be logged is written");
        proxy.logs("stop: nothing was left").await;
    }
}

#[tokio::test]
async fn a_slow_download_is_waited_for() {
    let go = Arc::new(Notify::new());
    let origin = slow(&go);
    let mut proxy = before(&origin, "").await;
    let mut client = half_answered(&proxy).await;

    proxy.signal(Signal::TERM);
    is_closed(&proxy).await;
    time::sleep(Duration::from_millis(300)).await;
    assert!(proxy.is_running());
    go.notify_one();
    let (rest, ending) = client.rest().await;
    assert_eq!((&rest[..], ending), (&b"slowdown"[..], Ending::Closed));
    assert!(end(&mut proxy).await < AT_ONCE);
    assert_eq!(proxy.access_lines().len(), 1);
}

#[tokio::test]
async fn a_slow_upload_is_waited_for() {
    let origin = Origin::echoing();
    let mut proxy = before(&origin, "").await;
    let mut client = proxy.client().await;
    client.send(request("POST", "/", "Content-Length: 10\r\n", "")).await;
    client.send("hello").await;
    eventually("the request at the origin", || origin.count() == 1).await;

    proxy.signal(Signal::TERM);
    is_closed(&proxy).await;
    for byte in ["w", "o", "r", "l", "d"] {
        time::sleep(Duration::from_millis(50)).await;
        client.send(byte).await;
    }
    let answer = client.answer().await;
    assert_eq!(answer.text(), "helloworld");
    assert_eq!(answer.get("connection"), Some("close"));
    assert!(end(&mut proxy).await < AT_ONCE);
}

#[tokio::test]
async fn nothing_is_waited_for_beyond_the_grace_period() {
    let origin = Origin::stalling();
    let mut proxy = before(&origin, "grace_period_seconds: 1").await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    eventually("the request at the origin", || origin.count() == 1).await;

    let start = Instant::now();
    proxy.signal(Signal::TERM);
    end(&mut proxy).await;
    let took = start.elapsed();
    assert!(Duration::from_secs(1) <= took && took < AT_ONCE, "{took:?}");
    proxy.logs("stop: left at the end of the grace period, with 1 connection, 1 request, ").await;
}

#[tokio::test]
async fn a_second_signal_leaves_at_once() {
    let origin = Origin::stalling();
    for (keys, second) in [("", Signal::TERM), ("", Signal::INT), ("lame_duck: 1m", Signal::TERM)] {
        let mut proxy = before(&origin, keys).await;
        let mut client = proxy.client().await;
        client.send(get("/")).await;
        proxy.logs("admin: socket opened").await;
        proxy.signal(Signal::TERM);
        proxy.logs("stop: draining").await;
        assert!(proxy.is_running());
        proxy.signal(second);
        assert!(end(&mut proxy).await < AT_ONCE, "{keys} {second:?}");
        assert!(!proxy.admin_socket().exists());
        proxy.logs("stop: left at once, at a second signal").await;
    }
}

#[tokio::test]
async fn a_lame_duck_serves_on_and_says_that_it_is_draining() {
    let origin = Origin::replying("hello");
    let mut proxy = before(&origin, "lame_duck: 6s").await;
    assert_eq!(proxy.status().await["state"], "serving");
    let start = Instant::now();
    proxy.signal(Signal::TERM);
    proxy.logs("stop: draining; listeners close in 6s").await;
    let (mut served, mut kept) = (0, proxy.client().await);
    while served < 3 {
        assert_eq!(proxy.get("/").await.text(), "hello");
        assert_ne!(kept.exchange(get("/")).await.get("connection"), Some("close"));
        served += 1;
        assert_eq!(proxy.status().await["state"], "draining");
    }
    end(&mut proxy).await;
    let took = start.elapsed();
    assert!(Duration::from_secs(6) <= took && took < Duration::from_secs(6) + AT_ONCE, "{took:?}");
}

/// A load balancer's connection is told in an answer, where there is one.
#[tokio::test]
async fn requests_on_their_way_are_answered_and_their_connections_closed() {
    let go = Arc::new(Notify::new());
    let origin = slow(&go);
    let mut proxy = before(&origin, "").await;
    let mut holds = half_answered(&proxy).await;
    let mut kept = [proxy.client().await, proxy.client().await];
    for client in &mut kept {
        client.exchange(get("/")).await;
    }
    let mut fresh = proxy.client().await;

    proxy.signal(Signal::TERM);
    is_closed(&proxy).await;
    let [first, second] = &mut kept;
    for (client, path, status) in [(first, "/", 200), (&mut fresh, "/", 200)] {
        let answer = client.exchange(get(path)).await;
        assert_eq!((answer.status, answer.get("connection")), (status, Some("close")));
        assert_eq!(client.rest().await, (Vec::new(), Ending::Closed));
    }
    assert_eq!(second.rest().await, (Vec::new(), Ending::Closed), "after a moment");
    assert!(proxy.is_running(), "one request is in flight");
    go.notify_one();
    assert_eq!(holds.rest().await.1, Ending::Closed);
    assert!(end(&mut proxy).await < AT_ONCE);
}

/// Clients that repeat nothing: they see whole answers, or a close before the first byte of one.
/// The latter only where the request cannot have arrived before the close.
#[tokio::test]
async fn keep_alive_clients_under_load_see_no_failed_request() {
    let origin = Origin::replying("hello");
    for round in 0..3 {
        let mut proxy = before(&origin, "").await;
        let (served, told) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for nth in 0..24u64 {
            let address = proxy.address().to_owned();
            let (served, told) = (served.clone(), told.clone());
            clients.spawn(async move {
                let mut client = Client::connect(&address).await;
                loop {
                    let answer = client.exchange(get("/")).await;
                    assert_eq!(answer.text(), "hello");
                    served.fetch_add(1, SeqCst);
                    if answer.get("connection") == Some("close") {
                        told.fetch_add(1, SeqCst);
                        assert_eq!(client.rest().await, (Vec::new(), Ending::Closed));
                        return;
                    }
                    time::sleep(Duration::from_millis(nth % 4)).await;
                }
            });
        }
        eventually("load", || 200 < served.load(SeqCst)).await;
        proxy.signal(Signal::TERM);
        soon("the clients", clients.join_all()).await;
        assert_eq!(told.load(SeqCst), 24, "round {round}");
        assert!(end(&mut proxy).await < AT_ONCE);
        let lines = proxy.access_lines().len();
        assert_eq!(lines, served.load(SeqCst), "each in the log");
    }
}

/// A connection for each request: it is refused, or answered; never reset.
#[tokio::test]
async fn connections_that_the_kernel_accepted_are_served() {
    let origin = Origin::replying("hello");
    for _ in 0..5 {
        let mut proxy = before(&origin, "threads: 1").await;
        let clients = UntilRefused::start(proxy.address(), 4);
        clients.goes_on().await;
        proxy.signal(Signal::TERM);
        clients.end().await;
        assert!(end(&mut proxy).await < AT_ONCE);
    }
}

/// They lie in the kernel's queue while nobody accepts: the process is stopped by a debugger's
/// signal, told to stop, and goes on.
#[tokio::test]
async fn a_queue_that_waits_when_the_stop_begins_is_served_to_its_end() {
    let origin = Origin::replying("hello");
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("http.sock");
    let listeners = format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}, {{ address: \"unix:{}\" }}]",
        socket.display()
    );
    let mut proxy = before(&origin, &listeners).await;
    proxy.signal(Signal::STOP);
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = proxy.client().await;
        client.send(get("/")).await;
        clients.push(client);
    }
    let mut local = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    local.write_all(get("/").as_bytes()).unwrap();
    proxy.signal(Signal::TERM);
    proxy.signal(Signal::CONT);
    for mut client in clients {
        let answer = client.answer().await;
        assert_eq!(answer.text(), "hello");
        assert_eq!(client.rest().await.1, Ending::Closed);
    }
    local.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    tokio::task::spawn_blocking(move || {
        local.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("hello"), "{answer}");
    })
    .await
    .unwrap();
    assert!(end(&mut proxy).await < AT_ONCE);
    assert!(!socket.exists(), "the socket of a listener is removed");
}

#[tokio::test]
async fn crestline_drain_shows_what_is_left_until_the_process_is_gone() {
    let go = Arc::new(Notify::new());
    let origin = slow(&go);
    let mut proxy = before(&origin, "").await;
    let mut client = half_answered(&proxy).await;

    let is_over = AtomicBool::new(false);
    let drained = async {
        let finished = proxy.command(&["drain", "--json"]).await;
        is_over.store(true, SeqCst);
        finished
    };
    let meanwhile = async {
        is_closed(&proxy).await;
        let status = proxy.status().await;
        assert_eq!(status["state"], "leaving", "{status}");
        assert_eq!(status["in_flight"]["requests"], 1, "{status}");
        time::sleep(Duration::from_millis(1500)).await;
        assert!(!is_over.load(SeqCst), "it waits");
        go.notify_one();
        client.rest().await
    };
    let (finished, _) = tokio::join!(drained, meanwhile);
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""));
    let states: Vec<serde_json::Value> =
        finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = states.last().unwrap();
    assert_eq!(last["state"], "gone", "{states:?}");
    assert_eq!(last["pid"], proxy.id());
    let in_flight = |state: &serde_json::Value| state["in_flight"]["requests"] == 1;
    assert!(states.iter().any(in_flight), "{states:?}");
    assert!(!proxy.is_running(), "it is gone when the command ends");
    let told = proxy.command(&["drain"]).await;
    assert_eq!(told.code, Some(69), "{}", told.stderr);
}

#[tokio::test]
async fn people_read_what_is_left_and_a_second_drain_is_no_second_signal() {
    let go = Arc::new(Notify::new());
    let origin = slow(&go);
    let proxy = before(&origin, "").await;
    let mut client = half_answered(&proxy).await;

    let pid = proxy.id();
    let twice = async { tokio::join!(proxy.command(&["drain"]), proxy.command(&["drain"])) };
    let meanwhile = async {
        is_closed(&proxy).await;
        let (status, _) = proxy.api("POST", "/v1/drain", "").await;
        assert_eq!(status, 202);
        go.notify_one();
        let (rest, _) = client.rest().await;
        assert!(rest.ends_with(b"down"), "nothing was cut off");
    };
    let ((one, two), ()) = tokio::join!(twice, meanwhile);
    for told in [one, two] {
        assert_eq!((told.code, &*told.stdout), (Some(0), ""), "{}", told.stderr);
        assert!(told.stderr.ends_with(&format!("process {pid}: gone\n")), "{}", told.stderr);
    }
}

/// The kernel can take a socket's listening away; here, another holder of it does.
#[tokio::test]
async fn a_listener_that_dies_ends_the_process_with_an_error() {
    let origin = Origin::replying("hello");
    let mut proxy = before(&origin, "").await;
    proxy.get("/").await;
    let pid = Pid::from_raw(i32::try_from(proxy.id()).unwrap()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let sockets = (0..256).filter_map(|number| -> Option<OwnedFd> {
        pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()
    });
    let mut sockets = sockets.map(Socket::from);
    let address = proxy.address().parse().ok();
    let is_it = |socket: &Socket| {
        let local = socket.local_addr().ok().and_then(|local| local.as_socket());
        local == address && socket.is_listener().unwrap_or(false)
    };
    let listening = sockets.find(is_it).expect("a listening socket");
    listening.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(proxy.exit_code().await, Some(69));
    proxy.logs(&format!("listener: {} listens no more", proxy.address())).await;
    assert!(!proxy.admin_socket().exists());
}
