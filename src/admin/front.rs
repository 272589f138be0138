//! The admin listener: the API over TCP, for programs that scrape and probe.
//!
//! It answers from the first moment on, so that a probe hears that the process is not ready yet,
//! and to the last. A successor takes it over as it takes listeners: nobody is refused meanwhile,
//! and what waits in the queue is answered by the new process.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use log::{error, info};
use pingora_core::{
    protocols::l4::stream::Stream, server::ShutdownWatch, services::background::BackgroundService,
};
use tokio::net::TcpListener;

use crate::{
    admin::{Met, accept, api::Api, who},
    control::tasks,
    handover::predecessor::Predecessor,
    listener::bind::Bound,
};

/// The service that answers over TCP.
pub struct Front {
    bound: Mutex<Option<Bound>>,
    api: Arc<Api>,
    handover: Arc<Predecessor>,
}

impl Front {
    /// Serves the API on a socket that is bound.
    pub fn new(bound: Bound, api: Arc<Api>, handover: Arc<Predecessor>) -> Self {
        Self { bound: Mutex::new(Some(bound)), api, handover }
    }
}

#[async_trait]
impl BackgroundService for Front {
    /// Serves to the end of the process, or until a successor does.
    async fn start(&self, shutdown: ShutdownWatch) {
        self.api.live.begin();
        let bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(bound) = bound else { return };
        let address = bound.address.clone();
        let listener = match bound.listen().and_then(TcpListener::from_std) {
            Ok(listener) => listener,
            Err(why) => return error!("admin: cannot listen on {address}: {why}"),
        };
        info!("admin: listens on {address}");
        let next = || next(&listener, &self.api);
        let serve = tasks::keep("admin listener", || accept(next, &self.api, &shutdown));
        tokio::select! {
            () = serve => {}
            () = self.handover.handed_over() => {}
        }
    }
}

/// The next connection; it is met with the certificates that are in force when it comes.
async fn next(
    listener: &TcpListener,
    api: &Api,
) -> io::Result<impl Future<Output = Option<Met>> + Send + use<>> {
    let (stream, peer) = listener.accept().await?;
    let snapshot = api.control.live().load();
    let keyring = snapshot.admin.as_ref().and_then(|admin| admin.tls.as_ref()).map(|tls| tls.now());
    Ok(who::meet(Stream::from(stream), peer, keyring))
}
