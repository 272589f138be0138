//! Load balancers in front introduce their clients, and nobody else can.

use std::net::Ipv4Addr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::support::{Client, Crestline, Ending, Origin, curl, eventually, get, soon};

const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates");

/// A proxy whose first listener takes the PROXY protocol.
async fn started(origin: &Origin, told: &str, more: &str) -> Crestline {
    Crestline::start(&format!(
        "
        listeners:
          - {{ address: \"127.0.0.1:0\", proxy_protocol: {{ {told} }}{more} }}
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes: [{{ name: all, upstream: app, forwarded: true }}]
        "
    ))
    .await
}

const TRUSTED: &str = "trusted: [127.0.0.1]";

fn line(client: &str) -> String {
    format!("PROXY TCP4 {client} 198.51.100.1 56324 443\r\n")
}

fn value(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], value].concat()
}

/// A header of version 2 for a client, with more values.
fn binary(command: u8, client: [u8; 4], values: &[u8]) -> Vec<u8> {
    let addresses = [&client[..], &[198, 51, 100, 1, 0xdc, 4, 1, 0xbb]].concat();
    let length = u16::try_from(addresses.len() + values.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, 0x11][..], &length, &addresses, values].concat()
}

async fn last_line(proxy: &Crestline, client: &str) -> Value {
    proxy.access_line(|line| line["client"] == client).await
}

#[tokio::test]
async fn curl_introduces_itself_in_plaintext() {
    let origin = Origin::replying("hello");
    let proxy = started(&origin, "trusted: [127.0.0.0/8]", "").await;
    for _ in 0..2 {
        let output = curl(&["--haproxy-protocol", &proxy.url("/")]).await;
        assert_eq!(output.stdout, b"hello", "{}", String::from_utf8_lossy(&output.stderr));
    }
    let output = curl(&["-w", "%{http_code}", &proxy.url("/")]).await;
    assert_eq!(output.stdout, b"000", "it must");
    proxy.refuses_for("proxy_protocol_missing", 1).await;
}

#[tokio::test]
async fn curl_introduces_itself_before_tls() {
    let origin = Origin::replying("hello");
    let pair = format!("cert: {CERTIFICATES}/ecdsa.pem, key: {CERTIFICATES}/ecdsa.key");
    let tls = format!(", tls: {{ certificates: [{{ {pair} }}] }}");
    let proxy = started(&origin, TRUSTED, &tls).await;
    let port = proxy.address().rsplit(':').next().unwrap();
    let resolve = format!("a.test:{port}:127.0.0.1");
    let (ca, url) = (format!("{CERTIFICATES}/ecdsa.pem"), format!("https://a.test:{port}/"));
    for http in ["--http1.1", "--http2"] {
        let arguments = ["--haproxy-protocol", http, "--cacert", &ca, "--resolve", &resolve, &url];
        let output = curl(&arguments).await;
        assert_eq!(output.stdout, b"hello", "{}", String::from_utf8_lossy(&output.stderr));
    }
    let output = curl(&["--cacert", &ca, "--resolve", &resolve, &url]).await;
    assert_eq!(output.stdout, b"", "without a header there is no handshake");
    proxy.refuses_for("proxy_protocol_missing", 1).await;
    assert_eq!(last_line(&proxy, "127.0.0.1").await["sni"], "a.test");
}

/// The address that is told is the client everywhere, `trusted_proxies` included.
#[tokio::test]
async fn the_client_that_is_told_is_the_client_everywhere() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&format!(
        "
        trusted_proxies: [203.0.113.0/24]
        listeners: [{{ address: \"127.0.0.1:0\", proxy_protocol: {{ {TRUSTED} }} }}]
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        "
    ))
    .await;
    let claim = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 10.9.8.7\r\n\r\n";
    for (told, forwarded, logged) in [
        ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("203.0.113.5", "10.9.8.7, 203.0.113.5", "10.9.8.7"),
    ] {
        let mut client = proxy.client().await;
        let answer = client.exchange([line(told), claim.to_owned()].concat()).await;
        assert_eq!(answer.text(), "hello");
        assert_eq!(origin.last().fields.get("x-forwarded-for"), Some(forwarded));
        last_line(&proxy, logged).await;
        assert_eq!(client.exchange(get("/")).await.text(), "hello", "it is said only once");
    }
}

#[tokio::test]
async fn a_binary_header_tells_the_name_and_tls_of_the_first_hop() {
    let origin = Origin::replying("hello");
    let proxy = started(&origin, TRUSTED, "").await;
    let ssl = [&[7, 0, 0, 0, 0][..], &value(0x21, b"TLSv1.2"), &value(0x22, b"zoe")].concat();
    let values = [value(0x02, b"shop.test"), value(0x20, &ssl)].concat();
    let header = binary(0x21, [192, 0, 2, 7], &values);

    let mut client = proxy.client().await;
    client.send([header, get("/").into_bytes()].concat()).await;
    assert_eq!(client.answer().await.text(), "hello");
    let told = origin.last().fields;
    assert_eq!(told.get("x-forwarded-for"), Some("192.0.2.7"));
    assert_eq!(told.get("x-forwarded-proto"), Some("https"));
    assert!(told.get("forwarded").unwrap().contains("for=192.0.2.7;proto=https"));
    let line = last_line(&proxy, "192.0.2.7").await;
    assert_eq!((&line["sni"], &line["tls_version"]), (&"shop.test".into(), &"TLSv1.2".into()));
    assert_eq!(line["client_cn"], "zoe");

    let mut client = proxy.client().await;
    client.send([binary(0x21, [192, 0, 2, 8], &[]), get("/").into_bytes()].concat()).await;
    assert_eq!(client.answer().await.text(), "hello");
    assert_eq!(origin.last().fields.get("x-forwarded-proto"), Some("http"));
}

/// However the network cuts it, and whatever follows at once.
#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    let origin = Origin::replying("hello");
    let proxy = started(&origin, TRUSTED, "").await;
    for header in [line("192.0.2.1").into_bytes(), binary(0x21, [192, 0, 2, 2], &[])] {
        let mut client = proxy.client().await;
        for byte in [&header[..], get("/").as_bytes()].concat() {
            client.send([byte]).await;
        }
        assert_eq!(client.answer().await.text(), "hello");
    }
    last_line(&proxy, "192.0.2.1").await;
    last_line(&proxy, "192.0.2.2").await;
}

#[tokio::test]
async fn a_stranger_s_header_is_refused_and_a_stranger_is_served() {
    let origin = Origin::replying("hello");
    let proxy = started(&origin, TRUSTED, "").await;
    let mut stranger = Client::connect_from("127.0.0.2", proxy.address()).await;
    assert_eq!(stranger.exchange(get("/")).await.text(), "hello");
    assert_eq!(origin.last().fields.get("x-forwarded-for"), Some("127.0.0.2"));
    for header in [line("192.0.2.1").into_bytes(), binary(0x21, [192, 0, 2, 1], &[])] {
        let mut stranger = Client::connect_from("127.0.0.2", proxy.address()).await;
        stranger.send_if_taken(&header).await;
        assert_eq!(stranger.rest().await.0, b"", "closed without a word");
    }
    proxy.refuses_for("proxy_protocol_untrusted", 2).await;
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn where_it_is_not_required_who_sends_none_is_the_client() {
    let origin = Origin::replying("hello");
    let proxy = started(&origin, &format!("{TRUSTED}, required: false"), "").await;
    for request in [get("/"), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".to_owned()]
    {
        assert_eq!(proxy.send(request).await.text(), "hello");
        assert_eq!(origin.last().fields.get("x-forwarded-for"), Some("127.0.0.1"));
    }
    assert_eq!(proxy.send([line("192.0.2.1"), get("/")].concat()).await.text(), "hello");
    assert_eq!(origin.last().fields.get("x-forwarded-for"), Some("192.0.2.1"));
}

/// Checks of load balancers: a header without a client, or a bare connection.
#[tokio::test]
async fn a_load_balancer_that_speaks_for_itself_is_served_and_leaves_no_error() {
    let origin = Origin::replying("hello");
    let proxy = started(&origin, TRUSTED, "").await;
    let local = binary(0x20, [192, 0, 2, 1], &[]);
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN a b 1 2\r\n", &local] {
        let mut client = proxy.client().await;
        client.send([header, get("/").as_bytes()].concat()).await;
        assert_eq!(client.answer().await.text(), "hello");
        assert_eq!(origin.last().fields.get("x-forwarded-for"), Some("127.0.0.1"));
    }
    for _ in 0..3 {
        drop(proxy.client().await); // a bare connection
        let mut half = proxy.client().await;
        half.finish().await;
        assert_eq!(half.rest().await, (Vec::new(), Ending::Closed));
    }
    let mut only_header = proxy.client().await;
    only_header.send(&local).await;
    only_header.finish().await;
    assert_eq!(only_header.rest().await, (Vec::new(), Ending::Closed));
    assert_eq!(proxy.status().await["refused"], serde_json::json!({}));
    for level in ["ERROR", "WARN"] {
        assert_eq!(proxy.log_with(level), [""; 0]);
    }
    assert_eq!(proxy.access_log(3).await.len(), 3);
}

#[tokio::test]
async fn a_header_that_is_not_by_the_book_is_refused() {
    let origin = Origin::replying("hello");
    let proxy = started(&origin, TRUSTED, "").await;
    let long = format!("PROXY UNKNOWN {}", "x".repeat(100));
    let huge = [b"\r\n\r\n\0\r\nQUIT\n", &[0x21, 0x11, 0xff, 0xff][..]].concat();
    let damaged = binary(0x21, [192, 0, 2, 1], &value(0x03, &[0; 4]));
    let nonsense = line("192.0.2.999").into_bytes();
    for header in [&nonsense, long.as_bytes(), &huge, &damaged] {
        let mut client = proxy.client().await;
        client.send_if_taken(header).await;
        assert_eq!(client.rest().await.0, b"");
    }
    let mut cut = proxy.client().await;
    cut.send("PROXY TCP4 192.0.2.1").await;
    cut.finish().await;
    assert_eq!(cut.rest().await.0, b"");
    proxy.refuses_for("proxy_protocol_malformed", 5).await;
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn a_header_has_the_time_of_a_head() {
    let origin = Origin::replying("hello");
    let proxy = started(&origin, TRUSTED, ", timeouts: { header: 3s }").await;
    let (mut silent, mut slow) = (proxy.client().await, proxy.client().await);
    slow.send("PROXY TCP4 ").await;
    assert_eq!(slow.rest().await.0, b"");
    assert_eq!(silent.rest().await.0, b"");
    proxy.refuses_for("proxy_protocol_timeout", 1).await;
    proxy.refuses_for("silent", 1).await;
}

#[tokio::test]
async fn a_unix_socket_needs_no_networks() {
    let origin = Origin::replying("hello");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let proxy = Crestline::start(&format!(
        "
        listeners: [{{ address: \"unix:{}\", proxy_protocol: {{}} }}]
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        ",
        path.display()
    ))
    .await;
    let mut client = UnixStream::connect(&path).await.unwrap();
    let close = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    client.write_all([line("192.0.2.1"), close.to_owned()].concat().as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", client.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(origin.last().fields.get("x-forwarded-for"), Some("192.0.2.1"));
    last_line(&proxy, "192.0.2.1").await;
}

/// Limits are those of the clients that are told, not of the load balancer.
#[tokio::test]
async fn clients_behind_a_load_balancer_are_limited_one_by_one() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&format!(
        "
        limits: {{ connections_per_client: 1 }}
        listeners: [{{ address: \"127.0.0.1:0\", proxy_protocol: {{ {TRUSTED} }} }}]
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        "
    ))
    .await;
    let mut held = Vec::new();
    for last in 1..=3 {
        let mut client = proxy.client().await;
        let told = line(&Ipv4Addr::new(192, 0, 2, last).to_string());
        assert_eq!(client.exchange([told, get("/")].concat()).await.text(), "hello");
        held.push(client);
        let mut check = proxy.client().await;
        let local = binary(0x20, [0; 4], &[]);
        check.send([&local[..], get("/").as_bytes()].concat()).await;
        assert_eq!(check.answer().await.text(), "hello", "the load balancer is no client");
        held.push(check);
    }
    let mut second = proxy.client().await;
    second.send_if_taken([line("192.0.2.1"), get("/")].concat()).await;
    assert_eq!(second.rest().await.0, b"");
    proxy.refuses_for("connections_per_client", 1).await;
    eventually("all are kept", || held.iter().all(|client| !client.is_over())).await;
}
