//! Certificates that are obtained by ACME from a real CA on loopback, and renewed.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::support::{Ca, Crestline, Habits, Origin, eventually, soon};

/// One that speaks plaintext on its first listener and, after a reload with [`asking`], TLS on its
/// second: their ports are known before the CA is started that looks at them.
async fn start(origin: &Origin) -> Crestline {
    Crestline::start(&plain(origin)).await
}

fn plain(origin: &Origin) -> String {
    format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}, {{ address: \"127.0.0.1:0\" }}]\n{}",
        to(origin)
    )
}

fn to(origin: &Origin) -> String {
    format!("upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: off }} }}\n")
}

/// The file that asks a CA for certificates, kept in the folder of the process.
fn asking(ca: &str, certificates: &str, origin: &Origin) -> String {
    format!(
        "acme: {{ {ca}, storage: kept }}\n\
         listeners: [{{ address: \"127.0.0.1:0\" }}, {{ address: \"127.0.0.1:0\", \
         tls: {{ acme: [{certificates}] }} }}]\n{}",
        to(origin)
    )
}

fn port(address: &str) -> u16 {
    address.rsplit(':').next().unwrap().parse().unwrap()
}

/// A CA that looks at the listeners of a process.
async fn ca_for(proxy: &Crestline) -> Ca {
    Ca::start(&habits(proxy)).await
}

fn habits(proxy: &Crestline) -> Habits {
    let looks_at = (port(&proxy.addresses[0]), port(&proxy.addresses[1]));
    Habits { looks_at, ..Habits::default() }
}

/// What `status` tells of the certificate for a name.
async fn told(proxy: &Crestline, name: &str) -> Value {
    let status = proxy.status().await;
    let certificates = status["listeners"][1]["tls"]["certificates"].as_array().unwrap().clone();
    let mut certificates = certificates.into_iter();
    certificates.find(|one| one["names"].as_array().unwrap().contains(&name.into())).unwrap()
}

/// Waits until there are so many lines in the process log.
async fn logs(proxy: &Crestline, text: &str, times: usize) {
    eventually(text, || times <= proxy.log_with(text).len()).await;
}

/// A client that takes whatever certificate it is shown, and remembers its sessions.
fn client() -> TlsConnector {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// Connects for the first time.
async fn connect(proxy: &Crestline, name: &str) -> TlsStream<TcpStream> {
    connect_as(&client(), proxy, name).await
}

async fn connect_as(client: &TlsConnector, proxy: &Crestline, name: &str) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(&proxy.addresses[1]).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    soon("a handshake", client.connect(name, socket)).await.unwrap()
}

/// Who signed what a client is shown, and what it is.
async fn shown(proxy: &Crestline, name: &str) -> (String, Vec<u8>) {
    let stream = connect(proxy, name).await;
    let der = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    (parsed.issuer().to_string(), der)
}

async fn ask(stream: &mut TlsStream<TcpStream>, host: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"hello") {
        assert!(0 < soon("an answer", stream.read_buf(&mut read)).await.unwrap(), "it ended");
    }
    String::from_utf8(read).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_certificate_with_several_names_is_obtained_by_http_01() {
    let origin = Origin::replying("hello");
    let proxy = start(&origin).await;
    let ca = ca_for(&proxy).await;
    let wanted = "{ names: [shop.a.test, www.a.test] }";
    proxy.reload(&asking(&ca.key(), wanted, &origin)).await;
    proxy.logs("acme: certificate for shop.a.test, www.a.test obtained, good until").await;

    eventually_issued(&proxy, "www.a.test").await;
    for name in ["shop.a.test", "www.a.test"] {
        let (issuer, _) = shown(&proxy, name).await;
        assert!(issuer.contains("Pebble Intermediate CA"), "{issuer}");
        let mut stream = connect(&proxy, name).await;
        assert!(ask(&mut stream, name).await.starts_with("HTTP/1.1 200"));
    }
    let told = told(&proxy, "shop.a.test").await;
    assert_eq!(told["names"], serde_json::json!(["shop.a.test", "www.a.test"]));
    assert_eq!(told["acme"]["challenge"], "http-01");
    assert_eq!(told["acme"]["last_error"], Value::Null);
    assert_eq!(proxy.status().await["unready"], serde_json::json!([]));
    assert_eq!(proxy.log_with("acme: ordering").len(), 1);
    let told = proxy.command(&["status"]).await.stderr;
    assert!(told.contains("; by ACME (http-01), renewed at "), "{told}");

    let line = proxy.access_line(|line| line["reason"] == "acme_challenge").await;
    assert_eq!((&line["status"], &line["route"]), (&200.into(), &Value::Null), "{line}");
    // Once the order is over, the same path goes where all others go.
    let path = line["path"].as_str().unwrap();
    assert!(path.starts_with("/.well-known/acme-challenge/"), "{path}");
    assert_eq!(proxy.get(path).await.text(), "hello");
}

/// Waits until a client is shown what a CA gave.
async fn eventually_issued(proxy: &Crestline, name: &str) {
    loop {
        let (issuer, _) = soon("a certificate", shown(proxy, name)).await;
        if issuer.contains("Pebble") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_certificate_is_obtained_by_tls_alpn_01_and_kept_from_all_others() {
    let origin = Origin::replying("hello");
    let proxy = start(&origin).await;
    let ca = ca_for(&proxy).await;
    let contact = "contact: [\"mailto:admin@a.test\"]";
    let wanted = "{ names: [a.test, b.test], challenge: tls-alpn-01 }";
    proxy.reload(&asking(&format!("{}, {contact}", ca.key()), wanted, &origin)).await;
    proxy.logs("acme: certificate for a.test, b.test obtained").await;
    eventually_issued(&proxy, "b.test").await;
    for name in ["a.test", "b.test"] {
        assert!(!proxy.log_with(&format!("acme: {name} was looked at, on")).is_empty());
    }
    assert_eq!(proxy.log_with("acme: registered an account with https://127.0.0.1:").len(), 1);
    assert_eq!(proxy.status().await["listeners"][1]["tls"]["failed_handshakes"], 0);

    let folder = proxy.folder().join("kept");
    let files = files(&folder);
    assert_eq!(files.len(), 3, "the account, the certificate and the lock: {files:?}");
    for file in &files {
        assert_eq!(mode(file), 0o600, "{}", file.display());
        assert_eq!(mode(file.parent().unwrap()), 0o700, "{}", file.display());
    }
    assert_eq!(mode(&folder), 0o700);

    // The same certificate goes on in another way.
    proxy.reload(&asking(&ca.key(), "{ names: [a.test, b.test] }", &origin)).await;
    assert_eq!(told(&proxy, "a.test").await["acme"]["challenge"], "http-01");
    assert!(shown(&proxy, "a.test").await.0.contains("Pebble"));
}

#[tokio::test]
async fn a_ca_looks_without_the_certificate_that_clients_must_show() {
    let origin = Origin::replying("hello");
    let proxy = start(&origin).await;
    let ca = ca_for(&proxy).await;
    let clients = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/clients.pem");
    let rules = format!("tls: {{ client_certificates: {{ ca: {clients} }}, key_log: debug.keys,");
    let wanted = "{ names: [a.test], challenge: tls-alpn-01 }";
    proxy.reload(&asking(&ca.key(), wanted, &origin).replace("tls: {", &rules)).await;
    proxy.logs("acme: certificate for a.test obtained").await;
    eventually_issued(&proxy, "a.test").await;

    let mut stream = connect(&proxy, "a.test").await;
    let refused = soon("an alert", stream.read(&mut [0; 1])).await.unwrap_err();
    assert!(refused.to_string().contains("CertificateRequired"), "{refused}");
    let secrets = fs::read_to_string(proxy.folder().join("debug.keys")).unwrap();
    assert!(secrets.contains("CLIENT_HANDSHAKE_TRAFFIC_SECRET "), "{secrets}");
}

#[tokio::test]
async fn a_certificate_is_renewed_and_open_connections_live_on() {
    let origin = Origin::replying("hello");
    let proxy = start(&origin).await;
    let ca = Ca::start(&Habits { life: Some(3), ..habits(&proxy) }).await;
    proxy.reload(&asking(&ca.key(), "a.test", &origin)).await;
    proxy.logs("acme: certificate for a.test obtained").await;
    eventually_issued(&proxy, "a.test").await;
    let client = client();
    let mut early = connect_as(&client, &proxy, "a.test").await;
    let first = early.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    ask(&mut early, "a.test").await;

    logs(&proxy, "acme: certificate for a.test obtained", 2).await;
    loop {
        if soon("another certificate", shown(&proxy, "a.test")).await.1 != first {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    ask(&mut early, "a.test").await;
    let late = connect_as(&client, &proxy, "a.test").await;
    assert_eq!(late.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    assert_eq!(proxy.version().await, 2, "no change of the configuration");
    assert_eq!(proxy.log_with("acme: registered").len(), 1);
}

#[tokio::test]
async fn a_name_that_does_not_validate_is_told_and_tried_again_after_a_reload() {
    let origin = Origin::replying("hello");
    let proxy = start(&origin).await;
    let ca = ca_for(&proxy).await;
    let wanted = "good.test, { names: [fine.test, nowhere.test] }";
    proxy.reload(&asking(&ca.key(), wanted, &origin)).await;
    proxy.logs("acme: no certificate for fine.test, nowhere.test: nowhere.test: ").await;
    proxy.logs("acme: certificate for good.test obtained").await;
    eventually_issued(&proxy, "good.test").await;

    let status = told(&proxy, "nowhere.test").await;
    assert_eq!(status["acme"]["self_signed"], true);
    let why = status["acme"]["last_error"].as_str().unwrap();
    assert!(why.starts_with("nowhere.test: ") && why.ends_with(" (connection)"), "{why}");
    let unready =
        serde_json::json!(["certificate for fine.test, nowhere.test: self-signed meanwhile"]);
    assert_eq!(proxy.status().await["unready"], unready);
    let (status, ready) = proxy.api("GET", "/readyz", "").await;
    assert_eq!((status, &ready["reasons"]), (503, &unready));
    let text = proxy.command(&["status"]).await.stderr;
    assert!(text.contains("not ready: certificate for fine.test, nowhere.test"), "{text}");
    assert!(text.contains("    last order failed: nowhere.test: "), "{text}");
    // It is served meanwhile, by what vouches for itself.
    let (issuer, meanwhile) = shown(&proxy, "fine.test").await;
    assert!(!issuer.contains("Pebble"), "{issuer}");
    ask(&mut connect(&proxy, "fine.test").await, "fine.test").await;

    let ordered = || proxy.log_with("acme: ordering a certificate for good.test").len();
    let before = ordered();
    let receipt = proxy.reload(&asking(&ca.key(), wanted, &origin)).await;
    assert!(receipt.ends_with("v2: nothing changed"), "{receipt}");
    logs(&proxy, "acme: no certificate for fine.test, nowhere.test", 2).await;
    assert_eq!(shown(&proxy, "fine.test").await.1, meanwhile, "the same, reload or not");
    assert_eq!(ordered(), before, "a certificate that is good is not ordered again");
    let mended = "good.test, fine.test";
    proxy.reload(&asking(&ca.key(), mended, &origin)).await;
    proxy.logs("acme: certificate for fine.test obtained").await;
}

#[tokio::test]
async fn a_restart_needs_no_order() {
    let origin = Origin::replying("hello");
    let storage = tempfile::tempdir().unwrap();
    let first = start(&origin).await;
    let ca = ca_for(&first).await;
    let kept = format!("storage: {}", storage.path().display());
    let file = asking(&ca.key(), "a.test", &origin).replace("storage: kept", &kept);
    first.reload(&file).await;
    first.logs("acme: certificate for a.test obtained").await;
    eventually_issued(&first, "a.test").await;
    let (_, shown_first) = shown(&first, "a.test").await;
    drop(first);

    let second = Crestline::start(&file).await;
    assert_eq!(shown(&second, "a.test").await.1, shown_first);
    assert_eq!(second.status().await["unready"], serde_json::json!([]));
    // Whatever is due is done one after another: an order would have come before this one.
    let more = file.replace("acme: [a.test]", "acme: [a.test, nowhere.test]");
    second.reload(&more).await;
    second.logs("acme: no certificate for nowhere.test").await;
    assert_eq!(second.log_with("acme: ordering a certificate for a.test").len(), 0);
    assert_eq!(second.log_with("acme: registered").len(), 0, "nor another account");
}

#[tokio::test]
async fn after_an_upgrade_the_successor_shows_the_same_and_renews() {
    let origin = Origin::replying("hello");
    let mut proxy = start(&origin).await;
    let ca = Ca::start(&Habits { life: Some(3), ..habits(&proxy) }).await;
    proxy.reload(&asking(&ca.key(), "a.test", &origin)).await;
    proxy.logs("acme: certificate for a.test obtained").await;
    eventually_issued(&proxy, "a.test").await;

    let upgraded = proxy.command(&["upgrade"]).await;
    assert_eq!(upgraded.code, Some(0), "{}", upgraded.stderr);
    assert!(shown(&proxy, "a.test").await.0.contains("Pebble"), "nothing stands in for it");
    eventually("the end of the old process", || !proxy.is_running()).await;
    proxy.reload(&asking(&ca.key(), "a.test, b.test", &origin)).await;
    proxy.logs("acme: certificate for b.test obtained").await;
    assert_eq!(proxy.log_with("acme: registered").len(), 1);
}

#[tokio::test]
async fn a_process_starts_and_serves_while_its_ca_is_down() {
    let origin = Origin::replying("hello");
    // A port that nobody else is given, and where nobody listens.
    let taken = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    taken.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let down = taken.local_addr().unwrap().as_socket().unwrap();
    let nobody = format!("directory: \"https://{down}/dir\", accept_terms: true");
    let proxy = Crestline::start(&asking(&nobody, "a.test", &origin)).await;
    proxy.logs("acme: no certificate for a.test: 127.0.0.1: ").await;
    let status = told(&proxy, "a.test").await;
    let why = status["acme"]["last_error"].as_str().unwrap();
    assert!(why.contains("Connection refused"), "{why}");
    ask(&mut connect(&proxy, "a.test").await, "a.test").await;
    assert_eq!(proxy.get("/").await.text(), "hello");

    // Another CA is asked as soon as it is named.
    let ca = ca_for(&proxy).await;
    proxy.reload(&asking(&ca.key(), "a.test", &origin)).await;
    proxy.logs("acme: certificate for a.test obtained").await;
    eventually_issued(&proxy, "a.test").await;
}

#[tokio::test]
async fn an_external_account_is_bound_to_the_one_that_is_registered() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let origin = Origin::replying("hello");
    let proxy = start(&origin).await;
    let ca = Ca::start(&Habits { external_key: Some(KEY), ..habits(&proxy) }).await;
    proxy.reload(&asking(&ca.key(), "a.test", &origin)).await;
    proxy.logs("acme: no certificate for a.test: the CA says: ").await;
    assert!(!proxy.log_with("(externalAccountRequired)").is_empty(), "for this reason");

    let account = format!("{}, external_account: {{ key_id: kid-1, hmac_key: {KEY} }}", ca.key());
    proxy.reload(&asking(&account, "a.test", &origin)).await;
    proxy.logs("acme: certificate for a.test obtained").await;
    assert_eq!(proxy.log_with(KEY), [""; 0]);
}

#[tokio::test]
async fn a_ca_that_has_forgotten_the_account_is_given_another() {
    let origin = Origin::replying("hello");
    let proxy = start(&origin).await;
    let ca = ca_for(&proxy).await;
    proxy.reload(&asking(&ca.key(), "a.test", &origin)).await;
    proxy.logs("acme: certificate for a.test obtained").await;
    // As if it were that of a CA which has begun anew.
    let account = files(&proxy.folder().join("kept"));
    let account = account.iter().find(|path| path.ends_with("account.json")).unwrap();
    let mut kept: Value = serde_json::from_slice(&fs::read(account).unwrap()).unwrap();
    kept["id"] =
        format!("https://{}/my-account/77", ca.directory().split('/').nth(2).unwrap()).into();
    fs::write(account, kept.to_string()).unwrap();

    proxy.reload(&asking(&ca.key(), "a.test, b.test", &origin)).await;
    proxy.logs("acme: certificate for b.test obtained").await;
    let told = "acme: the CA does not know the account; another one is registered";
    assert_eq!(proxy.log_with(told).len(), 1);
    assert_eq!(proxy.log_with("acme: registered").len(), 2);
    eventually("the word of the CA", || ca.log_with("There are now 2 accounts") == 1).await;
}

/// Trusts every certificate: it is looked at afterwards, and may be good for seconds only.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
