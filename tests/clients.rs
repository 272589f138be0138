//! Clients that others wrote, over TLS and HTTP/2: each asks for a page and sends one, and both
//! answers are whole.

use std::{fs, path::PathBuf};

use tokio::process::Command;

use crate::support::{Authority, Crestline, Origin, Pattern, curl, soon};

/// More than a window of HTTP/2 holds, either way.
const LENGTH: usize = 600_000;

/// A proxy for `localhost` whose authority the clients trust, before an origin that echoes what
/// it is sent, and has a page.
struct Edge {
    proxy: Crestline,
    _origin: Origin,
    page: Vec<u8>,
}

impl Edge {
    async fn start() -> Self {
        let authority = Authority::new("Clients' own");
        let pair = authority.signs(&["localhost"], 1, |_| {});
        let page = [Pattern::new().at(0, LENGTH), &vec![7; LENGTH]].concat();
        let served = page.clone();
        let origin = Origin::with(move |mut exchange| {
            let page = served.clone();
            async move {
                let body = exchange.body().await;
                exchange.reply(if body.is_empty() { page } else { body }).await
            }
        });
        let yaml = format!(
            "listeners: [{{ address: \"127.0.0.1:0\", \
               tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }} }}]\n\
             upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n"
        );
        let files = [("a.pem", pair.cert.as_str()), ("a.key", &pair.key)];
        let proxy = Crestline::start_among(&files, &[], &yaml).await;
        let edge = Self { proxy, _origin: origin, page };
        fs::write(edge.path("ca.pem"), &authority.cert).unwrap();
        fs::write(edge.path("body"), &edge.page).unwrap();
        edge
    }

    fn path(&self, name: &str) -> PathBuf {
        self.proxy.folder().join(name)
    }

    fn port(&self) -> &str {
        self.proxy.address().rsplit_once(':').unwrap().1
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port())
    }

    /// Runs a program to its end, and returns what it wrote.
    async fn run(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.proxy.folder()).kill_on_drop(true);
        let output = soon(program, command.output()).await;
        let output = output.unwrap_or_else(|why| panic!("{program}: {why}: make setup"));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {told}");
        output.stdout
    }

    /// Runs a script that leaves both answers in files.
    async fn run_script(&self, interpreter: &str, script: &str) {
        let script = format!("{}/tests/clients/{script}", env!("CARGO_MANIFEST_DIR"));
        let arguments = [&script, self.port(), "ca.pem", "body", "got", "posted"];
        self.run(interpreter, &arguments).await;
        self.is_page(&fs::read(self.path("got")).unwrap());
        self.is_page(&fs::read(self.path("posted")).unwrap());
    }

    fn is_page(&self, answer: &[u8]) {
        assert_eq!(answer.len(), self.page.len());
        assert!(answer == self.page, "other bytes");
    }

    /// So many requests came, all over HTTP/2, and all were answered.
    async fn served(&self, requests: usize) {
        for line in self.proxy.access_log(requests).await {
            assert_eq!((&line["status"], &line["protocol"]), (&200.into(), &"HTTP/2.0".into()));
        }
    }
}

#[tokio::test]
async fn curl_is_served() {
    let edge = Edge::start().await;
    let (ca, body) = (edge.path("ca.pem"), format!("@{}", edge.path("body").display()));
    let common = ["--http2", "--cacert", ca.to_str().unwrap()];
    let page = edge.url("/page");
    let got = curl(&[&common[..], &[&page]].concat()).await;
    edge.is_page(&got.stdout);
    let posted = curl(&[&common[..], &["--data-binary", &body, &edge.url("/echo")]].concat()).await;
    edge.is_page(&posted.stdout);
    edge.served(2).await;
}

#[tokio::test]
async fn nghttp_is_served() {
    let edge = Edge::start().await;
    let got = edge.run("nghttp", &["--no-verify-peer", &edge.url("/page")]).await;
    edge.is_page(&got);
    let arguments = ["--no-verify-peer", "--data=body", &edge.url("/echo")];
    edge.is_page(&edge.run("nghttp", &arguments).await);
    edge.served(2).await;
}

#[tokio::test]
async fn h2load_is_served() {
    let edge = Edge::start().await;
    let common = ["--requests=60", "--clients=3", "--max-concurrent-streams=8"];
    for more in [&["/page"][..], &["/echo", "--data=body"]] {
        let url = edge.url(more[0]);
        let told = edge.run("h2load", &[&common[..], &more[1..], &[&url]].concat()).await;
        let told = String::from_utf8(told).unwrap();
        assert!(told.contains("60 succeeded, 0 failed, 0 errored, 0 timeout"), "{told}");
        assert!(told.contains("status codes: 60 2xx, 0 3xx, 0 4xx, 0 5xx"), "{told}");
    }
    edge.served(120).await;
}

#[tokio::test]
async fn node_is_served() {
    let edge = Edge::start().await;
    edge.run_script("node", "http2.mjs").await;
    edge.served(2).await;
}

#[tokio::test]
async fn pythons_h2_is_served() {
    let edge = Edge::start().await;
    edge.run_script("/usr/bin/python3", "h2_client.py").await;
    edge.served(2).await;
}
