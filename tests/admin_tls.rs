//! The admin listener over TLS: whose certificate is as good as the token, and whose is not.

use std::fs;

use rcgen::{CertificateParams, DistinguishedName, DnType};

use crate::support::{Authority, Client, Crestline, Origin, Pair, curl_with_certificate, get};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn ops(params: &mut CertificateParams) {
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "ops");
}

fn file(origin: &Origin, admin: &str) -> String {
    format!(
        "admin: {{ address: \"0.0.0.0:0\", {admin} }}\n\
         upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n"
    )
}

/// A proxy beside the certificates: `a` is its own, `ops` and `mallory` are clients'.
async fn start(yaml: &str) -> (Crestline, String) {
    let authority = Authority::new("Operators");
    let server = Pair::of(&["admin.test"]);
    let ops = authority.signs(&[], 7, ops);
    let mallory = Authority::new("Operators").signs(&[], 7, |_| {});
    let files = [
        ("a.pem", server.cert.as_str()),
        ("a.key", &server.key),
        ("ca.pem", &authority.cert),
        ("ops.pem", &ops.cert),
        ("ops.key", &ops.key),
        ("mallory.pem", &mallory.cert),
        ("mallory.key", &mallory.key),
        ("token", TOKEN),
    ];
    let proxy = Crestline::start_among(&files, &[], yaml).await;
    let port = proxy.admin_address().await.rsplit(':').next().unwrap().to_owned();
    (proxy, port)
}

/// The status that curl is given for a path as this client, or as none; 0 without an answer.
async fn status(
    proxy: &Crestline,
    port: &str,
    path: &str,
    client: Option<&str>,
    more: &[&str],
) -> u16 {
    let url = format!("https://admin.test:{port}{path}");
    curl_with_certificate(proxy, &url, client, more).await
}

#[tokio::test]
async fn a_certificate_is_as_good_as_the_token_and_a_stranger_s_is_not() {
    let origin = Origin::replying("hello");
    let tls = "tls: { cert: a.pem, key: a.key, client_certificates: { ca: ca.pem } }";
    let yaml = file(&origin, &format!("token: \"file:token\", {tls}"));
    let (proxy, port) = start(&yaml).await;
    let ask =
        async |path: &str, client, more: &[&str]| status(&proxy, &port, path, client, more).await;
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let own = format!("Origin: https://admin.test:{port}");
    for version in ["1.2", "1.3"] {
        let only: [&str; 3] = [&format!("--tlsv{version}"), "--tls-max", version];
        assert_eq!(ask("/v1/status", Some("ops"), &only).await, 200, "{version}");
        assert_eq!(ask("/v1/status", Some("mallory"), &only).await, 0, "{version}");
        assert_eq!(ask("/v1/status", None, &only).await, 401, "{version}");
    }
    assert_eq!(ask("/v1/status", None, &["-H", &bearer]).await, 200);
    assert_eq!(ask("/v1/status", None, &["-H", &own, "-H", &bearer]).await, 200);
    assert_eq!(ask("/v1/status", Some("ops"), &["-H", &own]).await, 200);
    for probe in ["/healthz", "/readyz"] {
        let by_address = ["-H", "Host: 127.0.0.1"];
        assert_eq!(ask(probe, None, &by_address).await, 200, "{probe}");
    }
    // A browser shows its certificate to whoever sends it here.
    for foreign in ["Origin: https://evil.test", "Sec-Fetch-Site: cross-site", "Origin: null"] {
        assert_eq!(ask("/v1/drain", Some("ops"), &["-XPOST", "-H", foreign]).await, 403);
    }
    let plain = format!("Origin: http://admin.test:{port}");
    assert_eq!(ask("/v1/status", Some("ops"), &["-H", &plain]).await, 403);

    let path = format!("/v1/backends/app/{origin}/drain");
    assert_eq!(ask(&path, Some("ops"), &["-XPOST"]).await, 200);
    proxy.logs(&format!("admin: POST {path:?} by \"CN=ops\" at 127.0.0.1:")).await;
    proxy.logs(" by its certificate: 200").await;

    let answer = Client::connect(&format!("127.0.0.1:{port}")).await.exchange(get("/")).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("TLS is spoken here"), "{}", answer.text());
    let metrics = proxy.metrics().await;
    let expiry = format!("{{listener=\"0.0.0.0:{port}\",names=\"admin.test\"");
    assert!(metrics.contains(&expiry), "{metrics}");
}

#[tokio::test]
async fn certificates_alone_open_a_public_address_and_a_reload_changes_them() {
    let origin = Origin::replying("hello");
    let tls = |ca: &str| {
        let clients = format!("client_certificates: {{ ca: {ca} }}");
        file(&origin, &format!("tls: {{ cert: a.pem, key: a.key, {clients} }}"))
    };
    let (proxy, port) = start(&tls("ca.pem")).await;
    let ask = async |client| status(&proxy, &port, "/v1/status", client, &[]).await;
    let page = async |client| status(&proxy, &port, "/", client, &[]).await;
    assert_eq!((ask(Some("ops")).await, ask(None).await), (200, 403));
    assert_eq!((page(Some("ops")).await, page(None).await), (200, 403));

    let other = Authority::new("Others");
    let eve = other.signs(&[], 7, |_| {});
    for (name, text) in [("ca.pem", &other.cert), ("eve.pem", &eve.cert), ("eve.key", &eve.key)] {
        fs::write(proxy.folder().join(name), text).unwrap();
    }
    assert_eq!(proxy.reload(&tls("ca.pem")).await, "v1 → v2: certificates of admin changed");
    assert_eq!((ask(Some("ops")).await, ask(Some("eve")).await), (0, 200));

    let told = proxy.refuses(&tls("missing.pem")).await;
    assert!(told.contains("cannot read `missing.pem`"), "{told}");
    let told = proxy.refuses(&file(&origin, "tls: { cert: a.pem, key: a.key }")).await;
    assert!(told.contains("can be reached from other machines, by anybody"), "{told}");
    assert_eq!(ask(Some("eve")).await, 200, "what was in force stays");
}
