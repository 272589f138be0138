//! TLS toward origins: who is believed, who is not, and what that costs.

use std::fs;

use rcgen::date_time_ymd;
use serde_json::Value;

use crate::support::{Asks, Client, Crestline, Front, Origin, Pair, eventually, get, post};

/// An upstream of one backend, with more keys.
fn app(backend: &impl ToString, more: &str) -> String {
    let backend = backend.to_string();
    format!("upstreams: {{ app: {{ backends: [\"{backend}\"], health_check: off, {more} }} }}\n")
}

/// Starts beside `ca.pem`, a certificate that vouches for itself.
async fn start(ca: &Pair, yaml: &str) -> Crestline {
    Crestline::start_among(&[("ca.pem", &ca.cert)], &[], yaml).await
}

/// The outcomes of the attempts of the last request, without the addresses.
async fn outcomes(proxy: &Crestline, lines: usize) -> (Vec<String>, Value) {
    let line = proxy.access_log(lines).await.last().cloned().unwrap();
    let via = line["via"].as_str().unwrap();
    let outcomes = via.split(',').map(|one| one.rsplit(':').next().unwrap().to_owned());
    (outcomes.collect(), line["reason"].clone())
}

#[tokio::test]
async fn an_origin_that_proves_its_name_is_asked_over_tls() {
    let (origin, pair) = (Origin::echoing(), Pair::of(&["a.test"]));
    let front = Front::before(&origin, Asks::tls(&pair, &["http/1.1"])).await;
    let proxy = start(&pair, &app(&front, "tls: { sni: a.test, ca: ca.pem }")).await;

    let mut client = proxy.client().await;
    for text in ["one", "two", "three", "four", "five", "six", "seven", "eight"] {
        assert_eq!(client.exchange(post("/", text)).await.text(), text);
    }
    let accepted = front.accepted();
    assert!(accepted.len() < 8, "connections are kept"); // Pingora's pool may lose one at times
    assert_eq!(accepted[0].sni.as_deref(), Some("a.test"));
    assert_eq!(accepted[0].alpn.as_deref(), Some("http/1.1"));
    assert_eq!(origin.last().fields.get("host"), Some("a.test"), "it is the client's, not ours");
}

/// The name in the file counts, and never what a client asks for.
#[tokio::test]
async fn a_backend_that_is_given_by_name_must_prove_that_name() {
    let (origin, pair) = (Origin::replying("hello"), Pair::of(&["localhost"]));
    let front = Front::before(&origin, Asks::tls(&pair, &[])).await;
    let backend = format!("localhost:{}", front.port());
    let proxy = start(&pair, &app(&backend, "tls: { ca: ca.pem }")).await;

    assert_eq!(proxy.get("/").await.text(), "hello");
    assert_eq!(front.accepted()[0].sni.as_deref(), Some("localhost"));
}

#[tokio::test]
async fn nobody_is_believed_who_cannot_prove_it() {
    let trusted = Pair::of(&["a.test"]);
    let expired = Pair::with(&["a.test"], |params| params.not_after = date_time_ymd(2001, 1, 1));
    let cases = [
        (Pair::of(&["a.test"]), None, "tls_bad_certificate"),
        (trusted, Some("b.test"), "tls_wrong_name"),
        (expired, None, "tls_expired"),
    ];
    for (pair, asked_for, reason) in cases {
        let origin = Origin::replying("hello");
        let front = Front::before(&origin, Asks::tls(&pair, &[])).await;
        let ca = if reason == "tls_bad_certificate" { Pair::of(&["a.test"]) } else { pair };
        let name = asked_for.unwrap_or("a.test");
        let tls = format!("tls: {{ sni: {name}, ca: ca.pem }}, retries: 0");
        let proxy = start(&ca, &app(&front, &tls)).await;

        assert_eq!(proxy.get("/").await.status, 502, "{reason}");
        assert_eq!(outcomes(&proxy, 1).await, (vec![reason.to_owned()], reason.into()));
        assert_eq!(origin.count(), 0, "{reason}: it gets no request");
    }
}

#[tokio::test]
async fn an_origin_that_does_not_speak_tls_is_named_as_such() {
    let pair = Pair::of(&["a.test"]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answering = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            let _ = socket.read_to_end(&mut Vec::new()).await;
        }
    });
    let proxy = start(&pair, &app(&address, "tls: { sni: a.test, ca: ca.pem }, retries: 0")).await;

    assert_eq!(proxy.get("/").await.status, 502);
    let reason = "tls_not_spoken";
    assert_eq!(outcomes(&proxy, 1).await, (vec![reason.to_owned()], reason.into()));
    answering.abort();
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_given_up() {
    let (silent, pair) = (Origin::stalling(), Pair::of(&["a.test"]));
    let timeouts = "timeouts: { handshake: 200ms }, retries: 0";
    let tls = format!("tls: {{ sni: a.test, ca: ca.pem }}, {timeouts}");
    let proxy = start(&pair, &app(&silent, &tls)).await;

    assert_eq!(proxy.get("/").await.status, 504);
    let reason = "tls_timeout";
    assert_eq!(outcomes(&proxy, 1).await, (vec![reason.to_owned()], reason.into()));
}

#[tokio::test]
async fn a_failed_handshake_costs_the_client_nothing_and_ejects_the_backend() {
    let (origin, good, bad) = (Origin::echoing(), Pair::of(&["a.test"]), Pair::of(&["a.test"]));
    let fronts = [
        Front::before(&origin, Asks::tls(&good, &[])).await,
        Front::before(&origin, Asks::tls(&bad, &[])).await,
    ];
    let [a, b] = fronts.each_ref().map(ToString::to_string);
    let upstream = format!(
        "upstreams: {{ app: {{ backends: [\"{a}\", \"{b}\"], health_check: off, \
         tls: {{ sni: a.test, ca: ca.pem }}, ejection: {{ consecutive_failures: 2 }} }} }}\n"
    );
    let proxy = start(&good, &upstream).await;

    let mut client = proxy.client().await;
    for _ in 0..8 {
        assert_eq!(client.exchange(post("/", "a body")).await.text(), "a body");
    }
    assert_eq!(proxy.availability("app").await[&b], "ejected");
    let told = proxy.log_with("ejection: app");
    assert!(told[0].contains("the last: tls_bad_certificate"), "{told:?}");
}

/// The number that keeps their connections apart is the only thing that differs for Pingora.
#[tokio::test]
async fn upstreams_at_one_address_never_share_a_connection() {
    let (origin, pair, other) =
        (Origin::replying("hello"), Pair::of(&["a.test"]), Pair::of(&["a.test"]));
    let front = Front::before(&origin, Asks::tls(&pair, &[])).await;
    let upstream = |name: &str, ca: &str| {
        format!(
            "  {name}: {{ backends: [\"{front}\"], health_check: off, \
             tls: {{ sni: a.test, ca: {ca} }}, retries: 0 }}\n"
        )
    };
    let yaml = format!(
        "upstreams:\n{}{}routes:\n  - {{ name: good, match: {{ path: /good }}, upstream: good }}\n  \
         - {{ name: bad, match: {{ path: /bad }}, upstream: bad }}\n",
        upstream("good", "good.pem"),
        upstream("bad", "bad.pem")
    );
    let files = [("good.pem", pair.cert.as_str()), ("bad.pem", &other.cert)];
    let proxy = Crestline::start_among(&files, &[], &yaml).await;

    let mut client = proxy.client().await;
    for _ in 0..3 {
        assert_eq!(client.exchange(get("/good")).await.status, 200);
        assert_eq!(proxy.get("/bad").await.status, 502, "whom the other believed is not believed");
    }
}

/// Neither does one after a reload that changes whom it believes, by its file or by another.
#[tokio::test]
async fn a_reload_reads_certificates_again_and_takes_no_old_connection() {
    let (origin, pair, other) =
        (Origin::replying("hello"), Pair::of(&["a.test"]), Pair::of(&["a.test"]));
    let front = Front::before(&origin, Asks::tls(&pair, &[])).await;
    let yaml = app(&front, "tls: { sni: a.test, ca: ca.pem }, retries: 0, ejection: off");
    let proxy = start(&pair, &yaml).await;
    assert_eq!(proxy.get("/").await.text(), "hello");
    assert_eq!(proxy.reload(&yaml).await, "v1: nothing changed");
    assert_eq!(proxy.get("/").await.text(), "hello");

    fs::write(proxy.folder().join("ca.pem"), "nonsense").unwrap();
    let told = proxy.refuses(&yaml).await;
    assert!(told.contains("`ca.pem` holds no certificate in PEM"), "{told}");
    assert_eq!(proxy.get("/").await.text(), "hello");

    fs::write(proxy.folder().join("ca.pem"), &other.cert).unwrap();
    assert_eq!(proxy.reload(&yaml).await, "v1 → v2: certificates of upstream app changed");
    assert_eq!(proxy.get("/").await.status, 502);

    let off = app(&front, "tls: { sni: a.test, verify: off }, retries: 0, ejection: off");
    let told = proxy.reload(&off).await;
    assert!(told.contains("`verify: off` believes anybody"), "{told}");
    assert_eq!(proxy.get("/").await.text(), "hello");
    assert_eq!(proxy.reload(&yaml).await, "v3 → v4: upstream app changed");
    assert_eq!(proxy.get("/").await.status, 502, "what was believed before is not believed now");
}

#[tokio::test]
async fn watched_authorities_are_read_again_when_they_change() {
    let (origin, pair, other) =
        (Origin::replying("hello"), Pair::of(&["a.test"]), Pair::of(&["a.test"]));
    let front = Front::before(&origin, Asks::tls(&pair, &[])).await;
    let yaml = app(&front, "tls: { sni: a.test, ca: ca.pem }, retries: 0, ejection: off");
    let proxy = start(&other, &format!("{yaml}watch: true\n")).await;
    assert_eq!(proxy.get("/").await.status, 502);

    fs::write(proxy.folder().join("ca.pem"), &pair.cert).unwrap();
    proxy.logs("reload: v1 → v2: certificates of upstream app changed").await;
    assert_eq!(proxy.get("/").await.text(), "hello");
}

#[tokio::test]
async fn an_origin_is_shown_the_client_certificate_that_it_asks_for() {
    let (origin, pair) = (Origin::echoing(), Pair::of(&["a.test"]));
    let (mine, nobodys) = (Pair::of(&["crestline.test"]), Pair::of(&["crestline.test"]));
    let front = Front::before(&origin, Asks::client(&pair, &mine, &[])).await;
    let files = [
        ("ca.pem", pair.cert.as_str()),
        ("mine.pem", &mine.cert),
        ("mine.key", &mine.key),
        ("nobodys.pem", &nobodys.cert),
        ("nobodys.key", &nobodys.key),
    ];
    let with = |client: &str| {
        let tls = format!("tls: {{ sni: a.test, ca: ca.pem{client} }}, retries: 0, ejection: off");
        app(&front, &tls)
    };
    let shown =
        |name: &str| with(&format!(", client_cert: {{ cert: {name}.pem, key: {name}.key }}"));
    let proxy = Crestline::start_among(&files, &[], &shown("mine")).await;
    assert_eq!(proxy.send(post("/", "a body")).await.text(), "a body");
    assert!(front.accepted()[0].has_client_certificate);

    for (yaml, lines) in [(shown("nobodys"), 2), (with(""), 3)] {
        proxy.reload(&yaml).await;
        assert_eq!(proxy.send(post("/", "a body")).await.status, 502);
        // The refusal comes behind the request, and may be lost with the connection.
        let (outcomes, _) = outcomes(&proxy, lines).await;
        assert!(["tls_refused", "reset"].contains(&&*outcomes[0]), "{outcomes:?}");
        assert_eq!(origin.count(), 1);
    }
}

#[tokio::test]
async fn checks_go_over_tls_as_requests_do() {
    let (origin, good, bad) =
        (Origin::replying("hello"), Pair::of(&["a.test"]), Pair::of(&["a.test"]));
    let front = Front::before(&origin, Asks::tls(&good, &[])).await;
    let upstream = |check: &str| {
        format!(
            "upstreams: {{ app: {{ backends: [\"{front}\"], tls: {{ sni: a.test, ca: ca.pem }}, \
             retries: 0, health_check: {{ {check} every: 100ms }} }} }}\n"
        )
    };
    let proxy = start(&good, &upstream("http: { path: /healthz },")).await;
    assert_eq!(origin.requests()[0].target, "/healthz");
    assert_eq!(
        origin.requests()[0].fields.get("host"),
        Some("a.test"),
        "the name of its certificate"
    );
    assert_eq!(proxy.get("/").await.text(), "hello");

    fs::write(proxy.folder().join("ca.pem"), &bad.cert).unwrap();
    proxy.reload(&upstream("http: { path: /healthz },")).await;
    proxy.logs("down: its certificate is signed by nobody who is trusted").await;
    assert_eq!(proxy.get("/").await.status, 503);

    // A check that only connects knows nothing of certificates.
    proxy.reload(&upstream("tcp: {},")).await;
    let up = format!("health: app {front} up");
    eventually("it to be up again", || proxy.log_with(&up).len() == 2).await;
    assert_eq!(proxy.get("/").await.status, 502);
}

#[tokio::test]
async fn a_websocket_goes_over_tls() {
    let (origin, pair) = (
        Origin::with(async |mut exchange| {
            let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                    Upgrade: websocket\r\n\r\n";
            exchange.send(head).await;
            let word = exchange.bytes(4).await.unwrap();
            exchange.send(word).await;
            exchange.close()
        }),
        Pair::of(&["a.test"]),
    );
    // What is spoken over HTTP/2 is not upgraded, so HTTP/1 is asked for.
    let front = Front::before(&origin, Asks::tls(&pair, &["h2", "http/1.1"])).await;
    let tls = "tls: { sni: a.test, ca: ca.pem }, http: auto";
    let proxy = start(&pair, &app(&front, tls)).await;

    let mut client = Client::connect(proxy.address()).await;
    client
        .send(
            "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    assert_eq!(client.head().await.status, 101);
    client.send("ping").await;
    assert_eq!(&client.bytes(4).await[..], b"ping");
    assert_eq!(front.accepted()[0].alpn.as_deref(), Some("http/1.1"));
}
