//! Smaller bodies for clients that can read them, and bodies that are held back.

use std::{
    io::{Read as _, Write as _},
    sync::Arc,
    time::Duration,
};

use flate2::read::GzDecoder;
use tokio::{sync::Semaphore, time::Instant};

use crate::support::{Crestline, Origin, curl, get, request};

fn yaml(origin: &Origin, policy: &str) -> String {
    format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes: [{{ name: all, policies: [{policy}], upstream: app }}]
        "
    )
}

/// As long as an answer is read back by a client of its own, it was coded well.
#[tokio::test]
async fn curl_reads_what_was_compressed() {
    let body = "as long as it is wide, ".repeat(20_000);
    let origin = Origin::with({
        let body = body.clone();
        move |exchange| {
            let body = body.clone();
            async move {
                let fields = "Content-Type: text/plain\r\nETag: \"1\"\r\n";
                exchange.answer("200 OK", fields, body).await
            }
        }
    });
    let proxy = Crestline::start(&yaml(&origin, "{ compression: {} }")).await;
    for coding in ["gzip", "br", "zstd"] {
        let asked = format!("accept-encoding: {coding}");
        let url = proxy.url("/");
        let coded = curl(&["-s", "-i", "-H", &asked, "--output", "-", &url]).await.stdout;
        let head = String::from_utf8_lossy(&coded[..600.min(coded.len())]).to_ascii_lowercase();
        assert!(head.contains(&format!("content-encoding: {coding}\r\n")), "{head}");
        assert!(head.contains("etag: w/\"1\"\r\n"), "{head}");
        assert!(coded.len() < body.len() / 20, "{coding}: {}", coded.len());
    }
    let read = curl(&["-s", "--compressed", &proxy.url("/")]).await.stdout;
    assert_eq!(read, body.as_bytes());
    let plain = proxy.get("/").await;
    assert_eq!((plain.get("content-encoding"), plain.get("vary")), (None, Some("Accept-Encoding")));
    assert_eq!(plain.text(), body);
}

/// What the origin has sent so far can be read, and is not kept until there is more.
#[tokio::test]
async fn each_piece_is_coded_as_it_comes() {
    let next = Arc::new(Semaphore::new(0));
    let origin = Origin::with({
        let next = next.clone();
        move |mut exchange| {
            let next = next.clone();
            async move {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
                exchange.send(format!("{head}5\r\nfirst\r\n")).await;
                next.acquire().await.unwrap().forget();
                exchange.send("6\r\nsecond\r\n0\r\n\r\n").await;
                exchange.keep()
            }
        }
    });
    let proxy = Crestline::start(&yaml(&origin, "{ compression: { codings: [gzip] } }")).await;
    let mut client = proxy.client().await;
    client.send(request("GET", "/", "Accept-Encoding: gzip\r\n", "")).await;
    let head = client.head().await;
    assert_eq!(head.get("content-encoding"), Some("gzip"));
    let mut coded = Vec::new();
    while gunzipped(&coded) != b"first" {
        coded.extend(client.piece().await.unwrap().expect("more is to come"));
    }
    next.add_permits(1);
    while let Some(piece) = client.piece().await.unwrap() {
        coded.extend(piece);
    }
    assert_eq!(gunzipped(&coded), b"firstsecond");
    // The connection is in order for the next request.
    next.add_permits(1);
    assert_eq!(client.exchange(get("/")).await.text(), "firstsecond");
}

/// As much as can be read.
fn gunzipped(coded: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let _ = GzDecoder::new(coded).read_to_end(&mut out);
    out
}

/// The rate is a bound from above: a busy machine is only slower.
#[tokio::test]
async fn a_body_takes_the_time_that_its_rate_gives_it() {
    let origin = Origin::with(|exchange| exchange.reply("x".repeat(192 << 10)));
    let proxy =
        Crestline::start(&yaml(&origin, "{ bandwidth: { per_request: 128KiB, after: 64KiB } }"))
            .await;
    let start = Instant::now();
    let answer = proxy.get("/").await;
    assert_eq!(answer.text().len(), 192 << 10);
    assert!(Duration::from_millis(900) < start.elapsed(), "{:?}", start.elapsed());
}

/// The origin always compresses; one client cannot read it, and one sees other words.
#[tokio::test]
async fn a_coded_body_is_read_by_clients_that_cannot_decode() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(b"from http://app.internal/").unwrap();
    let coded = encoder.finish().unwrap();
    let origin = Origin::with(move |exchange| {
        let coded = coded.clone();
        async move {
            let fields = "Content-Type: text/plain\r\nContent-Encoding: gzip\r\n";
            exchange.answer("200 OK", fields, coded).await
        }
    });
    let policies = "{ body_rewrite: { replace: [{ find: \"http://app.internal\", with: \"https://shop.test\" }] } }, { decompression: {} }";
    let proxy = Crestline::start(&yaml(&origin, policies)).await;
    let plain = proxy.get("/").await;
    assert_eq!((plain.get("content-encoding"), plain.text()), (None, "from https://shop.test/"));
    let read = curl(&["-s", "--compressed", &proxy.url("/")]).await.stdout;
    assert_eq!(read, b"from http://app.internal/", "what is coded stays as it is");
}

#[tokio::test]
async fn faults_are_made_only_where_the_file_allows_them() {
    let origin = Origin::replying("hello");
    let yaml = yaml(&origin, "{ fault: { abort: 503, header: { name: x-fault } } }");
    let proxy = Crestline::start(&format!("\n        allow_faults: true{yaml}")).await;
    assert_eq!(proxy.get("/").await.status, 200);
    let faulty = proxy.send(request("GET", "/", "X-Fault: 1\r\n", "")).await;
    assert_eq!(faulty.status, 503);
    let line = proxy.access_line(|line| line["status"] == 503).await;
    assert_eq!(line["reason"], "fault");
    let told = proxy.refuses(&yaml).await;
    assert!(told.contains("write `allow_faults: true` at the top of the file"), "{told}");
}
