//! The recorder: the story of every request that failed, was refused, or was slow.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Crestline, Ending, Origin, eventually, get, request};

async fn kept(proxy: &Crestline, kind: &str) -> Vec<Value> {
    let (status, answer) = proxy.api("GET", &format!("/v1/requests?kind={kind}"), "").await;
    assert_eq!(status, 200, "{answer}");
    answer[kind].as_array().unwrap().clone()
}

fn events(record: &Value) -> Vec<&str> {
    let steps = record["timeline"].as_array().unwrap();
    let at = |step: &Value| step["at_ms"].as_f64().unwrap();
    assert!(steps.is_sorted_by(|one, other| at(one) <= at(other)), "{record}");
    steps.iter().map(|step| step["event"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_id_on_an_error_page_leads_to_the_story_of_the_request() {
    let (refusing, resetting) = (Origin::refusing(), Origin::resetting());
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          app: {{ backends: [\"{refusing}\", \"{resetting}\"], health_check: off, ejection: off }}
        routes: [{{ name: shop, match: {{ path: /shop }}, upstream: app }}]
        "
    ))
    .await;
    let page = proxy.get("/shop/cart?token=secret&item=1").await;
    assert_eq!(page.status, 502);
    let id = page.get("x-request-id").unwrap();
    assert!(page.text().contains(id));

    let (status, record) = proxy.api("GET", &format!("/v1/requests/{id}"), "").await;
    assert_eq!((status, &record["status"], &record["id"]), (200, &502.into(), &id.into()));
    assert_eq!(record["path"], "/shop/cart?token=[hidden]&item=1");
    assert_eq!((&record["route"], &record["upstream"]), (&"shop".into(), &"app".into()));
    let line = proxy.access_line(|line| line["id"] == id).await;
    assert_eq!(record["reason"], line["reason"]);
    assert_eq!(
        events(&record),
        ["accepted", "head_read", "routed", "policies_asked", "ended"],
        "{record}"
    );
    let attempts = record["attempts"].as_array().unwrap();
    let via: Vec<_> = attempts
        .iter()
        .map(|one| {
            format!("{}:{}", one["backend"].as_str().unwrap(), one["outcome"].as_str().unwrap())
        })
        .collect();
    assert_eq!(via.join(","), line["via"].as_str().unwrap());
    for attempt in attempts {
        let is_made = attempt["outcome"] == "reset";
        assert_eq!(attempt["connection"] == "made", is_made, "{attempt}");
        assert_eq!(attempt["connect_ms"].is_f64(), is_made, "{attempt}");
        assert!(attempt["began_ms"].as_f64().unwrap() <= attempt["ended_ms"].as_f64().unwrap());
    }

    let told = proxy.command(&["requests", id]).await;
    assert_eq!(told.code, Some(0), "{told:?}");
    let title = format!("request {id}: 502 ");
    for words in [&title, "attempt 1: ", "attempt 2: ended: ", "ended: refused", "ended: 502 "] {
        assert!(told.stderr.contains(words), "{words} in {}", told.stderr);
    }
    let told = proxy.command(&["requests", "--failed", "--since", "5m", "--json"]).await;
    let listed: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(listed["failed"][0]["id"], id);
    assert!(listed["slow"].is_null(), "not asked for");

    let told = proxy.command(&["requests", "no-such-id"]).await;
    assert_eq!(told.code, Some(1));
    assert!(told.stderr.contains("no request with this id is recorded"), "{}", told.stderr);
    let (status, why) = proxy.api("GET", "/v1/requests?since=soon", "").await;
    assert!(status == 400 && why["error"].as_str().unwrap().starts_with("`since`: "), "{why}");
    let (status, why) = proxy.api("GET", "/v1/requests?kid=failed", "").await;
    assert_eq!(
        (status, &why["error"]),
        (400, &"no parameter `kid`: there are `kind`, `since` and `limit`".into())
    );
}

#[tokio::test]
async fn what_is_refused_and_what_is_slow_is_told_apart_from_what_failed() {
    let origin = Origin::with(|exchange| async {
        if exchange.request.target == "/slow" {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        exchange.reply("hello").await
    });
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes:
          - {{ name: app, match: {{ hosts: [a.test] }}, upstream: app }}
          - name: closed
            match: {{ hosts: [c.test] }}
            policies: [{{ ip: [deny all] }}]
            upstream: app
        "
    ))
    .await;
    let ask = async |path: &str| proxy.send(request("GET", path, "", "")).await;
    for path in ["/quick", "/slow", "/quick"] {
        assert_eq!(ask(path).await.status, 200);
    }
    // A policy says no, there is no route, and no request at all.
    let closed = get("/closed").replace("a.test", "c.test");
    assert_eq!(proxy.send(&closed).await.status, 403);
    let other = get("/lost").replace("a.test", "b.test");
    assert_eq!(proxy.send(&other).await.status, 404);
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n").await;
    let (answer, ending) = client.rest().await;
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 400 "));
    assert_eq!(ending, Ending::Closed);

    assert!(kept(&proxy, "failed").await.is_empty());
    let refused = kept(&proxy, "refused").await;
    let reasons: Vec<_> = refused.iter().map(|record| record["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["duplicate_host", "no_route", "ip_denied"], "the last first");
    assert_eq!(events(&refused[2]), ["accepted", "head_read", "routed", "policies_asked", "ended"]);
    let (_, one) = proxy.api("GET", "/v1/requests?kind=refused&limit=1", "").await;
    assert_eq!(one["refused"], serde_json::json!([refused[0]]));
    let slow = kept(&proxy, "slow").await;
    let paths: Vec<_> = slow.iter().map(|record| record["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/slow", "/quick", "/quick"], "the slowest first");
    assert_eq!(
        events(&slow[0]),
        ["accepted", "head_read", "routed", "policies_asked", "answered", "ended"]
    );
    let attempt = &slow[0]["attempts"][0];
    assert!(300.0 <= attempt["first_byte_ms"].as_f64().unwrap(), "{attempt}");
}

/// The recorder outlives a reload, and a client that left is a failure.
#[tokio::test]
async fn stories_are_kept_over_a_reload() {
    let origin = Origin::stalling();
    let file = format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}");
    let proxy = Crestline::start(&file).await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    eventually("the request at the origin", || 0 < origin.count()).await;
    client.reset();
    let line = proxy.access_line(|line| line["status"] == 499).await;
    proxy.reload(&format!("{file}\nlimits: {{ connections: 1000 }}")).await;
    let failed = kept(&proxy, "failed").await;
    assert_eq!((&failed[0]["id"], &failed[0]["reason"]), (&line["id"], &"client_abort".into()));
    assert_eq!(failed[0]["attempts"][0]["outcome"], "client_left");
}

/// A relayed connection is no request, but has a story as well.
#[tokio::test]
async fn a_relayed_connection_that_failed_is_kept() {
    let dead = Origin::refusing();
    let proxy = Crestline::start(&format!(
        "
        listeners: [{{ address: \"127.0.0.1:0\", protocol: tcp, upstream: app }}]
        upstreams: {{ app: {{ backends: [\"{dead}\"], health_check: off, retries: 0 }} }}
        "
    ))
    .await;
    let (_, ending) = proxy.client().await.rest().await;
    assert_eq!(ending, Ending::Closed);
    proxy.access_log(1).await;
    let failed = kept(&proxy, "failed").await;
    let told = ["protocol", "reason", "upstream"].map(|name| failed[0][name].as_str().unwrap());
    assert_eq!(told, ["TCP", "connect_refused", "app"]);
    assert_eq!(failed[0]["attempts"][0]["outcome"], "refused");
    assert_eq!(events(&failed[0]), ["accepted", "ended"]);
}
