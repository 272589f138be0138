//! The admin listener: whom it answers, what probes are told, and that an upgrade hands it over.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::support::{Answer, Client, Crestline, Origin, eventually, get, soon};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A request with more fields, each with its line end.
async fn ask(place: &str, method: &str, path: &str, fields: &str) -> Answer {
    let host = if fields.contains("Host: ") { "" } else { "Host: localhost\r\n" };
    let request = format!("{method} {path} HTTP/1.1\r\n{host}{fields}\r\n");
    Client::connect(place).await.exchange(request).await
}

fn status(answer: &Answer) -> u16 {
    answer.status
}

#[tokio::test]
async fn programs_scrape_and_browsers_of_strangers_are_refused() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&format!(
        "
        admin: {{ address: \"127.0.0.1:0\" }}
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        "
    ))
    .await;
    let place = proxy.admin_address().await;
    proxy.get("/").await;
    let page = ask(&place, "GET", "/metrics", "").await;
    assert!(page.text().contains("\ncrestline_build_info{"), "{}", page.text());
    for path in ["/v1/status", "/v1/upstreams", "/v1/routes", "/healthz", "/readyz"] {
        assert_eq!(status(&ask(&place, "GET", path, "").await), 200, "{path}");
    }
    let own = format!("Host: {place}\r\nOrigin: http://{place}\r\nSec-Fetch-Site: same-origin\r\n");
    assert_eq!(status(&ask(&place, "GET", "/metrics", &own).await), 200);
    for fields in [
        "Origin: http://evil.test\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Host: evil.test\r\n",
        &format!("Host: evil.test\r\n{}", "Origin: http://evil.test\r\n"),
    ] {
        for (method, path) in [("GET", "/metrics"), ("GET", "/readyz"), ("POST", "/v1/drain")] {
            assert_eq!(status(&ask(&place, method, path, fields).await), 403, "{fields} {path}");
        }
    }
    assert_eq!(proxy.get("/").await.text(), "hello", "it was not drained");
    proxy.logs("admin: POST \"/v1/drain\" by 127.0.0.1:").await;
}

#[tokio::test]
async fn who_shows_the_token_is_let_in_and_a_reload_changes_it() {
    let origin = Origin::replying("hello");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let write = |token: &str| {
        fs::write(&file, format!("{token}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write(TOKEN);
    let yaml = format!(
        "
        admin: {{ address: \"0.0.0.0:0\", token: \"file:{}\" }}
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        ",
        file.display()
    );
    let proxy = Crestline::start(&yaml).await;
    let place = proxy.admin_address().await.replace("0.0.0.0", "127.0.0.1");
    let with = |token: &str| format!("Authorization: Bearer {token}\r\n");
    for path in ["/metrics", "/v1/status", "/v1/live", "/healthz/"] {
        let refused = ask(&place, "GET", path, "").await;
        assert_eq!((status(&refused), refused.get("www-authenticate")), (401, Some("Bearer")));
        assert_eq!(status(&ask(&place, "GET", path, &with(&TOKEN[1..])).await), 401, "{path}");
    }
    assert_eq!(status(&ask(&place, "GET", "/healthz", "").await), 200, "probes have none");
    assert_eq!(status(&ask(&place, "GET", "/metrics", &with(TOKEN)).await), 200);
    let named = format!("Host: crestline.internal\r\n{}", with(TOKEN));
    assert_eq!(status(&ask(&place, "GET", "/metrics", &named).await), 200);
    let foreign = format!("Origin: http://evil.test\r\n{}", with(TOKEN));
    assert_eq!(status(&ask(&place, "GET", "/metrics", &foreign).await), 403);

    write("another-token-of-this-process");
    assert_eq!(proxy.reload(&yaml).await, "v1 → v2: token of admin changed");
    assert_eq!(status(&ask(&place, "GET", "/metrics", &with(TOKEN)).await), 401);
    let new = with("another-token-of-this-process");
    assert_eq!(
        status(&ask(&place, "POST", "/v1/reload", &format!("Content-Length: 0\r\n{new}")).await),
        200
    );
    proxy.logs("with the token: 200").await;
    let told = proxy.refuses(&yaml.replace("0.0.0.0:0", "127.0.0.1:0")).await;
    assert!(told.contains("the address of `admin` is changed"), "{told}");
    assert!(told.contains("help: this takes effect with: crestline upgrade"), "{told}");
}

#[tokio::test]
async fn probes_are_told_whether_it_is_ready_and_why_not() {
    let (good, dead) = (Origin::replying("hello"), Origin::refusing());
    let proxy = Crestline::start(&format!(
        "
        admin: {{ address: \"127.0.0.1:0\" }}
        lame_duck: 5m
        upstreams:
          app: {{ backends: [\"{good}\"], required: true }}
          must: {{ backends: [\"{dead}\"], required: true, health_check: {{ tcp: {{}}, every: 100ms }} }}
          may: {{ backends: [\"{dead}\"] }}
        routes:
          - {{ name: must, match: {{ path: /must }}, upstream: must }}
          - {{ name: may, match: {{ path: /may }}, upstream: may }}
          - {{ name: app, upstream: app }}
        "
    ))
    .await;
    let place = proxy.admin_address().await;
    let ready = ask(&place, "GET", "/readyz", "").await;
    let expected = "{\"ready\":false,\"reasons\":[\"upstream must has no fit backend\"]}\n";
    assert_eq!((status(&ready), ready.text()), (503, expected));
    dead.revive();
    soon("readiness", async { while status(&ask(&place, "GET", "/readyz", "").await) != 200 {} })
        .await;
    let drain = ask(&place, "POST", "/v1/drain", "Content-Length: 0\r\n").await;
    assert_eq!(status(&drain), 202);
    let ready = ask(&place, "GET", "/readyz", "").await;
    let expected = "{\"ready\":false,\"reasons\":[\"the process is draining\"]}\n";
    assert_eq!((status(&ready), ready.text()), (503, expected));
    assert_eq!(status(&ask(&place, "GET", "/healthz", "").await), 200);
}

/// Before the first checks are over there are no listeners, and a probe is told why.
#[tokio::test]
async fn it_answers_while_the_first_checks_go_on() {
    let silent = Origin::stalling();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crestline.yaml");
    let at = folder.path().display();
    let yaml = format!(
        "pid_file: {at}/crestline.pid\n\
         admin: {{ address: \"127.0.0.1:0\" }}\n\
         listeners: [{{ address: \"127.0.0.1:0\" }}]\n\
         upstreams: {{ app: {{ backends: [\"{silent}\"], \
         health_check: {{ http: {{ path: / }}, every: 1h, timeout: 5m }} }} }}\n"
    );
    fs::write(&file, yaml).unwrap();
    let proxy = Crestline::start_unready(&["-c", file.to_str().unwrap()]).await;
    let ready = ask(&proxy.admin_address().await, "GET", "/readyz", "").await;
    let expected = "the first checks of backends are not over";
    assert!(ready.text().contains(expected), "{}", ready.text());
    assert_eq!(status(&ready), 503);
}

#[tokio::test]
async fn an_upgrade_hands_it_over_and_no_scrape_is_refused() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&format!(
        "
        admin: {{ address: \"127.0.0.1:0\" }}
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        "
    ))
    .await;
    let place = proxy.admin_address().await;
    let scraping = tokio::spawn({
        let place = place.clone();
        async move {
            let mut scrapes = 0;
            loop {
                let page = ask(&place, "GET", "/v1/status", "").await;
                assert_eq!(status(&page), 200, "scrape {scrapes}");
                scrapes += 1;
                let status: serde_json::Value = serde_json::from_str(page.text()).unwrap();
                if status["configuration"]["versions"][0]["summary"] == "taken over at an upgrade" {
                    return (scrapes, status["pid"].as_u64().unwrap());
                }
            }
        }
    });
    let upgraded = proxy.command(&["upgrade"]).await;
    assert_eq!(upgraded.code, Some(0), "{}", upgraded.stderr);
    let (_, pid) = soon("the successor's page", scraping).await.unwrap();
    assert_ne!(pid, u64::from(proxy.id()));
    eventually("both lines", || proxy.log_with("admin: listens on ").len() == 2).await;
    assert_eq!(proxy.log_with("admin: listens on ")[1], format!("admin: listens on {place}"));
    for _ in 0..20 {
        let page = ask(&place, "GET", "/v1/status", "").await;
        let status: serde_json::Value = serde_json::from_str(page.text()).unwrap();
        assert_eq!(status["pid"], pid, "the old process answers no more");
    }
    assert_eq!(proxy.send(get("/")).await.text(), "hello");
}
