//! Certificates that change while clients connect.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use crate::support::{Crestline, Origin, Pair, TlsClient, eventually, get};

const TLS: &str = "listeners: [{ address: \"127.0.0.1:0\", \
     tls: { certificates: [{ cert: a.pem, key: a.key }] } }]\n";

fn to(origin: &Origin) -> String {
    format!("upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: off }} }}\n")
}

async fn start(pair: &Pair, origin: &Origin, more: &str) -> Crestline {
    let files = [("a.pem", pair.cert.as_str()), ("a.key", &pair.key)];
    Crestline::start_among(&files, &[], &format!("{TLS}{}{more}", to(origin))).await
}

async fn connect(proxy: &Crestline, pair: &Pair) -> std::io::Result<TlsClient> {
    TlsClient::try_connect(proxy.address(), "a.test", &pair.cert).await
}

#[tokio::test]
async fn a_reload_reads_certificates_again_and_a_bad_pair_keeps_the_old_one() {
    let (origin, old, new) =
        (Origin::replying("hello"), Pair::of(&["a.test"]), Pair::of(&["a.test"]));
    let proxy = start(&old, &origin, "").await;
    let mut early = connect(&proxy, &old).await.unwrap();
    let file = format!("{TLS}{}", to(&origin));
    assert_eq!(proxy.reload(&file).await, "v1: nothing changed");

    fs::write(proxy.folder().join("a.pem"), &new.cert).unwrap();
    let told = proxy.refuses(&file).await;
    assert!(told.contains("does not belong to the first certificate in `a.pem`"), "{told}");
    assert!(told.contains("nothing was changed"), "{told}");
    connect(&proxy, &old).await.unwrap();

    new.write(proxy.folder(), "a");
    let told = proxy.reload(&file).await;
    let changed = format!("v1 → v2: certificates of listener {} changed", proxy.address());
    assert_eq!(told, changed);
    connect(&proxy, &new).await.unwrap();
    assert!(connect(&proxy, &old).await.is_err(), "new connections get the new one");
    early.send(get("/")).await;
    early.until("hello").await;
}

#[tokio::test]
async fn watched_certificates_are_read_again_when_they_change() {
    let (origin, old, new) =
        (Origin::replying("hello"), Pair::of(&["a.test"]), Pair::of(&["a.test"]));
    let proxy = start(&old, &origin, "watch: true\n").await;
    connect(&proxy, &old).await.unwrap();

    new.write(proxy.folder(), "a");
    proxy.logs("reload: v1 → v2: certificates of listener").await;
    connect(&proxy, &new).await.unwrap();
    // One that comes a moment later than its key is waited for.
    fs::write(proxy.folder().join("a.key"), &old.key).unwrap();
    proxy.logs("reload: nothing was changed").await;
    connect(&proxy, &new).await.unwrap();
    fs::write(proxy.folder().join("a.pem"), &old.cert).unwrap();
    proxy.logs("reload: v2 → v3: certificates of listener").await;
    connect(&proxy, &old).await.unwrap();
}

#[tokio::test]
async fn tls_is_switched_off_and_on_by_a_reload() {
    let (origin, pair) = (Origin::replying("hello"), Pair::of(&["a.test"]));
    let proxy = start(&pair, &origin, "").await;
    let mut early = connect(&proxy, &pair).await.unwrap();

    let plain = format!("listeners: [{{ address: \"127.0.0.1:0\" }}]\n{}", to(&origin));
    assert_eq!(proxy.reload(&plain).await, "v1 → v2: listeners changed");
    assert_eq!(proxy.get("/").await.text(), "hello");
    early.send(get("/")).await;
    early.until("hello").await;
    let told = proxy.reload(&format!("{TLS}{}", to(&origin))).await;
    assert_eq!(told, "v2 → v3: listeners changed");
    let mut late = connect(&proxy, &pair).await.unwrap();
    late.send(get("/")).await;
    late.until("hello").await;
    assert_eq!(proxy.get("/").await.status, 400, "without TLS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_rotations_fail_no_handshake() {
    let origin = Arc::new(Origin::replying("hello"));
    let pairs = [Pair::of(&["a.test"]), Pair::of(&["a.test"])].map(Arc::new);
    let proxy = Arc::new(start(&pairs[0], &origin, "").await);
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (proxy, stop, made) = (proxy.clone(), stop.clone(), made.clone());
            let pairs = pairs.clone();
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    let mut client = TlsClient::connect_trusting(
                        proxy.address(),
                        "a.test",
                        &[&pairs[0].cert, &pairs[1].cert],
                    )
                    .await
                    .expect("a handshake");
                    client.send(get("/")).await;
                    client.until("hello").await;
                    made.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();

    for rotation in 1..=100 {
        pairs[rotation % 2].write(proxy.folder(), "a");
        let (status, receipt) = proxy.api("POST", "/v1/reload", "").await;
        assert_eq!((status, &receipt["to"]), (200, &(rotation + 1).into()), "{receipt}");
        let before = made.load(SeqCst);
        eventually("a connection", || before < made.load(SeqCst)).await;
    }
    stop.store(true, SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let status = proxy.status().await;
    assert_eq!(status["listeners"][0]["tls"]["failed_handshakes"], 0);
}
