//! Listeners of `protocol: tcp`: bytes pass as they come, to a backend that takes them.

use std::time::Duration;

use rustix::process::Signal;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{
    Asks, Client, Crestline, Ending, Front, Origin, Pair, Pattern, TlsClient, eventually, soon,
};

/// An origin that sends back what it is sent, and ends when its client does. Its address.
pub(crate) async fn echo() -> String {
    answering("").await
}

/// The same, after words of its own.
pub(crate) async fn answering(greeting: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                write.write_all(greeting.as_bytes()).await?;
                tokio::io::copy(&mut read, &mut write).await?;
                write.shutdown().await
            });
        }
    });
    address
}

/// A proxy that relays to these backends.
async fn relaying(backends: &str, more: &str, top: &str) -> Crestline {
    Crestline::start_in_parts(&[
        top,
        "listeners: [{ address: \"127.0.0.1:0\", protocol: tcp, upstream: app }]\n",
        &format!("upstreams: {{ app: {{ backends: [{backends}], {more} }} }}\n"),
    ])
    .await
}

const UNCHECKED: &str = "health_check: off";

#[tokio::test]
async fn bytes_pass_both_ways_and_leave_a_line_in_the_log() {
    let origin = answering("hello\n").await;
    let proxy = relaying(&origin, UNCHECKED, "").await;
    let mut client = proxy.client().await;
    assert_eq!(client.bytes(6).await, "hello\n", "the server may speak first");
    client.send("\0\r\nGET / HTTP/1.1").await;
    assert_eq!(client.bytes(17).await, "\0\r\nGET / HTTP/1.1");
    client.finish().await;
    assert_eq!(client.rest().await, (Vec::new(), Ending::Closed));

    let line = proxy.access_line(|line| line["protocol"] == "TCP").await;
    assert_eq!((&line["status"], &line["upstream"]), (&200.into(), &"app".into()), "{line}");
    assert_eq!((&line["bytes"], &line["bytes_received"]), (&23.into(), &17.into()), "{line}");
    assert_eq!(line["listener"], proxy.address());
    assert_eq!((&line["client"], &line["backend"]), (&"127.0.0.1".into(), &origin.clone().into()));
    assert_eq!(line["via"], format!("{origin}:connected"));
    assert_eq!(line["reason"], "closed", "{line}");
    assert!(line["path"].is_null(), "{line}");
    assert!(line["connect_ms"].is_number() && line["first_byte_ms"].is_number(), "{line}");
}

/// More than any buffer holds, in both directions at once, past a reader that begins late.
#[tokio::test]
async fn much_passes_whole() {
    const ALL: usize = 20_000_000;
    const PIECE: usize = 50_000;
    let origin = echo().await;
    let proxy = relaying(&origin, UNCHECKED, "").await;
    let (mut read, mut write) = TcpStream::connect(proxy.address()).await.unwrap().into_split();
    let sending = tokio::spawn(async move {
        let pattern = Pattern::new();
        for place in (0..ALL).step_by(PIECE) {
            write.write_all(pattern.at(place, PIECE)).await.unwrap();
        }
        write.shutdown().await.unwrap();
        write
    });
    let (pattern, mut bytes, mut place) = (Pattern::new(), vec![0; PIECE], 0);
    loop {
        let count = soon("bytes", read.read(&mut bytes)).await.unwrap();
        if count == 0 {
            break;
        }
        assert!(pattern.matches(place, &bytes[..count]), "at {place}");
        place += count;
    }
    assert_eq!(place, ALL);
    sending.await.unwrap();
}

/// An end in one direction is passed on, and the other direction goes on.
#[tokio::test]
async fn a_half_that_is_closed_leaves_the_other_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = relaying(&listener.local_addr().unwrap().to_string(), UNCHECKED, "").await;
    let mut client = proxy.client().await;
    let (mut origin, _) = soon("a connection", listener.accept()).await.unwrap();
    client.send("question").await;
    client.finish().await;
    let mut question = String::new();
    soon("its end", origin.read_to_string(&mut question)).await.unwrap();
    assert_eq!(question, "question");
    origin.write_all(b"answer").await.unwrap();
    assert_eq!(client.bytes(6).await, "answer");
    origin.shutdown().await.unwrap();
    assert_eq!(client.rest().await, (Vec::new(), Ending::Closed));

    let mut client = proxy.client().await;
    let (mut origin, _) = soon("a connection", listener.accept()).await.unwrap();
    origin.write_all(b"bye").await.unwrap();
    origin.shutdown().await.unwrap();
    assert_eq!(client.rest().await.0, b"bye");
    client.send("still here").await;
    client.finish().await;
    let mut rest = String::new();
    soon("its end", origin.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "still here");
}

/// What breaks on one side does not look complete on the other.
#[tokio::test]
async fn a_reset_is_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = relaying(&listener.local_addr().unwrap().to_string(), UNCHECKED, "").await;
    let mut client = proxy.client().await;
    let (mut origin, _) = soon("a connection", listener.accept()).await.unwrap();
    origin.write_all(b"half").await.unwrap();
    assert_eq!(client.bytes(4).await, "half");
    SockRef::from(&origin).set_linger(Some(Duration::ZERO)).unwrap();
    drop(origin);
    assert_eq!(client.rest().await, (Vec::new(), Ending::Reset));
    proxy.access_line(|line| line["reason"] == "origin_reset").await;

    let mut client = proxy.client().await;
    let (mut origin, _) = soon("a connection", listener.accept()).await.unwrap();
    client.send("x").await;
    origin.read_u8().await.unwrap();
    client.reset();
    assert!(soon("its end", origin.read_u8()).await.is_err());
    proxy.access_line(|line| line["reason"] == "client_reset").await;
}

#[tokio::test]
async fn a_silent_relay_is_closed_after_its_time_and_a_used_one_is_not() {
    let origin = echo().await;
    let proxy = relaying(&origin, "health_check: off, timeouts: { tunnel: 2s }", "").await;
    let (mut silent, mut used) = (proxy.client().await, proxy.client().await);
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        used.send("x").await;
        assert_eq!(used.bytes(1).await, "x");
    }
    assert_eq!(silent.rest().await.0, b"");
    proxy.access_line(|line| line["reason"] == "idle_timeout").await;
}

/// A backend that refuses costs the client nothing, and is ejected.
#[tokio::test]
async fn a_refused_connection_fails_over_and_ejects() {
    let (refusing, good) = (Origin::refusing(), echo().await);
    let more = "health_check: off, ejection: { consecutive_failures: 2, eject_for: 5m }";
    let proxy = relaying(&format!("\"{refusing}\", \"{good}\""), more, "").await;
    for _ in 0..6 {
        let mut client = proxy.client().await;
        client.send("x").await;
        assert_eq!(client.bytes(1).await, "x");
    }
    let via = format!("{refusing}:refused,{good}:connected");
    let line = proxy.access_line(|line| line["via"] == via).await;
    assert_eq!((&line["attempts"], &line["status"]), (&2.into(), &200.into()));
    proxy.logs(&format!("ejection: app {refusing} ejected")).await;
    let status = proxy.status().await;
    let backends = status["upstreams"][0]["backends"].as_array().unwrap();
    assert!(backends.iter().any(|one| one["availability"] == "ejected"), "{backends:?}");
    assert_eq!(status["listeners"][0]["protocol"], "tcp");
    assert_eq!(status["listeners"][0]["relays_to"], serde_json::json!(["app"]));
}

#[tokio::test]
async fn where_no_backend_takes_it_the_connection_is_closed_and_logged() {
    let refusing = Origin::refusing();
    let proxy = relaying(&format!("\"{refusing}\""), UNCHECKED, "").await;
    let mut client = proxy.client().await;
    assert_eq!(client.rest().await.0, b"");
    let line = proxy.access_line(|line| line["protocol"] == "TCP").await;
    assert_eq!((&line["status"], &line["reason"]), (&502.into(), &"connect_refused".into()));
}

/// The load balancer in front introduces the client, and the origin is told of it.
#[tokio::test]
async fn the_proxy_protocol_is_read_and_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener.local_addr().unwrap();
    let proxy = Crestline::start(&format!(
        "
        listeners:
          - address: \"127.0.0.1:0\"
            protocol: tcp
            upstream: app
            proxy_protocol: {{ trusted: [127.0.0.1] }}
        upstreams: {{ app: {{ backends: [\"{origin}\"], send_proxy_protocol: v1, {UNCHECKED} }} }}
        "
    ))
    .await;
    let mut client = proxy.client().await;
    client.send("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nhello").await;
    client.finish().await;
    let (mut origin, _) = soon("a connection", listener.accept()).await.unwrap();
    let mut told = String::new();
    soon("its end", origin.read_to_string(&mut told)).await.unwrap();
    assert!(told.starts_with("PROXY TCP4 192.0.2.1 127.0.0.1 0 "), "{told}");
    assert!(told.ends_with("\r\nhello"), "{told}");
    drop(origin);
    proxy.access_line(|line| line["client"] == "192.0.2.1").await;

    let mut stranger = proxy.client().await;
    stranger.send("hello, I am nobody").await;
    assert_eq!(stranger.rest().await.0, b"");
    proxy.refuses_for("proxy_protocol_missing", 1).await;
}

#[tokio::test]
async fn tls_ends_here_and_begins_anew_toward_the_origin() {
    let (outer, inner) = (Pair::of(&["a.test"]), Pair::of(&["origin.test"]));
    let echo = echo().await;
    let front = Front::before(&echo, Asks::tls(&inner, &["h2", "http/1.1"])).await;
    let files = [
        ("outer.pem", outer.cert.as_str()),
        ("outer.key", outer.key.as_str()),
        ("inner.pem", inner.cert.as_str()),
    ];
    let yaml = format!(
        "
        listeners:
          - address: \"127.0.0.1:0\"
            protocol: tcp
            upstream: app
            tls: {{ certificates: [{{ cert: outer.pem, key: outer.key }}] }}
        upstreams:
          app: {{ backends: [\"{front}\"], tls: {{ sni: origin.test, ca: inner.pem }}, {UNCHECKED} }}
        "
    );
    let proxy = Crestline::start_among(&files, &[], &yaml).await;
    let mut client = TlsClient::connect(proxy.address(), "a.test", &outer.cert).await;
    client.send("hello, you there").await;
    assert_eq!(client.until("there").await, "hello, you there");
    client.finish().await;
    let line = proxy.access_line(|line| line["protocol"] == "TCP").await;
    assert_eq!((&line["sni"], &line["tls_version"]), (&"a.test".into(), &"TLSv1.3".into()));
    let [accepted] = &front.accepted()[..] else { panic!("one connection") };
    assert_eq!(accepted.sni.as_deref(), Some("origin.test"));
    assert_eq!(accepted.alpn, None, "no HTTP is spoken of");
}

/// What is open outlives a reload that takes its upstream away.
#[tokio::test]
async fn a_reload_touches_no_open_relay() {
    let (before, after) = (answering("before").await, answering("after!").await);
    let yaml = |origin: &str| {
        "listeners: [{ address: \"127.0.0.1:0\", protocol: tcp, upstream: app }]\n".to_owned()
            + &format!("upstreams: {{ app: {{ backends: [\"{origin}\"], {UNCHECKED} }} }}\n")
    };
    let proxy = Crestline::start(&yaml(&before)).await;
    let mut open = proxy.client().await;
    assert_eq!(open.bytes(6).await, "before");
    proxy.reload(&yaml(&after)).await;
    let mut new = proxy.client().await;
    assert_eq!(new.bytes(6).await, "after!");
    open.send("on").await;
    assert_eq!(open.bytes(2).await, "on");
}

/// After an upgrade, what is open goes on in the old process, and what comes is the new one's.
#[tokio::test]
async fn an_upgrade_cuts_off_no_relay() {
    let origin = echo().await;
    let proxy = relaying(&origin, UNCHECKED, "grace_period_seconds: 40\n").await;
    let mut open = proxy.client().await;
    open.send("x").await;
    assert_eq!(open.bytes(1).await, "x");
    let told = proxy.command(&["upgrade"]).await;
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    let mut new = proxy.client().await;
    for client in [&mut new, &mut open] {
        client.send("on").await;
        assert_eq!(client.bytes(2).await, "on");
    }
}

/// A stop waits for relays, up to the grace period, and counts them.
#[tokio::test]
async fn a_stop_leaves_relays_their_grace_period_and_then_ends_them() {
    let origin = echo().await;
    let mut proxy = relaying(&origin, UNCHECKED, "grace_period_seconds: 6\n").await;
    let (mut short, mut long) = (proxy.client().await, proxy.client().await);
    for client in [&mut short, &mut long] {
        client.send("x").await;
        assert_eq!(client.bytes(1).await, "x");
    }
    assert_eq!(proxy.status().await["in_flight"]["tunnels"], 2);
    proxy.signal(Signal::TERM);
    proxy.logs(&format!("listener: {} closed", proxy.address())).await;
    short.send("y").await;
    assert_eq!(short.bytes(1).await, "y", "it is not cut off");
    drop(short);
    assert_eq!(long.rest().await.0, b"", "until the grace period is over");
    eventually("the end of the process", || !proxy.is_running()).await;
}

/// Bounds on connections hold here as on any listener.
#[tokio::test]
async fn a_client_has_no_more_connections_than_it_may() {
    let origin = echo().await;
    let top = "limits: { connections_per_client: 1 }\n";
    let proxy = relaying(&origin, UNCHECKED, top).await;
    let mut first = proxy.client().await;
    first.send("x").await;
    assert_eq!(first.bytes(1).await, "x");
    let mut second: Client = proxy.client().await;
    assert_eq!(second.rest().await.0, b"");
    proxy.refuses_for("connections_per_client", 1).await;
}
