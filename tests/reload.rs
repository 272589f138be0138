//! A reload: what it tells, what is in force afterwards, and what it refuses whole.

use std::fs;

use rustix::process::Signal;

use crate::support::{Crestline, Origin, curl, eventually};

/// An upstream `app` with these backends, and more lines.
fn app(backends: &[&Origin], more: &str) -> String {
    let backends: Vec<_> = backends.iter().map(|origin| format!("\"{origin}\"")).collect();
    format!("upstreams: {{ app: {{ backends: [{}] }} }}\n{more}", backends.join(", "))
}

#[tokio::test]
async fn a_reload_tells_what_changed_and_the_new_route_is_in_force_at_once() {
    let (one, other) = (Origin::replying("one"), Origin::replying("other"));
    let shop = "routes:\n- { name: shop, match: { path: /shop }, upstream: app }\n";
    let proxy = Crestline::start(&app(&[&one], shop)).await;
    assert_eq!(proxy.get("/new").await.status, 404);

    let more = "routes:\n- { name: shop, match: { path: /shop }, upstream: app, via: true }\n\
                - { name: new, match: { path: /new }, upstream: app }\n";
    assert_eq!(
        proxy.reload(&app(&[&one, &other], more)).await,
        "v1 → v2: upstream app +1 backend, route new added, route shop changed"
    );
    assert_eq!(proxy.get("/new").await.status, 200);
    assert!(proxy.get("/shop").await.get("via").is_some());
    assert_eq!(proxy.log_with("reload: ").len(), 1, "and the process log tells it once");
}

/// One after the other, each against the one before.
#[tokio::test]
async fn each_kind_of_change_has_its_words() {
    let origins = [Origin::replying("a"), Origin::replying("b"), Origin::replying("c")];
    let [a, b, c] = &origins;
    let route = |more: &str| format!("routes: [{{ name: all, upstream: app{more} }}]\n");
    let proxy = Crestline::start(&app(&[a], &route(""))).await;
    let log = proxy.folder().join("access.log").display().to_string();
    let slow = "listeners: [{ address: \"127.0.0.1:0\", timeouts: { idle: 5s } }]\n";
    let upstream = |more: &str| format!("upstreams: {{ app: {{ backends: [\"{a}\"]{more} }} }}\n");
    let two = "routes: [{ name: all, upstream: app }, { name: one, match: { path: /1 }, upstream: app }]\n";
    let reversed = "routes: [{ name: one, match: { path: /1 }, upstream: app }, { name: all, upstream: app }]\n";

    let changes = [
        (app(&[a, b, c], &route("")), "upstream app +2 backends"),
        (app(&[a], &route("")), "upstream app -2 backends"),
        (app(&[b, c], &route("")), "upstream app +2 backends -1 backend"),
        (app(&[a], &route("")), "upstream app +1 backend -2 backends"),
        (upstream(", retries: 1") + &route(""), "upstream app changed"),
        (
            format!("upstreams: {{ app: {{ backends: [\"{a}\", \"{b}\"] }} }}\n{}", route("")),
            "upstream app +1 backend changed",
        ),
        (
            upstream("").replace("} }", &format!("}}, more: {{ backends: [\"{b}\"] }} }}"))
                + &route(""),
            "upstream app -1 backend, upstream more added",
        ),
        (upstream("") + &route(""), "upstream more removed"),
        (upstream("") + &route(", host: upstream"), "route all changed"),
        (upstream("") + two, "route all changed, route one added"),
        (upstream("") + reversed, "order of routes changed"),
        (upstream("") + &route(""), "route one removed"),
        (upstream(""), "route all removed, routes removed"),
        (upstream("") + "trusted_proxies: [10.0.0.0/8]\n", "trusted_proxies changed"),
        (
            upstream("") + &format!("access_log: {{ path: {log}, format: combined }}\n"),
            "trusted_proxies changed, access_log changed",
        ),
        (upstream("") + slow, "listeners changed, access_log changed"),
        (upstream("") + "watch: true\n", "listeners changed, watch changed"),
    ];
    for (before, (yaml, expected)) in (1..).zip(changes) {
        let after = before + 1;
        let told = proxy.reload(&yaml).await; // perhaps after a warning
        assert_eq!(told.lines().last(), Some(&*format!("v{before} → v{after}: {expected}")));
        assert_eq!(proxy.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn a_reload_without_changes_makes_no_version() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&app(&[&origin], "")).await;

    assert_eq!(proxy.reload(&app(&[&origin], "")).await, "v1: nothing changed");
    let moved = format!("# A word of explanation.\n\n{}", app(&[&origin], ""));
    assert_eq!(proxy.reload(&moved).await, "v1: nothing changed");
    assert_eq!(proxy.reload(&app(&[&origin], "watch: false\n")).await, "v1: nothing changed");
    assert_eq!(proxy.version().await, 1);
    proxy.signal(Signal::HUP);
    proxy.logs("reload: v1: nothing changed").await;
}

#[tokio::test]
async fn sighup_reloads_and_the_process_log_tells() {
    let (one, other) = (Origin::replying("one"), Origin::replying("other"));
    let proxy = Crestline::start(&app(&[&one], "")).await;

    proxy.rewrite(&app(&[&other], ""));
    proxy.signal(Signal::HUP);
    proxy.logs("reload: v1 → v2: upstream app +1 backend -1 backend").await;
    assert_eq!(proxy.get("/").await.text(), "other");
}

#[tokio::test]
async fn the_socket_reloads_for_programs() {
    let (one, other) = (Origin::replying("one"), Origin::replying("other"));
    let proxy = Crestline::start(&app(&[&one], "")).await;

    proxy.rewrite(&app(&[&one, &other], ""));
    let (status, receipt) = proxy.api("POST", "/v1/reload", "").await;
    assert_eq!(status, 200);
    assert_eq!((&receipt["from"], &receipt["to"]), (&1.into(), &2.into()), "{receipt}");
    assert_eq!(receipt["changes"][0], "upstream app +1 backend");
    let again = proxy.command(&["reload", "--json"]).await;
    let receipt: serde_json::Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!((&receipt["from"], &receipt["to"]), (&2.into(), &2.into()), "{receipt}");
    assert_eq!(again.stderr, "");
}

#[tokio::test]
async fn warnings_come_with_the_receipt() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&app(&[&origin], "")).await;

    let told = proxy.reload(&app(&[&origin], "routes: []\n")).await;
    assert!(told.contains("warning: there are no routes: every request gets 404"), "{told}");
    assert!(told.ends_with("v1 → v2: routes added"), "{told}");
    assert_eq!(proxy.get("/").await.status, 404);
}

/// All problems at once, wherever the reload was asked for.
#[tokio::test]
async fn problems_leave_everything_as_it_was_and_are_told_where_it_was_asked() {
    let (one, other) = (Origin::replying("one"), Origin::replying("other"));
    let proxy = Crestline::start(&app(&[&one], "")).await;
    let wrong =
        app(&[&other], "routes:\n- { name: a, upstream: ap }\n- { name: b, upstrem: app }\n");
    let problems = [
        "route `a` sends to upstream `ap`, which is not defined",
        "did you mean `app`?",
        "upstrem",
        "crestline.yaml:3:",
        "crestline.yaml:4:",
    ];

    let told = proxy.refuses(&wrong).await;
    assert!(told.ends_with("\nnothing was changed\n"), "{told}");
    let (status, answer) = proxy.api("POST", "/v1/reload", "").await;
    assert_eq!(status, 422);
    let error = answer["error"].as_str().unwrap();
    assert_eq!(proxy.log_with("reload:"), [""; 0], "it was told where it was asked for");
    proxy.signal(Signal::HUP);
    proxy.logs("reload: nothing was changed").await;
    for problem in problems {
        assert!(told.contains(problem), "{problem} in {told}");
        assert!(error.contains(problem), "{problem} in {error}");
        proxy.logs(problem).await;
    }
    assert_eq!(proxy.get("/").await.text(), "one");
    assert_eq!(proxy.version().await, 1);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_leaves_everything_as_it_was() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&app(&[&origin], "")).await;
    let file = proxy.file();
    let cases: [(&[u8], &str); 4] = [
        (b"no file", "cannot read"),
        (b"a: \xff", "is not UTF-8: byte 3, in line 1"),
        (b"upstreams: {", "crestline.yaml:1:"),
        (b"", "the configuration is empty"),
    ];

    for (index, (bytes, words)) in cases.into_iter().enumerate() {
        fs::write(&file, bytes).unwrap();
        if index == 0 {
            fs::remove_file(&file).unwrap();
        }
        if index < 3 {
            let told = proxy.command(&["reload"]).await;
            assert_eq!(told.code, Some(78), "{}", told.stderr);
            assert!(told.stderr.contains(words), "{words} in {}", told.stderr);
        }
        let (status, answer) = proxy.api("POST", "/v1/reload", "").await;
        assert_eq!(status, 422);
        assert!(answer["error"].as_str().unwrap().contains(words), "{words} in {answer}");
        proxy.signal(Signal::HUP);
        let refused = "reload: nothing was changed";
        eventually(refused, || proxy.log_with(refused).len() == index + 1).await;
        proxy.logs(words).await;
        assert_eq!(proxy.get("/").await.text(), "hello");
    }
    assert_eq!(proxy.reload(&app(&[&origin], "")).await, "v1: nothing changed");
}

/// New sockets, and what Pingora's server reads once.
#[tokio::test]
async fn what_needs_an_upgrade_is_refused_whole_with_the_words_for_it() {
    let (one, other) = (Origin::replying("one"), Origin::replying("other"));
    let two = "listeners: [{ address: \"127.0.0.1:0\" }, { address: \"127.0.0.1:0\" }]\n";
    let proxy = Crestline::start(&app(&[&one], two)).await;
    let cases = [
        (
            two.replace("}]", "}, { address: \"127.0.0.1:1\" }]"),
            vec!["error: the listener `127.0.0.1:1` is new", "crestline.yaml:2:"],
        ),
        (
            two.replace(", { address: \"127.0.0.1:0\" }", ""),
            vec!["error: the listener `127.0.0.1:0` is removed"],
        ),
        (
            two.replace("0\" }]", "1\" }]"),
            vec!["the listener `127.0.0.1:1` is new", "the listener `127.0.0.1:0` is removed"],
        ),
        (
            format!("{two}threads: 3\ngrace_period_seconds: 1\n"),
            vec!["error: `threads` is changed", "error: `grace_period_seconds` is changed"],
        ),
        (
            two.replacen(" }", ", h2c: true, timeouts: { idle: 5s } }", 1),
            vec!["what bounds HTTP/2 (`idle`", "is changed"],
        ),
    ];

    for (yaml, words) in cases {
        let told = proxy.refuses(&app(&[&other], &yaml)).await;
        let upgrade = "help: this takes effect with: crestline upgrade";
        for word in words.into_iter().chain([upgrade, "\nnothing was changed\n"]) {
            assert!(told.contains(word), "{word} in {told}");
        }
        assert_eq!(proxy.get("/").await.text(), "one", "nothing else of it is applied");
    }
    let told = proxy.reload(&app(&[&other], two)).await;
    assert_eq!(told, "v1 → v2: upstream app +1 backend -1 backend");
}

/// Where it is on already, its other bounds are those of connections.
#[tokio::test]
async fn listeners_change_their_order_and_keep_their_sockets() {
    let origin = Origin::replying("hello");
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("app.sock").display().to_string();
    let strict = "limits: { header_fields: 1 }";
    let listeners = |tcp: &str, unix: &str| {
        (
            format!("{{ address: \"127.0.0.1:0\", {tcp} }}"),
            format!("{{ address: \"unix:{socket}\", {unix} }}"),
        )
    };
    let (tcp, unix) = listeners("h2c: false", strict);
    let proxy = Crestline::start(&app(&[&origin], &format!("listeners: [{tcp}, {unix}]\n"))).await;
    assert_eq!(proxy.get("/").await.status, 200);

    let (tcp, unix) = listeners(strict, "h2c: false");
    let told = proxy.reload(&app(&[&origin], &format!("listeners: [{unix}, {tcp}]\n"))).await;
    assert_eq!(told, "v1 → v2: listeners changed");
    let more = "GET / HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\n\r\n";
    assert_eq!(proxy.send(more).await.status, 431);
    let answer = curl(&["--unix-socket", &socket, "http://a.test/"]).await;
    assert_eq!(answer.stdout, b"hello");
}

/// Nobody may ever write to it, and nothing would be reloaded any more.
#[tokio::test]
async fn a_main_file_that_has_become_a_pipe_is_refused_and_not_waited_for() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&app(&[&origin], "")).await;
    fs::remove_file(proxy.file()).unwrap();
    let made = std::process::Command::new("mkfifo").arg(proxy.file()).status().unwrap();
    assert!(made.success());

    let (status, told) = proxy.api("POST", "/v1/reload", "").await;
    let error = told["error"].as_str().unwrap();
    assert!(status == 422 && error.contains("crestline.yaml` is no file"), "{status} {error}");
    proxy.signal(Signal::HUP);
    proxy.logs("reload: nothing was changed").await;
    assert!(proxy.reload(&app(&[&origin], "lame_duck: 1s\n")).await.starts_with("v1 → v2: "));
}
