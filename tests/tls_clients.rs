//! Certificates of clients: who is let in, and what origins and the log are told of them.

use std::fs;

use rcgen::{CertificateParams, DistinguishedName, DnType, SanType};

use crate::support::{
    Authority, Crestline, Origin, Pair, Session, curl, curl_with_certificate, soon,
};

/// A name with what could pose as another one.
fn alice(params: &mut CertificateParams) {
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Example, Inc");
    params.distinguished_name.push(DnType::CommonName, "alice");
    params.subject_alt_names = vec![
        SanType::DnsName("alice.test".try_into().unwrap()),
        SanType::URI("spiffe://a.test/alice".try_into().unwrap()),
    ];
}

/// A listener with TLS, as `settings` have it.
fn listener(settings: &str) -> String {
    format!(
        "{{ address: \"127.0.0.1:0\", tls: {{ certificates: [{{ cert: a.pem, key: a.key }}]{settings} }} }}"
    )
}

fn file(origin: &Origin, listeners: &[String], more: &str) -> String {
    format!(
        "listeners: [{}]\nupstreams: {{ app: {{ backends: [\"{origin}\"], health_check: off }} }}\n{more}",
        listeners.join(", ")
    )
}

/// Who is who in a test.
struct World {
    origin: Origin,
    authority: Authority,
    server: Pair,
}

impl World {
    fn new() -> Self {
        let (origin, authority) = (Origin::replying("hello"), Authority::new("Clients"));
        Self { origin, authority, server: Pair::of(&["a.test"]) }
    }

    /// Starts a proxy beside the certificates: `a` is its own, `alice` and `mallory` are clients'.
    async fn start(&self, listeners: &[String], more: &str) -> Crestline {
        let alice = self.authority.signs(&[], 7, alice);
        let mallory = Authority::new("Clients").signs(&[], 7, |_| {});
        let list = self.authority.revokes(&[]);
        let files = [
            ("a.pem", self.server.cert.as_str()),
            ("a.key", &self.server.key),
            ("ca.pem", &self.authority.cert),
            ("ca.crl", &list),
            ("alice.pem", &alice.cert),
            ("alice.key", &alice.key),
            ("mallory.pem", &mallory.cert),
            ("mallory.key", &mallory.key),
        ];
        Crestline::start_among(&files, &[], &file(&self.origin, listeners, more)).await
    }
}

/// The status that curl is given at an address as this client, or as none; 0 without an answer.
async fn status(proxy: &Crestline, address: &str, client: Option<&str>, more: &[&str]) -> u16 {
    let port = address.rsplit(':').next().unwrap();
    curl_with_certificate(proxy, &format!("https://a.test:{port}/"), client, more).await
}

/// Waits until so many handshakes of a listener have failed by the client's certificate, and no
/// other has.
async fn refused(proxy: &Crestline, listener: usize, count: u64) {
    let counted = async {
        loop {
            let status = proxy.status().await;
            let tls = &status["listeners"][listener]["tls"];
            let failed = tls["failed_handshakes"].as_u64().unwrap();
            assert!(failed <= count, "{status}");
            if failed == count {
                return assert_eq!(tls["failed_by_reason"]["client_certificate"], count, "{tls}");
            }
        }
    };
    soon("failed handshakes", counted).await;
}

/// A route asks for more than the listener: which certificate it is.
#[tokio::test]
async fn a_route_lets_in_by_what_the_certificate_says() {
    let world = World::new();
    let optional = listener(", client_certificates: { ca: ca.pem, mode: optional }");
    let routes = |rules: &str| {
        format!(
            "routes: [{{ name: all, policies: [{{ client_cert: [{rules}] }}], upstream: app }}]"
        )
    };
    let listeners = [optional];
    let proxy =
        world.start(&listeners, &routes("\"allow san:URI:spiffe://a.test/*\", deny all")).await;
    let ask = async |client| status(&proxy, proxy.address(), client, &[]).await;
    assert_eq!(ask(Some("alice")).await, 200);
    assert_eq!(ask(None).await, 403);
    let line = proxy.access_line(|line| line["status"] == 403).await;
    assert_eq!(line["reason"], "certificate_denied");
    let denying = routes("\"deny san:DNS:alice.test\", allow all");
    proxy.reload(&file(&world.origin, &listeners, &denying)).await;
    assert_eq!(ask(Some("alice")).await, 403);
    assert_eq!(ask(None).await, 403, "all with a certificate are meant");
}

#[tokio::test]
async fn who_is_let_in_shows_a_certificate_of_the_right_authority() {
    let world = World::new();
    let required = listener(", client_certificates: { ca: ca.pem, crl: [ca.crl] }");
    let optional = listener(", client_certificates: { mode: optional, ca: ca.pem }");
    let proxy = world.start(&[required, optional], "").await;
    let [required, optional] = [0, 1].map(|listener| proxy.addresses[listener].clone());

    for version in ["1.2", "1.3"] {
        let only: [&str; 3] = [&format!("--tlsv{version}"), "--tls-max", version];
        for (client, at_required, at_optional) in
            [(Some("alice"), 200, 200), (None, 0, 200), (Some("mallory"), 0, 0)]
        {
            assert_eq!(status(&proxy, &required, client, &only).await, at_required, "{client:?}");
            assert_eq!(status(&proxy, &optional, client, &only).await, at_optional, "{client:?}");
        }
    }
    refused(&proxy, 0, 4).await;
    refused(&proxy, 1, 2).await;
    let told = proxy.command(&["status"]).await.stderr;
    assert!(told.contains("(tls, client certificates required); handshakes: 2"), "{told}");
    assert!(told.contains(", failed: 4 (client_certificate 4)\n"), "{told}");
    assert_eq!(world.origin.count(), 6);
}

const FORGED: [&str; 10] = [
    "-H",
    "X-Client-Subject: CN=root",
    "-H",
    "x_client_subject: CN=root",
    "-H",
    "x-client-SANS: DNS:root",
    "-H",
    "x-client-fingerprint: 00",
    "-H",
    "Connection: x-client-subject, x-client-fingerprint",
];

#[tokio::test]
async fn origins_are_told_of_clients_in_fields_that_no_client_can_forge() {
    let world = World::new();
    let forward = "forward: { subject: X-Client-Subject, sans: x-client-sans, \
                   fingerprint: x-client-fingerprint }";
    let telling =
        listener(&format!(", client_certificates: {{ mode: optional, ca: ca.pem, {forward} }}"));
    let silent = listener(", client_certificates: { mode: optional, ca: ca.pem }");
    let plain = "{ address: \"127.0.0.1:0\", h2c: true }".to_owned();
    let trusting = "trusted_proxies: [127.0.0.0/8]\n";
    let proxy = world.start(&[telling, silent, plain], trusting).await;
    let [telling, silent, plain] = [0, 1, 2].map(|listener| proxy.addresses[listener].clone());
    let told = || {
        let fields = world.origin.last().fields;
        ["x-client-subject", "x_client_subject", "x-client-sans", "x-client-fingerprint"]
            .map(|name| fields.get(name).map(str::to_owned))
    };
    let fingerprint = {
        let path = proxy.folder().join("alice.pem");
        let openssl = ["x509", "-noout", "-fingerprint", "-sha256", "-in", path.to_str().unwrap()];
        let output = std::process::Command::new("openssl").args(openssl).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim().rsplit('=').next().unwrap().replace(':', "").to_ascii_lowercase()
    };
    let alice = [
        Some(r"CN=alice,O=Example\2C Inc".to_owned()),
        None,
        Some("DNS:alice.test,URI:spiffe://a.test/alice".to_owned()),
        Some(fingerprint.clone()),
    ];
    let nobody = [None, None, None, None];

    for http in ["--http1.1", "--http2"] {
        let fields = if http == "--http2" { &FORGED[..8] } else { &FORGED[..] };
        let all = [fields, &[http]].concat();
        assert_eq!(status(&proxy, &telling, Some("alice"), &all).await, 200);
        assert_eq!(told(), alice, "{http}");
        assert_eq!(status(&proxy, &telling, None, &all).await, 200);
        assert_eq!(told(), nobody, "{http}");
        assert_eq!(status(&proxy, &silent, Some("alice"), &all).await, 200);
        assert_eq!(told(), nobody, "{http}: a listener that tells nothing");
        let (url, http) = (
            format!("http://{plain}/"),
            if http == "--http2" { "--http2-prior-knowledge" } else { http },
        );
        curl(&[fields, &["-o", "/dev/null", http, &url]].concat()).await;
        assert_eq!(told(), nobody, "{http}: in plaintext");
    }
    assert_eq!(world.origin.count(), 8);

    let line =
        proxy.access_line(|line| line["tls_client_subject"] == r"CN=alice,O=Example\2C Inc").await;
    assert_eq!(line["tls_client_sans"], "DNS:alice.test,URI:spiffe://a.test/alice");
    assert_eq!(line["tls_client_fingerprint"], fingerprint.as_str());
    let lines = proxy.access_log(8).await;
    let named = lines.iter().filter(|line| line.get("tls_client_subject").is_some()).count();
    assert_eq!(named, 4, "{lines:?}");
}

#[tokio::test]
async fn a_client_that_was_revoked_is_refused_from_the_next_look_on_and_so_is_its_session() {
    let world = World::new();
    let required = listener(", client_certificates: { ca: ca.pem, crl: [ca.crl] }");
    let proxy = world.start(&[required], "watch: true\n").await;
    let address = proxy.address().to_owned();
    assert_eq!(status(&proxy, &address, Some("alice"), &[]).await, 200);
    let [cert, key] =
        ["alice.pem", "alice.key"].map(|name| proxy.folder().join(name).display().to_string());
    let arguments = ["-cert", &cert, "-key", &key];
    let mut sessions = Vec::new();
    for version in ["-tls1_2", "-tls1_3"] {
        let session = Session::begin(&address, proxy.folder(), version, &arguments).await;
        let (is_resumed, told) = session.resumes(&address).await;
        assert!(is_resumed, "{told}");
        sessions.push(session);
    }

    fs::write(proxy.folder().join("ca.crl"), world.authority.revokes(&[1, 7])).unwrap();
    proxy.logs("reload: v1 → v2: certificates of listener").await;
    assert_eq!(status(&proxy, &address, Some("alice"), &[]).await, 0);
    for session in &sessions {
        let (is_resumed, told) = session.resumes(&address).await;
        assert!(!is_resumed, "{told}");
    }
    refused(&proxy, 0, 3).await;
    let other = world.authority.signs(&[], 8, alice);
    other.write(proxy.folder(), "other");
    assert_eq!(status(&proxy, &address, Some("other"), &[]).await, 200);

    // A list that cannot be read changes nothing.
    fs::write(proxy.folder().join("ca.crl"), "").unwrap();
    proxy.logs("reload: nothing was changed").await;
    proxy.logs("`ca.crl` holds no list of revoked certificates in PEM").await;
    assert_eq!(status(&proxy, &address, Some("alice"), &[]).await, 0);
}

#[tokio::test]
async fn a_session_without_a_certificate_never_goes_on_where_one_is_required() {
    let world = World::new();
    let (open, required) = (listener(""), ", client_certificates: { ca: ca.pem }");
    let optional = listener(", client_certificates: { mode: optional, ca: ca.pem }");
    let listeners = [open.clone(), open.clone(), optional.clone(), listener(required)];
    let proxy = world.start(&listeners, "").await;
    let [first, second, optional_at, required_at] =
        [0, 1, 2, 3].map(|listener| proxy.addresses[listener].clone());

    for version in ["-tls1_2", "-tls1_3"] {
        for from in [&first, &optional_at] {
            let session = Session::begin(from, proxy.folder(), version, &[]).await;
            let (is_resumed, told) = session.resumes(&required_at).await;
            assert!(!is_resumed, "{told}");
            let (is_resumed, told) = session.resumes(from).await;
            assert!(is_resumed, "{told}");
            if from == &first {
                let (is_resumed, told) = session.resumes(&second).await;
                assert!(is_resumed, "listeners of the same rules know each other's: {told}");
            }
        }
    }
    refused(&proxy, 3, 4).await;

    // Nor where one is required from a reload on.
    let session = Session::begin(&first, proxy.folder(), "-tls1_3", &[]).await;
    let now = [listener(required), open, optional, listener(required)];
    assert!(proxy.reload(&file(&world.origin, &now, "")).await.starts_with("v1 → v2"));
    let (is_resumed, told) = session.resumes(&first).await;
    assert!(!is_resumed, "{told}");
    let (is_resumed, told) = session.resumes(&second).await;
    assert!(is_resumed, "{told}");
    refused(&proxy, 0, 1).await;
}
