//! Answers that are kept on a disk, too: they outlive the process, and what was ordered of them.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use rustix::process::Signal;

use crate::support::{Crestline, Origin, Pattern, eventually, get, post, request, soon};

/// An origin whose answers are numbered and as long as the path says: `/20000/a`.
fn numbered() -> Origin {
    let count = Arc::new(AtomicUsize::new(0));
    Origin::with(move |exchange| {
        let nth = count.fetch_add(1, SeqCst) + 1;
        async move {
            let target = exchange.request.target.clone();
            let length = target.split('/').nth(1).and_then(|length| length.parse().ok());
            let body = format!("{nth} {target} ");
            let body = body.repeat(length.unwrap_or(1_usize).div_ceil(body.len()));
            let fields = "Cache-Control: max-age=600\r\nCache-Tag: x\r\nETag: \"a\"\r\n";
            exchange.answer("200 OK", fields, body).await
        }
    })
}

fn yaml(origin: &Origin, cache: &str) -> String {
    format!(
        "
        cache: {cache}
        listeners: [{{ address: \"127.0.0.1:0\" }}]
        upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: off }} }}
        routes: [{{ name: shop, policies: [{{ cache: {{}} }}], upstream: app }}]
        "
    )
}

fn on_disk(origin: &Origin, folder: &Path) -> String {
    yaml(origin, &format!("{{ disk: {{ path: {}, max: 128MiB }} }}", folder.display()))
}

/// Starts a process, which has its disk when this returns.
async fn started(yaml: &str) -> Crestline {
    let proxy = Crestline::start(yaml).await;
    proxy.measures("crestline_cache_disk_open", 1.0).await;
    proxy
}

async fn stopped(mut proxy: Crestline) {
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code().await, Some(0));
}

/// Waits until so many bytes are written.
async fn has_written(proxy: &Crestline, bytes: f64) {
    let written =
        async { while proxy.metric("crestline_cache_disk_written_bytes_total").await < bytes {} };
    soon("it is on the disk", written).await;
}

/// It is found by the next process, whole and in part; what is in memory alone is written at the
/// end.
#[tokio::test]
async fn what_is_on_the_disk_outlives_the_process() {
    let (origin, folder) = (numbered(), tempfile::tempdir().unwrap());
    let yaml = on_disk(&origin, &folder.path().join("made"));
    let proxy = started(&yaml).await;
    let mut client = proxy.client().await;
    let first = client.exchange(get("/1/page")).await;
    assert_eq!(first.get("cache-status"), Some("crestline; fwd=uri-miss; stored"));
    let long = client.exchange(get("/300000/long")).await.body;
    client.exchange(get("/1/changed")).await;
    client.exchange(post("/1/changed", "x")).await;
    stopped(proxy).await;

    let proxy = started(&yaml).await;
    let mut client = proxy.client().await;
    let part = request("GET", "/300000/long", "Range: bytes=100000-199999\r\n", "");
    let part = client.exchange(part).await;
    assert_eq!((part.status, &part.body[..]), (206, &long[100_000..200_000]));
    let again = client.exchange(get("/1/page")).await;
    assert_eq!((again.text(), again.get("etag")), (first.text(), Some("\"a\"")));
    let status = again.get("cache-status").unwrap();
    assert!(status.starts_with("crestline; hit; ttl=5") && status.ends_with("; detail=disk"));
    let status = client.exchange(get("/1/page")).await;
    assert!(!status.get("cache-status").unwrap().contains("disk"), "it is in memory again");
    assert_eq!(client.exchange(get("/300000/long")).await.body, long);
    assert_eq!(origin.count(), 4);
    client.exchange(get("/1/changed")).await;
    assert_eq!(origin.count(), 5, "it was changed in the time of the other process");
    assert!(2.0 <= proxy.metric("crestline_cache_disk_found_total").await);
    proxy.measures("crestline_cache_disk_max_bytes", 134_217_728.0).await;
}

/// A process that is killed leaves what it had written.
#[tokio::test]
async fn a_crash_loses_nothing_that_was_written() {
    let (origin, folder) = (numbered(), tempfile::tempdir().unwrap());
    let yaml = on_disk(&origin, folder.path());
    let mut proxy = started(&yaml).await;
    let before = proxy.metric("crestline_cache_disk_written_bytes_total").await;
    proxy.get("/10000/page").await;
    has_written(&proxy, before + 10_000.0).await;
    proxy.signal(Signal::KILL);
    proxy.exit_code().await;
    drop(proxy);

    let proxy = started(&yaml).await;
    assert!(proxy.get("/10000/page").await.text().starts_with("1 /10000/page"));
    assert_eq!(origin.count(), 1);
}

/// An order holds for answers that nobody has looked at since, and after a start.
#[tokio::test]
async fn what_was_purged_stays_away_after_a_start() {
    let (origin, folder) = (numbered(), tempfile::tempdir().unwrap());
    let yaml = on_disk(&origin, folder.path());
    let proxy = started(&yaml).await;
    for path in ["/1/a", "/1/b"] {
        proxy.get(path).await;
    }
    stopped(proxy).await;

    let proxy = started(&yaml).await;
    let (status, _) = proxy.api("POST", "/v1/cache/purge", r#"{"tag":"x"}"#).await;
    assert_eq!(status, 200);
    stopped(proxy).await;

    let proxy = started(&yaml).await;
    assert_eq!(proxy.get("/1/a").await.text(), "3 /1/a ");
    assert_eq!(proxy.get("/1/a").await.text(), "3 /1/a ");
    stopped(proxy).await;
    let proxy = started(&yaml).await;
    assert_eq!(proxy.get("/1/a").await.text(), "3 /1/a ", "it is younger than the order");
    assert_eq!(proxy.get("/1/b").await.text(), "4 /1/b ");
}

/// There is room for more than the memory holds.
#[tokio::test]
async fn what_has_no_room_in_memory_is_found_on_the_disk() {
    let (origin, folder) = (numbered(), tempfile::tempdir().unwrap());
    let path = folder.path().display();
    let cache = format!("{{ memory: 1MiB, disk: {{ path: {path}, max: 128MiB }} }}");
    let proxy = started(&yaml(&origin, &cache)).await;
    let mut client = proxy.client().await;
    let mut first = Vec::new();
    for nth in 0..40 {
        first.push(client.exchange(get(&format!("/100000/{nth}"))).await.body);
    }
    has_written(&proxy, 4_000_000.0).await;
    for (nth, body) in first.iter().enumerate() {
        assert_eq!(&client.exchange(get(&format!("/100000/{nth}"))).await.body, body);
    }
    assert_eq!(origin.count(), 40);
    assert!(proxy.metric("crestline_cache_bytes").await <= 1_048_576.0);
}

/// A successor serves from memory until its predecessor has written all, and has all then.
#[tokio::test]
async fn an_upgrade_hands_the_disk_over() {
    let (origin, folder) = (numbered(), tempfile::tempdir().unwrap());
    let proxy = started(&on_disk(&origin, folder.path())).await;
    proxy.get("/1/page").await;
    assert_eq!(proxy.command(&["upgrade"]).await.code, Some(0));
    proxy.measures("crestline_cache_disk_open", 1.0).await;
    let again = proxy.get("/1/page").await;
    assert_eq!(again.text(), "1 /1/page ");
    assert!(again.get("cache-status").unwrap().ends_with("; detail=disk"));
    assert_eq!(origin.count(), 1);
}

/// What another process has, or what is spoilt, costs no request.
#[tokio::test]
async fn without_its_disk_it_keeps_answers_in_memory() {
    let (origin, folder) = (numbered(), tempfile::tempdir().unwrap());
    let yaml = on_disk(&origin, folder.path());
    let first = started(&yaml).await;
    for nth in 0..20 {
        first.get(&format!("/5000/{nth}")).await;
    }
    let second = Crestline::start(&yaml).await;
    second.logs("cache: waits for").await;
    second.measures("crestline_cache_disk_open", 0.0).await;
    let text = second.get("/1/page").await.text().to_owned();
    assert_eq!(second.get("/1/page").await.text(), text, "kept in memory");
    stopped(first).await;
    second.measures("crestline_cache_disk_open", 1.0).await;
    stopped(second).await;

    let mut spoilt = 0;
    let noise = Pattern::new();
    for file in fs::read_dir(folder.path().join("answers")).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if bytes.iter().any(|byte| *byte != 0) {
            // Beyond what tells where answers lie.
            for at in (20_000..bytes.len().min(100_000)).step_by(1_000) {
                bytes[at..at + 10].copy_from_slice(noise.at(at, 10));
            }
            fs::write(&path, bytes).unwrap();
            spoilt += 1;
        }
    }
    assert!(0 < spoilt);
    let third = started(&yaml).await;
    for nth in 0..20 {
        let path = format!("/5000/{nth}");
        let answer = third.get(&path).await;
        let text = answer.text().to_owned();
        assert_eq!(answer.status, 200);
        assert!(
            text.split_inclusive(' ').skip(1).step_by(2).all(|part| part == format!("{path} "))
        );
    }
}

/// A configuration names another disk, another size, or none; answers stay in memory meanwhile.
#[tokio::test]
async fn a_reload_changes_the_disk() {
    let (origin, folder) = (numbered(), tempfile::tempdir().unwrap());
    let path = folder.path();
    let proxy = started(&on_disk(&origin, &path.join("a"))).await;
    proxy.get("/1/page").await;
    proxy.reload(&on_disk(&origin, &path.join("b"))).await;
    eventually("it is in the other folder", || path.join("b/answers").exists()).await;
    proxy.measures("crestline_cache_disk_open", 1.0).await;
    assert_eq!(proxy.get("/1/page").await.text(), "1 /1/page ");
    proxy.reload(&yaml(&origin, "{}")).await;
    proxy.measures("crestline_cache_disk_open", 0.0).await;
    assert_eq!(proxy.get("/1/page").await.text(), "1 /1/page ");
    let refused =
        proxy.refuses(&yaml(&origin, "{ disk: { path: crestline.yaml, max: 1MiB } }")).await;
    assert!(refused.contains("a disk of `1MiB` is too small"), "{refused}");
    assert!(refused.contains("`crestline.yaml` cannot keep answers: it is no folder"), "{refused}");
    stopped(proxy).await;

    let proxy = started(&on_disk(&origin, &path.join("a"))).await;
    assert_eq!(proxy.get("/1/page").await.text(), "1 /1/page ", "written when the folder was left");
    assert_eq!(origin.count(), 1);
}
