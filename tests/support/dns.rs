//! A DNS server: the real dnsmasq, on a port of its own, with records that tests change.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::soon;

/// A running dnsmasq, or the place of one. It is killed when this is dropped.
pub(crate) struct Dns {
    port: u16,
    child: Option<Child>,
    folder: TempDir,
}

impl Dns {
    /// Starts it with these addresses of names (`127.0.0.1 a.test`), and more settings.
    pub(crate) async fn start(hosts: &str, settings: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("hosts"), hosts).unwrap();
        // Another process may take the port between its choice and its use.
        for _ in 0..20 {
            let port = free_port();
            if let Some(child) = begin(port, &folder, settings).await {
                return Self { port, child: Some(child), folder };
            }
        }
        panic!("dnsmasq does not start; `make setup` installs it");
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends it, as a crash does.
    pub(crate) async fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().await.unwrap();
    }

    /// Starts it again, on the same port.
    pub(crate) async fn revive(&mut self, settings: &[String]) {
        self.child = begin(self.port, &self.folder, settings).await;
        assert!(self.child.is_some(), "the port was taken");
    }

    /// Changes the addresses of names.
    pub(crate) fn set_hosts(&self, hosts: &str) {
        fs::write(self.folder.path().join("hosts"), hosts).unwrap();
        let id = self.child.as_ref().and_then(Child::id).expect("it runs");
        kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), Signal::HUP).unwrap();
    }
}

/// Starts it and waits until it serves; `None` if it ends instead.
async fn begin(port: u16, folder: &TempDir, settings: &[String]) -> Option<Child> {
    let hosts = folder.path().join("hosts");
    let mut command = Command::new("dnsmasq");
    command.args(["--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null"]);
    command.args(["--no-resolv", "--no-hosts", "--bind-interfaces", "--listen-address=127.0.0.1"]);
    command.args(["--user=", "--group=", "--pid-file=", "--local=/test/", "--local-ttl=1"]);
    command.arg(format!("--port={port}")).arg(format!("--addn-hosts={}", hosts.display()));
    command.args(settings).stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().ok()?;
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let serves = async {
        while let Ok(Some(line)) = lines.next_line().await {
            if line.contains("started, version") {
                return true;
            }
        }
        false
    };
    if !soon("dnsmasq", serves).await {
        return None;
    }
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Some(child)
}

/// A port that is free for UDP and TCP.
fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
