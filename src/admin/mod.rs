//! The API of a running process: what the commands that talk to it ask for, as JSON over HTTP.
//!
//! It is served on a socket beside the pid file, which only the owner of the process may open,
//! and never on a port that takes requests.

pub mod client;
pub mod socket;
pub mod status;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{
    Method, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
};
use log::{error, info, warn};
use pingora_core::{
    apps::{HttpServerApp, ReusedHttpStream, ServerApp},
    protocols::{http::ServerSession, l4::stream::Stream},
    server::ShutdownWatch,
    services::background::BackgroundService,
};
use pingora_http::{RequestHeader, ResponseHeader};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tokio::{
    net::UnixListener,
    sync::{Semaphore, mpsc, watch},
    time,
};

use crate::{
    admin::{socket::Bound, status::Status},
    control::{Control, Goal, Refusal, probation::Standing, probation::Terms, tasks},
    drain::{Drain, Order, State},
    explain::{self, Oracle, Question},
    handover::{
        pid_file::PidFile,
        predecessor::{self, Predecessor},
        refusal::Refusal as NoUpgrade,
        step::Step,
    },
    panics,
    units::{Duration as Time, Percent},
};

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 32;
/// The largest body of a request.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// So much of a larger one is read and thrown away.
const BODY_READ_MAX: usize = 16 * 1024 * 1024;
/// The pause after a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// By how much the share of failures may rise on probation, if nothing else is said.
pub const TOLERATE: Percent = Percent::new(5);

/// What `POST /v1/reload` takes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReloadOrder {
    /// The version to go back to; without it, the file is read again.
    pub to: Option<u64>,
    /// Take the change back if too many requests fail within this time.
    pub probation: Option<Time>,
    /// By how much the share of failures may rise meanwhile. Default: `5%`.
    pub tolerate: Option<Percent>,
}

/// What `POST /v1/upgrade` takes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpgradeOrder {
    /// The program, as an absolute path. Default: what lies where this one was started.
    pub binary: Option<PathBuf>,
    /// How long the successor may take until it serves. Default: `60s`.
    pub timeout: Option<Time>,
}

/// Reads the body of an order; an empty one asks for nothing special.
fn read<T: DeserializeOwned + Default>(body: &[u8]) -> serde_json::Result<T> {
    if body.is_empty() {
        return Ok(T::default());
    }
    // By name alone: serde would also take a list, in the order of the fields.
    let named: Map<String, Value> = serde_json::from_slice(body)?;
    serde_json::from_value(named.into())
}

/// Why a request to the API was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// In words, perhaps several lines.
    pub error: String,
}

/// By what the process is found: its pid file, and the socket beside it.
pub struct Names {
    /// The socket; `None` if it could not be bound.
    pub bound: Option<Bound>,
    /// The pid file.
    pub pid_file: PidFile,
    /// Turns true when both are in their places.
    pub in_place: watch::Sender<bool>,
}

/// The service that answers on the socket.
pub struct Admin {
    names: std::sync::Mutex<Option<Names>>,
    api: Arc<Api>,
}

/// The API itself.
pub struct Api {
    control: Arc<Control>,
    drain: Arc<Drain>,
    handover: Arc<Predecessor>,
}

impl Admin {
    /// Serves what `control` has charge of, by names that are put in their places when it starts.
    pub fn new(
        control: Arc<Control>,
        drain: Arc<Drain>,
        handover: Arc<Predecessor>,
        names: Names,
    ) -> Self {
        let api = Arc::new(Api { control, drain, handover });
        Self { names: std::sync::Mutex::new(Some(names)), api }
    }
}

#[async_trait]
impl BackgroundService for Admin {
    /// Serves to the end of the process: what happens at a stop can be asked for, too.
    async fn start(&self, shutdown: ShutdownWatch) {
        let names = self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some(Names { bound, pid_file, in_place }) = names else { return };
        pid_file.write();
        let published = bound.map(Bound::publish);
        in_place.send_replace(true);
        match published {
            Some(Ok(listener)) => {
                info!("admin: socket opened");
                tasks::keep("admin", || accept(&listener, &self.api, &shutdown)).await;
            }
            Some(Err(why)) => warn!("admin: no socket: {why}"),
            None => {}
        }
    }
}

async fn accept(listener: &UnixListener, app: &Arc<Api>, shutdown: &ShutdownWatch) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = free.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => Box::new(Stream::from(stream)),
            Err(why) => {
                warn!("admin: a connection was not accepted: {why}");
                time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (app, shutdown) = (app.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _place = place;
            app.process_new(stream, &shutdown).await;
        });
    }
}

/// What a request is answered with.
enum Answer {
    /// All at once.
    Whole(StatusCode, Value),
    /// Step by step: a line for each, as it happens.
    Steps(mpsc::Receiver<Step>),
}

impl From<(StatusCode, Value)> for Answer {
    fn from((status, value): (StatusCode, Value)) -> Self {
        Self::Whole(status, value)
    }
}

#[async_trait]
impl HttpServerApp for Api {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !session.read_request().await.ok()? {
            return None;
        }
        session.set_keepalive(None);
        let answer = match body(&mut session).await {
            Ok(body) => {
                let request = session.req_header().clone();
                tokio::select! {
                    biased;
                    answer = self.answer_anyhow(&request, &body) => answer,
                    // An order is carried out all the same; what was only asked is not.
                    _ = session.read_body_or_idle(true), if request.method == Method::GET => {
                        return None;
                    }
                }
            }
            Err(status) => {
                Answer::Whole(status, refused("the body cannot be read, or is larger than 64 KiB"))
            }
        };
        // Who does not wait for the answer has none.
        let _ = send(&mut session, answer).await;
        let _ = session.finish().await;
        None
    }
}

async fn send(session: &mut ServerSession, answer: Answer) -> pingora::Result<()> {
    match answer {
        Answer::Whole(status, value) => {
            let line = line(&value);
            let mut header = ResponseHeader::build(status, None)?;
            header.insert_header(CONTENT_TYPE, "application/json")?;
            header.insert_header(CONTENT_LENGTH, line.len())?;
            session.write_response_header(Box::new(header)).await?;
            session.write_response_body(line, true).await
        }
        Answer::Steps(mut steps) => {
            let mut header = ResponseHeader::build(StatusCode::OK, None)?;
            header.insert_header(CONTENT_TYPE, "application/x-ndjson")?;
            header.insert_header(TRANSFER_ENCODING, "chunked")?;
            session.write_response_header(Box::new(header)).await?;
            while let Some(step) = steps.recv().await {
                session.write_response_body(line(&json!(step)), false).await?;
            }
            session.write_response_body(Bytes::new(), true).await
        }
    }
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

impl Api {
    async fn answer_anyhow(&self, request: &RequestHeader, body: &[u8]) -> Answer {
        panics::catch(self.answer(request, body)).await.unwrap_or_else(|panic| {
            panic.count_task();
            error!("admin: panicked at {}: {panic}", request.uri.path());
            let why = refused("a mistake in this program; see its log");
            Answer::Whole(StatusCode::INTERNAL_SERVER_ERROR, why)
        })
    }

    async fn answer(&self, request: &RequestHeader, body: &[u8]) -> Answer {
        let whole = match (&request.method, request.uri.path()) {
            (&Method::GET, "/v1/status") => (StatusCode::OK, json!(self.status())),
            (&Method::POST, "/v1/drain") => self.drain().await,
            (&Method::POST, "/v1/reload") => self.reload(body).await,
            (&Method::GET, "/v1/probation") => self.probation().await,
            (&Method::POST, "/v1/explain") => self.explain(body),
            (&Method::POST, "/v1/upgrade") => match self.upgrade(body).await {
                Ok(steps) => return Answer::Steps(steps),
                Err(refused) => refused,
            },
            (
                _,
                "/v1/status" | "/v1/drain" | "/v1/reload" | "/v1/probation" | "/v1/explain"
                | "/v1/upgrade",
            ) => (StatusCode::METHOD_NOT_ALLOWED, refused("this path takes another method")),
            _ => (StatusCode::NOT_FOUND, refused("there is no such path")),
        };
        whole.into()
    }

    async fn upgrade(&self, body: &[u8]) -> Result<mpsc::Receiver<Step>, (StatusCode, Value)> {
        let bad = |why: &dyn ToString| (StatusCode::BAD_REQUEST, refused(&why.to_string()));
        let order: UpgradeOrder = read(body).map_err(|why| bad(&why))?;
        if order.binary.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(bad(&"`binary` must be an absolute path"));
        }
        let within = order.timeout.map_or(predecessor::WITHIN, |timeout| timeout.0);
        let order = predecessor::Order { binary: order.binary, within };
        self.handover.upgrade(order).await.map_err(|why| {
            let status = match &why {
                NoUpgrade::Configuration(_) => StatusCode::UNPROCESSABLE_ENTITY,
                NoUpgrade::NotServing => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::CONFLICT,
            };
            (status, refused(&why))
        })
    }

    fn status(&self) -> Status {
        Status::of(&self.control, &self.drain)
    }

    /// Stops the process as `SIGTERM` does; that it is stopping already is as well.
    async fn drain(&self) -> (StatusCode, Value) {
        self.drain.order(Order::Stop);
        let _ = self.drain.watch().wait_for(|state| State::Serving < *state).await;
        (StatusCode::ACCEPTED, json!(self.status()))
    }

    async fn reload(&self, body: &[u8]) -> (StatusCode, Value) {
        let order: ReloadOrder = match read(body) {
            Ok(order) => order,
            Err(why) => return (StatusCode::BAD_REQUEST, refused(&why)),
        };
        if order.tolerate.is_some() && order.probation.is_none() {
            return (
                StatusCode::BAD_REQUEST,
                refused("`tolerate` says nothing without `probation`"),
            );
        }
        if order.probation.is_some_and(Time::is_zero) {
            let why = "a `probation` of no time ends before it begins: give one such as `30s`";
            return (StatusCode::BAD_REQUEST, refused(why));
        }
        let tolerate = order.tolerate.unwrap_or(TOLERATE);
        let terms = order.probation.map(|lasts| Terms { lasts: lasts.0, tolerate });
        let goal = order.to.map_or(Goal::File, Goal::Version);
        match self.control.change(goal, terms).await {
            Ok(receipt) => (StatusCode::OK, json!(receipt)),
            Err(why) => {
                let status = match &why {
                    Refusal::Problems(_) => StatusCode::UNPROCESSABLE_ENTITY,
                    Refusal::NoVersion(..) => StatusCode::NOT_FOUND,
                    Refusal::NoFile | Refusal::Upgrading => StatusCode::CONFLICT,
                    Refusal::Panicked(_) => StatusCode::INTERNAL_SERVER_ERROR,
                    Refusal::NotServing => StatusCode::SERVICE_UNAVAILABLE,
                };
                (status, refused(&why))
            }
        }
    }

    fn explain(&self, body: &[u8]) -> (StatusCode, Value) {
        let question: Question = match serde_json::from_slice(body) {
            Ok(question) => question,
            Err(why) => return (StatusCode::BAD_REQUEST, refused(&why)),
        };
        let snapshot = self.control.live().load_full();
        let Some(texts) = self.control.texts(snapshot.version) else {
            let why = refused("this version was replaced ten times while it was asked");
            return (StatusCode::SERVICE_UNAVAILABLE, why);
        };
        let oracle =
            Oracle { snapshot: &snapshot, texts: &texts, standing: explain::Standing::Live };
        match oracle.explain(&question) {
            Ok(explanation) => (StatusCode::OK, json!(explanation)),
            Err(why) => (StatusCode::BAD_REQUEST, refused(&why)),
        }
    }

    /// Waits for the outcome of the probation that goes on, and tells it.
    async fn probation(&self) -> (StatusCode, Value) {
        let Some(mut standing) = self.control.probation() else {
            return (StatusCode::NOT_FOUND, refused("no version is or was on probation"));
        };
        let _ = standing.wait_for(|now| !matches!(now, Standing::Running { .. })).await;
        (StatusCode::OK, json!(Standing::of(&standing)))
    }
}

async fn body(session: &mut ServerSession) -> Result<Vec<u8>, StatusCode> {
    let (mut body, mut length) = (Vec::new(), 0);
    while let Some(piece) =
        session.read_request_body().await.map_err(|_| StatusCode::BAD_REQUEST)?
    {
        length += piece.len();
        if length <= BODY_BYTES_MAX {
            body.extend_from_slice(&piece);
        }
        // What is not read would make the kernel reset the connection before the answer is read.
        if BODY_READ_MAX < length {
            break;
        }
    }
    if length <= BODY_BYTES_MAX { Ok(body) } else { Err(StatusCode::PAYLOAD_TOO_LARGE) }
}

fn refused(why: &(impl ToString + ?Sized)) -> Value {
    json!(Refused { error: why.to_string() })
}
