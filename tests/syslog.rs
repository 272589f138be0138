//! The access log as messages of syslog (RFC 5424), to receivers that are there, away, and stuck.

use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::Value;
use socket2::Socket;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::{TcpListener, TcpStream, UdpSocket},
};

use crate::support::{Crestline, Origin, bound, eventually, get, request, rsyslog::Rsyslog, soon};

/// A message, read as strictly as the RFC allows: with a host, and without structured data.
#[derive(Debug)]
struct Message {
    priority: u8,
    time: String,
    process: String,
    line: String,
}

impl Message {
    fn read(bytes: &[u8]) -> Self {
        let text = str::from_utf8(bytes).unwrap_or_else(|_| panic!("{bytes:?}"));
        let (priority, rest) = text.strip_prefix('<').unwrap().split_once(">1 ").expect(text);
        let parts: Vec<_> = rest.splitn(7, ' ').collect();
        let [time, host, app, process, id, data, line] = parts[..] else { panic!("{text}") };
        assert!(!host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
        assert_eq!((app, id, data), ("crestline", "access", "-"), "{text}");
        // `2026-11-26T08:00:00.123456Z`, as the RFC has it.
        assert!(time.len() == 27 && time.ends_with('Z') && &time[10..11] == "T", "{text}");
        let (time, process) = (time.to_owned(), process.to_owned());
        Self { priority: priority.parse().unwrap(), time, process, line: line.to_owned() }
    }
}

/// `local0` with how bad it is.
const GOOD: u8 = 16 * 8 + 6;
const FAILED: u8 = 16 * 8 + 4;
const OURS: u8 = 16 * 8 + 3;

fn origin() -> Origin {
    Origin::with(async |exchange| {
        let status = if exchange.request.target == "/none" { "404 No" } else { "200 OK" };
        exchange.answer(status, "", "").await
    })
}

#[tokio::test]
async fn each_line_is_a_datagram_that_says_how_bad_it_is() {
    let (origin, refusing) = (origin(), Origin::refusing());
    let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = receiver.local_addr().unwrap();
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app: {{ backends: [\"{origin}\"] }}
          dead: {{ backends: [\"{refusing}\"], health_check: off }}
        routes:
          - {{ name: dead, match: {{ path: /dead }}, upstream: dead }}
          - {{ name: all, upstream: app }}
        access_log: {{ syslog: {{ address: \"udp://{at}\", max_size: 480B }}, format: logfmt }}
        "
    ))
    .await;
    let mut buffer = vec![0; 65_536];
    let long = format!("/{}", "x".repeat(1_000));
    for (path, priority) in [("/", GOOD), ("/none", FAILED), ("/dead", OURS), (&long, GOOD)] {
        let answer = proxy.get(path).await;
        let length = soon("a datagram", receiver.recv(&mut buffer)).await.unwrap();
        let message = Message::read(&buffer[..length]);
        assert_eq!(message.priority, priority, "{message:?}");
        assert_eq!(message.process, proxy.id().to_string());
        let id = answer.get("x-request-id").unwrap();
        assert!(message.line.starts_with("time=") && message.line.contains(id), "{message:?}");
        assert_eq!(length == 480, path == long, "{message:?}");
        let logged = message.line.split([' ', '=']).nth(1).unwrap();
        assert!(are_close(&message.time, logged), "{message:?}");
    }
    proxy.logs("a line was cut off, since a message of syslog has 480 bytes at most").await;
}

/// Whether two times are the same but for the moment between two looks at the clock.
fn are_close(one: &str, other: &str) -> bool {
    let [one, other] = [one, other].map(|time| time.parse::<jiff::Timestamp>().unwrap());
    one.duration_since(other).abs() < jiff::SignedDuration::from_millis(500)
}

/// As an operator has it: what the most common receiver makes of the messages.
#[tokio::test]
async fn rsyslog_reads_every_line_on_a_unix_socket_and_over_tcp() {
    let (origin, rsyslog) = (origin(), Rsyslog::start().await);
    let written = |to: &str| {
        format!(
            "
            upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
            access_log: {{ syslog: {{ address: \"{to}\", facility: daemon }} }}
            "
        )
    };
    let proxy = Crestline::start(&written(&format!("unix:{}", rsyslog.socket().display()))).await;
    proxy.get("/a").await;
    rsyslog.messages(1).await;
    let receipt = proxy.reload(&written(&rsyslog.tcp())).await;
    assert!(receipt.contains("access_log changed"), "{receipt}");
    let agent = "User-Agent: \u{e9}\u{1f600} <134>1 - [a b=\"c\"]\r\n";
    let mut client = proxy.client().await; // one, whose lines keep their order
    for path in ["/b", "/none"] {
        client.exchange(request("GET", path, agent, "")).await;
    }
    let messages = rsyslog.messages(3).await;
    for (message, (path, severity)) in messages.iter().zip([("/a", 6), ("/b", 6), ("/none", 4)]) {
        assert_eq!(message["pri"], (3 * 8 + severity).to_string(), "{message}");
        assert_eq!(message["version"], "1", "{message}");
        assert_eq!((&message["app"], &message["id"]), (&"crestline".into(), &"access".into()));
        assert_eq!(message["process"], proxy.id().to_string(), "{message}");
        let line: Value = serde_json::from_str(message["message"].as_str().unwrap()).unwrap();
        assert_eq!(line["path"], path, "{message}");
        let (told, logged) = (message["time"].as_str().unwrap(), line["time"].as_str().unwrap());
        assert!(are_close(told, logged), "{message}");
    }
    assert_eq!(messages.len(), 3);
}

/// A TCP port that stays reserved while nobody listens.
struct Port {
    address: SocketAddr,
    _reserved: Socket,
}

impl Port {
    fn new() -> Self {
        let reserved = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
        Self { address: reserved.local_addr().unwrap().as_socket().unwrap(), _reserved: reserved }
    }

    fn listen(&self) -> TcpListener {
        let socket = bound(self.address);
        socket.listen(16).unwrap();
        TcpListener::from_std(socket.into()).unwrap()
    }
}

/// The next message of a stream, behind its length (RFC 6587, §3.4.1).
async fn next(stream: &mut BufReader<TcpStream>) -> Message {
    let mut length = Vec::new();
    soon("a length", stream.read_until(b' ', &mut length)).await.unwrap();
    let length = str::from_utf8(&length).unwrap().strip_suffix(' ').expect("a space");
    assert!(!length.starts_with('0'), "{length}");
    let mut message = vec![0; length.parse().unwrap()];
    soon("a message", stream.read_exact(&mut message)).await.unwrap();
    Message::read(&message)
}

async fn accept(listener: &TcpListener) -> BufReader<TcpStream> {
    BufReader::new(soon("a connection", listener.accept()).await.unwrap().0)
}

/// Meanwhile nothing fails, and lines wait.
#[tokio::test]
async fn a_receiver_may_go_away_and_come_back() {
    let (origin, port) = (origin(), Port::new());
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        access_log: {{ syslog: \"tcp://{}\", format: {{ template: \"{{path}}\" }} }}
        ",
        port.address
    ))
    .await;
    let mut client = proxy.client().await; // one, whose lines keep their order
    assert_eq!(client.exchange(get("/early")).await.status, 200);
    proxy.logs("access log: lines wait, syslog at tcp://127.0.0.1:").await;
    let listener = port.listen();
    let mut stream = accept(&listener).await;
    assert_eq!(next(&mut stream).await.line, "/early");
    proxy.logs("access log: writing again").await;

    drop((stream, listener));
    for path in ["/away1", "/away2"] {
        assert_eq!(client.exchange(get(path)).await.status, 200);
        eventually("the failure", || proxy.log_with("access log: lines wait").len() == 2).await;
    }
    let listener = port.listen();
    let mut stream = accept(&listener).await;
    // What was on its way when the receiver died is nobody's to tell.
    let line = next(&mut stream).await.line;
    assert!(["/away1", "/away2"].contains(&&*line), "{line}");
    if line == "/away1" {
        assert_eq!(next(&mut stream).await.line, "/away2");
    }
    assert_eq!(client.exchange(get("/back")).await.status, 200);
    assert_eq!(next(&mut stream).await.line, "/back");
    assert_eq!(proxy.metric("crestline_access_log_dropped_lines_total").await.to_bits(), 0);
}

#[tokio::test]
async fn a_receiver_that_reads_nothing_holds_up_no_request_and_no_stop() {
    let (origin, port) = (origin(), Port::new());
    let listener = port.listen();
    let mut proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        access_log: {{ syslog: \"tcp://{}\" }}
        ",
        port.address
    ))
    .await;
    let fields = format!("User-Agent: {}\r\n", "x".repeat(7_000));
    let mut client = proxy.client().await;
    for _ in 0..2_000 {
        let answer = client.exchange(request("GET", "/", &fields, "")).await;
        assert_eq!(answer.status, 200);
    }
    proxy.logs("it reads nothing").await;
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code().await, Some(0));
    drop(listener);
}

#[tokio::test]
async fn a_receiver_of_another_kind_is_refused_and_one_that_is_away_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("stream");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let proxy = Crestline::start("upstreams: { app: { backends: [\"127.0.0.1:9\"] } }").await;
    let with = |address: &str| {
        format!(
            "upstreams: {{ app: {{ backends: [\"127.0.0.1:9\"] }} }}\naccess_log: {{ syslog: \"{address}\" }}\n"
        )
    };
    let told = proxy.refuses(&with(&format!("unix:{}", socket.display()))).await;
    assert!(told.contains("cannot be reached"), "{told}");
    let receipt = proxy.reload(&with(&format!("unix:{}/none", folder.path().display()))).await;
    assert!(receipt.contains("access_log changed"), "{receipt}");
}
