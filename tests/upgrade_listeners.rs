//! Upgrades of processes with listeners of every kind: plain, with TLS, and on Unix sockets.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::JoinSet,
};

use crate::support::{
    Client, Crestline, Origin, Pair, TlsClient, TlsEnding, eventually, get, request, soon,
};

/// Some listeners, and what they need.
struct Listeners {
    pair: Pair,
    /// The folder of Unix sockets.
    folder: tempfile::TempDir,
    origin: Origin,
}

impl Listeners {
    fn new() -> Self {
        let (pair, folder) = (Pair::of(&["a.test"]), tempfile::tempdir().unwrap());
        Self { pair, folder, origin: Origin::replying("hello") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file with these: `tls ADDRESS`, `unix NAME`, or an address.
    fn yaml(&self, listeners: &[&str]) -> String {
        let one = |written: &&str| match written.split_once(' ') {
            Some(("tls", address)) => format!(
                "  - {{ address: \"{address}\", \
                 tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }} }}\n"
            ),
            Some((_, name)) => {
                format!("  - {{ address: \"unix:{}\" }}\n", self.path(name).display())
            }
            None => format!("  - {{ address: \"{written}\" }}\n"),
        };
        let listeners: String = listeners.iter().map(one).collect();
        let origin = &self.origin;
        format!("listeners:\n{listeners}upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n")
    }

    async fn start(&self, listeners: &[&str]) -> Crestline {
        let files = [("a.pem", self.pair.cert.as_str()), ("a.key", &self.pair.key)];
        Crestline::start_among(&files, &[], &self.yaml(listeners)).await
    }

    async fn ask_over_tls(&self, address: &str) {
        ask_over_tls(address, &self.pair.cert).await;
    }
}

const CLOSING: &str = "Connection: close\r\n";

/// One request, on a connection of its own.
async fn ask_over_tls(address: &str, trusted: &str) {
    let mut client = TlsClient::connect(address, "a.test", trusted).await;
    client.send(request("GET", "/", CLOSING, "")).await;
    let (answer, ending) = client.rest().await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.ends_with("hello") && ending == TlsEnding::Told, "{ending:?}: {answer:?}");
}

/// The same, on a Unix socket.
async fn ask_unix(path: &PathBuf) {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(request("GET", "/", CLOSING, "").as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer:?}");
}

async fn upgrade(proxy: &Crestline) {
    let told = proxy.command(&["upgrade"]).await;
    assert_eq!(told.code, Some(0), "{}", told.stderr);
}

/// Whenever they connect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_tls_and_of_unix_sockets_are_never_refused() {
    let it = Listeners::new();
    let proxy = it.start(&["tls 127.0.0.1:0", "unix a.sock"]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let answers: [Arc<AtomicUsize>; 2] = Default::default();
    let mut clients = JoinSet::new();
    for _ in 0..3 {
        let (address, cert) = (proxy.address().to_owned(), it.pair.cert.clone());
        let (stopped, count) = (stop.clone(), answers[0].clone());
        clients.spawn(async move {
            while !stopped.load(SeqCst) {
                ask_over_tls(&address, &cert).await;
                count.fetch_add(1, SeqCst);
            }
        });
        let (path, stop, count) = (it.path("a.sock"), stop.clone(), answers[1].clone());
        clients.spawn(async move {
            while !stop.load(SeqCst) {
                ask_unix(&path).await;
                count.fetch_add(1, SeqCst);
            }
        });
    }
    let counts = || answers.each_ref().map(|count| count.load(SeqCst));
    let go_on = async || {
        let before = counts();
        let more = || before.iter().zip(counts()).all(|(before, now)| before + 5 < now);
        eventually("more answers of both", more).await;
    };
    for _ in 0..4 {
        go_on().await;
        upgrade(&proxy).await;
    }
    go_on().await;
    stop.store(true, SeqCst);
    soon("the end of the clients", clients.join_all()).await;
}

/// Those that are new are bound, with their certificates; those that are gone are closed; those
/// that were plain and are not any more, or the other way round, change with the process.
#[tokio::test]
async fn listeners_of_all_kinds_are_added_and_removed() {
    let it = Listeners::new();
    let before = ["tls 127.0.0.1:0", "tls 127.0.0.3:0", "127.0.0.1:0", "unix kept", "unix removed"];
    let mut proxy = it.start(&before).await;
    let addresses = proxy.addresses.clone();
    let [kept, removed, turned] = [&addresses[0], &addresses[1], &addresses[2]];

    let after = [
        &format!("tls {turned}"),
        "unix added",
        "tls 127.0.0.4:0",
        &format!("tls {kept}"),
        "unix kept",
        "127.0.0.4:0",
    ];
    proxy.rewrite(&it.yaml(&after));
    upgrade(&proxy).await;
    eventually("the end of the old process", || !proxy.is_running()).await;

    let status = proxy.status().await;
    let listed = status["listeners"].as_array().unwrap().iter();
    let listed: Vec<_> = listed.map(|one| one["address"].as_str().unwrap().to_owned()).collect();
    assert_eq!((listed.len(), &listed[0], &listed[3]), (6, turned, kept));
    for address in [turned, kept, &listed[2]] {
        it.ask_over_tls(address).await;
    }
    assert_eq!(Client::connect(&listed[5]).await.exchange(get("/")).await.text(), "hello");
    for name in ["kept", "added"] {
        ask_unix(&it.path(name)).await;
    }
    assert!(Client::try_connect(removed).await.is_err());
    assert!(!it.path("removed").exists());
}

/// As if the last process had bound it itself.
#[tokio::test]
async fn a_unix_socket_that_was_inherited_is_removed_at_the_end() {
    let it = Listeners::new();
    let mut proxy = it.start(&["unix a.sock"]).await;
    for _ in 0..2 {
        upgrade(&proxy).await;
    }
    eventually("the end of the old process", || !proxy.is_running()).await;
    ask_unix(&it.path("a.sock")).await;
    let last = proxy.in_force().unwrap();
    kill_process(Pid::from_raw(i32::try_from(last).unwrap()).unwrap(), Signal::TERM).unwrap();
    eventually("the end of the last process", || !proxy.is_of_this_test(last)).await;
    assert!(!it.path("a.sock").exists());
}
