//! The API itself: paths, and what is done for them.

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use http::{Method, StatusCode, header::ACCEPT};
use log::{error, info};
use pingora_core::{
    apps::{HttpServerApp, ReusedHttpStream},
    protocols::http::ServerSession,
    server::ShutdownWatch,
};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{self, Duration as Span},
};

use crate::{
    admin::{
        answer::{Answer, body, refused, send},
        backends::{self, Change},
        guard,
        live::Live,
        metrics, openapi,
        order::{InForce, LevelsOrder, ReloadOrder, TOLERATE, UpgradeOrder, read},
        page, requests,
        status::{RouteStatus, Status},
        table::{self, Act, Found, Named},
        who::Who,
    },
    cache::{self, Purge},
    control::{Control, Goal, Refusal, probation::Standing, probation::Terms},
    drain::{Drain, Order, State},
    explain::{self, Oracle, Question},
    handover::{
        predecessor::{self, Predecessor},
        refusal::Refusal as NoUpgrade,
        step::Step,
    },
    listener::sockets::Sockets,
    metrics::Form,
    observe::{process_log, recorder::Recorder},
    panics,
    units::Duration,
};

/// How long a client may take to send its request.
const REQUEST_WITHIN: Span = Span::from_secs(10);

/// The API itself.
pub struct Api {
    /// What it has charge of.
    pub control: Arc<Control>,
    /// How the process comes to its end.
    pub drain: Arc<Drain>,
    /// How it is succeeded.
    pub handover: Arc<Predecessor>,
    /// What it listens on, once it does.
    pub sockets: Sockets,
    /// What happens, for those who watch.
    pub live: Arc<Live>,
}

/// The answer of a process that lives.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(super) struct Alive {
    /// Always true.
    alive: bool,
}

/// Whether the process should be sent clients.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Readiness {
    /// Whether it should.
    ready: bool,
    /// Why it should not; nothing if it should.
    reasons: Vec<String>,
}

/// One connection to the API.
pub(super) struct Visit {
    pub(super) api: Arc<Api>,
    pub(super) who: Who,
}

#[async_trait]
impl HttpServerApp for Visit {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let asked = time::timeout(REQUEST_WITHIN, async {
            let is_there = session.read_request().await.ok()?;
            session.set_keepalive(None);
            if is_there { Some(body(&mut session).await) } else { None }
        });
        let answer = match asked.await.ok()?? {
            Ok(body) => {
                let request = session.req_header().clone();
                tokio::select! {
                    biased;
                    answer = self.answer(&request, &body) => answer,
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

impl Visit {
    /// Answers who may ask; what changes anything is told to the log.
    async fn answer(&self, request: &RequestHeader, body: &[u8]) -> Answer {
        let (method, path) = (&request.method, request.uri.path());
        let mut wants_token = false;
        let right = match &self.who {
            Who::User(_) => guard::check_owner(request),
            Who::Peer(peer) => match &self.api.control.live().load().admin {
                Some(access) => {
                    wants_token = access.wants_token() && peer.client.is_none();
                    guard::check(request, peer, access)
                }
                None => Err((StatusCode::FORBIDDEN, "there is no admin listener any more")),
            },
        };
        let answer = match right {
            Ok(_) if page::is_of_it(method, path) => page::find(path, wants_token),
            Ok(_) => self.api.answer_anyhow(request, body).await,
            Err((status, why)) => Answer::Whole(status, refused(why)),
        };
        if !matches!(*method, Method::GET | Method::HEAD) && path != "/v1/explain" {
            let (who, right) = (&self.who, right.map_or("refused", |right| right));
            info!("admin: {method} {path:?} by {who} {right}: {}", answer.status().as_u16());
        }
        answer
    }
}

/// What the process log tells.
fn log_levels() -> Value {
    json!(InForce { levels: process_log::in_force() })
}

fn set_log_levels(body: &[u8]) -> (StatusCode, Value) {
    match read::<LevelsOrder>(body) {
        Ok(order) => {
            process_log::follow_now(order.levels);
            (StatusCode::OK, log_levels())
        }
        Err(why) => (StatusCode::BAD_REQUEST, refused(&why)),
    }
}

/// Removes answers that are kept.
fn purge(body: &[u8]) -> (StatusCode, Value) {
    let order = read::<Purge>(body).map_err(|why| why.to_string()).and_then(|order| {
        order.check()?;
        order.canonical()
    });
    match order {
        Ok(order) => (StatusCode::OK, json!(cache::store().purge(&order))),
        Err(why) => (StatusCode::BAD_REQUEST, refused(&why)),
    }
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
        let (act, named) = match table::find(&request.method, request.uri.path()) {
            Found::Act(act, named) => (act, named),
            Found::Methods(methods) => return Answer::OtherMethod(methods.join(", ")),
            Found::Nothing => {
                return Answer::Whole(StatusCode::NOT_FOUND, refused("there is no such path"));
            }
        };
        let whole = match act {
            Act::Alive => (StatusCode::OK, json!(Alive { alive: true })),
            Act::Ready => self.readyz(),
            Act::Metrics => return self.metrics(request),
            Act::Document => (StatusCode::OK, openapi::document()),
            Act::Status => (StatusCode::OK, json!(self.status())),
            Act::Live => match self.live.watch() {
                Some(watcher) => return Answer::Live(watcher),
                None => (StatusCode::SERVICE_UNAVAILABLE, refused("as many watch as may")),
            },
            Act::Upstreams => (StatusCode::OK, json!(self.status().upstreams)),
            Act::Routes => (StatusCode::OK, json!(RouteStatus::all(&self.control.live().load()))),
            Act::Requests => requests::list(&self.recorder(), request.uri.query()),
            Act::Request => requests::one(&self.recorder(), named.first),
            Act::DrainBackend => self.backend(named, Ok(Change::Drained(true))),
            Act::ReadyBackend => self.backend(named, Ok(Change::Drained(false))),
            Act::WeighBackend => self.backend(named, Change::weight(body)),
            Act::Purge => purge(body),
            Act::Reload => self.reload(body).await,
            Act::Probation => self.probation().await,
            Act::Explain => self.explain(body),
            Act::LogLevels => (StatusCode::OK, log_levels()),
            Act::SetLogLevels => set_log_levels(body),
            Act::Upgrade => match self.upgrade(body).await {
                Ok(steps) => return Answer::Steps(steps),
                Err(refused) => refused,
            },
            Act::Drain => self.drain().await,
        };
        whole.into()
    }

    fn recorder(&self) -> Arc<Recorder> {
        self.control.live().load().ledger.recorder.clone()
    }

    /// Carries out an order for one backend.
    fn backend(&self, named: Named<'_>, change: Result<Change, String>) -> (StatusCode, Value) {
        match change {
            Ok(change) => backends::order(&self.control.live().load(), named, change),
            Err(why) => (StatusCode::BAD_REQUEST, refused(&why)),
        }
    }

    /// Whether the process should be sent clients; if not, why.
    fn readyz(&self) -> (StatusCode, Value) {
        let mut reasons = Vec::new();
        let state = self.drain.state();
        if state != State::Serving {
            reasons.push(format!("the process is {}", state.as_str()));
        } else if self.sockets.get().is_none() {
            reasons.push("the first checks of backends are not over".to_owned());
        }
        reasons.extend(self.control.live().load().unready(SystemTime::now()));
        let is_ready = reasons.is_empty();
        let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, json!(Readiness { ready: is_ready, reasons }))
    }

    /// The page of all metrics, in the form that is asked for.
    fn metrics(&self, request: &RequestHeader) -> Answer {
        let accepted = request.headers.get_all(ACCEPT).iter().filter_map(|one| one.to_str().ok());
        let form = Form::asked_for(&accepted.collect::<Vec<_>>().join(","));
        Answer::Page(form, metrics::page(&self.control, &self.drain, form))
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
        if order.probation.is_some_and(Duration::is_zero) {
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
