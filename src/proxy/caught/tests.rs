//! Phases that panic, called by Pingora itself, between a client and an origin.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora_core::{
    apps::{HttpServerApp, HttpServerOptions, ServerApp},
    connectors::http::Connector,
    protocols::http::ServerSession,
    server::configuration::ServerConf,
};
use pingora_proxy::{HttpProxy, http_proxy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::TcpListener,
    sync::watch,
    time,
};

use super::*;
use crate::{
    diagnostic::Problems,
    downstream::{
        connection::Connection,
        stream::{Body, Downstream},
    },
    drain::Drain,
    panics::Panics,
    proxy::Proxy,
    snapshot,
};

/// The phases of a request that passes through all of them but those of failures.
const PHASES: [&str; 10] = [
    "request_filter",
    "proxy_upstream_filter",
    "upstream_peer",
    "connected_to_upstream",
    "upstream_request_filter",
    "request_body_filter",
    "upstream_response_filter",
    "response_filter",
    "upstream_response_body_filter",
    "logging",
];

/// The proxy, but for a phase that panics where a request asks for it by its path.
struct Clumsy(Proxy);

fn stumble(at: &'static str, session: &Session) {
    assert!(session.req_header().uri.path() != format!("/{at}"), "stumbled in {at}");
}

impl Clumsy {
    /// For the phases that do not see the request, which its target is kept for.
    fn stumble_later(at: &'static str, ctx: &Context) {
        let target = ctx.target.as_ref().map_or("", |target| target.path());
        assert!(target != format!("/{at}"), "stumbled in {at}");
    }
}

impl Phases for Clumsy {
    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        let done = self.0.request_filter(session, ctx).await;
        ctx.target = Some(session.req_header().uri.clone());
        stumble("request_filter", session);
        done
    }

    async fn proxy_upstream_filter(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<bool> {
        stumble("proxy_upstream_filter", session);
        self.0.proxy_upstream_filter(session, ctx).await
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        stumble("upstream_peer", session);
        self.0.upstream_peer(session, ctx).await
    }

    fn fail_to_connect(&self, ctx: &mut Context, error: &mut Error) {
        self.0.fail_to_connect(ctx, error);
    }

    fn connected_to_upstream(&self, digest: Option<&Digest>, is_reused: bool, ctx: &mut Context) {
        Self::stumble_later("connected_to_upstream", ctx);
        self.0.connected_to_upstream(digest, is_reused, ctx);
    }

    fn upstream_request_filter(
        &self,
        session: &Session,
        header: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        stumble("upstream_request_filter", session);
        self.0.upstream_request_filter(session, header, ctx)
    }

    fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        Self::stumble_later("request_body_filter", ctx);
        self.0.request_body_filter(session, body, end, ctx)
    }

    fn request_cache_filter(&self, session: &mut Session, ctx: &mut Context) {
        stumble("request_cache_filter", session);
        self.0.request_cache_filter(session, ctx);
    }

    fn cache_hit_filter(
        &self,
        session: &Session,
        meta: &CacheMeta,
        handler: &HitHandler,
        is_fresh: bool,
        ctx: &mut Context,
    ) -> Option<ForcedFreshness> {
        self.0.cache_hit_filter(session, meta, handler, is_fresh, ctx)
    }

    fn upstream_response_filter(
        &self,
        session: &mut Session,
        header: &ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        stumble("upstream_response_filter", session);
        self.0.upstream_response_filter(session, header, ctx)
    }

    fn response_filter(
        &self,
        session: &mut Session,
        header: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        stumble("response_filter", session);
        self.0.response_filter(session, header, ctx)
    }

    fn upstream_response_body_filter(&self, ctx: &mut Context) {
        Self::stumble_later("upstream_response_body_filter", ctx);
        self.0.upstream_response_body_filter(ctx);
    }

    fn response_body_filter(
        &self,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        self.0.response_body_filter(body, end, ctx)
    }

    fn response_trailer_filter(&self, ctx: &mut Context) -> Result<Option<Bytes>> {
        self.0.response_trailer_filter(ctx)
    }

    fn error_while_proxy(
        &self,
        session: &Session,
        error: &mut Error,
        ctx: &mut Context,
        is_reused: bool,
    ) {
        self.0.error_while_proxy(session, error, ctx, is_reused);
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Context,
    ) -> FailToProxy {
        self.0.fail_to_proxy(session, error, ctx).await
    }

    fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        self.0.logging(session, error, ctx);
        stumble("logging", session);
    }
}

/// A proxy before an origin that answers everything with `hello`.
async fn proxy() -> Arc<HttpProxy<Caught<Clumsy>>> {
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = origin.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = origin.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while matches!(stream.read(&mut request).await, Ok(1..)) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    let mut problems = Problems::default();
    let text = format!(
        "upstreams: {{ app: {{ backends: [\"{address}\"], health_check: off }} }}\naccess_log: off"
    );
    let snapshot = snapshot::compile(&text, &mut problems).unwrap();
    let live = Arc::new(ArcSwap::from_pointee(snapshot));
    let mut proxy = http_proxy(
        &Arc::new(ServerConf::default()),
        Caught(Clumsy(Proxy { live, direct: Arc::new(Connector::new(None)) })),
    );
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    proxy.server_options = Some(options);
    Arc::new(proxy)
}

async fn accepted(stream: DuplexStream) -> Downstream {
    let connection =
        Connection::new(None, Arc::default(), Arc::default(), Arc::new(Drain::default()));
    let mut stream = Downstream::new(Box::new(stream), Arc::new(connection));
    stream.fill().await.unwrap();
    stream
}

/// What a client gets that asks over HTTP/1, to the end of the connection.
async fn ask(proxy: &Arc<HttpProxy<Caught<Clumsy>>>, path: &str) -> String {
    let (mut client, server) = duplex(64 * 1024);
    let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut stream = accepted(server).await;
    let head = stream.take_head(0, request.len(), Body::Length(0));
    let mut session = ServerSession::new_http1(Box::new(stream));
    session.set_pipelined_prefix(head);
    let (_close, shutdown) = watch::channel(false);
    drop(proxy.process_new_http(session, &shutdown).await);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_panic_in_any_phase_is_answered_with_500_and_counted_once() {
    let proxy = proxy().await;
    for phase in PHASES {
        let before = Panics::get().requests;
        let answer = ask(&proxy, &format!("/{phase}")).await;
        match phase {
            "logging" => assert!(answer.ends_with("hello"), "it was sent already: {answer}"),
            // The head may have been sent, or not.
            "upstream_response_body_filter" => assert!(!answer.ends_with("hello"), "{answer}"),
            _ => assert!(answer.starts_with("HTTP/1.1 500 "), "{phase}: {answer}"),
        }
        assert!(before < Panics::get().requests, "{phase}");
        assert!(ask(&proxy, "/").await.ends_with("hello"), "the next request, after {phase}");
    }
}

/// Over HTTP/2, on one connection.
#[tokio::test]
async fn a_panic_in_one_stream_is_answered_and_the_others_live_on() {
    let proxy = proxy().await;
    let (client, server) = duplex(64 * 1024);
    let serving = tokio::spawn(async move {
        let mut stream = accepted(server).await;
        stream.set_http2();
        let (_close, shutdown) = watch::channel(false);
        proxy.process_new(Box::new(stream), &shutdown).await;
    });
    let (h2, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(connection);

    let asked =
        ["/", "/request_filter", "/upstream_peer", "/", "/response_filter", "/"].map(|path| {
            let mut h2 = h2.clone();
            tokio::spawn(async move {
                let request = http::Request::get(format!("http://a.test{path}")).body(()).unwrap();
                let (answer, _) = h2.send_request(request, true).unwrap();
                (path, answer.await.unwrap().status())
            })
        });
    for answer in asked {
        let (path, status) = time::timeout(Duration::from_secs(20), answer).await.unwrap().unwrap();
        assert_eq!(status, if path == "/" { 200 } else { 500 }, "{path}");
    }
    drop(h2);
    time::timeout(Duration::from_secs(20), serving).await.unwrap().unwrap();
}
