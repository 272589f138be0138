//! Backends that Docker runs: lists and events as the real daemon gives them over its socket.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpStream, UnixListener},
    sync::watch,
};

use crate::support::{After, Crestline, Exchange, Origin};

/// What the daemon knows: the containers that run, by name, and what happened.
#[derive(Clone, Default)]
struct Known {
    running: BTreeMap<String, Value>,
    events: Vec<Value>,
}

/// A daemon behind a Unix socket, which stays in its place while the daemon is away.
struct Daemon {
    origin: Origin,
    known: Arc<watch::Sender<Known>>,
    folder: TempDir,
}

impl Daemon {
    fn start() -> Self {
        let known = Arc::new(watch::Sender::new(Known::default()));
        let told = known.clone();
        let origin = Origin::with(move |exchange| answer(exchange, told.subscribe()));
        let daemon = Self { origin, known, folder: tempfile::tempdir().unwrap() };
        let listener = UnixListener::bind(daemon.socket()).unwrap();
        let address = daemon.origin.to_string();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let address = address.clone();
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(address).await {
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// A container that listens where an origin does begins to run.
    fn run(&self, name: &str, origin: &Origin, labels: &[(&str, &str)]) {
        let container = container(name, origin, labels);
        self.known.send_modify(|known| {
            known.events.push(event("start", name, &container));
            known.running.insert(name.to_owned(), container);
        });
    }

    /// A container dies.
    fn die(&self, name: &str) {
        self.known.send_modify(|known| {
            let container = known.running.remove(name).unwrap();
            known.events.push(event("die", name, &container));
        });
    }
}

fn container(name: &str, origin: &Origin, labels: &[(&str, &str)]) -> Value {
    let text = origin.to_string();
    let (_, port) = text.split_once(':').unwrap();
    let port: u16 = port.parse().unwrap();
    let mut all = json!({ "crestline.upstream": "app", "maintainer": "somebody" });
    for (key, value) in labels {
        all[key] = (*value).into();
    }
    json!({
        "Id": "8dfafdbc3a40d3ae0b5f2a8f36b62f3c4ee1a0bc0e9f8cf1f2bb1a1a7b9e8f00",
        "Names": [format!("/{name}")], "Image": "web:1", "ImageID": "sha256:0a1b",
        "Command": "/web", "Created": 1_732_590_000, "Labels": all,
        "Ports": [
            { "IP": "0.0.0.0", "PrivatePort": port, "PublicPort": 32768, "Type": "tcp" },
            { "IP": "::", "PrivatePort": port, "PublicPort": 32768, "Type": "tcp" },
        ],
        "State": "running", "Status": "Up 5 seconds", "HostConfig": { "NetworkMode": "shop" },
        "NetworkSettings": { "Networks": { "shop": {
            "IPAMConfig": null, "Links": null, "Aliases": null, "NetworkID": "7ea2",
            "EndpointID": "2cdc", "Gateway": "127.0.0.254", "IPAddress": "127.0.0.1",
            "IPPrefixLen": 16, "IPv6Gateway": "", "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0, "MacAddress": "02:42:ac:11:00:02",
        } } },
        "Mounts": [],
    })
}

fn event(action: &str, name: &str, container: &Value) -> Value {
    let mut attributes = container["Labels"].clone();
    attributes["image"] = "web:1".into();
    attributes["name"] = name.into();
    json!({
        "status": action, "id": container["Id"], "from": "web:1", "Type": "container",
        "Action": action, "Actor": { "ID": container["Id"], "Attributes": attributes },
        "scope": "local", "time": 1_732_590_000, "timeNano": 1_732_590_000_123_456_789_u64,
    })
}

async fn answer(exchange: Exchange, mut known: watch::Receiver<Known>) -> After {
    let target = exchange.request.target.clone();
    let label = "%22label%22%3A%5B%22crestline.upstream%3Dapp%22%5D";
    assert!(target.contains(label), "{target}");
    if target.starts_with("/containers/json?filters=") {
        let list: Vec<_> = known.borrow().running.values().cloned().collect();
        let list = Value::from(list).to_string();
        return exchange.answer("200 OK", "Content-Type: application/json\r\n", list).await;
    }
    assert!(target.starts_with("/events?filters="), "{target}");
    // Only what happens from now on is told.
    let told = known.borrow_and_update().events.len();
    tell(exchange, told, known).await
}

async fn tell(mut exchange: Exchange, mut told: usize, mut known: watch::Receiver<Known>) -> After {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    exchange.send(head).await;
    loop {
        let news = known.borrow_and_update().events[told..].to_vec();
        told += news.len();
        for event in news {
            let line = format!("{event}\n");
            exchange.send(format!("{:x}\r\n{line}\r\n", line.len())).await;
        }
        tokio::select! {
            _ = known.changed() => {}
            _ = exchange.left() => return After::Close,
        }
    }
}

#[tokio::test]
async fn running_containers_with_a_label_are_backends() {
    let [first, second] = ["1", "2"].map(Origin::replying);
    let daemon = Daemon::start();
    daemon.run("web-1", &first, &[]);
    let url = format!("unix:{}", daemon.socket().display());
    let yaml = format!("upstreams: {{ app: {{ discovery: {{ docker: {{ url: \"{url}\" }} }} }} }}");
    let proxy = Crestline::start(&yaml).await;
    assert_eq!(proxy.get("/").await.text(), "1");

    // They appear, change and vanish.
    daemon.run("web-2", &second, &[("crestline.weight", "2")]);
    proxy.finds(&[(&first, 1), (&second, 2)]).await;
    daemon.die("web-2");
    proxy.finds(&[(&first, 1)]).await;
    daemon.run("web-2", &second, &[("crestline.weight", "3"), ("crestline.network", "shop")]);
    daemon.die("web-1");
    proxy.finds(&[(&second, 3)]).await;
    assert_eq!(proxy.texts(3).await, ["2", "2", "2"]);

    // What is wrong changes nothing, is told, and is mended.
    daemon.run("web-3", &first, &[("crestline.weight", "many")]);
    let why = proxy.misses("web-3").await;
    assert_eq!(why, "the container web-3 has the weight `many`");
    assert_eq!(proxy.get("/").await.text(), "2");
    daemon.die("web-3");
    proxy.finds(&[(&second, 3)]).await;

    // While it is away the last good set serves; when it is back, so is what it runs.
    daemon.origin.kill().await;
    let why = proxy.misses(&format!("{url}: ")).await;
    assert_eq!(proxy.texts(2).await, ["2", "2"], "{why}");
    let told = proxy.command(&["status"]).await.stderr;
    let by = format!("by docker crestline.upstream=app at {url}: 1 backend, in touch ");
    assert!(told.contains(&by), "{told}");
    daemon.run("web-1", &first, &[]);
    daemon.origin.revive();
    proxy.finds(&[(&first, 1), (&second, 3)]).await;
}
