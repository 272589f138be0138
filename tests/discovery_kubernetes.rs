//! Backends that Kubernetes tells of: lists and watches as the real API server answers them.

use std::{collections::BTreeMap, fs, sync::Arc};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{After, Asks, Authority, Crestline, Exchange, Front, Origin, Pair};

/// What the API server knows.
#[derive(Clone, Default)]
struct Known {
    version: u64,
    slices: BTreeMap<String, Value>,
    /// What happened, with the version that it led to; what is older is forgotten.
    events: Vec<(u64, String)>,
    /// The oldest version that a watch may go on from.
    oldest: u64,
    /// Whether that is told by the status of the answer, or by an event of it.
    gone_by_status: bool,
    /// Counts the ends of all watches, in order and in the middle of an event.
    ended: usize,
    cut: usize,
    token: String,
}

impl Known {
    fn happens(&mut self, kind: &str, object: &Value) {
        let event = json!({ "type": kind, "object": object });
        self.events.push((self.version, format!("{event}\n")));
    }

    /// Adds a slice with one endpoint, or changes it.
    fn put(&mut self, name: &str, origin: &Origin, ready: bool) {
        self.version += 3;
        let slice = slice(name, self.version, origin, ready);
        let before = self.slices.insert(name.to_owned(), slice.clone());
        self.happens(if before.is_some() { "MODIFIED" } else { "ADDED" }, &slice);
    }

    fn delete(&mut self, name: &str) {
        self.version += 3;
        let mut slice = self.slices.remove(name).unwrap();
        slice["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.happens("DELETED", &slice);
    }

    /// Something else happened in the cluster, and watches are told so.
    fn bookmark(&mut self) {
        self.version += 100;
        let metadata =
            json!({ "resourceVersion": self.version.to_string(), "creationTimestamp": null });
        let object = json!({ "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
            "metadata": metadata, "addressType": "", "endpoints": null, "ports": null });
        self.happens("BOOKMARK", &object);
    }

    /// All that happened is forgotten, as by a compaction, and watches end.
    fn forget(&mut self, gone_by_status: bool) {
        self.version += 1;
        (self.oldest, self.gone_by_status) = (self.version, gone_by_status);
        self.events.clear();
        self.ended += 1;
    }
}

fn slice(name: &str, version: u64, origin: &Origin, ready: bool) -> Value {
    let text = origin.to_string();
    let (_, port) = text.split_once(':').unwrap();
    json!({
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "name": name, "generateName": "web-", "namespace": "shop",
            "uid": "7b6e4c9e-5a59-4d0e-9f5e-6f1d1c0a4a51",
            "resourceVersion": version.to_string(), "generation": 1,
            "labels": { "kubernetes.io/service-name": "web",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io" },
        },
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": ["127.0.0.1"],
            "conditions": { "ready": ready, "serving": ready, "terminating": false },
            "targetRef": { "kind": "Pod", "namespace": "shop", "name": format!("{name}-0") },
            "nodeName": "node-1", "zone": "eu-1a",
        }],
        "ports": [
            { "name": "http", "protocol": "TCP", "port": port.parse::<u16>().unwrap() },
            { "name": "metrics", "protocol": "TCP", "port": 9100 },
        ],
    })
}

fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code })
}

/// An API server.
struct Server {
    origin: Origin,
    known: Arc<watch::Sender<Known>>,
}

impl Server {
    fn start(token: &str) -> Self {
        let first = Known { version: 1_000, token: token.to_owned(), ..Known::default() };
        let known = Arc::new(watch::Sender::new(first));
        let told = known.clone();
        let origin = Origin::with(move |exchange| answer(exchange, told.subscribe()));
        Self { origin, known }
    }

    fn now(&self, change: impl FnOnce(&mut Known)) {
        self.known.send_modify(change);
    }

    /// The questions for watches, from which version on.
    fn watched(&self) -> Vec<String> {
        let all = self.origin.requests().into_iter();
        all.filter_map(|it| value(&it.target, "resourceVersion").map(str::to_owned)).collect()
    }

    /// How many lists were begun.
    fn lists(&self) -> usize {
        let is_first =
            |target: &str| value(target, "limit").is_some() && !target.contains("&continue=");
        self.origin.requests().iter().filter(|it| is_first(&it.target)).count()
    }
}

fn value<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    target.split(['?', '&']).find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

async fn answer(exchange: Exchange, known: watch::Receiver<Known>) -> After {
    let target = exchange.request.target.clone();
    let path = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices\
                ?labelSelector=kubernetes.io%2Fservice-name%3Dweb&";
    assert!(target.starts_with(path), "{target}");
    let now = known.borrow().clone();
    let token = exchange.request.fields.get("authorization").map(str::to_owned);
    if token != Some(format!("Bearer {}", now.token)) {
        return refuse(exchange, "401 Unauthorized", 401, "Unauthorized").await;
    }
    match value(&target, "resourceVersion") {
        None => list(exchange, &now).await,
        Some(version) => {
            let since: u64 = version.parse().unwrap();
            assert_eq!(value(&target, "watch"), Some("true"));
            assert_eq!(value(&target, "allowWatchBookmarks"), Some("true"));
            if since < now.oldest && now.gone_by_status {
                return refuse(exchange, "410 Gone", 410, "Expired").await;
            }
            tell(exchange, since, known).await
        }
    }
}

async fn refuse(exchange: Exchange, status: &str, code: u16, reason: &str) -> After {
    let status_of = failure(code, reason, reason).to_string();
    exchange.answer(status, "Content-Type: application/json\r\n", status_of).await
}

/// A list, one slice a page.
async fn list(exchange: Exchange, known: &Known) -> After {
    let nth = value(&exchange.request.target, "continue");
    let nth: usize = nth.map_or(0, |text| text.strip_prefix("page-").unwrap().parse().unwrap());
    let left = known.slices.len().saturating_sub(nth + 1);
    let mut metadata = json!({ "resourceVersion": known.version.to_string() });
    if 0 < left {
        metadata["continue"] = format!("page-{}", nth + 1).into();
        metadata["remainingItemCount"] = left.into();
    }
    let items: Vec<_> = known.slices.values().skip(nth).take(1).collect();
    let list = json!({ "kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
        "metadata": metadata, "items": items });
    exchange.answer("200 OK", "Content-Type: application/json\r\n", list.to_string()).await
}

/// A watch: what happened since a version, and what happens.
async fn tell(mut exchange: Exchange, since: u64, mut known: watch::Receiver<Known>) -> After {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    exchange.send(head).await;
    let first = known.borrow_and_update().clone();
    if since < first.oldest {
        let message = format!("too old resource version: {since} ({})", first.oldest);
        let event = json!({ "type": "ERROR", "object": failure(410, "Expired", &message) });
        exchange.send(chunk(&format!("{event}\n"))).await;
        exchange.send("0\r\n\r\n").await;
        return exchange.keep();
    }
    let mut told = since;
    loop {
        let now = known.borrow_and_update().clone();
        let is_cut = first.cut < now.cut;
        let news: Vec<_> = now.events.iter().filter(|(version, _)| told < *version).collect();
        for (nth, (version, event)) in news.iter().enumerate() {
            let piece = chunk(event);
            if is_cut && nth + 1 == news.len() {
                exchange.send(&piece[..piece.len() / 2]).await;
                return exchange.close();
            }
            exchange.send(piece).await;
            told = *version;
        }
        if first.ended < now.ended {
            exchange.send("0\r\n\r\n").await;
            return exchange.keep();
        }
        tokio::select! {
            _ = known.changed() => {}
            _ = exchange.left() => return After::Close,
        }
    }
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

#[tokio::test]
async fn ready_endpoints_are_backends_and_a_watch_goes_on_from_where_it_was_cut() {
    let [first, second, third] = ["1", "2", "3"].map(Origin::replying);
    let server = Server::start("first");
    server.now(|known| known.put("web-a", &first, true));
    server.now(|known| known.put("web-b", &second, true));
    // As it is: behind TLS, and it knows who asks by a certificate besides.
    let authority = Authority::new("cluster");
    let (own, client) = (authority.signs(&["127.0.0.1"], 1, |_| {}), Pair::of(&["edge.test"]));
    let front = Front::before(&server.origin, Asks::client(&own, &client, &[])).await;
    let yaml = format!(
        "
        upstreams:
          app:
            discovery:
              kubernetes:
                url: \"https://{front}\"
                namespace: shop
                service: web
                port: http
                token_file: token
                tls: {{ ca: ca.pem, cert: edge.pem, key: edge.key }}
        "
    );
    let files: [(&str, &str); 4] = [
        ("token", "first\n"),
        ("ca.pem", &authority.cert),
        ("edge.pem", &client.cert),
        ("edge.key", &client.key),
    ];
    let proxy = Crestline::start_among(&files, &[], &yaml).await;
    proxy.finds(&[(&first, 1), (&second, 1)]).await;
    assert_eq!(proxy.texts(2).await.len(), 2);

    // They change, appear and vanish.
    server.now(|known| known.put("web-b", &second, false));
    proxy.finds(&[(&first, 1)]).await;
    server.now(|known| known.put("web-c", &third, true));
    server.now(|known| known.delete("web-a"));
    proxy.finds(&[(&third, 1)]).await;
    assert_eq!(proxy.texts(3).await, ["3", "3", "3"]);

    // A watch that breaks in the middle of an event goes on from the last bookmark.
    server.now(Known::bookmark);
    let bookmark = server.known.borrow().version.to_string();
    server.now(|known| {
        known.put("web-a", &first, true);
        known.cut += 1;
    });
    proxy.finds(&[(&first, 1), (&third, 1)]).await;
    assert_eq!(server.lists(), 1);
    let watched = server.watched();
    assert_eq!(watched.len(), 2, "{watched:?}");
    assert_eq!(watched[1], bookmark);

    // What is too old to go on from is listed again, however the server says so.
    for (nth, gone_by_status) in [false, true].into_iter().enumerate() {
        server.now(|known| {
            known.put("web-a", &first, gone_by_status);
            known.forget(gone_by_status);
        });
        let expected =
            if gone_by_status { &[(&first, 1), (&third, 1)][..] } else { &[(&third, 1)] };
        proxy.finds(expected).await;
        assert_eq!(server.lists(), 2 + nth);
    }

    // While there is no server the last good set serves. The token is another one by then.
    server.origin.kill().await;
    proxy.misses(&format!("https://{front}: ")).await;
    assert_eq!(proxy.texts(2).await.len(), 2);
    let told = proxy.command(&["status"]).await.stderr;
    let by = format!("by kubernetes shop/web port http at https://{front}: 2 backends, in touch ");
    assert!(told.contains(&by), "{told}");
    server.now(|known| {
        known.token = "second".to_owned();
        known.delete("web-c");
    });
    server.origin.revive();
    proxy.misses("the answer was 401 Unauthorized").await;
    fs::write(proxy.folder().join("token"), "second").unwrap();
    proxy.finds(&[(&first, 1)]).await;
    assert_eq!(server.lists(), 3, "it went on from where it was");
}
