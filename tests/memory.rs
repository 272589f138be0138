//! What a client that waits costs the proxy.

use crate::support::{Crestline, Origin, Pair, TlsClient, get};

/// How many wait at a time; what the process itself takes is lost among them.
const CLIENTS: u64 = 1_000;

#[tokio::test]
async fn an_idle_connection_takes_less_than_16_kib() {
    let origin = Origin::replying("hello");
    let proxy =
        Crestline::start(&format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}")).await;
    let connect = async || {
        let mut client = proxy.client().await;
        assert_eq!(client.exchange(get("/")).await.text(), "hello");
        client
    };
    let each = each_takes(&proxy, connect).await;
    assert!(each < 16, "{each} KiB");
}

#[tokio::test]
async fn an_idle_connection_over_tls_takes_less_than_32_kib() {
    let (origin, pair) = (Origin::replying("hello"), Pair::of(&["a.test"]));
    let tls = "tls: { certificates: [{ cert: a.pem, key: a.key }] }";
    let yaml = format!(
        "listeners: [{{ address: \"127.0.0.1:0\", {tls} }}]\n\
         upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n"
    );
    let files = [("a.pem", pair.cert.as_str()), ("a.key", &pair.key)];
    let proxy = Crestline::start_among(&files, &[], &yaml).await;
    let connect = async || {
        let mut client = TlsClient::connect(proxy.address(), "a.test", &pair.cert).await;
        client.send(get("/")).await;
        client.until("hello").await;
        client
    };
    let each = each_takes(&proxy, connect).await;
    assert!(each < 32, "{each} KiB");
}

/// The memory of the process for each client that has had an answer and waits, in KiB.
async fn each_takes<C>(proxy: &Crestline, connect: impl AsyncFn() -> C) -> u64 {
    let mut clients = vec![connect().await];
    let before = proxy.memory();
    for _ in 0..CLIENTS {
        clients.push(connect().await);
    }
    let each = (proxy.memory() - before) / CLIENTS;
    println!("{each} KiB for each of {} clients", clients.len());
    each
}
