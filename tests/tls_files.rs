//! Files beside certificates: responses that are shown with them, and what a bad one changes.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{Authority, Crestline, Origin, Pair, s_client};

/// Asks the authority's responder, which is openssl, for a response in the file `NAME`.
fn respond(folder: &Path, name: &str) {
    let path = |name: &str| folder.join(name).display().to_string();
    fs::write(path("index.txt"), "V\t491231235959Z\t\t07\tunknown\t/CN=a.test\n").unwrap();
    let [index, ca, key, cert, out] = ["index.txt", "ca.pem", "ca.key", "a.pem", name].map(path);
    let output = Command::new("openssl")
        .args(["ocsp", "-index", &index, "-CA", &ca, "-rsigner", &ca, "-rkey", &key])
        .args(["-issuer", &ca, "-cert", &cert, "-ndays", "7", "-respout", &out])
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What openssl is shown that asks for a response.
async fn shown(proxy: &Crestline) -> String {
    let ca = proxy.folder().join("ca.pem").display().to_string();
    s_client(proxy.address(), &["-servername", "a.test", "-status", "-CAfile", &ca]).await
}

#[tokio::test]
async fn a_response_is_shown_until_it_expires_and_read_again_when_it_changes() {
    let (origin, authority) = (Origin::replying("hello"), Authority::new("Authority"));
    let pair = authority.signs(&["a.test"], 7, |_| {});
    let made = tempfile::tempdir().unwrap();
    pair.write(made.path(), "a");
    fs::write(made.path().join("ca.pem"), &authority.cert).unwrap();
    fs::write(made.path().join("ca.key"), &authority.key).unwrap();
    respond(made.path(), "good.ocsp");
    let response = fs::read(made.path().join("good.ocsp")).unwrap();
    // The same, but over in 2020: who signed it is for clients to judge.
    let at = response.windows(4).position(|bytes| bytes == [0xa0, 0x11, 0x18, 0x0f]).unwrap();
    let mut old = response.clone();
    old[at + 4..at + 8].copy_from_slice(b"2020");

    let files = [("a.pem", pair.cert.as_str()), ("a.key", &pair.key), ("ca.pem", &authority.cert)];
    let listener = |more: &str| {
        format!(
            "watch: true\nlisteners: [{{ address: \"127.0.0.1:0\", tls: {{ certificates: \
             [{{ cert: a.pem, key: a.key{more} }}] }} }}]\nupstreams: {{ app: {{ backends: \
             [\"{origin}\"], health_check: off }} }}\n"
        )
    };
    let proxy = Crestline::start_among(&files, &[], &listener("")).await;
    assert!(shown(&proxy).await.contains("OCSP response: no response sent"));

    let file = proxy.folder().join("a.ocsp");
    fs::write(&file, &response).unwrap();
    let with = listener(", ocsp: a.ocsp");
    proxy.rewrite(&with);
    proxy.logs("reload: v1 → v2: listeners changed").await;
    let told = shown(&proxy).await;
    assert!(told.contains("OCSP Response Status: successful (0x0)"), "{told}");
    assert!(told.contains("Cert Status: good") && told.contains("Verify return code: 0"), "{told}");
    assert!(proxy.command(&["status"]).await.stderr.contains(", OCSP until 2"), "status shows it");

    fs::write(&file, &old).unwrap();
    proxy.logs("reload: v2 → v3: certificates of listener").await;
    proxy.logs("warning: the OCSP response in `a.ocsp` expired on 2020-").await;
    assert!(shown(&proxy).await.contains("OCSP response: no response sent"));

    fs::write(&file, &pair.cert).unwrap();
    proxy.logs("reload: nothing was changed").await;
    proxy.logs("error: `a.ocsp` is no OCSP response").await;
    fs::write(&file, &response).unwrap();
    proxy.logs("reload: v3 → v4: certificates of listener").await;
    assert!(shown(&proxy).await.contains("Cert Status: good"));
}

#[tokio::test]
async fn a_bad_pair_that_is_watched_keeps_the_old_one_and_says_which_file_it_is() {
    let (origin, old) = (Origin::replying("hello"), Pair::of(&["a.test"]));
    let files = [("a.pem", old.cert.as_str()), ("a.key", &old.key)];
    let text = format!(
        "watch: true\nlisteners: [{{ address: \"127.0.0.1:0\", tls: {{ certificates: \
         [{{ cert: a.pem, key: a.key }}] }} }}]\nupstreams: {{ app: {{ backends: [\"{origin}\"], \
         health_check: off }} }}\n"
    );
    let proxy = Crestline::start_among(&files, &[], &text).await;
    let subject = async || {
        let told = s_client(proxy.address(), &["-servername", "a.test"]).await;
        assert!(told.contains("-----BEGIN CERTIFICATE-----"), "{told}");
        told.split("-----BEGIN").nth(1).unwrap().split("-----END").next().unwrap().to_owned()
    };
    let before = subject().await;

    fs::write(proxy.folder().join("a.pem"), "-----BEGIN CERTIFICATE-----\n*\n").unwrap();
    proxy.logs("reload: nothing was changed").await;
    proxy.logs("error: `a.pem` is damaged").await;
    assert_eq!(subject().await, before);
    fs::remove_file(proxy.folder().join("a.pem")).unwrap();
    proxy.logs("error: cannot read `a.pem`").await;
    assert_eq!(subject().await, before);
    assert_eq!(proxy.version().await, 1);

    let new = Pair::of(&["a.test"]);
    new.write(proxy.folder(), "a");
    proxy.logs("reload: v1 → v2: certificates of listener").await;
    assert_ne!(subject().await, before);
}
