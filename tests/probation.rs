//! Probation: a reload that is taken back by itself when more requests fail than before.

use std::{
    fs,
    io::Write as _,
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use crate::support::{Crestline, Finished, Origin, eventually, get};

/// Fails where the target says so.
fn origin() -> Origin {
    Origin::with(async |exchange| match exchange.request.target.as_str() {
        "/fail" => exchange.answer("500 No", "", "no").await,
        _ => exchange.reply("yes").await,
    })
}

/// One route, of which the version is told.
fn version(origin: &Origin, version: u32) -> String {
    format!(
        "upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n\
         routes: [{{ name: all, upstream: app, policies: [{{ response_headers: {{ set: {{ x-version: \"{version}\" }} }} }}] }}]\n"
    )
}

/// Reloads on probation; once that is in force, requests for these targets go on in turn.
async fn under(proxy: &Crestline, targets: &[&str], arguments: &[&str]) -> Finished {
    let (before, ended) = (proxy.log_with("reload: v").len(), AtomicBool::new(false));
    let traffic = async {
        eventually("the reload", || before < proxy.log_with("reload: v").len()).await;
        let mut client = proxy.client().await;
        for target in targets.iter().cycle() {
            if ended.load(SeqCst) {
                return;
            }
            client.exchange(get(target)).await;
        }
    };
    let command = async {
        let finished = proxy.command(arguments).await;
        ended.store(true, SeqCst);
        finished
    };
    tokio::join!(command, traffic).0
}

#[tokio::test]
async fn a_change_that_fails_requests_is_taken_back() {
    let origin = origin();
    let proxy = Crestline::start(&version(&origin, 1)).await;
    for _ in 0..30 {
        proxy.get("/").await;
    }
    proxy.rewrite(&version(&origin, 2));

    let told = under(&proxy, &["/fail"], &["reload", "--probation", "1h"]).await;
    assert_eq!(told.code, Some(1), "{}", told.stderr);
    let mut lines = told.stderr.lines();
    let mut line = || lines.next().unwrap_or_default();
    assert_eq!(line(), "v1 → v2: route all changed");
    assert_eq!(line(), "v2 is on probation for 1h");
    let last = line();
    assert!(last.starts_with("v2 was taken back: 100 % of its "), "{last}");
    assert!(last.contains("answers were 5xx, against 0 % before (tolerated: 5% more)"), "{last}");
    assert!(last.ends_with("; v2 → v3 (as v1): route all changed"), "{last}");
    proxy.logs("reload: v2 failed its probation: 100 % of its ").await;
    proxy.logs("reload: v2 → v3 (as v1): route all changed").await;
    assert_eq!(proxy.get("/").await.get("x-version"), Some("1"));
    assert_eq!(proxy.status().await["configuration"]["probation"]["state"], "taken_back");
    let shown = proxy.command(&["status"]).await.stderr;
    assert!(shown.contains("\nv2 was taken back: 100 % of its "), "{shown}");
}

#[tokio::test]
async fn a_change_that_fails_nothing_passes() {
    let origin = origin();
    let proxy = Crestline::start(&version(&origin, 1)).await;
    proxy.rewrite(&version(&origin, 2));

    let told = under(&proxy, &["/"], &["reload", "--probation", "2s"]).await;
    let expected =
        "v1 → v2: route all changed\nv2 is on probation for 2s\nv2 passed its probation\n";
    assert_eq!((told.code, &*told.stderr), (Some(0), expected));
    proxy.logs("reload: v2 passed its probation").await;
    assert_eq!(proxy.get("/").await.get("x-version"), Some("2"));
}

#[tokio::test]
async fn failures_that_were_there_before_are_not_held_against_a_change() {
    let origin = origin();
    let proxy = Crestline::start(&version(&origin, 1)).await;
    let mixed = ["/", "/fail"];
    let mut client = proxy.client().await;
    for target in mixed.repeat(30) {
        client.exchange(get(target)).await;
    }
    proxy.rewrite(&version(&origin, 2));

    let told = under(&proxy, &mixed, &["reload", "--probation", "3s"]).await;
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    // Beyond what there was before, they are. It was about half, whenever it was counted.
    for target in mixed.repeat(30) {
        client.exchange(get(target)).await;
    }
    proxy.rewrite(&version(&origin, 3));
    let told = under(&proxy, &["/fail"], &["reload", "--probation", "1h"]).await;
    assert_eq!(told.code, Some(1), "{}", told.stderr);
    let (_, words) = told.stderr.split_once("100 % of its ").expect(&told.stderr);
    let before = words.split_once(" against ").unwrap().1.split_once(' ').unwrap().0;
    assert!((40..=60).contains(&before.parse::<u32>().unwrap()), "{}", told.stderr);
}

#[tokio::test]
async fn what_is_tolerated_can_be_said() {
    let origin = origin();
    let proxy = Crestline::start(&version(&origin, 1)).await;
    proxy.rewrite(&version(&origin, 2));

    let mixed = ["/", "/fail"];
    let lenient = ["reload", "--probation", "3s", "--tolerate", "60%", "--json"];
    let told = under(&proxy, &mixed, &lenient).await;
    assert_eq!((told.code, &*told.stderr), (Some(0), "v2 is on probation for 3s\n"));
    let lines: Vec<serde_json::Value> =
        told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["to"], &lines[1]["state"]), (&2.into(), &"passed".into()));
}

#[tokio::test]
async fn another_change_overtakes_a_probation() {
    let origin = origin();
    let proxy = Crestline::start(&version(&origin, 1)).await;
    proxy.rewrite(&version(&origin, 2));
    let probation = proxy.command(&["reload", "--probation", "1h"]);
    let change = async {
        proxy.logs("reload: v1 → v2").await;
        let status = proxy.status().await["configuration"]["probation"].clone();
        assert_eq!((&status["state"], &status["version"]), (&"running".into(), &2.into()));
        assert_eq!(proxy.reload(&version(&origin, 3)).await, "v2 → v3: route all changed");
    };

    let (told, ()) = tokio::join!(probation, change);
    assert_eq!(told.code, Some(1), "{}", told.stderr);
    assert!(told.stderr.ends_with("v2 was overtaken by another change\n"), "{}", told.stderr);
    for _ in 0..30 {
        proxy.get("/fail").await;
    }
    assert_eq!(proxy.version().await, 3, "nobody watches over it any longer");
    let status = proxy.status().await["configuration"]["probation"].clone();
    assert_eq!(status["state"], "overtaken");
    let shown = proxy.command(&["status"]).await.stderr;
    assert!(!shown.contains("probation"), "{shown}");
}

/// The access log of before cannot be opened any more.
#[tokio::test]
async fn a_change_that_cannot_be_taken_back_stays_and_says_so() {
    let origin = origin();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("logs").join("access.log");
    fs::create_dir(log.parent().unwrap()).unwrap();
    let yaml = format!("access_log: {{ path: {} }}\n{}", log.display(), version(&origin, 1));
    let proxy = Crestline::start(&yaml).await;
    proxy.rewrite(&version(&origin, 2));
    fs::remove_dir_all(log.parent().unwrap()).unwrap();

    let told = under(&proxy, &["/fail"], &["reload", "--probation", "1h"]).await;
    assert_eq!(told.code, Some(1), "{}", told.stderr);
    let stays = "v2 failed its probation and stays: 100 % of its ";
    assert!(told.stderr.contains(stays), "{}", told.stderr);
    assert!(told.stderr.contains("; going back: error: access log `"), "{}", told.stderr);
    proxy.logs(&format!("reload: {stays}")).await;
    assert_eq!(proxy.version().await, 2);
    assert_eq!(proxy.status().await["configuration"]["probation"]["state"], "stays");
}

#[tokio::test]
async fn a_reload_without_changes_is_not_on_probation() {
    let origin = origin();
    let proxy = Crestline::start(&version(&origin, 1)).await;

    let told = proxy.command(&["reload", "--probation", "1h"]).await;
    assert_eq!((told.code, &*told.stderr), (Some(0), "v1: nothing changed\n"));
    let (status, _) = proxy.api("GET", "/v1/probation", "").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn wrong_usage_is_refused() {
    let wrong: [&[&str]; 4] = [
        &["reload", "--tolerate", "5%"],
        &["reload", "--probation", "5"],
        &["reload", "--probation", "5s", "--tolerate", "5"],
        &["reload", "--to", "one"],
    ];
    for arguments in wrong {
        let told = Crestline::run(arguments).await;
        assert_eq!(told.code, Some(64), "{arguments:?}: {}", told.stderr);
    }
}

/// Somebody who waited for the outcome and was interrupted takes no place from others: there are
/// fewer places than these.
#[tokio::test]
async fn who_does_not_wait_for_the_outcome_any_more_is_forgotten() {
    let origin = origin();
    let proxy = Crestline::start(&version(&origin, 1)).await;
    proxy.rewrite(&version(&origin, 2));
    let (status, _) = proxy.api("POST", "/v1/reload", "{\"probation\": \"1h\"}").await;
    assert_eq!(status, 200);
    for _ in 0..40 {
        let mut waiting = UnixStream::connect(proxy.admin_socket()).unwrap();
        waiting.write_all(b"GET /v1/probation HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    }
    let status = proxy.status().await["configuration"]["probation"].clone();
    assert_eq!(status["state"], "running", "{status}");
    assert_eq!(proxy.log_with("ERROR"), [""; 0]);
}
