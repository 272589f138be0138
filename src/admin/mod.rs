//! The API of a running process: what the commands that talk to it ask for, as JSON over HTTP.
//!
//! It is served on a socket beside the pid file, which only the owner of the process may open,
//! and never on a port that takes requests.

mod answer;
mod api;
pub mod client;
pub mod metrics;
pub mod order;
pub mod socket;
pub mod status;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use log::{info, warn};
use pingora_core::{
    apps::ServerApp, protocols::l4::stream::Stream, server::ShutdownWatch,
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
    admin::socket::Bound,
    control::{Control, tasks},
    drain::Drain,
    handover::{pid_file::PidFile, predecessor::Predecessor},
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
