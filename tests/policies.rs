//! What routes do to requests and answers.

use crate::support::{Crestline, Ending, Origin, get, post, request};

/// The configuration of design, section 4.
#[tokio::test]
async fn header_fields_are_set_added_and_removed() {
    let origin = Origin::with(|exchange| {
        exchange.answer("200 OK", "Server: origin/1\r\nKey1: theirs\r\nX-List: 1\r\n", "hello")
    });
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes:
          - name: all
            policies:
              - request_headers: {{ set: {{ x-edge: crestline }}, add: {{ X-List: \"2\" }}, remove: [cookie] }}
              - response_headers: {{ set: {{ key1: value1 }}, add: {{ x-list: \"2\" }}, remove: [server] }}
            upstream: app
        "
    ))
    .await;

    let fields = "X-Edge: forged\r\nX-Edge: twice\r\nX-List: 1\r\nCookie: a=1\r\n";
    let answer = proxy.send(request("GET", "/", fields, "")).await;
    let got = origin.last().fields;
    assert_eq!(got.get("x-edge"), Some("crestline"));
    assert_eq!(got.all("x-list"), ["1", "2"]);
    assert_eq!(got.get("cookie"), None);
    assert_eq!(answer.get("key1"), Some("value1"));
    assert_eq!(answer.fields().all("x-list"), ["1", "2"]);
    assert_eq!(answer.get("server"), None);
}

/// Requests pass in the order written, answers in the reverse order.
#[tokio::test]
async fn policies_wrap_the_origin_like_an_onion() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes:
          - name: all
            policies:
              - request_headers: {{ set: {{ x-last: first }} }}
              - request_headers: {{ set: {{ x-last: second }} }}
              - response_headers: {{ set: {{ x-last: first }} }}
              - response_headers: {{ set: {{ x-last: second }} }}
            upstream: app
        "
    ))
    .await;

    assert_eq!(proxy.get("/").await.get("x-last"), Some("first"));
    assert_eq!(origin.last().fields.get("x-last"), Some("second"));
}

/// A body that tells its length is refused before a backend hears of it.
#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let origin = Origin::echoing();
    let proxy = limited(&origin).await;

    let exact = "x".repeat(1024);
    assert_eq!(proxy.send(post("/", &exact)).await.text(), exact);
    let answer = proxy.send(post("/", &"x".repeat(1025))).await;
    assert_eq!(answer.status, 413);
    assert_eq!(origin.count(), 1);
    let mut client = proxy.client().await;
    client.send(request("POST", "/", "Content-Length: 1000000\r\n", "")).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 413, "before a byte of it was sent");
    assert_eq!(answer.get("connection"), Some("close"), "and the rest of it is not awaited");
}

/// A body that does not tell its length is cut off where it passes the limit.
#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused() {
    let origin = Origin::echoing();
    let proxy = limited(&origin).await;
    let chunk = format!("200\r\n{}\r\n", "x".repeat(512));
    let head = request("POST", "/", "Transfer-Encoding: chunked\r\n", "");

    let exact = format!("{head}{chunk}{chunk}0\r\n\r\n");
    assert_eq!(proxy.send(exact).await.body.len(), 1024);
    let mut client = proxy.client().await;
    client.send(format!("{head}{chunk}{chunk}1\r\nx\r\n")).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 413);
    assert_eq!(client.rest().await, (Vec::new(), Ending::Closed));
    let line = proxy.access_line(|line| line["status"] == 413).await;
    assert_eq!(line["reason"], "over_limit");
}

/// The client can read the refusal although it is still sending.
#[tokio::test]
async fn the_refusal_of_a_large_upload_can_be_read() {
    let origin = Origin::echoing();
    let proxy = limited(&origin).await;

    let mut client = proxy.client().await;
    client.send(request("POST", "/", "Content-Length: 600000\r\n", "")).await;
    client.send_if_taken(vec![b'x'; 600_000]).await;
    assert_eq!(client.answer().await.status, 413);
    assert_eq!(proxy.send(get("/")).await.status, 200);
}

async fn limited(origin: &Origin) -> Crestline {
    Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes: [{{ name: all, policies: [{{ body_limit: 1KiB }}], upstream: app }}]
        "
    ))
    .await
}

/// Values are filled in for each request, on both sides.
#[tokio::test]
async fn fields_may_have_variables() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes:
          - name: shop
            policies:
              - request_headers: {{ set: {{ x-who: \"{{client}} {{host}} {{query.a}}\" }} }}
              - response_headers: {{ set: {{ x-by: \"{{route}} {{backend}} {{status}}\" }} }}
              - request_headers: {{ rename: {{ x-old: x-new }} }}
            upstream: app
        "
    ))
    .await;

    let answer =
        proxy.send(request("GET", "/?a=1%0d%0ax", "X-Old: 1\r\nX-New: forged\r\n", "")).await;
    let got = origin.last().fields;
    assert_eq!(got.get("x-who"), Some("127.0.0.1 a.test 1x"));
    assert_eq!(got.all("x-new"), ["1"]);
    assert_eq!(got.get("x-old"), None);
    assert_eq!(answer.get("x-by"), Some(format!("shop {origin} 200").as_str()));
}

/// Answers of our own pass the policies that their request had come to, and have the route's page.
#[tokio::test]
async fn answers_of_our_own_are_dressed_as_well() {
    let origin = Origin::refusing();
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"], health_check: off }} }}
        routes:
          - name: shop
            policies:
              - security_headers: {{}}
              - error_pages: {{ 5xx: {{ body: \"<p>{{status}} {{path}} {{id}}</p>\", content_type: text/html }} }}
              - method: [GET]
              - response_headers: {{ set: {{ x-later: never }} }}
            upstream: app
        "
    ))
    .await;

    let answer = proxy.get("/a").await;
    assert_eq!(answer.status, 502);
    let id = answer.get("x-request-id").unwrap().to_owned();
    assert_eq!(answer.text(), format!("<p>502 /a {id}</p>"));
    assert_eq!(answer.get("content-type"), Some("text/html"));
    assert_eq!(answer.get("x-frame-options"), Some("DENY"));
    assert_eq!(answer.get("x-later"), Some("never"), "the request had come to it");

    let answer = proxy.send(post("/a", "x")).await;
    assert_eq!((answer.status, answer.get("allow")), (405, Some("GET, HEAD")));
    assert_eq!(answer.get("x-frame-options"), Some("DENY"));
    assert_eq!(answer.get("x-later"), None, "it had not");
    let line = proxy.access_line(|line| line["status"] == 405).await;
    assert_eq!(line["reason"], "method_not_allowed");
}

/// The origin is asked for another path than the one that the route was found by.
#[tokio::test]
async fn a_path_is_rewritten_for_the_origin() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes:
          - name: api
            match: {{ path: /api/ }}
            policies:
              - rewrite: {{ prefix: {{ from: /api, to: /v2 }}, query: {{ remove: [utm] }} }}
              - rewrite: {{ regex: {{ find: '^/v2/u/([0-9]+)$', to: '/v2/users/$1' }} }}
            upstream: app
        "
    ))
    .await;

    for (sent, got) in [
        ("/api/x?utm=1&a=%2F", "/v2/x?a=%2F"),
        ("/api/u/7", "/v2/users/7"),
        ("/api/./u/../u/%37", "/v2/users/7"),
        ("/api", "/v2"),
    ] {
        assert_eq!(proxy.get(sent).await.status, 200, "{sent}");
        assert_eq!(origin.last().target, got, "{sent}");
    }
}

/// No spelling of a path or a host walks around a rule.
#[tokio::test]
async fn a_rule_by_address_cannot_be_walked_around() {
    let origin = Origin::replying("secret");
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes:
          - {{ name: admin, match: {{ path: /admin }}, policies: [ip: [allow 10.0.0.0/8, deny all]], upstream: app }}
          - {{ name: rest, upstream: app }}
        "
    ))
    .await;

    for target in
        ["/admin", "/admin/x", "/./admin", "/x/../admin", "/%61dmin", "/admin/%2e", "/adm%69n?x"]
    {
        let forged =
            "X-Forwarded-For: 10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\n";
        let answer = proxy.send(request("GET", target, forged, "")).await;
        assert_eq!(answer.status, 403, "{target}");
    }
    assert_eq!(origin.count(), 0);
    let line = proxy.access_line(|line| line["status"] == 403).await;
    assert_eq!(line["reason"], "ip_denied");
    assert_eq!(proxy.get("/other").await.text(), "secret");
}

/// Clients are sent elsewhere with nothing of a third party's in the place.
#[tokio::test]
async fn clients_are_sent_elsewhere() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes:
          - {{ name: tls, match: {{ path: /tls }}, policies: [redirect: https], upstream: app }}
          - {{ name: slash, match: {{ path: /dir }}, policies: [redirect: {{ slash: add, status: 301 }}], upstream: app }}
          - {{ name: host, match: {{ path: /host }}, policies: [canonical_host: www.test], upstream: app }}
          - {{ name: rest, policies: [redirect: {{ slash: remove }}], upstream: app }}
        "
    ))
    .await;

    for (target, status, location) in [
        ("/tls?a=1", 308, "https://a.test/tls?a=1"),
        ("/dir?a=1", 301, "/dir/?a=1"),
        ("/host/x", 308, "http://www.test/host/x"),
        ("//evil.test/", 308, "http://a.test//evil.test"),
    ] {
        let answer = proxy.get(target).await;
        assert_eq!((answer.status, answer.get("location")), (status, Some(location)), "{target}");
        assert_eq!(answer.text(), "");
    }
    assert_eq!(proxy.get("/dir/").await.text(), "hello");
    assert_eq!(origin.count(), 1);
}

/// A page of another site may read what it is allowed to, and change nothing.
#[tokio::test]
async fn pages_of_other_sites_are_kept_apart() {
    let origin = Origin::with(|exchange| {
        exchange.answer("200 OK", "Access-Control-Allow-Origin: *\r\nVary: Accept\r\n", "hello")
    });
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes:
          - name: api
            policies:
              - cors: {{ origins: [https://app.test], headers: [x-token], credentials: true }}
              - csrf: {{ origins: [https://app.test] }}
            upstream: app
        "
    ))
    .await;

    let asked = "Origin: https://app.test\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-token\r\n";
    let answer = proxy.send(request("OPTIONS", "/", asked, "")).await;
    assert_eq!(
        (answer.status, answer.get("access-control-allow-origin")),
        (204, Some("https://app.test"))
    );
    assert_eq!(answer.get("access-control-allow-headers"), Some("x-token"));
    assert_eq!(origin.count(), 0, "a preflight is answered here");

    let answer = proxy.send(request("GET", "/", "Origin: https://evil.test\r\n", "")).await;
    assert_eq!(answer.get("access-control-allow-origin"), None, "the origin's word does not count");
    assert_eq!(answer.fields().all("vary"), ["Accept", "Origin"]);
    let forged = "Origin: https://evil.test\r\n";
    assert_eq!(proxy.send(request("POST", "/", forged, "x")).await.status, 403);
    let own = "Origin: https://app.test\r\n";
    let answer = proxy.send(request("POST", "/", own, "x")).await;
    assert_eq!(
        (answer.status, answer.get("access-control-allow-credentials")),
        (200, Some("true"))
    );
}

/// A page for a time of maintenance is a reload away, and those who mend are let in.
#[tokio::test]
async fn a_site_is_closed_and_opened_by_a_reload() {
    let origin = Origin::replying("hello");
    let yaml = |policies: &str| {
        format!(
            "
            upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
            routes: [{{ name: shop, policies: [{policies}], upstream: app }}]
            "
        )
    };
    let proxy = Crestline::start(&yaml("")).await;
    assert_eq!(proxy.get("/").await.text(), "hello");

    proxy.reload(&yaml("maintenance: { retry_after: 2m, page: { body: soon } }")).await;
    let answer = proxy.get("/").await;
    assert_eq!((answer.status, answer.get("retry-after")), (503, Some("120")));
    assert_eq!(answer.text(), "soon");

    proxy.reload(&yaml("maintenance: { allow: [127.0.0.0/8] }")).await;
    assert_eq!(proxy.get("/").await.text(), "hello");
}
