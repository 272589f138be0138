//! gRPC: its four kinds of calls, trailers, deadlines, and cancellation, over HTTP/2 on both sides.
//!
//! The messages are those of its protocol over HTTP/2: a byte, a length, and so many bytes.

use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use tokio::{process::Command, sync::Notify};

use crate::support::{
    Asks, Crestline, Front, H2Answer, H2Client, H2Origin, Pair, connect_http2,
    http2::{H2Stream, piece},
    soon,
};

fn message(text: &str) -> Bytes {
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(u32::try_from(text.len()).unwrap());
    message.put_slice(text.as_bytes());
    message.freeze()
}

/// Messages as they come in a body, however it is cut.
struct Messages {
    body: RecvStream,
    read: BytesMut,
}

impl Messages {
    fn of(body: RecvStream) -> Self {
        Self { body, read: BytesMut::new() }
    }

    /// The next one; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if 5 <= self.read.len() {
                let length = u32::from_be_bytes(self.read[1..5].try_into().unwrap()) as usize;
                if 5 + length <= self.read.len() {
                    let message = self.read.split_to(5 + length);
                    return Some(String::from_utf8(message[5..].to_vec()).unwrap());
                }
            }
            self.read.extend_from_slice(&piece(&mut self.body).await?.ok()?);
        }
    }
}

fn trailers(status: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers.insert("grpc-message", "in words".parse().unwrap());
    trailers
}

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

/// Why calls were cancelled.
type Cancelled = Arc<(Mutex<Vec<Reason>>, Notify)>;

async fn serve(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    cancelled: Cancelled,
) {
    let (asked, body) = request.into_parts();
    let mut messages = Messages::of(body);
    match asked.uri.path() {
        "/echo.Echo/Fail" => {
            while messages.next().await.is_some() {}
            let mut only = head();
            only.headers_mut().extend(trailers("5"));
            respond.send_response(only, true).unwrap();
        }
        "/echo.Echo/Hang" => {
            let mut stream = respond.send_response(head(), false).unwrap();
            let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
            cancelled.0.lock().unwrap().push(reason);
            cancelled.1.notify_one();
        }
        "/echo.Echo/Join" => {
            let mut all = Vec::new();
            while let Some(text) = messages.next().await {
                all.push(text);
            }
            let mut stream = respond.send_response(head(), false).unwrap();
            stream.send_data(message(&all.join(" ")), false).unwrap();
            stream.send_trailers(trailers("0")).unwrap();
        }
        "/echo.Echo/Split" => {
            let text = messages.next().await.unwrap();
            let mut stream = respond.send_response(head(), false).unwrap();
            for word in text.split(' ') {
                stream.send_data(message(word), false).unwrap();
            }
            stream.send_trailers(trailers("13")).unwrap();
        }
        "/echo.Echo/Facts" => {
            while messages.next().await.is_some() {}
            let fact = |name: &str| asked.headers.get(name).map_or("-", |v| v.to_str().unwrap());
            let facts = [fact("te"), fact("grpc-timeout"), fact("content-type")].join(" ");
            let mut stream = respond.send_response(head(), false).unwrap();
            stream.send_data(message(&facts), false).unwrap();
            stream.send_trailers(trailers("0")).unwrap();
        }
        _ => {
            let mut stream = respond.send_response(head(), false).unwrap();
            while let Some(text) = messages.next().await {
                stream.send_data(message(&text), false).unwrap();
            }
            stream.send_trailers(trailers("0")).unwrap();
        }
    }
}

async fn origin(cancelled: &Cancelled) -> H2Origin {
    let cancelled = cancelled.clone();
    H2Origin::with(move |request, respond| serve(request, respond, cancelled.clone())).await
}

fn call(method: &str) -> Request<()> {
    Request::post(format!("http://a.test/echo.Echo/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "20S")
        .body(())
        .unwrap()
}

fn texts(answer: &H2Answer) -> Vec<String> {
    let mut rest = &answer.body[..];
    let mut texts = Vec::new();
    while let [_, a, b, c, d, more @ ..] = rest {
        let (text, after) = more.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        texts.push(String::from_utf8(text.to_vec()).unwrap());
        rest = after;
    }
    texts
}

fn status(fields: Option<&HeaderMap>) -> [&str; 2] {
    let fields = fields.expect("fields");
    ["grpc-status", "grpc-message"].map(|name| fields[name].to_str().unwrap())
}

const LISTENERS: &str = "listeners: [{ address: \"127.0.0.1:0\", h2c: true }]\n";

fn app(backend: &impl ToString, more: &str) -> String {
    let backend = backend.to_string();
    format!(
        "upstreams: {{ app: {{ backends: [\"{backend}\"], health_check: off, http: 2, {more} }} }}\n"
    )
}

/// All that a client does with the service, on one connection.
async fn exercise(client: &H2Client) {
    for kind in ["Echo", "Join", "Split", "Facts"] {
        let sent = [message("one two"), message("three")].concat();
        let answer = client.ask(call(kind), sent).await;
        assert_eq!(answer.head.headers()["content-type"], "application/grpc", "{kind}");
        let expected: (&[&str], _) = match kind {
            "Echo" => (&["one two", "three"], "0"),
            "Join" => (&["one two three"], "0"),
            "Split" => (&["one", "two"], "13"),
            _ => (&["trailers 20S application/grpc"], "0"),
        };
        assert_eq!(texts(&answer), expected.0);
        assert_eq!(status(answer.trailers.as_ref()), [expected.1, "in words"], "{kind}");
    }
    let only = client.ask(call("Fail"), message("one")).await;
    assert_eq!(status(Some(only.head.headers())), ["5", "in words"]);
    assert_eq!((only.body.len(), only.trailers), (0, None));
}

#[tokio::test]
async fn calls_pass_in_plaintext_and_over_tls() {
    let (cancelled, pair) = (Cancelled::default(), Pair::of(&["a.test"]));
    let origin = origin(&cancelled).await;
    let plain = Crestline::start(&format!("{LISTENERS}{}", app(&origin, ""))).await;
    exercise(&H2Client::connect(&plain).await).await;

    let front = Front::before(&origin, Asks::tls(&pair, &["h2"])).await;
    let listeners = "listeners: [{ address: \"127.0.0.1:0\", \
                     tls: { certificates: [{ cert: a.pem, key: a.key }] } }]\n";
    let files = [("a.pem", pair.cert.as_str()), ("a.key", &pair.key)];
    let upstream = app(&front, "tls: { sni: a.test, ca: a.pem }");
    let proxy = Crestline::start_among(&files, &[], &format!("{listeners}{upstream}")).await;
    let stream = connect_http2(proxy.address(), "a.test", &pair.cert).await;
    exercise(&H2Client::over(stream).await).await;
}

/// Each message is answered before the next is sent.
#[tokio::test]
async fn both_sides_stream_at_the_same_time() {
    let origin = origin(&Cancelled::default()).await;
    let proxy = Crestline::start(&format!("{LISTENERS}{}", app(&origin, ""))).await;
    let client = H2Client::connect(&proxy).await;

    let H2Stream { mut up, answer } = client.begin(call("Echo")).await;
    up.send_data(message("0"), false).unwrap();
    let mut messages = Messages::of(soon("a head", answer).await.unwrap().into_body());
    for number in 1..100 {
        let echoed = soon("an echo", messages.next()).await;
        assert_eq!(echoed, Some((number - 1).to_string()));
        up.send_data(message(&number.to_string()), false).unwrap();
    }
    up.send_data(Bytes::new(), true).unwrap();
    assert_eq!(soon("the last", messages.next()).await.as_deref(), Some("99"));
    assert_eq!(soon("the end", messages.next()).await, None);
    let trailers = soon("trailers", messages.body.trailers()).await.unwrap();
    assert_eq!(status(trailers.as_ref()), ["0", "in words"]);
}

#[tokio::test]
async fn a_call_that_the_client_cancels_ends_at_the_origin() {
    let cancelled = Cancelled::default();
    let origin = origin(&cancelled).await;
    let proxy = Crestline::start(&format!("{LISTENERS}{}", app(&origin, ""))).await;
    let client = H2Client::connect(&proxy).await;

    let H2Stream { mut up, answer } = client.begin(call("Hang")).await;
    let _answer = soon("a head", answer).await.unwrap();
    up.send_reset(Reason::CANCEL);
    soon("the end of the call", cancelled.1.notified()).await;
    assert_eq!(*cancelled.0.lock().unwrap(), [Reason::CANCEL]);
    exercise(&client).await; // the connection lives on
}

/// As at the end of a deadline, after which clients do not wait for an answer.
#[tokio::test]
async fn a_client_that_leaves_ends_its_calls_at_the_origin() {
    let cancelled = Cancelled::default();
    let origin = origin(&cancelled).await;
    let proxy = Crestline::start(&format!("{LISTENERS}{}", app(&origin, ""))).await;
    let client = H2Client::connect(&proxy).await;
    let H2Stream { up, answer } = client.begin(call("Hang")).await;
    let answer = soon("a head", answer).await.unwrap();
    drop((client, up, answer));
    soon("the end of the call", cancelled.1.notified()).await;
}

/// As programs make them: grpcio, over TLS.
#[tokio::test]
async fn grpcio_makes_all_four_kinds_of_calls() {
    let (origin, pair) = (origin(&Cancelled::default()).await, Pair::of(&["localhost"]));
    let listeners = "listeners: [{ address: \"127.0.0.1:0\", \
        tls: { certificates: [{ cert: a.pem, key: a.key }] } }]\n";
    let files = [("a.pem", pair.cert.as_str()), ("a.key", &pair.key)];
    let yaml = format!("{listeners}{}", app(&origin, ""));
    let proxy = Crestline::start_among(&files, &[], &yaml).await;
    let port = proxy.address().rsplit_once(':').unwrap().1;
    let mut client = Command::new("/usr/bin/python3");
    client.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/grpc_client.py"));
    client.args([&format!("localhost:{port}"), "a.pem"]).current_dir(proxy.folder());
    // It would ask a proxy of the environment for the way.
    client.env_remove("https_proxy").env_remove("HTTPS_PROXY").kill_on_drop(true);
    let output = soon("grpcio", client.output()).await.expect("python3 is installed: make setup");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).lines().collect::<Vec<_>>(),
        [
            "unary: one 0 in words",
            "client streams: one two 0 in words",
            "server streams: one two failed 13 in words",
            "both stream: one two three 0 in words",
            "deadline: DEADLINE_EXCEEDED",
        ],
        "{told}"
    );
}
