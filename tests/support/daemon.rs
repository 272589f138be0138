//! Real services that tests talk to, each on a port of its own.

use std::{marker::PhantomData, net::TcpListener, path::Path, process::Stdio};

use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{self, Duration, Instant},
};

use super::PATIENCE;

/// What is run.
pub(crate) trait Service {
    /// Its program, which `make setup` installs.
    const PROGRAM: &'static str;

    /// How it is told where to listen, and where its files go.
    fn arguments(command: &mut Command, port: u16, folder: &Path);

    /// Whether it answers, itself.
    async fn serves(port: u16) -> bool;
}

/// A running service, or the place of one. It is killed when this is dropped.
pub(crate) struct Daemon<S> {
    port: u16,
    child: Option<Child>,
    folder: TempDir,
    service: PhantomData<S>,
}

impl<S: Service> Daemon<S> {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Another process may take the port between its choice and its use.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(child) = begin::<S>(port, &folder).await {
                return Self { port, child: Some(child), folder, service: PhantomData };
            }
        }
        panic!("{} does not start; `make setup` installs it", S::PROGRAM);
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends it, as a crash does.
    pub(crate) async fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().await.unwrap();
    }

    /// Starts it again, on the same port, with the files that it had.
    pub(crate) async fn revive(&mut self) {
        self.child = begin::<S>(self.port, &self.folder).await;
        assert!(self.child.is_some(), "the port was taken");
    }
}

/// Starts it and waits until it serves; `None` if it ends instead.
async fn begin<S: Service>(port: u16, folder: &TempDir) -> Option<Child> {
    let mut command = Command::new(S::PROGRAM);
    S::arguments(&mut command, port, folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().ok()?;
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if S::serves(port).await {
            return Some(child);
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {}", S::PROGRAM);
        time::sleep(Duration::from_millis(20)).await;
    }
    None
}
