//! The thread that follows the process, and begins again when it is gone.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use crate::admin::{
    client::{self, ClientError},
    live::{Start, Tick},
};

/// The pause before a process that is gone is asked for again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// So much may wait to be drawn.
const WAITING_MAX: usize = 16;

/// What is heard of the process.
pub(super) enum News {
    /// Everything.
    Start(Box<Start>),
    /// What has changed.
    Tick(Box<Tick>),
    /// It is not reached.
    Lost(ClientError),
}

/// Follows whatever process has the socket, until nobody listens.
pub(super) fn follow(socket: PathBuf) -> Receiver<News> {
    let (tell, news) = sync_channel(WAITING_MAX);
    thread::spawn(move || {
        loop {
            let ended = watch(&socket, &tell).err();
            let lost = ended.unwrap_or_else(|| ClientError::Broken("it hands over".to_owned()));
            if tell.send(News::Lost(lost)).is_err() {
                return;
            }
            thread::sleep(AGAIN_AFTER);
        }
    });
    news
}

fn watch(socket: &Path, tell: &SyncSender<News>) -> Result<(), ClientError> {
    client::watch(socket, "/v1/live", |name, data| {
        let news = match name {
            "start" => News::Start(client::read(data)?),
            "second" => News::Tick(client::read(data)?),
            _ => return Ok(ControlFlow::Continue(())), // a later version may tell more
        };
        Ok(if tell.send(news).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })
}
