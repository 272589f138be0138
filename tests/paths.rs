//! The canonical path is what is matched and what is forwarded, so that no rule is walked around.

use crate::support::{Crestline, Origin, get};

const ROUTES: &str = "
    routes:
      - { name: admin, match: { path: /admin }, upstream: admin }
      - { name: exact, match: { path: = /exact }, upstream: admin }
      - { name: raw, match: { path: /raw }, path: as_sent, upstream: app }
      - { name: host, match: { hosts: [b.test, \"*.b.test\"] }, upstream: admin }
      - { name: all, upstream: app }
    ";

#[tokio::test]
async fn the_canonical_path_is_forwarded() {
    let (app, _admin, proxy) = start().await;

    let cases = [
        ("/a/../b", "/b"),
        ("/a/%2e%2e/b", "/b"),
        ("/./a/.", "/a/"),
        ("/%61%7e?x=%61&y=/../", "/a~?x=%61&y=/../"),
        ("//a//b", "//a//b"),
        ("/a%2fb%5c", "/a%2Fb%5C"),
        ("/a;x/../b", "/b"),
        ("/%E2%82%AC", "/%E2%82%AC"),
        ("http://a.test/x/../y", "/y"),
    ];
    for (sent, expected) in cases {
        assert_eq!(proxy.get(sent).await.status, 200, "{sent}");
        assert_eq!(app.last().target, expected, "{sent}");
    }
}

#[tokio::test]
async fn the_canonical_path_is_matched() {
    let (app, admin, proxy) = start().await;

    for path in ["/admin", "/admin/x", "/x/../admin", "/%61dmin", "/x/%2e%2e/admin/", "/exact"] {
        assert_eq!(proxy.get(path).await.text(), "admin", "{path}");
    }
    for path in ["/administrator", "/x/admin", "/exact/more", "/admin/../x", "/%2fadmin"] {
        assert_eq!(proxy.get(path).await.text(), "app", "{path}");
    }
    assert_eq!((app.count(), admin.count()), (5, 6));
}

#[tokio::test]
async fn a_route_can_forward_the_path_as_it_was_sent() {
    let (app, _admin, proxy) = start().await;

    for path in ["/raw/%61/../b", "/x/../raw/%7e?q=%61", "/raw//./"] {
        assert_eq!(proxy.get(path).await.text(), "app", "{path}");
        assert_eq!(app.last().target, path);
    }
}

#[tokio::test]
async fn a_path_that_could_be_misread_is_refused() {
    let (app, admin, proxy) = start().await;

    for path in ["/../x", "/a/../../x", "/%2e%2e/x", "/a\\b", "/%00", "/%zz", "/%4", "/a#b"] {
        assert_eq!(proxy.get(path).await.status, 400, "{path}");
    }
    assert_eq!((app.count(), admin.count()), (0, 0));
}

#[tokio::test]
async fn hosts_are_matched_exactly_and_by_wildcard() {
    let (_app, _admin, proxy) = start().await;

    for (host, expected) in [
        ("b.test", "admin"),
        ("B.TEST:8080", "admin"),
        ("x.b.test", "admin"),
        ("x.y.b.test", "admin"),
        ("xb.test", "app"),
        ("c.test", "app"),
    ] {
        let answer = proxy.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(answer.text(), expected, "{host}");
    }
}

#[tokio::test]
async fn without_a_matching_route_the_answer_is_404() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes: [{{ name: only, match: {{ path: /here/ }}, upstream: app }}]
        "
    ))
    .await;

    let mut client = proxy.client().await;
    assert_eq!(client.exchange(get("/there")).await.status, 404);
    assert_eq!(client.exchange(get("/here")).await.status, 200, "on the same connection");
    assert_eq!(proxy.access_log(1).await[0]["reason"], "no_route");
}

async fn start() -> (Origin, Origin, Crestline) {
    let (app, admin) = (Origin::replying("app"), Origin::replying("admin"));
    let upstreams = format!(
        "upstreams: {{ app: {{ backends: [\"{app}\"] }}, admin: {{ backends: [\"{admin}\"] }} }}"
    );
    let proxy = Crestline::start_in_parts(&[&upstreams, ROUTES]).await;
    (app, admin, proxy)
}
