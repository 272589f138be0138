//! Who may ask: by key, by name and password, by certificate; and files, of which nobody sees more
//! than is meant for them.

use std::{fs, os::unix::fs::symlink};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::support::{Answer, Client, Crestline, Origin, curl, get, request};

fn yaml(origin: &Origin, policy: &str) -> String {
    format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes:
          - {{ name: private, match: {{ path: /private/ }}, policies: [{policy}], upstream: app }}
          - {{ name: rest, upstream: app }}
        "
    )
}

/// Of `secret`.
const DIGEST: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

async fn with(proxy: &Crestline, path: &str, fields: &str) -> Answer {
    proxy.send(request("GET", path, fields, "")).await
}

#[tokio::test]
async fn a_key_lets_in_and_is_not_passed_on() {
    let origin = Origin::replying("hello");
    let policy = format!("{{ api_key: {{ keys: {{ shop: \"{DIGEST}\" }}, tell: x-client }} }}");
    let proxy = Crestline::start(&yaml(&origin, &policy)).await;
    let refused = with(&proxy, "/private/a", "X-Client: shop\r\n").await;
    assert_eq!((refused.status, refused.get("www-authenticate")), (401, Some("ApiKey")));
    let line = proxy.access_line(|line| line["status"] == 401).await;
    assert_eq!(line["reason"], "key_denied");
    assert_eq!(origin.count(), 0);
    let fields = "X-Api-Key: secret\r\nX-Client: forged\r\n";
    assert_eq!(with(&proxy, "/private/a", fields).await.status, 200);
    let got = origin.last().fields;
    assert_eq!((got.get("x-api-key"), got.all("x-client")), (None, vec!["shop"]));

    // No spelling of the path walks around it.
    for path in [
        "/x/../private/a",
        "/%70rivate/a",
        "/./private/a",
        "//../private/a",
        "/x/%2e%2e/private/a",
        "/private/./a",
        "/PRIVATE/../private/a",
    ] {
        let answer = with(&proxy, path, "").await;
        assert!(matches!(answer.status, 401 | 400), "{path}: {}", answer.status);
    }
    assert_eq!(with(&proxy, "/public", "").await.status, 200);
}

/// The passwords are bcrypt's, of the cost that tests can bear.
#[tokio::test]
async fn a_password_lets_in_and_outlives_a_reload() {
    let origin = Origin::replying("hello");
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    fs::write(&users, format!("ali:{}\n", bcrypt::hash("sesame", 4).unwrap())).unwrap();
    let policy = format!("{{ basic_auth: {{ file: {}, tell: x-user }} }}", users.display());
    let proxy = Crestline::start(&yaml(&origin, &policy)).await;
    let url = proxy.url("/private/a");
    let status = async |user: &str| {
        let output = curl(&["-s", "-o", "/dev/null", "-w", "%{http_code}", "-u", user, &url]).await;
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(status("ali:sesame").await, "200");
    let got = origin.last().fields;
    assert_eq!((got.get("authorization"), got.get("x-user")), (None, Some("ali")));
    assert_eq!(status("ali:wrong").await, "401");
    assert_eq!(status("nobody:sesame").await, "401");
    let refused = with(&proxy, "/private/a", "").await;
    let challenge = "Basic realm=\"restricted\", charset=\"UTF-8\"";
    assert_eq!((refused.status, refused.get("www-authenticate")), (401, Some(challenge)));

    // A changed password is the one that counts, also of who was remembered.
    fs::write(&users, format!("ali:{}\n", bcrypt::hash("other", 4).unwrap())).unwrap();
    proxy.reload(&yaml(&origin, &policy)).await;
    assert_eq!(status("ali:sesame").await, "401");
    assert_eq!(status("ali:other").await, "200");
    let told = BASE64_STANDARD.encode("ali:other");
    let twice = format!("Authorization: Basic {told}\r\nAuthorization: Basic {told}\r\n");
    assert_eq!(with(&proxy, "/private/a", &twice).await.status, 400, "which one would it be?");
}

/// Clients are told apart by addresses of this machine, which the bases of the tests know.
#[tokio::test]
async fn countries_are_let_in_by_a_base_that_is_read_again() {
    let origin = Origin::replying("hello");
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("country.mmdb");
    fs::copy("tests/geo/country.mmdb", &base).unwrap();
    let policy = format!(
        "{{ geo: {{ country: {}, rules: [allow country:DE, deny all] }} }}, {{ request_headers: {{ set: {{ x-country: \"{{geo.country}}\" }} }} }}",
        base.display()
    );
    let proxy = Crestline::start(&yaml(&origin, &policy)).await;
    let status = async |client: &str| {
        let mut client = Client::connect_from(client, proxy.address()).await;
        client
            .exchange(request("GET", "/private/a", "X-Forwarded-For: 127.0.0.2\r\n", ""))
            .await
            .status
    };
    assert_eq!(status("127.0.0.2").await, 200);
    assert_eq!(origin.last().fields.get("x-country"), Some("DE"));
    assert_eq!(status("127.0.0.3").await, 403);
    assert_eq!(status("127.0.0.1").await, 403, "which nobody knows");
    proxy.access_line(|line| line["reason"] == "geo_denied").await;

    // The same configuration, another base; and then one that is none.
    fs::write(&base, "nothing").unwrap();
    proxy.refuses(&yaml(&origin, &policy)).await;
    assert_eq!(status("127.0.0.2").await, 200);
    fs::copy("tests/geo/moved.mmdb", &base).unwrap();
    proxy.reload(&yaml(&origin, &policy)).await;
    assert_eq!(status("127.0.0.2").await, 403);
}

#[tokio::test]
async fn files_are_sent_whole_in_part_or_not_again() {
    let origin = Origin::replying("origin");
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("www");
    fs::create_dir_all(root.join("sub")).unwrap();
    let large = "0123456789".repeat(20_000);
    fs::write(root.join("a b.txt"), &large).unwrap();
    fs::write(root.join("sub/index.html"), "<p>index</p>").unwrap();
    fs::write(root.join("app.js"), "plain").unwrap();
    fs::write(root.join("app.js.br"), "coded").unwrap();
    fs::write(root.join(".env"), "secret").unwrap();
    fs::write(folder.path().join("secret"), "secret").unwrap();
    symlink("../secret", root.join("link")).unwrap();
    let policy = format!(
        "{{ files: {{ root: {}, strip: /private, precompressed: [br], cache_control: max-age=60 }} }}",
        root.display()
    );
    let proxy = Crestline::start(&yaml(&origin, &policy)).await;

    let whole = proxy.get("/private/a%20b.txt").await;
    assert_eq!((whole.status, whole.text().len()), (200, large.len()));
    assert_eq!(whole.get("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(whole.get("cache-control"), Some("max-age=60"));
    let tag = whole.get("etag").unwrap();
    let again = with(&proxy, "/private/a%20b.txt", &format!("If-None-Match: W/{tag}\r\n")).await;
    assert_eq!((again.status, again.text(), again.get("etag")), (304, "", Some(tag)));
    assert_eq!(again.get("content-type"), None);
    let date = whole.get("last-modified").unwrap();
    let since = format!("If-Modified-Since: {date}\r\n");
    assert_eq!(with(&proxy, "/private/a%20b.txt", &since).await.status, 304);
    let lost = with(&proxy, "/private/a%20b.txt", "If-Match: \"other\"\r\n").await;
    assert_eq!((lost.status, lost.get("cache-control")), (412, None));

    let part = with(&proxy, "/private/a%20b.txt", "Range: bytes=100005-100009\r\n").await;
    assert_eq!((part.status, part.text()), (206, "56789"));
    assert_eq!(part.get("content-range"), Some("bytes 100005-100009/200000"));
    let changed = "Range: bytes=0-1\r\nIf-Range: \"other\"\r\n";
    assert_eq!(with(&proxy, "/private/a%20b.txt", changed).await.status, 200);
    let beyond = with(&proxy, "/private/a%20b.txt", "Range: bytes=200000-\r\n").await;
    assert_eq!((beyond.status, beyond.get("content-range")), (416, Some("bytes */200000")));
    assert_eq!(beyond.get("cache-control"), None);
    let head = curl(&["-sI", "-H", "range: bytes=0-1", &proxy.url("/private/app.js")]).await.stdout;
    assert!(String::from_utf8(head).unwrap().starts_with("HTTP/1.1 200 "), "only GET has ranges");

    let coded = with(&proxy, "/private/app.js", "Accept-Encoding: gzip, br\r\n").await;
    assert_eq!((coded.text(), coded.get("content-encoding")), ("coded", Some("br")));
    assert_eq!(coded.get("content-type"), Some("text/javascript; charset=utf-8"));
    let plain = proxy.get("/private/app.js").await;
    assert_eq!((plain.text(), plain.get("vary")), ("plain", Some("Accept-Encoding")));

    let moved = proxy.get("/private/sub?a=1").await;
    assert_eq!((moved.status, moved.get("location")), (301, Some("/private/sub/?a=1")));
    assert_eq!(proxy.get("/private/sub/").await.text(), "<p>index</p>");
    let head = curl(&["-sI", &proxy.url("/private/app.js")]).await.stdout;
    assert!(
        String::from_utf8(head).unwrap().to_ascii_lowercase().contains("content-length: 5\r\n")
    );

    for path in
        ["none", ".env", "%2eenv", "link", "..%2fsecret", "%2e%2e/%2e%2e/etc/passwd", "", "a%00"]
    {
        let answer = proxy.get(&format!("/private/{path}")).await;
        assert_ne!(answer.text(), "secret", "{path}");
        assert!(
            [400, 404].contains(&answer.status) || answer.text() == "origin",
            "{path}: {answer:?}"
        );
    }
    let posted = proxy
        .send("POST /private/app.js HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!((posted.status, posted.get("allow")), (405, Some("GET, HEAD")));
    // All on one connection: every answer ends where it should.
    let mut client = proxy.client().await;
    for _ in 0..3 {
        assert_eq!(client.exchange(get("/private/app.js")).await.text(), "plain");
        assert_eq!(client.exchange(get("/private/none")).await.status, 404);
    }
    proxy.reload(&yaml(&origin, &policy.replace("strip", "fall_through: true, strip"))).await;
    assert_eq!(proxy.get("/private/none").await.text(), "origin");
}
