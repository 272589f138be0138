//! Limits on a route: so many requests in a time, and so many at the same time.

use crate::support::{Answer, Crestline, Origin, Redis, eventually, get, request};

fn yaml(origin: &Origin, policy: &str) -> String {
    format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes: [{{ name: all, policies: [{policy}], upstream: app }}]
        "
    )
}

async fn of_tenant(proxy: &Crestline, tenant: &str) -> Answer {
    proxy.send(request("GET", "/", &format!("X-Tenant: {tenant}\r\n"), "")).await
}

#[tokio::test]
async fn requests_over_the_rate_get_429_and_when_to_come_back() {
    let origin = Origin::replying("hello");
    let policy = "{ rate_limit: { by: [header.x-tenant], rates: [100/m, 2/h], fields: always } }";
    let proxy = Crestline::start(&yaml(&origin, policy)).await;

    let first = of_tenant(&proxy, "a").await;
    assert_eq!((first.status, first.get("ratelimit")), (200, Some("\"2/h\";r=1;t=1800")));
    assert_eq!(first.get("ratelimit-policy"), Some("\"100/m\";q=100;w=60, \"2/h\";q=2;w=3600"));
    assert_eq!(of_tenant(&proxy, "a").await.status, 200);
    let over = of_tenant(&proxy, "a").await;
    assert_eq!(over.status, 429);
    let after: u64 = over.get("retry-after").unwrap().parse().unwrap();
    assert!((1..=1800).contains(&after), "{after}");
    assert!(over.get("ratelimit").unwrap().starts_with("\"2/h\";r=0;t="), "{over:?}");
    let line = proxy.access_line(|line| line["status"] == 429).await;
    assert_eq!(line["reason"], "rate_limited");
    assert_eq!(origin.count(), 2);

    // Others have an allowance of their own; who leaves the field out counts as a client.
    assert_eq!(of_tenant(&proxy, "b").await.status, 200);
    let anonymous = [proxy.get("/").await, proxy.get("/").await, proxy.get("/").await];
    assert_eq!(anonymous.map(|answer| answer.status), [200, 200, 429]);

    // A reload forgets nothing; a larger limit counts on from there.
    proxy.reload(&yaml(&origin, &policy.replace("fields", "keys_max: 65536, fields"))).await;
    assert_eq!(of_tenant(&proxy, "a").await.status, 429);
    let sample = |verdict: &str| {
        format!(
            "crestline_limit_requests_total{{route=\"all\",policy=\"rate_limit\",verdict=\"{verdict}\"}}"
        )
    };
    proxy.measures(&sample("admitted"), 5.0).await;
    proxy.measures(&sample("refused"), 3.0).await;

    // A dry run counts, and refuses nobody.
    proxy.reload(&yaml(&origin, &policy.replace("fields", "dry_run: true, fields"))).await;
    assert_eq!(of_tenant(&proxy, "a").await.status, 200);
    proxy.measures(&sample("spared"), 1.0).await;
}

#[tokio::test]
async fn two_processes_share_a_limit_and_count_alone_while_the_store_is_away() {
    let origin = Origin::replying("hello");
    let mut redis = Redis::start().await;
    // The time is for a busy machine; that of a lost connection is known at once.
    let policy = format!(
        "{{ rate_limit: {{ by: [header.x-tenant], rates: [3/h, 100/m], store: {{ redis: \"{}\", timeout: 10s }} }} }}",
        redis.url()
    );
    let yaml = yaml(&origin, &policy);
    let (one, other) = (Crestline::start(&yaml).await, Crestline::start(&yaml).await);
    assert_eq!(of_tenant(&one, "a").await.status, 200);
    assert_eq!(of_tenant(&other, "a").await.status, 200);
    assert_eq!(of_tenant(&one, "a").await.status, 200);
    let over = of_tenant(&other, "a").await;
    assert_eq!(over.status, 429);
    assert!(over.get("ratelimit").unwrap().starts_with("\"3/h\";r=0;t="), "{over:?}");
    assert_eq!(of_tenant(&one, "a").await.status, 429);
    assert_eq!(of_tenant(&other, "b").await.status, 200);

    // Limits fail open: each has an allowance of its own now, and says why.
    redis.kill().await;
    assert_eq!(of_tenant(&one, "a").await.status, 200);
    one.logs("went away").await;
    one.logs("this process counts for itself meanwhile").await;
    let store = "{route=\"all\",policy=\"rate_limit\"}";
    one.measures(&format!("crestline_limit_store_up{store}"), 0.0).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(of_tenant(&one, "a").await.status);
    }
    assert_eq!(statuses, [200, 200, 429]);

    // It comes back empty; a trial finds out.
    redis.revive().await;
    let mut tries = 0;
    while one.metric(&format!("crestline_limit_store_up{store}")).await < 1.0 {
        of_tenant(&one, &format!("try-{tries}")).await;
        tries += 1;
        assert!(tries < 2_000, "it does not come back");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    one.logs("came back").await;
    assert_eq!(of_tenant(&one, "a").await.status, 200);
}

#[tokio::test]
async fn so_many_requests_are_under_way_at_the_same_time() {
    let (origin, gate) = Origin::gated("hello");
    let policy = "{ concurrency_limit: { by: [route], max: 2 } }";
    let proxy = Crestline::start(&yaml(&origin, policy)).await;
    let mut clients = [proxy.client().await, proxy.client().await];
    for client in &mut clients {
        client.send(get("/")).await;
    }
    eventually("both at the origin", || origin.count() == 2).await;
    let over = proxy.get("/").await;
    assert_eq!((over.status, over.get("retry-after")), (429, Some("1")));
    let line = proxy.access_line(|line| line["status"] == 429).await;
    assert_eq!(line["reason"], "too_many_at_once");

    // A reload forgets none that is under way.
    proxy.reload(&yaml(&origin, &policy.replace("max", "dry_run: false, max"))).await;
    assert_eq!(proxy.get("/").await.status, 429);

    // A place comes back with the end of an answer, and with a client that leaves.
    gate.add_permits(1);
    let [mut first, second] = clients;
    let mut second = second;
    let answered =
        tokio::select! { answer = first.answer() => answer, answer = second.answer() => answer };
    assert_eq!(answered.status, 200);
    drop((first, second));
    gate.add_permits(9);
    let mut tries = 0;
    while proxy.get("/").await.status != 200 {
        tries += 1;
        assert!(tries < 2_000, "no place comes back");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
