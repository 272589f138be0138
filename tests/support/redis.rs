//! The real Redis, on a port of its own.

use std::{net::TcpListener, process::Stdio};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::{self, Duration, Instant},
};

use super::PATIENCE;

/// A running Redis, or the place of one. It is killed when this is dropped.
pub(crate) struct Redis {
    port: u16,
    child: Option<Child>,
    folder: TempDir,
}

impl Redis {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Another process may take the port between its choice and its use.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(child) = begin(port, &folder).await {
                return Self { port, child: Some(child), folder };
            }
        }
        panic!("redis-server does not start; `make setup` installs it");
    }

    /// Where it is asked.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Ends it, as a crash does.
    pub(crate) async fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().await.unwrap();
    }

    /// Starts it again on the same port, empty.
    pub(crate) async fn revive(&mut self) {
        self.child = begin(self.port, &self.folder).await;
        assert!(self.child.is_some(), "the port was taken");
    }
}

/// Starts it and waits until it serves; `None` if it ends instead.
async fn begin(port: u16, folder: &TempDir) -> Option<Child> {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    command.args(["--save", "", "--appendonly", "no"]).arg("--dir").arg(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().ok()?;
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if serves(port).await.is_some() {
            return Some(child);
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for redis-server");
        time::sleep(Duration::from_millis(20)).await;
    }
    None
}

async fn serves(port: u16) -> Option<()> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    socket.write_all(b"PING\r\n").await.ok()?;
    let mut answer = [0; 7];
    socket.read_exact(&mut answer).await.ok()?;
    (&answer == b"+PONG\r\n").then_some(())
}
