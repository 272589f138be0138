//! The API of a running process: what the commands that talk to it ask for, as JSON over HTTP.
//!
//! It is served on a socket beside the pid file, which only the owner of the process may open, and
//! where the file says so over TCP ([`front`]); never on a port that takes requests.

mod answer;
mod api;
pub mod backends;
pub mod client;
pub mod front;
mod guard;
pub mod live;
pub mod metrics;
pub mod openapi;
pub mod order;
mod page;
pub mod requests;
pub mod socket;
pub mod status;
mod table;
mod who;

use std::{
    future::{Ready, ready},
    io,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use log::{info, warn};
use pingora_core::{
    apps::ServerApp,
    protocols::{Stream, l4::stream::Stream as L4},
    server::ShutdownWatch,
    services::background::BackgroundService,
};
use tokio::{
    net::UnixListener,
    sync::{Semaphore, watch},
    time,
};

pub use answer::Refused;
pub use api::Api;

use crate::{
    admin::{api::Visit, socket::Bound, who::Who},
    control::tasks,
    handover::pid_file::PidFile,
};

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 32;
/// The pause after a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

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

impl Admin {
    /// Serves an API by names that are put in their places when it starts.
    pub fn new(api: Arc<Api>, names: Names) -> Self {
        Self { names: std::sync::Mutex::new(Some(names)), api }
    }
}

#[async_trait]
impl BackgroundService for Admin {
    /// Serves to the end of the process: what happens at a stop can be asked for, too.
    async fn start(&self, shutdown: ShutdownWatch) {
        self.api.live.begin();
        let names = self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some(Names { bound, pid_file, in_place }) = names else { return };
        pid_file.write();
        let published = bound.map(Bound::publish);
        in_place.send_replace(true);
        match published {
            Some(Ok(listener)) => {
                info!("admin: socket opened");
                tasks::keep("admin", || accept(|| next(&listener), &self.api, &shutdown)).await;
            }
            Some(Err(why)) => warn!("admin: no socket: {why}"),
            None => {}
        }
    }
}

async fn next(listener: &UnixListener) -> io::Result<Ready<Option<Met>>> {
    let (stream, _) = listener.accept().await?;
    let user = stream.peer_cred()?.uid();
    Ok(ready(Some((Box::new(L4::from(stream)), Who::User(user)))))
}

/// A connection, and who it is with.
type Met = (Stream, Who);

/// Serves connections as they come, so many at a time. What comes next is not served before it is
/// known who it is, which takes its own time.
async fn accept<F, M>(next: impl Fn() -> F, api: &Arc<Api>, shutdown: &ShutdownWatch)
where
    F: Future<Output = io::Result<M>>,
    M: Future<Output = Option<Met>> + Send + 'static,
{
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = free.clone().acquire_owned().await else { return };
        let meet = match next().await {
            Ok(next) => next,
            Err(why) => {
                warn!("admin: a connection was not accepted: {why}");
                time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (api, shutdown) = (api.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _place = place;
            if let Some((stream, who)) = meet.await {
                Arc::new(Visit { api, who }).process_new(stream, &shutdown).await;
            }
        });
    }
}
