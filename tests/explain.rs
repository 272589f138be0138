//! `crestline explain`: what becomes of a request, and where each answer is from.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Crestline, Finished, Origin, eventually, get};

const FILE: &str = "\
listeners:
  - address: 127.0.0.1:8080
    timeouts: { header: 5s }
upstreams:
  shop:
    backends: [127.0.0.1:3031, { address: shop.internal:3032, weight: 2 }]
    retries: 1
    timeouts:
      connect: 2s
  rest: { backends: [127.0.0.1:3033], health_check: off }
routes:
  - name: api
    match: { hosts: [shop.test, '*.shop.test'], path: /api/, methods: [GET], headers: { x-v: '2' } }
    policies:
      - body_limit: 1MiB
      - request_headers: { set: { authorization: '${TOKEN:-none}' } }
    upstream: shop
  - name: shop
    match: { hosts: [shop.test], path: /shop/, methods: [GET, POST] }
    upstream: shop
  - name: any
    match: { hosts: [any.test] }
    upstream: rest
access_log: off
";

/// Explains with a file, in a folder of its own.
async fn explain(text: &str, arguments: &[&str]) -> Finished {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.yaml");
    fs::write(&file, text).unwrap();
    let mut all = vec!["-c", file.to_str().unwrap(), "explain"];
    all.extend(arguments);
    let mut finished = Crestline::run(&all).await;
    let folder = format!("{}/", folder.path().display());
    finished.stderr = finished.stderr.replace(&folder, "");
    finished.stdout = finished.stdout.replace(&folder, "");
    finished
}

async fn in_json(arguments: &[&str]) -> Value {
    let mut all = vec!["--json"];
    all.extend(arguments);
    let finished = explain(FILE, &all).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

#[tokio::test]
async fn a_request_is_followed_from_its_listener_to_the_settings_in_force() {
    let url = "http://WWW.Shop.test:8080/api/../api/x?page=1";
    let finished = explain(FILE, &["GET", url, "-H", "x-v: 2"]).await;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), ""), "{finished:?}");
    let lines: Vec<&str> = finished.stderr.lines().map(str::trim_end).collect();
    let expected = "\
GET www.shop.test /api/../api/x
           matched and forwarded as /api/x
listener   127.0.0.1:8080                                app.yaml:2
route      api                                           app.yaml:12
  by       *.shop.test, /api/, GET or HEAD, x-v: 2
  not      any: host is www.shop.test, not any.test      app.yaml:21
  not      shop: host is www.shop.test, not shop.test    app.yaml:18
policies   1. body_limit                                 app.yaml:15
           2. request_headers                            app.yaml:16
upstream   shop                                          app.yaml:5
  backend  127.0.0.1:3031, weight 1
  backend  shop.internal:3032, weight 2
in force for the upstream
  http                           1                       default
  retries                        1                       app.yaml:7
  timeouts.connect               2s                      app.yaml:9
  timeouts.first_byte            1m                      default
  timeouts.between_bytes         1m                      default
  timeouts.idle                  55s                     default
  timeouts.tunnel                1h                      default
  health_check                   tcp                     default
  health_check.every             5s                      default
  health_check.timeout           1s                      default
  health_check.healthy_after     1                       default
  health_check.unhealthy_after   2                       default
  ejection.consecutive_failures  3                       default
  ejection.eject_for             10s                     default
  ejection.max_ejected           50%                     default
in force for the listener
  protocol                       http                    default
  h2c                            false                   default
  timeouts.header                5s                      app.yaml:3
  timeouts.idle                  75s                     default
  timeouts.body                  30s                     default
  timeouts.write                 30s                     default
  limits.header_size             64KiB                   default
  limits.header_fields           128                     default
  limits.target_size             16KiB                   default
  limits.body_rate               240B                    default";
    assert_eq!(lines, expected.lines().collect::<Vec<_>>(), "{}", finished.stderr);
}

#[tokio::test]
async fn the_nearest_route_says_why_it_does_not_take_the_request() {
    for (arguments, outcome, near) in [
        (
            &["GET", "http://shop.test:8080/api/x"][..],
            json!({ "is": "no_route" }),
            ("api", "header x-v is absent, wanted `2`"),
        ),
        (
            &["DELETE", "http://shop.test:8080/shop/1"],
            json!({ "is": "other_methods", "allow": "GET, HEAD, POST" }),
            ("shop", "method is DELETE, not GET, HEAD or POST"),
        ),
        (
            &["GET", "http://shop.test:8080/shopping"],
            json!({ "is": "no_route" }),
            ("shop", "path is not below /shop/"),
        ),
        (
            &["GET", "http://127.0.0.1:8080/", "-H", "Host: other.test"],
            json!({ "is": "no_route" }),
            ("any", "host is other.test, not any.test"),
        ),
    ] {
        let explanation = in_json(arguments).await;
        assert_eq!(explanation["outcome"], outcome, "{arguments:?}");
        assert_eq!(explanation["route"], Value::Null);
        let nearest = &explanation["nearest"][0];
        assert_eq!(
            (nearest["route"].as_str(), nearest["why"].as_str()),
            (Some(near.0), Some(near.1))
        );
    }
}

#[tokio::test]
async fn what_is_refused_before_routes_are_asked_is_told() {
    for (method, target, status, reason) in [
        ("GET", "/../etc/passwd", 400, "path_above_root"),
        ("GET", "/a%00", 400, "path_nul"),
        ("TRACE", "/", 405, "trace_method"),
        ("GET", &format!("/{}", "a".repeat(16 * 1024)), 414, "target_too_long"),
    ] {
        let explanation = in_json(&[method, &format!("http://shop.test:8080{target}")]).await;
        let refused = &explanation["outcome"];
        assert_eq!((&refused["is"], &refused["status"]), (&json!("refused"), &json!(status)));
        assert_eq!(refused["reason"], reason, "{target}");
    }
    let url = "http://shop.test:8080/";
    for (arguments, reason) in [
        (&["http://a..test:8080/"][..], "bad_host"),
        (&[url, "-H", "host: a@shop.test"], "bad_host"),
        (&[url, "-H", "host: shop.test", "-H", "host: shop.test"], "duplicate_host"),
    ] {
        let arguments: Vec<_> = ["GET"].iter().chain(arguments).copied().collect();
        let explanation = in_json(&arguments).await;
        let refused = &explanation["outcome"];
        assert_eq!((&refused["status"], &refused["reason"]), (&json!(400), &json!(reason)));
    }
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_told() {
    let finished = explain(FILE, &["GET", "https://any.test/"]).await;
    let told = "listener   none on port 443; there is 127.0.0.1:8080\n";
    assert!(finished.stderr.contains(told), "{}", finished.stderr);
    assert!(finished.stderr.contains("route      any "), "the route is told all the same");
}

#[tokio::test]
async fn what_is_no_request_is_wrong_usage_and_a_wrong_file_is_shown() {
    for (arguments, told) in [
        (&["GET", "shop.test/x"][..], "error: `shop.test/x` is no URL: write one such as"),
        (&["G@T", "http://shop.test/"], "error: `G@T` is no method: write one such as"),
        (&["GET", "http://me:pw@shop.test/"], "error: the URL holds a user: clients send one as"),
        (&["GET", "http://shop.test/", "-H", "x"], "error: `x` is no header field: write one"),
        (&["GET"], "error: The following required arguments were not provided"),
    ] {
        let finished = explain(FILE, arguments).await;
        assert_eq!(finished.code, Some(64), "{finished:?}");
        assert!(finished.stderr.starts_with(told), "{finished:?}");
    }
    let wrong = FILE.replace("retries", "retires");
    let finished = explain(&wrong, &["GET", "http://shop.test:8080/"]).await;
    assert_eq!(finished.code, Some(78));
    assert!(finished.stderr.contains("did you mean `retries`?"), "{finished:?}");
}

#[tokio::test]
async fn a_running_process_shows_its_backends_and_which_is_next() {
    let (first, second) = (Origin::replying("one"), Origin::replying("two"));
    let dead = Origin::refusing();
    let crestline = Crestline::start(&format!(
        "upstreams:
          app: {{ backends: [\"{first}\", \"{second}\", \"{dead}\"] }}
        "
    ))
    .await;
    let port = crestline.address().rsplit(':').next().unwrap().to_owned();
    let url = format!("http://a.test:{port}/x");
    let file = crestline.folder().join("crestline.yaml");
    let file = file.to_str().unwrap();
    let ask = async || {
        let asked = ["-c", file, "explain", "--live", "--json", "GET", &url];
        let finished = Crestline::run(&asked).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        serde_json::from_str::<Value>(&finished.stdout).unwrap()
    };
    crestline.logs(&format!("{dead} down")).await;
    for _ in 0..6 {
        let explanation = ask().await;
        assert_eq!(
            (&explanation["version"], &explanation["outcome"]["is"]),
            (&json!(1), &json!("taken"))
        );
        assert_eq!(explanation["listener"]["address"], crestline.address());
        let backends = explanation["route"]["backends"].as_array().unwrap();
        assert_eq!(backends.len(), 3);
        for backend in backends {
            let is_dead = backend["address"] == dead.to_string();
            assert_eq!(backend["availability"], if is_dead { "unhealthy" } else { "ready" });
        }
        let next = backends.iter().find(|backend| backend["is_next"] == true).unwrap();
        let expected = if next["address"] == first.to_string() { "one" } else { "two" };
        assert_eq!(crestline.send(get("/x")).await.text(), expected, "who was told to be next");
    }
    let words = Crestline::run(&["-c", file, "explain", "--live", "GET", &url]).await;
    assert!(words.stderr.contains("version    v1, in force\n"), "{}", words.stderr);
    assert!(words.stderr.contains(", weight 1, ready  <- next\n"), "{}", words.stderr);
    eventually("checks of the dead one", || !crestline.log_with(&format!("{dead}")).is_empty())
        .await;
}

#[tokio::test]
async fn a_secret_is_not_explained() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("token"), "a-long-secret-token\n").unwrap();
    let text = FILE.replace("${TOKEN:-none}", "${file:token}");
    fs::write(folder.path().join("app.yaml"), text).unwrap();
    let file = folder.path().join("app.yaml");
    for form in [&["GET"][..], &["--json", "GET"]] {
        let mut asked = vec!["-c", file.to_str().unwrap(), "explain"];
        asked.extend(form);
        asked.extend(["http://shop.test:8080/api/x", "-H", "x-v: 2"]);
        let finished = Crestline::run(&asked).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let told = finished.stderr + &finished.stdout;
        assert!(told.contains("request_headers") && !told.contains("a-long-secret"), "{told}");
    }
}

/// Not by the rule that takes a request, not by one that does not, and not among the settings.
#[tokio::test]
async fn what_was_filled_in_is_shown_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("key", "a-long-secret-key\n"), ("pin", "4711\n"), ("few", "2\n")] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let text = "\
listeners: [{ address: 127.0.0.1:8080 }]
upstreams:
  app:
    backends: [127.0.0.1:3031]
    retries: ${file:few}
    health_check: { http: { path: '/up?key=${file:key}' } }
routes:
  - name: key
    match: { path: /2, headers: { x-key: '${file:key}' }, query: { pin: '~ ^${file:pin}$' } }
    upstream: app
  - { name: rest, upstream: app }
";
    fs::write(folder.path().join("app.yaml"), text).unwrap();
    let file = folder.path().join("app.yaml");
    let url = "http://127.0.0.1:8080/2";
    let taken = [&format!("{url}?pin=4711"), "-H", "x-key: a-long-secret-key"];
    for (asked, expected) in [
        (&taken[..], "any host, /2/, x-key: ${file:key}, ?pin: ~ ^${file:pin}$"),
        (&[url, "-H", "x-key: a-long-secret-key"], "pin is absent, wanted `~ ^${file:pin}$`"),
        (&[url], "header x-key is absent, wanted `${file:key}`"),
    ] {
        for form in ["", "--json"] {
            let mut arguments = vec!["-c", file.to_str().unwrap(), "explain", "GET"];
            arguments.extend(asked);
            arguments.extend([form].into_iter().filter(|form| !form.is_empty()));
            let finished = Crestline::run(&arguments).await;
            assert_eq!(finished.code, Some(0), "{finished:?}");
            let told = finished.stderr + &finished.stdout;
            assert!(told.contains(expected) && told.contains("/up?key=${file:key}"), "{told}");
            assert!(told.contains("${file:few}"), "{told}");
            assert!(!told.contains("a-long-secret") && !told.contains("4711"), "{told}");
        }
    }
}
