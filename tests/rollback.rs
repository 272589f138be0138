//! Going back: the last ten versions are kept, and any of them can be put in force again.

use crate::support::{Crestline, Origin};

fn version(origin: &Origin, version: u32) -> String {
    format!(
        "upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n\
         routes: [{{ name: all, upstream: app, policies: [{{ response_headers: {{ set: {{ x-version: \"{version}\" }} }} }}] }}]\n"
    )
}

#[tokio::test]
async fn a_version_is_repeated_as_it_was_read() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&version(&origin, 1)).await;
    proxy.reload(&version(&origin, 2)).await;
    let away = format!(
        "upstreams: {{ web: {{ backends: [\"{origin}\"] }} }}\ntrusted_proxies: [10.0.0.0/8]\n"
    );
    proxy.reload(&away).await;

    let told = proxy.command(&["reload", "--to", "1"]).await;
    let expected = "v3 → v4 (as v1): upstream app added, upstream web removed, \
                    route all added, routes added, trusted_proxies changed\n";
    assert_eq!((told.code, &*told.stderr), (Some(0), expected));
    assert_eq!(proxy.get("/").await.get("x-version"), Some("1"));
    proxy.logs("reload: v3 → v4 (as v1): ").await;

    // The file is as it was, and is read when that is asked for.
    let told = proxy.command(&["reload"]).await;
    assert!(told.stderr.starts_with("v4 → v5: "), "{}", told.stderr);
    let (status, receipt) = proxy.api("POST", "/v1/reload", "{\"to\": 4}").await;
    assert_eq!((status, &receipt["repeats"]), (200, &4.into()));
    let told = proxy.command(&["reload", "--to", "4"]).await;
    assert_eq!((told.code, &*told.stderr), (Some(0), "v6: nothing changed\n"));
}

/// The file of a version may be gone; its text is kept.
#[tokio::test]
async fn going_back_needs_no_file_that_is_right() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&version(&origin, 1)).await;
    proxy.reload(&version(&origin, 2)).await;
    proxy.refuses("nonsense: true\n").await;

    let told = proxy.command(&["reload", "--to", "1"]).await;
    assert_eq!(told.stderr, "v2 → v3 (as v1): route all changed\n");
    assert_eq!(proxy.get("/").await.get("x-version"), Some("1"));
}

#[tokio::test]
async fn the_last_ten_versions_are_kept() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&version(&origin, 1)).await;
    for number in 2..=12 {
        proxy.reload(&version(&origin, number)).await;
    }

    for gone in ["1", "2", "13"] {
        let told = proxy.command(&["reload", "--to", gone]).await;
        let expected = format!(
            "error: there is no version {gone} to go back to; kept are 3, 4, 5, 6, 7, 8, 9, 10, 11, 12\n"
        );
        assert_eq!((told.code, told.stderr), (Some(1), expected));
    }
    let (status, answer) = proxy.api("POST", "/v1/reload", "{\"to\": 1}").await;
    assert_eq!(status, 404);
    assert!(answer["error"].as_str().unwrap().contains("kept are 3, 4"), "{answer}");
    assert_eq!(proxy.version().await, 12);
    let versions = proxy.status().await["configuration"]["versions"].clone();
    let numbers = versions.as_array().unwrap().iter().map(|kept| kept["version"].as_u64().unwrap());
    assert!(numbers.eq((3..=12).rev()), "{versions}");

    let told = proxy.command(&["reload", "--to", "3"]).await;
    assert_eq!(told.stderr, "v12 → v13 (as v3): route all changed\n");
    assert_eq!(proxy.get("/").await.get("x-version"), Some("3"));
}
