//! HTTP/2 with prior knowledge, where a listener allows it; origins are asked over HTTP/1.1.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::{Request, Response};
use rustix::process::Signal;
use tokio::{
    net::TcpStream,
    sync::{Barrier, Notify},
    task::JoinSet,
    time::{self, Instant},
};

use crate::support::{
    Client, Crestline, Origin, curl, eventually,
    frames::{DATA, GOAWAY, PING, START, asking, frame_of},
    get, soon,
};

const H2C: &str = "listeners: [{ address: \"127.0.0.1:0\", h2c: true }]";

#[tokio::test]
async fn both_protocols_are_spoken_on_one_port() {
    let origin = Origin::replying("hello");
    let proxy = h2c(&origin).await;
    let url = proxy.url("/");

    for (version, expected) in [("--http2-prior-knowledge", "2"), ("--http1.1", "1.1")] {
        let output = curl(&[version, "-w", " %{http_version} %{http_code}", &url]).await;
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text, format!("hello {expected} 200"));
    }
    let lines = proxy.access_log(2).await;
    let mut protocols: Vec<_> = lines.iter().map(|line| line["protocol"].as_str()).collect();
    protocols.sort_unstable(); // each thread writes its lines in pieces of its own
    assert_eq!(protocols, [Some("HTTP/1.1"), Some("HTTP/2.0")]);
}

#[tokio::test]
async fn a_request_is_translated() {
    let origin = Origin::echoing();
    let proxy = h2c(&origin).await;
    let mut h2 = connect(&proxy).await;

    let request = Request::post("http://a.test/x/../y?z").header("x-kept", "1").body(()).unwrap();
    let answer = ask(&mut h2, request, "a body").await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.body().as_slice()), (200, &b"a body"[..]));
    assert!(answer.headers().contains_key("x-request-id"));
    let asked = origin.last();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/y?z"));
    assert_eq!(asked.fields.get("host"), Some("a.test"));
    assert_eq!(asked.fields.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(asked.fields.get("x-kept"), Some("1"));
}

/// HTTP/2 names the host in `:authority`.
#[tokio::test]
async fn the_origin_learns_which_host_was_asked_for() {
    let origin = Origin::replying("hello");
    let routes = "routes: [{ name: all, host: upstream, forwarded: true, upstream: app }]";
    let upstreams = format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}");
    let proxy = Crestline::start_in_parts(&[&upstreams, H2C, routes]).await;
    let mut h2 = connect(&proxy).await;

    ask(&mut h2, Request::get("http://a.test/").body(()).unwrap(), "").await.unwrap();
    let fields = origin.last().fields;
    assert_eq!(fields.get("host"), Some(&*origin.to_string()));
    assert_eq!(fields.get("x-forwarded-host"), Some("a.test"));
    assert_eq!(fields.get("forwarded"), Some("for=127.0.0.1;proto=http;host=\"a.test\""));
}

/// Many servers read only the first `Cookie` field.
#[tokio::test]
async fn cookie_crumbs_are_joined_for_the_origin() {
    let origin = Origin::replying("hello");
    let proxy = h2c(&origin).await;
    let mut h2 = connect(&proxy).await;

    let request = Request::get("http://a.test/");
    let request = request.header("cookie", "a=1").header("cookie", "b=2").header("cookie", "c=3");
    ask(&mut h2, request.body(()).unwrap(), "").await.unwrap();
    assert_eq!(origin.last().fields.get("cookie"), Some("a=1; b=2; c=3"));
}

/// The origin answers the first when it has got the last.
#[tokio::test]
async fn streams_run_side_by_side() {
    let all = Arc::new(Barrier::new(50));
    let origin = Origin::with(move |exchange| {
        let all = all.clone();
        async move {
            all.wait().await;
            let target = exchange.request.target.clone();
            exchange.reply(target).await
        }
    });
    let proxy = h2c(&origin).await;
    let h2 = connect(&proxy).await;

    let mut streams = JoinSet::new();
    for number in 0..50 {
        let mut h2 = h2.clone();
        streams.spawn(async move {
            let path = format!("/{number}");
            let request = Request::get(format!("http://a.test{path}")).body(()).unwrap();
            assert_eq!(ask(&mut h2, request, "").await.unwrap().body(), path.as_bytes());
        });
    }
    streams.join_all().await;
}

#[tokio::test]
async fn too_many_fields_get_431() {
    let origin = Origin::replying("hello");
    let proxy = h2c(&origin).await;
    let mut h2 = connect(&proxy).await;

    let with = |fields: usize| {
        let request = Request::get("http://a.test/");
        let fields = (0..fields).map(|number| format!("x-{number}"));
        let request = fields.fold(request, |request, name| request.header(name, "1"));
        request.body(()).unwrap()
    };
    assert_eq!(ask(&mut h2, with(129), "").await.unwrap().status(), 431);
    assert_eq!(ask(&mut h2, with(120), "").await.unwrap().status(), 200, "the connection lives");
    assert_eq!(origin.count(), 1);
}

/// Never a body that ends early and looks complete.
#[tokio::test]
async fn an_answer_that_breaks_resets_its_stream() {
    const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n";
    for start in [LENGTH, CHUNKED] {
        let origin = Origin::with(move |mut exchange| async move {
            if exchange.request.target == "/whole" {
                return exchange.reply("whole").await;
            }
            exchange.send(start).await;
            time::sleep(Duration::from_secs(1)).await;
            exchange.close()
        });
        let proxy = h2c(&origin).await;
        let mut h2 = connect(&proxy).await;
        let to = |path: &str| Request::get(format!("http://a.test{path}")).body(()).unwrap();

        let error = ask(&mut h2, to("/"), "").await.expect_err("a broken answer");
        assert!(error.is_reset(), "{start:?}: {error:?}");
        assert_eq!(ask(&mut h2, to("/whole"), "").await.unwrap().body(), b"whole");
    }
}

#[tokio::test]
async fn our_own_answers_are_told_over_http_2() {
    let origin = Origin::refusing();
    let proxy = h2c(&origin).await;
    let mut h2 = connect(&proxy).await;

    let request = Request::get("http://a.test/").header("accept", "application/json");
    let answer = ask(&mut h2, request.body(()).unwrap(), "").await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(body["status"], 503);
}

/// Over HTTP/2 the longer of an origin's two times holds for both (see the limits in the README).
#[tokio::test]
async fn a_stalled_origin_gets_504_as_over_http_1() {
    for timeouts in
        ["first_byte: 700ms, between_bytes: 800ms", "first_byte: 800ms, between_bytes: 700ms"]
    {
        let origin = Origin::stalling();
        let upstreams = format!(
            "upstreams: {{ app: {{ backends: [\"{origin}\"], timeouts: {{ {timeouts} }} }} }}"
        );
        let proxy = Crestline::start_in_parts(&[&upstreams, H2C]).await;
        let mut h2 = connect(&proxy).await;

        let request = Request::get("http://a.test/").body(()).unwrap();
        let answer = soon("an answer", ask(&mut h2, request, "")).await.unwrap();
        assert_eq!(answer.status(), 504, "{timeouts}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_timeout() {
    let origin = Origin::replying("hello");
    let upstreams = format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}");
    let listeners = H2C.replace("h2c: true", "h2c: true, timeouts: { idle: 2s }");
    let proxy = Crestline::start_in_parts(&[&upstreams, &listeners]).await;
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut h2, connection) = client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    ask(&mut h2, Request::get("http://a.test/").body(()).unwrap(), "").await.unwrap();

    let start = Instant::now();
    let _ = soon("the end of the connection", connection).await.unwrap();
    let waited = start.elapsed();
    assert!(Duration::from_millis(1_900) < waited, "{waited:?}");
}

#[tokio::test]
async fn http_2_is_refused_where_it_was_not_asked_for() {
    let origin = Origin::replying("hello");
    let proxy =
        Crestline::start(&format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}")).await;

    assert!(!curl(&["--http2-prior-knowledge", &proxy.url("/")]).await.status.success());
    let mut client = proxy.client().await;
    client.send_if_taken(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let (answer, _) = client.rest().await;
    let refused = [&b"HTTP/1.1 400 "[..], b"HTTP/1.1 505 "];
    assert!(answer.is_empty() || refused.iter().any(|start| answer.starts_with(start)));
    assert_eq!(origin.count(), 0);
}

/// The preface may come in pieces; a request that begins like it is no preface.
#[tokio::test]
async fn the_first_bytes_decide_in_whatever_pieces_they_come() {
    let origin = Origin::replying("hello");
    let proxy = h2c(&origin).await;

    let mut client = Client::connect(proxy.address()).await;
    client.send("P").await;
    time::sleep(Duration::from_millis(30)).await;
    client.send(&"PUT / HTTP/1.1\r\nHost: a.test\r\n\r\n"[1..]).await;
    assert_eq!(client.answer().await.text(), "hello");
    assert_eq!(client.exchange(get("/")).await.text(), "hello");
    let mut client = Client::connect(proxy.address()).await;
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        client.send(&[*byte]).await;
        time::sleep(Duration::from_millis(5)).await;
    }
    client.send(b"\0\0\0\x04\0\0\0\0\0").await;
    let frame = client.bytes(9).await;
    assert_eq!(frame[3], 4, "a SETTINGS frame: {frame:?}");
}

/// A client that has asked for something on stream 1 which its origin answers when told.
async fn waiting(go: &Arc<Notify>) -> (Origin, Crestline, Client) {
    let told = go.clone();
    let origin = Origin::with(move |exchange| {
        let go = told.clone();
        async move {
            if exchange.request.target == "/slow" {
                go.notified().await;
            }
            exchange.reply("hello").await
        }
    });
    let upstreams = format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}");
    let grace = "grace_period_seconds: 60";
    let listener = "listeners: [{ address: \"127.0.0.1:0\", h2c: true }]";
    let proxy = Crestline::start_in_parts(&[&upstreams, grace, listener]).await;
    let mut client = proxy.client().await;
    client.send([START, &asking(1, "/slow")].concat()).await;
    eventually("the request at the origin", || origin.count() == 1).await;
    (origin, proxy, client)
}

/// RFC 9113 §6.8: first no stream is refused, so that those on their way are not lost; the second
/// one, a round trip later, names the last stream.
#[tokio::test]
async fn a_stop_is_told_with_two_goaways_and_all_streams_are_answered() {
    let go = Arc::new(Notify::new());
    let (_origin, mut proxy, mut client) = waiting(&go).await;
    proxy.signal(Signal::TERM);
    let (_, stream, payload) = frame_of(&mut client, GOAWAY).await;
    assert_eq!((stream, &payload[..8]), (0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0][..]));
    let (flags, _, ping) = frame_of(&mut client, PING).await;
    assert_eq!((flags, ping.len()), (0, 8));

    client.send(asking(3, "/fast")).await; // it was on its way
    let (flags, stream, payload) = frame_of(&mut client, DATA).await;
    assert_eq!((stream, &payload[..]), (3, &b"hello"[..]));
    if flags & 1 == 0 {
        let (flags, stream, payload) = frame_of(&mut client, DATA).await;
        assert_eq!((flags & 1, stream, payload.len()), (1, 3, 0));
    }
    client.send([&[0, 0, 8, PING, 1, 0, 0, 0, 0], &ping[..]].concat()).await;
    let (_, stream, payload) = frame_of(&mut client, GOAWAY).await;
    assert_eq!((stream, &payload[..8]), (0, &[0, 0, 0, 3, 0, 0, 0, 0][..]));

    go.notify_one();
    let (_, stream, payload) = frame_of(&mut client, DATA).await;
    assert_eq!((stream, &payload[..]), (1, &b"hello"[..]));
    client.rest().await;
    eventually("the end of the process", || !proxy.is_running()).await;
    proxy.logs("stop: nothing was left").await;
    assert_eq!(proxy.access_lines().len(), 2);
}

/// It may be gone, and would hold the process up to the end of the grace period.
#[tokio::test]
async fn a_client_that_answers_no_ping_is_waited_for_while_a_stream_is_in_flight() {
    let go = Arc::new(Notify::new());
    let (_origin, mut proxy, mut client) = waiting(&go).await;
    proxy.signal(Signal::TERM);
    frame_of(&mut client, PING).await;
    time::sleep(Duration::from_secs(3)).await;
    assert!(proxy.is_running());
    go.notify_one();
    let (_, stream, payload) = frame_of(&mut client, DATA).await;
    assert_eq!((stream, &payload[..]), (1, &b"hello"[..]));
    client.rest().await;
    eventually("the end of the process", || !proxy.is_running()).await;
}

async fn h2c(origin: &Origin) -> Crestline {
    let upstreams = format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}");
    Crestline::start_in_parts(&[&upstreams, H2C]).await
}

async fn connect(proxy: &Crestline) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    let (h2, connection) = client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    h2
}

/// Sends a request and reads its answer to the end.
async fn ask(
    h2: &mut SendRequest<Bytes>,
    request: Request<()>,
    body: &'static str,
) -> Result<Response<Vec<u8>>, h2::Error> {
    let exchange = async {
        let mut ready = h2.clone().ready().await?;
        let (answer, mut sender) = ready.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            sender.send_data(Bytes::from_static(body.as_bytes()), true)?;
        }
        let (head, mut stream) = answer.await?.into_parts();
        let mut body = Vec::new();
        while let Some(piece) = stream.data().await {
            let piece = piece?;
            stream.flow_control().release_capacity(piece.len())?;
            body.extend_from_slice(&piece);
        }
        Ok(Response::from_parts(head, body))
    };
    soon("an answer", exchange).await
}
