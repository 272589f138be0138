//! The real Redis, which keeps nothing on the disk.

use std::path::Path;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

use super::daemon::{Daemon, Service};

/// What is run.
pub(crate) struct RedisServer;

pub(crate) type Redis = Daemon<RedisServer>;

impl Service for RedisServer {
    const PROGRAM: &'static str = "redis-server";

    fn arguments(command: &mut Command, port: u16, folder: &Path) {
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no"]).arg("--dir").arg(folder);
    }

    async fn serves(port: u16) -> bool {
        pong(port).await.is_some()
    }
}

impl Redis {
    /// Where it is asked.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port())
    }
}

async fn pong(port: u16) -> Option<()> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    socket.write_all(b"PING\r\n").await.ok()?;
    let mut answer = [0; 7];
    socket.read_exact(&mut answer).await.ok()?;
    (&answer == b"+PONG\r\n").then_some(())
}
