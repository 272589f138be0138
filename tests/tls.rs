//! TLS toward clients: the handshake, the certificate that is given, and what is refused.

use std::{path::Path, time::Duration};

use serde_json::Value;
use tokio::time::{self, Instant};

use crate::support::{
    Client, Crestline, Ending, Origin, Pair, curl, eventually, get, s_client, soon,
};

const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates");

/// A listener with TLS as the first, with these certificates of `tests/certificates`.
fn listening(certificates: &[&str], more: &str) -> String {
    let pair = |name: &&str| {
        format!("{{ cert: {CERTIFICATES}/{name}.pem, key: {CERTIFICATES}/{name}.key }}")
    };
    let pairs: Vec<_> = certificates.iter().map(pair).collect();
    format!(
        "listeners: [{{ address: \"127.0.0.1:0\", tls: {{ certificates: [{}]{more} }} }}]\n",
        pairs.join(", ")
    )
}

fn to(origin: &Origin) -> String {
    format!("upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: off }} }}\n")
}

/// curl, which trusts a certificate and finds all names at the proxy.
async fn curl_to(proxy: &Crestline, name: &str, arguments: &[&str]) -> (String, String) {
    let port = proxy.address().rsplit(':').next().unwrap();
    let url = format!("https://{name}:{port}/");
    let resolve = format!("{name}:{port}:127.0.0.1");
    let ca = format!("{CERTIFICATES}/ecdsa.pem");
    let mut all =
        vec!["--cacert", &ca, "--resolve", &resolve, "-w", "\n%{http_version} %{http_code}"];
    all.extend(arguments);
    all.push(&url);
    let output = curl(&all).await;
    let told = String::from_utf8(output.stdout).unwrap();
    let (body, end) = told.rsplit_once('\n').unwrap();
    (body.to_owned(), format!("{end}{}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test]
async fn curl_speaks_http_1_and_2_over_tls_1_2_and_1_3() {
    let origin = Origin::replying("hello");
    let routes = "routes: [{ name: all, upstream: app, forwarded: true }]\n";
    let proxy =
        Crestline::start(&[listening(&["ecdsa"], ""), to(&origin), routes.to_owned()].concat())
            .await;

    for (version, arguments) in [
        ("TLSv1.2", ["--tlsv1.2", "--tls-max", "1.2"]),
        ("TLSv1.3", ["--tlsv1.3", "--tls-max", "1.3"]),
    ] {
        for (http, told) in [("--http1.1", "1.1 200"), ("--http2", "2 200")] {
            let answer = curl_to(&proxy, "www.a.test", &[&arguments[..], &[http]].concat()).await;
            assert_eq!(answer, ("hello".to_owned(), told.to_owned()), "{version} {http}");
            let fields = origin.last().fields;
            assert_eq!(fields.get("x-forwarded-proto"), Some("https"));
            assert!(fields.get("forwarded").unwrap().contains(";proto=https;"));
        }
    }
    let lines = proxy.access_log(4).await;
    let versions = ["TLSv1.2", "TLSv1.2", "TLSv1.3", "TLSv1.3"];
    for version in versions {
        assert_eq!(lines.iter().filter(|line| line["tls_version"] == version).count(), 2);
    }
    assert!(lines.iter().all(|line| line["sni"] == "www.a.test"), "{lines:?}");
}

/// The subject, the kind of signature, and the protocol that openssl was given.
async fn given(proxy: &Crestline, arguments: &[&str]) -> (String, bool) {
    let told = s_client(proxy.address(), arguments).await;
    let subject = told.lines().find_map(|line| line.strip_prefix("subject="));
    let subject = subject.unwrap_or_else(|| panic!("no certificate: {told}")).trim().to_owned();
    (subject, told.contains("Peer signature type: RSA"))
}

#[tokio::test]
async fn a_client_is_given_the_certificate_for_its_name_that_it_can_verify() {
    let (origin, folder) = (Origin::replying("hello"), tempfile::tempdir().unwrap());
    let named = |names: &[&str], name: &str| {
        let named = |params: &mut rcgen::CertificateParams| {
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
        };
        Pair::with(names, named).write(folder.path(), name);
        format!("{{ cert: {0}/{name}.pem, key: {0}/{name}.key }}", folder.path().display())
    };
    let exact = named(&["exact.a.test"], "exact");
    let wild = named(&["*.w.test", "w.test"], "wild");
    let listener =
        listening(&["rsa", "ecdsa"], "").replace("[{ cert", &format!("[{exact}, {wild}, {{ cert"));
    let proxy = Crestline::start(&[listener, to(&origin)].concat()).await;

    let rsa_only = ["-sigalgs", "RSA-PSS+SHA256"];
    let rsa_suites = ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"];
    let cases: [(&[&str], &str, bool); 10] = [
        (&["-servername", "exact.a.test"], "CN = exact", false),
        (&["-servername", "EXACT.A.test"], "CN = exact", false),
        (&["-servername", "x.a.test"], "CN = a.test", false),
        (&["-servername", "w.test"], "CN = wild", false),
        (&["-servername", "x.w.test"], "CN = wild", false),
        (&["-servername", "y.x.w.test"], "CN = exact", false),
        (&["-noservername"], "CN = exact", false),
        (&["-servername", "a.test"], "CN = a.test", false),
        (&[&["-servername", "a.test"], &rsa_only[..]].concat(), "CN = a.test", true),
        (&[&["-servername", "exact.a.test"], &rsa_suites[..]].concat(), "CN = a.test", true),
    ];
    for (arguments, subject, is_rsa) in cases {
        assert_eq!(given(&proxy, arguments).await, (subject.to_owned(), is_rsa), "{arguments:?}");
    }
}

#[tokio::test]
async fn where_unknown_names_are_refused_the_alert_says_so() {
    let origin = Origin::replying("hello");
    let proxy =
        Crestline::start(&[listening(&["ecdsa"], ", unknown_names: refuse"), to(&origin)].concat())
            .await;

    for arguments in [&["-noservername"][..], &["-servername", "b.test"], &["-servername", "test"]]
    {
        let told = s_client(proxy.address(), arguments).await;
        assert!(
            told.contains("alert unrecognized name") || told.contains("alert number 112"),
            "{told}"
        );
    }
    assert_eq!(given(&proxy, &["-servername", "a.test"]).await.0, "CN = a.test");
    failed_handshakes(&proxy, 3).await;
    assert_eq!(proxy.status().await["listeners"][0]["tls"]["handshakes"], 1);
    assert!(proxy.log_with("handshake").is_empty(), "no noise");
}

#[tokio::test]
async fn sessions_are_resumed_also_after_a_reload_that_changes_no_certificate() {
    let origin = Origin::replying("hello");
    let file = [listening(&["ecdsa"], ""), to(&origin)].concat();
    let proxy = Crestline::start(&file).await;
    let session = proxy.folder().join("session").display().to_string();

    for version in ["-tls1_2", "-tls1_3"] {
        let hello = ["-servername", "a.test", version, "-ign_eof"];
        // The tickets of TLS 1.3 come after the handshake, so that openssl has to wait for some.
        let told = {
            let script = format!(
                "printf 'GET / HTTP/1.0\\r\\nHost: a.test\\r\\n\\r\\n' | openssl s_client \
                 -connect {} {} -sess_out {session}",
                proxy.address(),
                hello.join(" ")
            );
            let output = tokio::process::Command::new("sh").args(["-c", &script]).output();
            String::from_utf8_lossy(&output.await.unwrap().stdout).into_owned()
        };
        assert!(told.contains("New, TLSv1.") && told.contains("hello"), "{told}");
        let told =
            proxy.reload(&format!("{file}trusted_proxies: [10.{}.0.0/16]\n", version.len())).await;
        assert!(
            told.ends_with("trusted_proxies changed") || told.ends_with("nothing changed"),
            "{told}"
        );
        let told =
            s_client(proxy.address(), &["-servername", "a.test", version, "-sess_in", &session])
                .await;
        assert!(told.contains("Reused, TLSv1."), "{version}: {told}");
    }
}

#[tokio::test]
async fn old_versions_and_foreign_protocols_are_refused() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&[listening(&["ecdsa", "rsa"], ""), to(&origin)].concat()).await;

    let old = ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"];
    let told = s_client(proxy.address(), &old).await;
    assert!(told.contains("no peer certificate") && told.contains("SSL alert"), "{told}");
    let told = s_client(proxy.address(), &["-servername", "a.test", "-alpn", "acme"]).await;
    assert!(told.contains("alert no application protocol"), "{told}");
    for (offered, chosen) in
        [("h2,http/1.1", "h2"), ("http/1.1,h2", "h2"), ("http/1.1", "http/1.1")]
    {
        let told = s_client(proxy.address(), &["-servername", "a.test", "-alpn", offered]).await;
        assert!(told.contains(&format!("ALPN protocol: {chosen}\n")), "{offered}: {told}");
    }
}

/// Waits until so many handshakes have failed, and no more.
async fn failed_handshakes(proxy: &Crestline, count: u64) {
    let counted = async {
        loop {
            let status = proxy.status().await;
            let failed = status["listeners"][0]["tls"]["failed_handshakes"].as_u64().unwrap();
            assert!(failed <= count, "{status}");
            if failed == count {
                return;
            }
        }
    };
    soon("failed handshakes", counted).await;
}

#[tokio::test]
async fn a_handshake_has_its_time_and_its_first_message_a_bound() {
    let origin = Origin::replying("hello");
    let file = [listening(&["ecdsa"], ""), to(&origin)].concat();
    let file = file.replace("tls: {", "timeouts: { handshake: 2s }, tls: {");
    let proxy = Crestline::start(&file).await;

    let start = Instant::now();
    let mut silent = proxy.client().await;
    assert_eq!(silent.rest().await.0, b"");
    let mut slow = proxy.client().await;
    let begin = tokio::spawn(async move {
        for byte in [22, 3, 1, 2, 0, 1, 0, 1, 252, 3] {
            slow.send_if_taken([byte]).await;
            time::sleep(Duration::from_millis(50)).await;
        }
        slow.rest().await;
    });
    begin.await.unwrap();
    assert!(Duration::from_millis(3_900) < start.elapsed(), "both had their time");
    failed_handshakes(&proxy, 2).await;

    // A ClientHello of 60,000 bytes, in records of 16 KiB: it is not read to its end.
    let mut long = Client::connect(proxy.address()).await;
    let mut record = vec![22, 3, 1, 0x40, 0];
    record.extend([1, 0, 234, 96]);
    record.resize(5 + 0x4000, 0);
    long.send_if_taken(&record).await;
    long.send_if_taken(&record[..1000]).await;
    long.rest().await;
    failed_handshakes(&proxy, 3).await;

    drop(proxy.client().await);
    let (told, _) = curl_to(&proxy, "a.test", &[]).await;
    assert_eq!(told, "hello");
    failed_handshakes(&proxy, 3).await; // a probe is no failure
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_told_so() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&[listening(&["ecdsa"], ""), to(&origin)].concat()).await;

    let mut client = proxy.client().await;
    let answer = client.exchange(get("/secret")).await;
    assert_eq!((answer.status, answer.get("connection")), (400, Some("close")));
    assert_eq!(client.rest().await.1, Ending::Closed);
    let line = proxy.access_line(|line| line["status"] == 400).await;
    assert_eq!((&line["reason"], &line["path"]), (&"plain_http_on_tls".into(), &"/secret".into()));
    assert_eq!((&line["tls_version"], origin.count()), (&Value::Null, 0));
}

#[tokio::test]
async fn a_request_for_a_host_that_the_certificate_does_not_cover_gets_421() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&[listening(&["ecdsa", "other"], ""), to(&origin)].concat()).await;

    for http in ["--http1.1", "--http2"] {
        for (host, status) in [
            ("a.test", "200"),
            ("A.Test:443", "200"),
            ("www.a.test.", "200"),
            ("b.test", "421"),
            ("x.www.a.test", "421"),
            ("127.0.0.1", "421"),
        ] {
            let field = format!("Host: {host}");
            let (_, told) = curl_to(&proxy, "a.test", &[http, "-H", &field]).await;
            assert!(told.ends_with(status), "{http} {host}: {told}");
        }
    }
    let line = proxy.access_line(|line| line["status"] == 421).await;
    assert_eq!((&line["reason"], &line["sni"]), (&"misdirected".into(), &"a.test".into()));
    assert_eq!(origin.count(), 6);
}

#[tokio::test]
async fn a_certificate_that_expires_soon_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let check = async |days: u64| {
        let expires = std::time::SystemTime::now() + Duration::from_secs(days * 86_400 + 3_600);
        Pair::with(&["a.test"], |params| params.not_after = expires.into())
            .write(folder.path(), "a");
        let text = "listeners: [{ address: 0.0.0.0:443, tls: { certificates: [{ cert: a.pem, key: a.key }] } }]
upstreams: { app: { backends: [127.0.0.1:3031] } }
";
        let file = folder.path().join("app.yaml");
        std::fs::write(&file, text).unwrap();
        let finished = Crestline::run(&["check", file.to_str().unwrap()]).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        finished.stderr
    };
    let told = check(13).await;
    assert!(told.contains("warning: the certificate for a.test expires on 2"), "{told}");
    assert!(told.contains(", in 13 days\n"), "{told}");
    assert!(check(1).await.contains(", in 1 day\n"));
    assert!(!check(14).await.contains("warning"));
}

/// Explains with a file whose folder is that of the certificates.
async fn explain(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    for name in ["ecdsa", "rsa", "other"] {
        for kind in ["pem", "key"] {
            let file = format!("{name}.{kind}");
            std::fs::copy(Path::new(CERTIFICATES).join(&file), folder.path().join(file)).unwrap();
        }
    }
    let text = "listeners:
  - address: 0.0.0.0:80
  - address: 0.0.0.0:443
    tls:
      unknown_names: refuse
      certificates:
        - { cert: rsa.pem, key: rsa.key }
        - { cert: ecdsa.pem, key: ecdsa.key }
        - { cert: other.pem, key: other.key }
upstreams: { app: { backends: [127.0.0.1:3031] } }
";
    let file = folder.path().join("app.yaml");
    std::fs::write(&file, text).unwrap();
    let conf = file.to_str().unwrap();
    let finished = Crestline::run(&[&["-c", conf, "explain", "GET"], arguments].concat()).await;
    finished.stderr.replace(&format!("{}/", folder.path().display()), "")
}

#[tokio::test]
async fn explain_shows_the_certificate_that_a_client_is_given() {
    let told = explain(&["https://www.a.test/x"]).await;
    let lines: Vec<_> =
        told.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    for line in [
        "listener 0.0.0.0:443 app.yaml:3",
        "gives a.test, *.a.test (ECDSA, until 2126-10-29) app.yaml:8",
        "tls.unknown_names refuse app.yaml:5",
        "timeouts.handshake 10s default",
    ] {
        let words: Vec<_> = line.split(' ').collect();
        assert!(lines.contains(&words), "{line} in {told}");
    }
    let told = explain(&["https://b.test/"]).await;
    assert!(told.contains("  gives    a.test, b.test (ECDSA"), "{told}");
    let told = explain(&["https://c.test/"]).await;
    assert!(told.contains("refused    in the handshake: unrecognized_name\n"), "{told}");
    let told = explain(&["https://a.test/", "-H", "Host: c.test"]).await;
    assert!(told.contains("refused    421 before routes are asked: misdirected\n"), "{told}");
    let told = explain(&["http://a.test:443/"]).await;
    assert!(told.contains("refused    400 before routes are asked: plain_http_on_tls\n"), "{told}");
    let told = explain(&["https://a.test:80/"]).await;
    let none = "listener   none with TLS on port 80; there is 0.0.0.0:80, 0.0.0.0:443\n";
    assert!(told.contains(none), "{told}");
}

#[tokio::test]
async fn status_shows_certificates_and_when_they_expire() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&[listening(&["ecdsa", "rsa"], ""), to(&origin)].concat()).await;
    curl_to(&proxy, "a.test", &[]).await;

    let told = proxy.command(&["status"]).await.stderr;
    assert!(told.contains(" (tls); handshakes: 1, failed: 0\n"), "{told}");
    assert!(told.contains("\n  a.test, *.a.test  ECDSA, until 2126-10-29 (in "), "{told}");
    let status = proxy.status().await;
    let told = &status["listeners"][0]["tls"]["certificates"][1];
    assert_eq!((&told["key"], &told["expires"]), (&"RSA".into(), &"2126-10-29".into()));
    assert!(30_000 < told["days_left"].as_i64().unwrap(), "{told}");
    eventually("the line", || !proxy.access_lines().is_empty()).await;
}
