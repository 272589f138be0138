//! Origins and clients that speak HTTP/2 alone, in plaintext with prior knowledge.

use std::{
    fmt,
    future::poll_fn,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream, client,
    server::{self, SendResponse},
};
use http::{HeaderMap, Request, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::{Crestline, soon};

/// An origin of HTTP/2 that serves until it is dropped.
pub(crate) struct H2Origin {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request<()>>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// A connection of an origin, for what is said of it as a whole.
pub(crate) type Connection = server::Connection<TcpStream, Bytes>;

impl H2Origin {
    /// An origin that handles each request as told.
    pub(crate) async fn with<H, F>(handler: H) -> Self
    where
        H: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::bending(handler, |_, _| {}).await
    }

    /// The same, where each request may be something to the whole connection as well; it is told
    /// which one of its connection it is, from 1.
    pub(crate) async fn bending<H, F>(
        handler: H,
        bend: impl Fn(&mut Connection, usize) + Clone + Send + Sync + 'static,
    ) -> Self
    where
        H: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let seen = (Arc::clone(&requests), connections.clone());
        let task = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                seen.1.fetch_add(1, SeqCst);
                serving.spawn(serve(socket, seen.0.clone(), handler.clone(), bend.clone()));
            }
        });
        Self { address, requests, connections, task }
    }

    /// Answers everything with this text.
    pub(crate) async fn replying(text: &'static str) -> Self {
        Self::with(move |request, respond| async move {
            whole(request.into_body()).await;
            reply(respond, text);
        })
        .await
    }

    /// The heads of the requests so far.
    pub(crate) fn requests(&self) -> Vec<Request<()>> {
        let requests = self.requests.lock().unwrap();
        let copy = |request: &Request<()>| {
            let mut copy = Request::builder().method(request.method()).uri(request.uri());
            copy.headers_mut().unwrap().clone_from(request.headers());
            copy.body(()).unwrap()
        };
        requests.iter().map(copy).collect()
    }

    /// How many connections were made, those of checks included.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

impl Drop for H2Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Display for H2Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

async fn serve<H, F>(
    socket: TcpStream,
    requests: Arc<Mutex<Vec<Request<()>>>>,
    handler: H,
    bend: impl Fn(&mut Connection, usize),
) where
    H: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    socket.set_nodelay(true).unwrap();
    let Ok(mut connection) = server::handshake(socket).await else { return };
    let mut streams = JoinSet::new();
    let mut nth = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        nth += 1;
        let (head, body) = request.into_parts();
        requests.lock().unwrap().push(Request::from_parts(head.clone(), ()));
        bend(&mut connection, nth);
        streams.spawn(handler(Request::from_parts(head, body), respond));
    }
}

/// Answers with `200` and a text.
pub(crate) fn reply(mut respond: SendResponse<Bytes>, text: &'static str) {
    // Whoever asked may have left.
    let Ok(mut body) = respond.send_response(Response::new(()), false) else { return };
    let _ = body.send_data(Bytes::from_static(text.as_bytes()), true);
}

/// A `GET` with such fields.
pub(crate) fn ask(path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let request = Request::get(format!("http://a.test{path}"));
    fields
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value))
        .body(())
        .unwrap()
}

/// The head of an answer with such fields.
pub(crate) fn head(status: u16, fields: &[(&str, &str)]) -> Response<()> {
    let head = Response::builder().status(status);
    fields.iter().fold(head, |head, (name, value)| head.header(*name, *value)).body(()).unwrap()
}

/// Answers with a length and in one piece, unless nobody listens any more.
pub(crate) fn answer(
    mut respond: SendResponse<Bytes>,
    status: u16,
    fields: &[(&str, &str)],
    text: &str,
) {
    let mut head = head(status, fields);
    if status != 304 {
        head.headers_mut().insert("content-length", text.len().into());
    }
    let Ok(mut body) = respond.send_response(head, text.is_empty()) else { return };
    if !text.is_empty() {
        let _ = body.send_data(text.to_owned().into(), true);
    }
}

/// Reads the next piece of a body; `None` at its end.
pub(crate) async fn piece(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let piece = poll_fn(|cx| body.poll_data(cx)).await?;
    if let Ok(piece) = &piece {
        let _ = body.flow_control().release_capacity(piece.len());
    }
    Some(piece)
}

/// Reads a body to its end, or its break.
pub(crate) async fn whole(mut body: RecvStream) -> Vec<u8> {
    let mut read = Vec::new();
    while let Some(Ok(piece)) = piece(&mut body).await {
        read.extend_from_slice(&piece);
    }
    read
}

/// A client over HTTP/2.
#[derive(Clone)]
pub(crate) struct H2Client(client::SendRequest<Bytes>);

/// A stream of a client: what it may send, and the answer to come.
pub(crate) struct H2Stream {
    pub(crate) up: SendStream<Bytes>,
    pub(crate) answer: client::ResponseFuture,
}

/// An answer over HTTP/2.
#[derive(Debug)]
pub(crate) struct H2Answer {
    pub(crate) head: Response<()>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl H2Client {
    /// Connects to the first listener of a proxy, which allows prior knowledge.
    pub(crate) async fn connect(proxy: &Crestline) -> Self {
        let socket = soon("a connection", TcpStream::connect(proxy.address())).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self::over(socket).await
    }

    /// Speaks over a connection that is there.
    pub(crate) async fn over<S>(socket: S) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (client, connection) = soon("a handshake", client::handshake(socket)).await.unwrap();
        tokio::spawn(connection);
        Self(client)
    }

    /// Begins a request.
    pub(crate) async fn begin(&self, request: Request<()>) -> H2Stream {
        let mut ready = soon("room for a stream", self.0.clone().ready()).await.unwrap();
        let (answer, up) = ready.send_request(request, false).unwrap();
        H2Stream { up, answer }
    }

    /// Sends a request that ends with its fields, as one without a body does.
    pub(crate) async fn send(&self, request: Request<()>) -> client::ResponseFuture {
        let mut ready = soon("room for a stream", self.0.clone().ready()).await.unwrap();
        ready.send_request(request, true).unwrap().0
    }

    /// The same, and reads the answer, which must be whole.
    pub(crate) async fn get(&self, request: Request<()>) -> H2Answer {
        let answer = soon("an answer", self.send(request).await).await.unwrap();
        soon("the rest of an answer", H2Answer::read(answer)).await
    }

    /// Sends a request, and reads its answer, which must be whole.
    pub(crate) async fn ask(&self, request: Request<()>, body: impl Into<Bytes>) -> H2Answer {
        let H2Stream { mut up, answer } = self.begin(request).await;
        up.send_data(body.into(), true).unwrap();
        let answer = soon("an answer", answer).await.unwrap();
        soon("the rest of an answer", H2Answer::read(answer)).await
    }
}

impl H2Answer {
    /// A field that is text.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.headers().get(name).map(|value| value.to_str().unwrap())
    }

    /// Reads what follows a head.
    pub(crate) async fn read(answer: Response<RecvStream>) -> Self {
        let (head, mut stream) = answer.into_parts();
        let mut body = Vec::new();
        while let Some(piece) = piece(&mut stream).await {
            body.extend_from_slice(&piece.expect("a whole answer"));
        }
        let trailers = stream.trailers().await.unwrap();
        Self { head: Response::from_parts(head, ()), body, trailers }
    }
}
