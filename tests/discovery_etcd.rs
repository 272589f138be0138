//! Backends that keys in etcd hold, asked of the real one.

use crate::support::{Crestline, Etcd, Origin};

#[tokio::test]
async fn keys_under_a_prefix_are_backends_for_as_long_as_they_are_there() {
    let [first, second] = ["1", "2"].map(Origin::replying);
    let mut etcd = Etcd::start().await;
    etcd.put("/app/1", &first.to_string()).await;
    etcd.put("/other/1", "127.0.0.1:1").await;
    let yaml = format!(
        "upstreams: {{ app: {{ discovery: {{ etcd: {{ urls: [\"{}\"], prefix: /app/ }} }} }} }}",
        etcd.url()
    );
    let proxy = Crestline::start(&yaml).await;
    assert_eq!(proxy.get("/").await.text(), "1");

    // They appear, change and vanish.
    etcd.put("/app/2", &format!(r#"{{ "address": "{second}", "weight": 2 }}"#)).await;
    proxy.finds(&[(&first, 1), (&second, 2)]).await;
    etcd.put("/app/2", &format!("{{ address: \"{second}\", weight: 3 }}")).await;
    proxy.finds(&[(&first, 1), (&second, 3)]).await;
    etcd.delete("/app/1").await;
    proxy.finds(&[(&second, 3)]).await;
    assert_eq!(proxy.texts(3).await, ["2", "2", "2"]);

    // What is wrong changes nothing, is told, and is mended.
    etcd.put("/app/3", "a.test").await;
    let why = proxy.misses("/app/3").await;
    assert_eq!(why, "the value of `/app/3`: `a.test` has no port");
    assert_eq!(proxy.get("/").await.text(), "2");
    etcd.delete("/app/3").await;
    proxy.finds(&[(&second, 3)]).await;

    // While it is away the last good set serves; when it is back, so is what it knows.
    etcd.kill().await;
    proxy.misses(&etcd.url()).await;
    assert_eq!(proxy.texts(3).await, ["2", "2", "2"]);
    let told = proxy.command(&["status"]).await.stderr;
    let by = format!("by etcd /app/ at {}: 1 backend, in touch ", etcd.url());
    assert!(told.contains(&by), "{told}");
    etcd.revive().await;
    etcd.put("/app/1", &first.to_string()).await;
    proxy.finds(&[(&first, 1), (&second, 3)]).await;
}
