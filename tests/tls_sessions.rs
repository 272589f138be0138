//! Sessions that go on over an upgrade, what is agreed on, and what a scanner finds.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use crate::support::{Crestline, Origin, Pair, Session, TlsClient, eventually, get, soon};

fn listening(settings: &str) -> String {
    format!(
        "listeners: [{{ address: \"127.0.0.1:0\", tls: {{ certificates: \
         [{{ cert: a.pem, key: a.key }}]{settings} }} }}]\n"
    )
}

async fn start(pair: &Pair, origin: &Origin, settings: &str) -> Crestline {
    let files = [("a.pem", pair.cert.as_str()), ("a.key", &pair.key)];
    // Without it, an environment that asks for secrets must get none.
    let environment = [("SSLKEYLOGFILE", "environment.keys")];
    let to = format!("upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: off }} }}\n");
    Crestline::start_among(&files, &environment, &format!("{}{to}", listening(settings))).await
}

#[tokio::test]
async fn a_session_from_before_an_upgrade_goes_on_after_it() {
    let (origin, pair) = (Origin::replying("hello"), Pair::of(&["a.test"]));
    let proxy = start(&pair, &origin, "").await;
    let address = proxy.address().to_owned();
    let mut sessions = Vec::new();
    for version in ["-tls1_2", "-tls1_3"] {
        sessions.push(Session::begin(&address, proxy.folder(), version, &[]).await);
    }

    for _ in 0..2 {
        let told = proxy.command(&["upgrade"]).await;
        assert_eq!(told.code, Some(0), "{}", told.stderr);
        for session in &sessions {
            let (is_resumed, told) = session.resumes(&address).await;
            assert!(is_resumed, "{told}");
        }
        // The old process may still answer some; this one did at least the last.
        let resumed = async {
            while proxy.status().await["listeners"][0]["tls"]["resumed_handshakes"] == 0 {
                let (is_resumed, told) = sessions[1].resumes(&address).await;
                assert!(is_resumed, "{told}");
            }
        };
        soon("a session that the new process resumes", resumed).await;
    }

    // A certificate that is renewed does not end sessions either.
    Pair::of(&["a.test"]).write(proxy.folder(), "a");
    let (status, receipt) = proxy.api("POST", "/v1/reload", "").await;
    assert_eq!(status, 200, "{receipt}");
    let (is_resumed, told) = sessions[1].resumes(&address).await;
    assert!(is_resumed, "{told}");
}

#[tokio::test]
async fn secrets_are_written_where_the_file_says_so_and_nowhere_else() {
    let (origin, pair) = (Origin::replying("hello"), Pair::of(&["a.test"]));
    let exchange = async |proxy: &Crestline| {
        let mut client = TlsClient::connect(proxy.address(), "a.test", &pair.cert).await;
        client.send(get("/")).await;
        client.until("hello").await;
    };
    let silent = start(&pair, &origin, "").await;
    exchange(&silent).await;
    let written = fs::read_dir(silent.folder()).unwrap().filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        let read = fs::read(&path).unwrap_or_default();
        String::from_utf8_lossy(&read).contains("TRAFFIC_SECRET")
    });
    assert_eq!(written.count(), 0);
    assert!(!std::path::Path::new("environment.keys").exists());

    let proxy = start(&pair, &origin, ", key_log: debug.keys").await;
    let path = proxy.folder().join("debug.keys");
    assert!(!path.exists(), "nothing is written before there is something to write");
    exchange(&proxy).await;
    let lines = || fs::read_to_string(&path).unwrap_or_default();
    eventually("the secrets", || lines().contains("CLIENT_TRAFFIC_SECRET_0 ")).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let told = lines();
    let line = told.lines().find(|line| line.starts_with("CLIENT_HANDSHAKE_TRAFFIC_SECRET "));
    let words: Vec<_> = line.unwrap().split(' ').collect();
    assert!(words.len() == 3 && words[1].len() == 64 && words[2].len() == 96, "{words:?}");
    proxy.logs("the secrets of connections are written to").await;
    proxy.logs("warning: the secrets of all connections of this listener are written").await;
}

#[tokio::test]
async fn a_client_that_knows_the_hybrid_exchange_gets_it() {
    let (origin, pair) = (Origin::replying("hello"), Pair::of(&["a.test"]));
    let proxy = start(&pair, &origin, "").await;
    let mut client = TlsClient::connect(proxy.address(), "a.test", &pair.cert).await;
    client.send(get("/")).await;
    client.until("hello").await;
    assert_eq!(client.key_exchange(), rustls::NamedGroup::X25519MLKEM768);
    let line = proxy.access_line(|line| line["tls_group"] == "X25519MLKEM768").await;
    assert_eq!(line["tls_cipher"], "TLS13_AES_256_GCM_SHA384");
    assert!(line.get("tls_resumed").is_none(), "{line}");

    let session = Session::begin(proxy.address(), proxy.folder(), "-tls1_3", &[]).await;
    let line = proxy.access_line(|line| line["tls_group"] == "X25519").await;
    assert_eq!(line["sni"], "a.test");
    assert!(session.resumes(proxy.address()).await.0);
}

#[tokio::test]
async fn a_scanner_finds_nothing_weak() {
    let origin = Origin::replying("hello");
    let certificates = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates");
    let pair = |name| Pair {
        cert: fs::read_to_string(format!("{certificates}/{name}.pem")).unwrap(),
        key: fs::read_to_string(format!("{certificates}/{name}.key")).unwrap(),
    };
    // With both kinds of keys, all ciphers that there are can be agreed on.
    let rsa = format!(
        "listeners: [{{ address: \"127.0.0.1:0\", tls: {{ certificates: [{{ cert: a.pem, key: a.key }}, \
         {{ cert: {certificates}/rsa.pem, key: {certificates}/rsa.key }}] }} }}]\n\
         upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: off }} }}\n"
    );
    let ecdsa = pair("ecdsa");
    let files = [("a.pem", ecdsa.cert.as_str()), ("a.key", &ecdsa.key)];
    let proxy = Crestline::start_among(&files, &[], &rsa).await;

    let address = proxy.address().to_owned();
    let scan = tokio::task::spawn_blocking(move || {
        let mut sslscan = Command::new("sslscan");
        sslscan.args(["--no-colour", "--no-groups", "--no-fallback", "--no-cipher-details"]);
        // It gives up early otherwise, and tells that as an answer.
        sslscan.args(["--timeout=60", "--connect-timeout=60", "--sni-name=a.test", "--xml=-"]);
        sslscan.arg(&address);
        sslscan.stdin(Stdio::null()).output().expect("sslscan is installed")
    });
    let found = String::from_utf8_lossy(&scan.await.unwrap().stdout).into_owned();
    let has = |text: &str| found.contains(text);
    let versions = [
        ("ssl", "2", 0),
        ("ssl", "3", 0),
        ("tls", "1.0", 0),
        ("tls", "1.1", 0),
        ("tls", "1.2", 1),
        ("tls", "1.3", 1),
    ];
    for (kind, version, enabled) in versions {
        let line =
            format!("<protocol type=\"{kind}\" version=\"{version}\" enabled=\"{enabled}\" />");
        assert!(has(&line), "{line} in {found}");
    }
    assert!(has("<renegotiation supported=\"0\"") || has("secure=\"1\""), "{found}");
    assert!(!has("<compression supported=\"1\""), "{found}");
    assert!(!has("vulnerable=\"1\"") && has("vulnerable=\"0\""), "heartbleed: {found}");
    let ciphers: Vec<&str> = found.lines().filter(|line| line.contains("<cipher ")).collect();
    assert!(5 <= ciphers.len(), "{found}");
    for cipher in ciphers {
        let bits = cipher.split("bits=\"").nth(1).and_then(|rest| rest.split('"').next());
        assert!(bits.unwrap().parse::<u32>().unwrap() >= 128, "{cipher}");
        assert!(
            cipher.contains("strength=\"strong\"") || cipher.contains("strength=\"acceptable\""),
            "{cipher}"
        );
        let is_aead = ["GCM", "CHACHA20"].iter().any(|word| cipher.contains(word));
        let is_forward = cipher.contains("\"ECDHE-") || cipher.contains("\"TLS_");
        assert!(is_aead && is_forward, "{cipher}");
    }
}
