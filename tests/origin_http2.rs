//! HTTP/2 toward origins.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use h2::Reason;
use http::Version;
use tokio::{
    sync::{Barrier, Notify},
    task::JoinSet,
};

use crate::support::{
    Asks, Crestline, Front, H2Origin, Origin, Pair, eventually, get,
    http2::{reply, whole},
    post, request,
};

/// An upstream of such backends that speak HTTP/2.
fn app(backends: &[&dyn ToString], more: &str) -> String {
    let backends: Vec<_> = backends.iter().map(|one| format!("\"{}\"", one.to_string())).collect();
    let backends = backends.join(", ");
    format!(
        "upstreams: {{ app: {{ backends: [{backends}], health_check: off, http: 2, {more} }} }}\n"
    )
}

async fn via(proxy: &Crestline, lines: usize) -> String {
    let line = proxy.access_log(lines).await.last().cloned().unwrap();
    line["via"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_origin_is_asked_over_http2_in_plaintext() {
    let origin = H2Origin::with(async |request, mut respond| {
        let body = whole(request.into_body()).await;
        let head = http::Response::builder().header("content-length", body.len()).body(()).unwrap();
        let mut stream = respond.send_response(head, false).unwrap();
        stream.send_data(body.into(), true).unwrap();
    })
    .await;
    let proxy = Crestline::start(&app(&[&origin], "")).await;

    let mut client = proxy.client().await;
    for text in ["one", "two", "three", "four", "five", "six", "seven", "eight"] {
        let answer = client.exchange(request("POST", "/x?y", "X-Kept: 1\r\n", text)).await;
        assert_eq!((answer.status, answer.text()), (200, text));
    }
    assert!(origin.connections() < 8, "connections are kept");
    let asked = &origin.requests()[0];
    assert_eq!(asked.uri(), "http://a.test/x?y");
    assert_eq!((asked.method().as_str(), asked.version()), ("POST", Version::HTTP_11)); // of a copy
    let field = |name: &str| asked.headers().get(name).map(|value| value.to_str().unwrap());
    assert_eq!((field("x-kept"), field("host")), (Some("1"), None));
    assert_eq!(field("x-forwarded-for"), Some("127.0.0.1"));
}

/// All are at the origin before the first is answered, each after the one before: those that come
/// while a connection is being made would make others.
#[tokio::test]
async fn requests_share_connections() {
    const REQUESTS: usize = 30;
    let all = Arc::new(Barrier::new(REQUESTS));
    let origin = H2Origin::with(move |_, respond| {
        let all = all.clone();
        async move {
            all.wait().await;
            reply(respond, "hello");
        }
    })
    .await;
    let proxy = Arc::new(Crestline::start(&app(&[&origin], "")).await);
    let mut requests = JoinSet::new();
    for number in 1..=REQUESTS {
        let proxy = proxy.clone();
        requests.spawn(async move { assert_eq!(proxy.get("/").await.text(), "hello") });
        eventually("the request at the origin", || origin.requests().len() == number).await;
    }
    requests.join_all().await;
    assert!(origin.connections() < REQUESTS, "{}", origin.connections());
}

#[tokio::test]
async fn the_handshake_decides_between_the_protocols() {
    let pair = Pair::of(&["a.test"]);
    let (one, two) = (Origin::replying("one"), H2Origin::replying("two").await);
    let fronts = [
        Front::before(&one, Asks::tls(&pair, &["http/1.1"])).await,
        Front::before(&two, Asks::tls(&pair, &["h2", "http/1.1"])).await,
        Front::before(&one, Asks::tls(&pair, &[])).await,
    ];
    for (front, text) in fronts.iter().zip(["one", "two", "one"]) {
        let yaml = format!(
            "upstreams: {{ app: {{ backends: [\"{front}\"], health_check: off, http: auto, \
             tls: {{ sni: a.test, ca: ca.pem }} }} }}\n"
        );
        let proxy = Crestline::start_among(&[("ca.pem", &pair.cert)], &[], &yaml).await;
        let mut client = proxy.client().await;
        for _ in 0..8 {
            assert_eq!(client.exchange(get("/")).await.text(), text);
        }
        assert!(front.accepted().len() < 8, "connections are kept");
    }
    assert_eq!(fronts[1].accepted()[0].alpn.as_deref(), Some("h2"));
}

#[tokio::test]
async fn an_origin_that_speaks_no_http2_gets_no_request_where_it_must() {
    let (pair, origin) = (Pair::of(&["a.test"]), Origin::replying("hello"));
    for alpn in [&["http/1.1"][..], &[]] {
        let front = Front::before(&origin, Asks::tls(&pair, alpn)).await;
        let yaml = app(&[&front], "tls: { sni: a.test, ca: ca.pem }, retries: 0");
        let proxy = Crestline::start_among(&[("ca.pem", &pair.cert)], &[], &yaml).await;
        assert_eq!(proxy.send(post("/", "a body")).await.status, 502);
        assert_eq!(via(&proxy, 1).await, format!("{front}:no_http2"));
    }
    assert_eq!(origin.count(), 0);
}

/// Nothing was done with the request, so that another origin may do it, whatever its method.
#[tokio::test]
async fn a_refused_stream_is_tried_elsewhere() {
    let refusing = H2Origin::with(async |_, mut respond| {
        respond.send_reset(Reason::REFUSED_STREAM);
    })
    .await;
    let good = H2Origin::replying("hello").await;
    let proxy = Crestline::start(&app(&[&refusing, &good], "ejection: off")).await;

    for _ in 0..6 {
        assert_eq!(proxy.send(post("/", "a body")).await.text(), "hello");
    }
    let lines = proxy.access_log(6).await;
    let expected = format!("{refusing}:refused_stream,{good}:200");
    let retried = lines.iter().filter(|line| line["via"] == expected.as_str()).count();
    assert!(0 < retried, "{lines:?}");
    assert_eq!(refusing.requests().len(), retried);
}

#[tokio::test]
async fn an_origin_that_refuses_everything_is_ejected() {
    let refusing = H2Origin::with(async |_, mut respond| {
        respond.send_reset(Reason::REFUSED_STREAM);
    })
    .await;
    let good = H2Origin::replying("hello").await;
    let ejection = "ejection: { consecutive_failures: 2 }";
    let proxy = Crestline::start(&app(&[&refusing, &good], ejection)).await;

    for _ in 0..6 {
        assert_eq!(proxy.send(post("/", "a body")).await.text(), "hello");
    }
    assert_eq!(proxy.availability("app").await[&refusing.to_string()], "ejected");
}

/// The second request of each connection is above the last stream that the origin looks at.
#[tokio::test]
async fn a_request_that_goaway_cuts_off_is_made_again() {
    let (looked_at, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, ending) = (looked_at.clone(), ended.clone());
    let origin = H2Origin::bending(
        move |request, respond| {
            let counted = counted.clone();
            async move {
                whole(request.into_body()).await;
                counted.fetch_add(1, SeqCst);
                reply(respond, "hello");
            }
        },
        move |connection, _| {
            ending.fetch_add(1, SeqCst);
            connection.graceful_shutdown();
        },
    )
    .await;
    let proxy = Crestline::start(&app(&[&origin], "")).await;

    for _ in 0..20 {
        assert_eq!(proxy.send(post("/", "a body")).await.text(), "hello");
    }
    assert_eq!(looked_at.load(SeqCst), 20, "each is done once");
    assert!(origin.connections() <= ended.load(SeqCst), "each was told its end once");
}

/// What was sent may have been done.
#[tokio::test]
async fn a_stream_that_breaks_is_repeated_only_if_it_may_be() {
    let broken = Arc::new(AtomicUsize::new(0));
    let count = broken.clone();
    let origin = H2Origin::with(move |_, mut respond| {
        count.fetch_add(1, SeqCst);
        async move { respond.send_reset(Reason::INTERNAL_ERROR) }
    })
    .await;
    let good = H2Origin::replying("hello").await;
    let proxy = Crestline::start(&app(&[&origin, &good], "ejection: off")).await;

    let mut failed = 0;
    for _ in 0..6 {
        let status = proxy.send(post("/", "a body")).await.status;
        assert!([200, 502].contains(&status), "{status}");
        failed += usize::from(status == 502);
    }
    assert!(0 < failed);
    assert_eq!(broken.load(SeqCst), failed, "each was sent once");
    for _ in 0..6 {
        assert_eq!(proxy.get("/").await.text(), "hello");
    }
    assert!(failed < broken.load(SeqCst), "and these went on to the other");
}

#[tokio::test]
async fn a_silent_origin_is_given_up_after_its_time() {
    let origin = H2Origin::with(|_, respond| async move {
        let _held = respond;
        std::future::pending::<()>().await;
    })
    .await;
    let timeouts = "timeouts: { first_byte: 200ms, between_bytes: 200ms }, retries: 0";
    let proxy = Crestline::start(&app(&[&origin], timeouts)).await;

    for request in [get("/"), post("/", "a body")] {
        assert_eq!(proxy.send(request).await.status, 504);
    }
}

/// The origin's side of the connection is alive, and says nothing more.
#[tokio::test]
async fn a_connection_that_answers_no_ping_is_given_up() {
    let (origin, stop) = (H2Origin::replying("hello").await, Arc::new(Notify::new()));
    let (front, frozen) = freezing(&origin, stop.clone()).await;
    let keys = "timeouts: { ping: 100ms }, retries: 0, ejection: off";
    let proxy = Crestline::start(&app(&[&front], keys)).await;
    assert_eq!(proxy.get("/").await.text(), "hello");

    stop.notify_one();
    eventually("the connection to be frozen", || frozen.load(SeqCst) == 1).await;
    proxy.logs("ping timeout").await;
    assert_eq!(proxy.get("/").await.text(), "hello", "by a new one");
}

/// A relay whose first connection carries nothing any longer after a word.
async fn freezing(
    origin: &H2Origin,
    stop: Arc<Notify>,
) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (origin, frozen) = (origin.to_string(), Arc::new(AtomicUsize::new(0)));
    let count = frozen.clone();
    tokio::spawn(async move {
        loop {
            let (mut down, _) = listener.accept().await.unwrap();
            let (origin, stop, count) = (origin.clone(), stop.clone(), count.clone());
            tokio::spawn(async move {
                let mut up = tokio::net::TcpStream::connect(origin).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut down, &mut up) => return,
                    () = stop.notified() => {}
                }
                count.fetch_add(1, SeqCst);
                std::future::pending::<()>().await;
            });
        }
    });
    (address, frozen)
}

#[tokio::test]
async fn checks_speak_http2_where_requests_do() {
    let (origin, pair) = (H2Origin::replying("hello").await, Pair::of(&["a.test"]));
    let front = Front::before(&origin, Asks::tls(&pair, &["h2"])).await;
    let check = "health_check: { http: { path: /healthz }, every: 100ms }";
    let cases = [
        (origin.to_string(), "", format!("http://{origin}/healthz")),
        (
            front.to_string(),
            "tls: { sni: a.test, ca: ca.pem },",
            "https://a.test/healthz".to_owned(),
        ),
    ];
    for (backend, tls, asked) in cases {
        let yaml = format!(
            "upstreams: {{ app: {{ backends: [\"{backend}\"], {tls} http: 2, {check} }} }}\n"
        );
        let proxy = Crestline::start_among(&[("ca.pem", &pair.cert)], &[], &yaml).await;
        assert_eq!(proxy.get("/").await.text(), "hello");
        let requests = origin.requests();
        assert!(requests.iter().any(|request| *request.uri() == *asked), "{requests:?}");
        assert!(requests.iter().all(|request| !request.headers().contains_key("host")));
    }
}

/// Pingora would answer in chunks, which such a client does not know.
#[tokio::test]
async fn an_old_client_gets_an_answer_only_if_its_length_is_known() {
    let origin = H2Origin::with(async |request, mut respond| {
        let has_length = request.uri().path() == "/length";
        let head = http::Response::builder();
        let head = if has_length { head.header("content-length", 5) } else { head };
        let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
        let _ = body.send_data("hello".into(), true);
    })
    .await;
    let proxy = Crestline::start(&app(&[&origin], "")).await;
    let old = |path: &str| format!("GET {path} HTTP/1.0\r\nHost: a.test\r\n\r\n");
    assert_eq!(proxy.send(old("/length")).await.text(), "hello");
    assert_eq!(proxy.send(old("/none")).await.status, 505);
}

#[tokio::test]
async fn an_answer_that_breaks_never_looks_complete() {
    let origin = H2Origin::with(async |_, mut respond| {
        let mut body = respond.send_response(http::Response::new(()), false).unwrap();
        body.send_data("half".into(), false).unwrap();
        body.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let proxy = Crestline::start(&app(&[&origin], "retries: 0")).await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    let answer = client.try_answer().await.expect("at least a head");
    assert!(answer.status == 502 || answer.broken.is_some(), "{answer:?}");
}
