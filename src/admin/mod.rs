//! The API of a running process: what the commands that talk to it ask for, as JSON over HTTP.
//!
//! It is served on a socket beside the pid file, which only the owner of the process may open,
//! and never on a port that takes requests.

pub mod client;
pub mod socket;
pub mod status;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{
    Method, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use log::{error, info, warn};
use pingora_core::{
    apps::{ServerApp, http_app::HttpServer, http_app::ServeHttp},
    protocols::{http::ServerSession, l4::stream::Stream},
    server::ShutdownWatch,
    services::background::BackgroundService,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::{net::UnixListener, sync::Semaphore, time};

use crate::{
    admin::{socket::Bound, status::Status},
    control::{Control, Goal, Refusal, probation::Standing, probation::Terms, tasks},
    drain::{Drain, Order, State},
    explain::{self, Oracle, Question},
    panics,
    units::{Duration as Time, Percent},
};

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 32;
/// The largest body of a request.
const BODY_BYTES_MAX: usize = 64 * 1024;
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

impl ReloadOrder {
    /// Reads a body; an empty one asks for nothing special.
    fn read(body: &[u8]) -> serde_json::Result<Self> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        // By name alone: serde would also take a list, in the order of the fields.
        let named: Map<String, Value> = serde_json::from_slice(body)?;
        serde_json::from_value(named.into())
    }
}

/// Why a request to the API was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// In words, perhaps several lines.
    pub error: String,
}

/// The service that answers on the socket.
pub struct Admin {
    socket: std::sync::Mutex<Option<Bound>>,
    app: Arc<HttpServer<Api>>,
}

/// The API itself.
pub struct Api {
    control: Arc<Control>,
    drain: Arc<Drain>,
}

impl Admin {
    /// Serves what `control` has charge of on a socket that is bound already.
    pub fn new(control: Arc<Control>, drain: Arc<Drain>, socket: Bound) -> Self {
        let app = Arc::new(HttpServer::new_app(Api { control, drain }));
        Self { socket: std::sync::Mutex::new(Some(socket)), app }
    }
}

#[async_trait]
impl BackgroundService for Admin {
    /// Serves to the end of the process: what happens at a stop can be asked for, too.
    async fn start(&self, shutdown: ShutdownWatch) {
        let bound = self.socket.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some(bound) = bound else { return };
        match bound.publish() {
            Ok(listener) => {
                info!("admin: socket opened");
                tasks::keep("admin", || accept(&listener, &self.app, &shutdown)).await;
            }
            Err(why) => warn!("admin: no socket: {why}"),
        }
    }
}

async fn accept(listener: &UnixListener, app: &Arc<HttpServer<Api>>, shutdown: &ShutdownWatch) {
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

#[async_trait]
impl ServeHttp for Api {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        session.set_keepalive(None);
        let (status, answer) = match body(session).await {
            Ok(body) => self.answer_anyhow(session, &body).await,
            Err(status) => (status, refused("the body cannot be read, or is larger than 64 KiB")),
        };
        let mut body = answer.to_string().into_bytes();
        body.push(b'\n');
        let answer = Response::builder()
            .status(status)
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_LENGTH, body.len());
        answer.body(body).unwrap_or_default()
    }
}

impl Api {
    async fn answer_anyhow(&self, session: &ServerSession, body: &[u8]) -> (StatusCode, Value) {
        panics::catch(self.answer(session, body)).await.unwrap_or_else(|panic| {
            panic.count_task();
            error!("admin: panicked at {}: {panic}", session.req_header().uri.path());
            (StatusCode::INTERNAL_SERVER_ERROR, refused("a mistake in this program; see its log"))
        })
    }

    async fn answer(&self, session: &ServerSession, body: &[u8]) -> (StatusCode, Value) {
        let request = session.req_header();
        match (&request.method, request.uri.path()) {
            (&Method::GET, "/v1/status") => (StatusCode::OK, json!(self.status())),
            (&Method::POST, "/v1/drain") => self.drain().await,
            (&Method::POST, "/v1/reload") => self.reload(body).await,
            (&Method::GET, "/v1/probation") => self.probation().await,
            (&Method::POST, "/v1/explain") => self.explain(body),
            (_, "/v1/status" | "/v1/drain" | "/v1/reload" | "/v1/probation" | "/v1/explain") => {
                (StatusCode::METHOD_NOT_ALLOWED, refused("this path takes another method"))
            }
            _ => (StatusCode::NOT_FOUND, refused("there is no such path")),
        }
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
        let order = match ReloadOrder::read(body) {
            Ok(order) => order,
            Err(why) => return (StatusCode::BAD_REQUEST, refused(&why)),
        };
        if order.tolerate.is_some() && order.probation.is_none() {
            return (
                StatusCode::BAD_REQUEST,
                refused("`tolerate` says nothing without `probation`"),
            );
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
                    Refusal::NoFile => StatusCode::CONFLICT,
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
        let sources = self.control.sources(snapshot.version);
        let oracle =
            Oracle { snapshot: &snapshot, sources: &sources, standing: explain::Standing::Live };
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
    let mut body = Vec::new();
    while let Some(piece) =
        session.read_request_body().await.map_err(|_| StatusCode::BAD_REQUEST)?
    {
        if BODY_BYTES_MAX < body.len() + piece.len() {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

fn refused(why: &(impl ToString + ?Sized)) -> Value {
    json!(Refused { error: why.to_string() })
}
