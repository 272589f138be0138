//! WebSocket over HTTP/2 (RFC 8441): a stream beside others, and HTTP/1.1 toward the origin.

use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream, ext::Protocol};
use http::{Method, Request, Response};
use rustix::process::Signal;

use crate::{
    support::{
        Asks, Crestline, Front, H2Client, Origin, Pair, connect_http2, eventually,
        http2::{H2Stream, piece},
        soon,
    },
    tunnels::{echo, masked, plain},
};

/// A close frame, 1001.
const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];

fn connect(protocol: &'static str) -> Request<()> {
    let request = Request::builder().method(Method::CONNECT).uri("http://a.test/chat?a=b");
    let mut request = request.header("sec-websocket-version", "13").body(()).unwrap();
    request.extensions_mut().insert(Protocol::from_static(protocol));
    request
}

fn ask() -> Request<()> {
    Request::get("http://a.test/").body(()).unwrap()
}

/// Both ends of a WebSocket, as far as its client sees them.
struct Open {
    head: Response<()>,
    up: SendStream<Bytes>,
    down: RecvStream,
}

impl Open {
    async fn on(client: &H2Client) -> Self {
        let H2Stream { up, answer } = client.begin(connect("websocket")).await;
        let (head, down) = soon("an answer", answer).await.unwrap().into_parts();
        Self { head: Response::from_parts(head, ()), up, down }
    }

    fn send(&mut self, text: &str) {
        self.up.send_data(masked(text).into(), false).unwrap();
    }

    async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut read = Vec::new();
        while read.len() < count {
            read.extend_from_slice(&soon("bytes", piece(&mut self.down)).await.unwrap().unwrap());
        }
        read
    }

    /// What comes to the end, and whether that is a proper one.
    async fn rest(&mut self) -> (Vec<u8>, bool) {
        let mut read = Vec::new();
        loop {
            match soon("the end", piece(&mut self.down)).await {
                Some(Ok(piece)) => read.extend_from_slice(&piece),
                Some(Err(_)) => return (read, false),
                None => return (read, true),
            }
        }
    }
}

/// A client that has heard that it may ask for a WebSocket: with the first answer.
async fn client_of(proxy: &Crestline) -> H2Client {
    let client = H2Client::connect(proxy).await;
    client.ask(ask(), "").await;
    client
}

async fn to(origin: &Origin, more: &str) -> Crestline {
    Crestline::start(&format!(
        "
        grace_period_seconds: 1
        graceful_shutdown_timeout_seconds: 3
        listeners: [{{ address: \"127.0.0.1:0\", h2c: true }}]
        upstreams: {{ app: {{ backends: [\"{origin}\"], {more} }} }}
        "
    ))
    .await
}

/// Answers requests, and echoes over a WebSocket.
fn chatting() -> Origin {
    Origin::with(async |mut exchange| {
        if exchange.request.fields.get("upgrade").is_some() {
            return echo(exchange).await;
        }
        exchange.body().await;
        exchange.reply("hello").await
    })
}

#[tokio::test]
async fn a_websocket_echoes_its_frames_beside_other_requests() {
    let origin = chatting();
    let proxy = to(&origin, "").await;
    let client = client_of(&proxy).await;
    let mut socket = Open::on(&client).await;
    assert_eq!(socket.head.status(), 200);
    for name in ["upgrade", "connection", "sec-websocket-accept"] {
        assert!(!socket.head.headers().contains_key(name), "{name}");
    }
    for text in ["hello", "", "GET / HTTP/1.1\r\n\r\n"] {
        socket.send(text);
        assert_eq!(socket.bytes(text.len() + 2).await, plain(text));
        assert_eq!(client.ask(ask(), "").await.body, b"hello");
    }
    let asked = origin.requests().into_iter().find(|asked| asked.target == "/chat?a=b").unwrap();
    assert_eq!((asked.method.as_str(), asked.fields.get("host")), ("GET", Some("a.test")));
    assert_eq!(asked.fields.get("sec-websocket-version"), Some("13"));
    assert_eq!(asked.fields.get("sec-websocket-key").map(str::len), Some(24));
    assert!(asked.fields.get("upgrade").unwrap().eq_ignore_ascii_case("websocket"));
    assert!(asked.fields.get("connection").unwrap().eq_ignore_ascii_case("upgrade"));

    assert_eq!(proxy.status().await["in_flight"]["tunnels"], 1);
    socket.up.send_data(Bytes::new(), true).unwrap();
    assert_eq!(socket.rest().await, (Vec::new(), true), "the origin closes in turn");
    let line = proxy.access_line(|line| line["path"] == "/chat?a=b").await;
    assert_eq!((&line["status"], &line["protocol"]), (&200.into(), &"HTTP/2.0".into()));
    assert_eq!(client.ask(ask(), "").await.body, b"hello", "the connection lives on");
}

/// However soon the origin agrees: the end of the request is not that of the WebSocket.
#[tokio::test]
async fn of_many_websockets_in_a_row_all_live() {
    let origin = chatting();
    let proxy = to(&origin, "").await;
    let client = client_of(&proxy).await;
    for _ in 0..200 {
        let mut socket = Open::on(&client).await;
        socket.send("hello");
        assert_eq!(socket.bytes(7).await, plain("hello"));
        socket.up.send_data(Bytes::new(), true).unwrap();
        assert_eq!(socket.rest().await, (Vec::new(), true));
    }
}

#[tokio::test]
async fn a_websocket_goes_over_tls_as_well() {
    let (origin, pair) = (chatting(), Pair::of(&["a.test"]));
    let front = Front::before(&origin, Asks::tls(&pair, &["http/1.1"])).await;
    let yaml = format!(
        "listeners: [{{ address: \"127.0.0.1:0\", \
           tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }} }}]\n\
         upstreams: {{ app: {{ backends: [\"{front}\"], tls: {{ sni: a.test, ca: a.pem }} }} }}\n"
    );
    let files = [("a.pem", pair.cert.as_str()), ("a.key", &pair.key)];
    let proxy = Crestline::start_among(&files, &[], &yaml).await;
    let client = H2Client::over(connect_http2(proxy.address(), "a.test", &pair.cert).await).await;
    client.ask(Request::get("https://a.test/").body(()).unwrap(), "").await;
    let mut socket = Open::on(&client).await;
    socket.send("hello");
    assert_eq!(socket.bytes(7).await, plain("hello"));
}

#[tokio::test]
async fn an_origin_that_refuses_answers_whole_on_the_stream() {
    let origin = Origin::sending(
        "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnone\r\n0\r\n\r\n",
    );
    let proxy = to(&origin, "").await;
    let client = client_of(&proxy).await;
    let mut socket = Open::on(&client).await;
    assert_eq!(socket.head.status(), 403);
    assert_eq!(socket.bytes(4).await, b"none");
    assert_eq!(client.ask(ask(), "").await.body, b"none");
}

#[tokio::test]
async fn a_silent_websocket_is_closed_after_its_timeout() {
    let origin = chatting();
    let proxy = to(&origin, "timeouts: { tunnel: 1s }").await;
    let client = client_of(&proxy).await;
    let mut socket = Open::on(&client).await;
    socket.rest().await;
    assert_eq!(client.ask(ask(), "").await.body, b"hello");
}

/// The client has nothing to say, and the listener's time for bodies is shorter than that.
#[tokio::test]
async fn a_websocket_that_is_used_one_way_outlives_its_timeout() {
    const TICKS: usize = 12;
    let origin = Origin::with(async |mut exchange| {
        if exchange.request.fields.get("upgrade").is_none() {
            return exchange.reply("hello").await;
        }
        exchange.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        for _ in 0..TICKS {
            tokio::time::sleep(Duration::from_millis(400)).await;
            exchange.send(plain("tick")).await;
        }
        exchange.close()
    });
    let proxy = to(&origin, "timeouts: { tunnel: 3s }").await;
    let client = client_of(&proxy).await;
    let mut socket = Open::on(&client).await;
    assert_eq!(socket.rest().await, (plain("tick").repeat(TICKS), true));
}

#[tokio::test]
async fn a_websocket_lives_to_the_end_of_the_grace_period_and_is_closed_with_1001() {
    let origin = chatting();
    let mut proxy = to(&origin, "").await;
    let client = client_of(&proxy).await;
    let mut socket = Open::on(&client).await;
    socket.send("hello");
    assert_eq!(socket.bytes(7).await, plain("hello"));
    proxy.signal(Signal::TERM);
    assert_eq!(socket.rest().await, (GOING_AWAY.to_vec(), true));
    drop((socket, client));
    eventually("the end of the process", || !proxy.is_running()).await;
}

/// Others are no WebSocket, and a tunnel to anywhere is nobody's business.
#[tokio::test]
async fn other_tunnels_are_refused_and_the_connection_lives_on() {
    let origin = chatting();
    let proxy = to(&origin, "").await;
    let client = client_of(&proxy).await;
    let anywhere = Request::builder().method(Method::CONNECT).uri("b.test:443").body(()).unwrap();
    for request in [connect("connect-udp"), anywhere] {
        let H2Stream { answer, .. } = client.begin(request).await;
        assert_eq!(soon("an answer", answer).await.unwrap().status(), 405);
    }
    assert_eq!(client.ask(ask(), "").await.body, b"hello");
    let asked = origin.requests().into_iter().map(|asked| asked.method);
    assert!(asked.clone().all(|method| method == "GET"), "{:?}", asked.collect::<Vec<_>>());
}
