//! What a request costs where answers are kept, or where clients are known, and that it costs
//! nothing elsewhere: our hooks, one by one, as Pingora's proxy calls them on a session of its own.

use std::{net::IpAddr, path::Path, sync::Arc};

use allocation_counter::measure;
use arc_swap::ArcSwap;
use bytes::Bytes;
use crestline::{
    cache,
    diagnostic::{Problems, Span as Place},
    downstream::{
        connection::Connection,
        stream::{Body, Downstream},
    },
    drain::Drain,
    policy::{
        Around, Policies, PolicyConfig, Withheld,
        contract::{Facts, Notes},
        identity::Identity as Who,
    },
    proxy::{Caught, Context, Proxy},
    snapshot,
};
use futures::FutureExt;
use http::{HeaderValue, header::COOKIE};
use pingora_cache::{HitStatus, RespCacheable, storage::Storage as _, trace::Span};
use pingora_core::connectors::http::Connector;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{ProxyHttp, Session};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

const FILE: &str = "
upstreams: { app: { backends: [127.0.0.1:3031], health_check: off } }
routes:
  - { name: plain, match: { path: /plain }, upstream: app }
  - { name: kept, match: { path: /kept }, policies: [{ cache: {} }], upstream: app }
  - { name: hidden, match: { path: /hidden }, policies: [{ cache: { tell: false } }], upstream: app }
  - name: known
    match: { path: /known }
    policies: [{ api_key: { keys: { shop: KEY }, header: x-api-key } }]
    upstream: app
access_log: off
";

/// Of `secret`.
const KEY: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

type App = Caught<Proxy>;

/// How often steps allocate, each by its name.
type Counts = Vec<(&'static str, u64)>;

/// A request, as Pingora's proxy has it before our first hook; the client is there until it ends.
struct Arrived {
    session: Session,
    ctx: Context,
    _client: DuplexStream,
}

impl Arrived {
    async fn at(app: &App, path: &str, fields: &str) -> Self {
        let (mut client, server) = duplex(64 * 1024);
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        client.write_all(request.as_bytes()).await.expect("room");
        let address = Some(IpAddr::from([192, 0, 2, 7]));
        let connection =
            Connection::new(address, Arc::new([]), Arc::default(), Arc::new(Drain::default()));
        let mut stream = Downstream::new(Box::new(server), Arc::new(connection));
        stream.fill().await.expect("a head");
        let head = stream.take_head(0, request.len(), Body::Length(0));
        let mut session = Session::new_h1(Box::new(stream));
        session.as_downstream_mut().set_pipelined_prefix(head);
        assert!(session.as_downstream_mut().read_request().await.expect("a request"));
        Self { session, ctx: app.new_ctx(), _client: client }
    }
}

fn app() -> App {
    let mut problems = Problems::default();
    let snapshot = snapshot::compile(&FILE.replace("KEY", KEY), &mut problems);
    let snapshot = snapshot.unwrap_or_else(|| panic!("{problems:?}"));
    Proxy::new(Arc::new(ArcSwap::from_pointee(snapshot)), Connector::new(None))
}

/// What a step gives, and how often it allocates.
fn counted<T>(step: impl FnOnce() -> T) -> (T, u64) {
    let mut given = None;
    let count = measure(|| given = Some(step())).count_total;
    (given.expect("it was called"), count)
}

/// The same for a hook that has nothing to wait for; Pingora has put its future into a box before.
fn hook<T>(step: impl Future<Output = pingora::Result<T>>) -> (T, u64) {
    let (given, count) = counted(|| step.now_or_never().expect("nothing to wait for"));
    (given.expect("it does not fail"), count)
}

/// An answer of an origin.
fn answer() -> ResponseHeader {
    let mut answer = ResponseHeader::build(200, Some(16)).expect("an answer");
    answer.insert_header("content-length", "4").expect("a field");
    answer.insert_header("cache-control", "max-age=600").expect("a field");
    answer
}

/// Keeps an answer for a path, as Pingora's proxy does.
async fn keep(app: &App, path: &str) {
    let mut one = Arrived::at(app, path, "").await;
    let Arrived { session, ctx, .. } = &mut one;
    app.request_filter(session, ctx).await.expect("it goes on");
    app.request_cache_filter(session, ctx).expect("it does not fail");
    let key = app.cache_key_callback(session, ctx).expect("a key");
    let judged = app.response_cache_filter(session, &answer(), ctx).expect("a judgement");
    let RespCacheable::Cacheable(meta) = judged else { panic!("it is for keeping") };
    let trace = Span::inactive().handle();
    let mut miss = cache::store().get_miss_handler(&key, &meta, &trace).await.expect("room");
    miss.write_body(Bytes::from_static(b"kept"), true).await.expect("room");
    miss.finish().await.expect("room");
}

/// How often each step allocates for a request that is answered with what is kept.
async fn hit(app: &App, path: &str, fields: &str) -> Counts {
    let mut one = Arrived::at(app, path, fields).await;
    let Arrived { session, ctx, .. } = &mut one;
    let (is_over, asked) = hook(app.request_filter(session, ctx));
    assert!(!is_over);
    let (begun, begins) = counted(|| app.request_cache_filter(session, ctx));
    begun.expect("it does not fail");
    let (key, keyed) = counted(|| app.cache_key_callback(session, ctx));
    session.cache.set_cache_key(key.expect("a key"));
    let (found, looked_up) = hook(session.cache.cache_lookup());
    let (meta, mut handler) = found.expect("it is kept");
    let (variance, varied) = counted(|| app.cache_vary_filter(&meta, ctx, session.req_header()));
    assert_eq!(variance, None);
    let (forced, judged) = hook(app.cache_hit_filter(session, &meta, &mut handler, true, ctx));
    assert!(forced.is_none());
    session.cache.cache_found(meta, handler, HitStatus::Fresh);
    let mut header = answer();
    let ((), dressed) = hook(app.response_filter(session, &mut header, ctx));
    assert_eq!(header.headers.contains_key("cache-status"), path == "/kept");
    vec![
        ("request_filter", asked),
        ("request_cache_filter", begins),
        ("cache_key_callback", keyed),
        ("lookup", looked_up),
        ("cache_vary_filter", varied),
        ("cache_hit_filter", judged),
        ("response_filter", dressed),
    ]
}

/// How often each step allocates for a request to a route where nothing is kept.
async fn passed_on(app: &App, path: &str, fields: &str) -> Counts {
    let mut one = Arrived::at(app, path, fields).await;
    let Arrived { session, ctx, .. } = &mut one;
    let (is_over, asked) = hook(app.request_filter(session, ctx));
    assert!(!is_over, "{path}");
    let (begun, begins) = counted(|| app.request_cache_filter(session, ctx));
    begun.expect("it does not fail");
    assert!(!session.cache.enabled());
    let mut header = answer();
    let ((), heard) = hook(app.upstream_response_filter(session, &mut header, ctx));
    let ((), dressed) = hook(app.response_filter(session, &mut header, ctx));
    vec![
        ("request_filter", asked),
        ("request_cache_filter", begins),
        ("upstream_response_filter", heard),
        ("response_filter", dressed),
    ]
}

/// Holds the least of two rounds against bounds: the first finds nothing prepared, and one may be
/// the one in a hundred that allocates for the ids of all.
fn hold(what: &str, rounds: [Counts; 2], bounds: &[u64]) {
    let [first, second] = rounds;
    assert_eq!(first.len(), bounds.len());
    let least = first.into_iter().zip(second).map(|((step, a), (_, b))| (step, a.min(b)));
    let least: Counts = least.collect();
    let is_met = least.iter().zip(bounds).all(|((_, count), bound)| count <= bound);
    assert!(is_met, "{what}: {least:?} beyond {bounds:?}");
}

/// Runs what needs a runtime.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// What it costs to answer with what is kept: Pingora's cache and our state, the key and its
/// subject, a copy of the head and a reader, and words of what became of it. What a client says in
/// `Cache-Control` costs nothing.
pub(crate) fn an_answer_that_is_kept_costs_so_much() {
    block_on(async {
        let app = app();
        for (path, told) in [("/kept", 2), ("/hidden", 0)] {
            keep(&app, path).await;
            for fields in ["", "Cache-Control: no-cache, max-age=0\r\nPragma: no-cache\r\n"] {
                let rounds = [hit(&app, path, fields).await, hit(&app, path, fields).await];
                hold(path, rounds, &[0, 3, 7, 7, 0, 0, 4 + told]);
            }
        }
    });
}

/// Where nothing is kept that costs nothing, and where nobody is known neither. Three are for the
/// id that clients are sent, in Pingora's second map of fields as well.
pub(crate) fn a_route_without_a_cache_costs_nothing_for_it() {
    block_on(async {
        let app = app();
        for (path, fields, known) in
            [("/plain", "Cookie: a=b; c=d\r\n", 0), ("/known", "X-Api-Key: secret\r\n", 1)]
        {
            let rounds = [passed_on(&app, path, fields).await, passed_on(&app, path, fields).await];
            hold(path, rounds, &[known, 0, 0, 3]);
        }
    });
}

/// Cookies of sign-ins are looked for in all that origins are sent; only one that is there costs.
pub(crate) fn looking_for_cookies_of_ours_allocates_nothing() {
    let names = ["__Host-crestline-01234567", "__Host-crestline-89abcdef"].map(str::to_owned);
    let withheld: Withheld = names.into_iter().collect();
    let policies = |withheld: &Withheld| {
        let around = Around { folder: Path::new("."), allow_faults: false, route: "any", withheld };
        let none: [(&PolicyConfig, Place); 0] = [];
        Policies::build(none, around, None, &mut Problems::default())
    };
    let (none, some) = (policies(&Withheld::default()), policies(&withheld));
    let others =
        "a=1; b=2; __Host-crestline=3; a-long-one=0123456789012345678901234567890123456789";
    let ours = "a=1; __Host-crestline-01234567=1x; b=2";
    for (policies, cookie, left, max) in [
        (&none, others, others, 0),
        (&none, ours, ours, 0),
        (&some, others, others, 0),
        (&some, ours, "a=1; b=2", 6),
    ] {
        let header = RequestHeader::build("GET", b"/", Some(16)).expect("a request");
        let connection = Connection::new(None, Arc::new([]), Arc::default(), Arc::default());
        let (id, who, notes) = (HeaderValue::from_static("1"), Who::default(), Notes::default());
        let facts = Facts {
            header: &header,
            canonical: None,
            connection: &connection,
            client: None,
            id: &id,
            who: &who,
            route: "any",
            upstream: "app",
            backend: None,
        };
        let mut sent = header.clone();
        sent.insert_header(COOKIE, HeaderValue::from_static(cookie)).expect("a field");
        let (done, count) = counted(|| policies.on_upstream_request(&mut sent, &facts, &notes));
        done.expect("it fits");
        assert_eq!(sent.headers[COOKIE], left);
        assert!(count <= max, "{cookie}: {count}");
    }
}
