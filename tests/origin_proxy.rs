//! The PROXY protocol toward origins: each learns who its client is.

use std::collections::BTreeSet;

use crate::support::{
    Accepted, Asks, Client, Crestline, Front, H2Client, H2Origin, Origin, Pair, get,
};

fn app(front: &Front, more: &str) -> String {
    format!("upstreams: {{ app: {{ backends: [\"{front}\"], {more} }} }}\n")
}

const UNCHECKED: &str = "health_check: off";

/// The header that a connection of a client must have begun with.
fn line(client: &Client, proxy: &Crestline) -> String {
    let to = proxy.address().rsplit(':').next().unwrap();
    format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {to}\r\n", client.port())
}

fn lines(front: &Front) -> Vec<String> {
    let accepted = front.accepted().into_iter();
    accepted.map(|one| String::from_utf8(one.header).unwrap()).collect()
}

/// What a client's connection is used for later has been said to be that client's.
#[tokio::test]
async fn each_client_is_told_and_none_uses_the_connection_of_another() {
    let origin = Origin::replying("hello");
    let front = Front::before(&origin, Asks::nothing().header()).await;
    let more = format!("send_proxy_protocol: v1, {UNCHECKED}");
    let proxy = Crestline::start(&app(&front, &more)).await;

    let (mut first, mut second) = (proxy.client().await, proxy.client().await);
    for _ in 0..8 {
        for client in [&mut first, &mut second] {
            assert_eq!(client.exchange(get("/")).await.text(), "hello");
        }
    }
    let told = lines(&front);
    assert!(told.len() < 16, "connections are kept");
    let expected = BTreeSet::from([line(&first, &proxy), line(&second, &proxy)]);
    assert_eq!(BTreeSet::from_iter(told), expected);
}

#[tokio::test]
async fn the_header_comes_before_tls_and_http2() {
    let (origin, pair) = (H2Origin::replying("hello").await, Pair::of(&["a.test"]));
    let front = Front::before(&origin, Asks::tls(&pair, &["h2"]).header()).await;
    let more = format!(
        "tls: {{ sni: a.test, ca: ca.pem }}, http: 2, send_proxy_protocol: v2, {UNCHECKED}"
    );
    let files = [("ca.pem", pair.cert.as_str())];
    let proxy = Crestline::start_among(&files, &[], &app(&front, &more)).await;

    let mut client = proxy.client().await;
    for _ in 0..8 {
        assert_eq!(client.exchange(get("/")).await.text(), "hello");
    }
    let to: u16 = proxy.address().rsplit(':').next().unwrap().parse().unwrap();
    let ports = [client.port().to_be_bytes(), to.to_be_bytes()].concat();
    let header = [&[0x21, 0x11, 0, 12, 127, 0, 0, 1, 127, 0, 0, 1][..], &ports].concat();
    let accepted = front.accepted();
    assert!(accepted.len() < 8, "connections are kept");
    for Accepted { header: told, alpn, .. } in &accepted {
        assert_eq!((told, alpn.as_deref()), (&header, Some("h2")));
    }
}

#[tokio::test]
async fn streams_of_one_client_share_its_connection() {
    let origin = H2Origin::replying("hello").await;
    let front = Front::before(&origin, Asks::nothing().header()).await;
    let more = format!("http: 2, send_proxy_protocol: v1, {UNCHECKED}");
    let listeners = "listeners: [{ address: \"127.0.0.1:0\", h2c: true }]\n";
    let proxy = Crestline::start(&format!("{listeners}{}", app(&front, &more))).await;

    let clients = [H2Client::connect(&proxy).await, H2Client::connect(&proxy).await];
    for _ in 0..8 {
        for client in &clients {
            let request = http::Request::get("http://a.test/").body(()).unwrap();
            assert_eq!(client.ask(request, "").await.body, b"hello");
        }
    }
    let told = lines(&front);
    assert!(told.len() < 16, "connections are kept");
    assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), 2, "{told:?}");
}

#[tokio::test]
async fn checks_say_that_they_are_nobodys() {
    for (version, said) in [("v1", &b"PROXY UNKNOWN\r\n"[..]), ("v2", &[0x20, 0, 0, 0])] {
        for check in ["http: { path: / }", "tcp: {}"] {
            let origin = Origin::replying("hello");
            let front = Front::before(&origin, Asks::nothing().header()).await;
            let more = format!("send_proxy_protocol: {version}, health_check: {{ {check} }}");
            let proxy = Crestline::start(&app(&front, &more)).await;
            assert_eq!(proxy.get("/").await.text(), "hello");
            assert_eq!(front.accepted()[0].header, said, "{version} {check}");
        }
    }
}

#[tokio::test]
async fn a_client_without_an_address_is_told_as_such() {
    let origin = Origin::replying("hello");
    let front = Front::before(&origin, Asks::nothing().header()).await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("crestline.sock").display().to_string();
    let listeners = format!("listeners: [{{ address: \"unix:{socket}\" }}]\n");
    let more = format!("send_proxy_protocol: v1, {UNCHECKED}");
    let _proxy = Crestline::start(&format!("{listeners}{}", app(&front, &more))).await;

    let told = crate::support::curl(&["--unix-socket", &socket, "http://a.test/"]).await;
    assert_eq!(told.stdout, b"hello");
    assert_eq!(lines(&front), ["PROXY UNKNOWN\r\n"]);
}
