//! A configuration of several files, with values from the environment and from secret files.

use crate::support::{Crestline, Origin};

#[tokio::test]
async fn what_is_included_and_filled_in_reaches_the_origins() {
    let (shop, rest) = (Origin::replying("shop"), Origin::replying("rest"));
    let shop_file = "
upstreams:
  shop:
    backends: [\"${SHOP_ADDRESS}\"]
    retries: ${SHOP_RETRIES:-1}
routes:
  - name: shop
    match: { path: /shop }
    policies:
      - request_headers:
          set:
            authorization: Bearer ${file:secrets/token}
            x-stage: \"${STAGE}-${SHOP_REGION:-north}\"
            x-literal: $${STAGE}
    upstream: shop
";
    let proxy = Crestline::start_among(
        &[("conf.d/shop.yaml", shop_file), ("secrets/token", "open-sesame\n")],
        &[("SHOP_ADDRESS", &shop.to_string()), ("STAGE", "test")],
        &format!(
            "
            include: [conf.d/*.yaml]
            upstreams: {{ rest: {{ backends: [\"{rest}\"] }} }}
            routes: [{{ name: rest, upstream: rest }}]
            "
        ),
    )
    .await;

    assert_eq!(proxy.get("/").await.text(), "rest");
    assert_eq!(proxy.get("/shop").await.text(), "shop");
    let got = shop.last().fields;
    assert_eq!(got.get("authorization"), Some("Bearer open-sesame"));
    assert_eq!(got.get("x-stage"), Some("test-north"));
    assert_eq!(got.get("x-literal"), Some("${STAGE}"));
    assert_eq!(proxy.access_log(2).await[1]["route"], "shop");
    assert!(proxy.log_with("sesame").is_empty(), "a secret is not logged");
}

/// What is wrong in an included file is told with its place, and no value that was filled in.
#[tokio::test]
async fn a_start_with_a_wrong_secret_is_refused_without_telling_it() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("crestline.yaml", "include: [app.yaml]\nroutes: [{ name: all, upstream: app }]\n");
    write("app.yaml", "upstreams:\n  app:\n    backends: [\"${file:address}\"]\n");
    write("address", "open sesame\n");
    let file = folder.path().join("crestline.yaml").display().to_string();

    for arguments in [&["check", &file][..], &["-t", "-c", &file], &["-c", &file]] {
        let finished = Crestline::run(arguments).await;
        assert_eq!(finished.code, Some(78), "{arguments:?}: {}", finished.stderr);
        assert!(finished.stderr.contains("app.yaml:3:16"), "{}", finished.stderr);
        assert!(finished.stderr.contains("`${file:address}`"), "{}", finished.stderr);
        assert!(!finished.stderr.contains("sesame"), "{}", finished.stderr);
    }
}
