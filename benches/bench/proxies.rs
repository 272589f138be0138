//! The servers: three origins, and the proxies that can be measured.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::certificate::Certificate;
use crate::load::{LARGE_BODY, SMALL_BODY};
use crate::machine::{self, Cores};
use crate::proc::Process;
use crate::setup::{self, Place};
use crate::variant::Variant;
use crate::{Result, folder, idle};

/// What all proxies of one run have in common.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) cores: &'a Cores,
    pub(crate) threads: usize,
    pub(crate) origins: [SocketAddr; 3],
    pub(crate) certificate: &'a Certificate,
}

/// One nginx that listens on three ports and sends two bodies.
#[derive(Debug)]
pub(crate) struct Origins {
    pub(crate) addresses: [SocketAddr; 3],
    _process: Process,
}

impl Origins {
    pub(crate) fn start(parent: &Path, cores: &Cores) -> Result<Self> {
        let nginx = machine::find("nginx")
            .ok_or("the origins need nginx; Debian's package `nginx` has it")?;
        let folder = parent.join("origins");
        fs::create_dir(&folder)?;
        fs::write(folder.join("large"), "x".repeat(LARGE_BODY))?;

        let addresses = free_addresses()?;
        let [a, b, c] = addresses;
        let server = format!(
            "  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 600s;
  server {{
    listen {a};
    listen {b};
    listen {c};
    location / {{ return 200 '{SMALL_BODY}'; }}
    location = /large {{ root {}; open_file_cache max=1; }}
  }}
",
            folder.display(),
        );
        let command = setup::nginx_command(&nginx, &folder, cores.others_count.min(4), &server)?;
        let mut process = Process::start(&command, &cores.others, &folder)?;
        for address in addresses {
            idle::check(&mut process, address, None).map_err(|e| format!("origins: {e}"))?;
        }
        Ok(Self { addresses, _process: process })
    }
}

/// The proxies that can be measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Crestline(Variant),
    Bare,
    Nginx,
    Haproxy,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crestline(variant) => variant.name(),
            Self::Bare => BARE,
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
        }
    }

    /// Answers with the flag that makes the program print its version, if it has one.
    pub(crate) fn version_flag(self) -> Option<&'static str> {
        match self {
            Self::Crestline(_) => Some("--version"),
            Self::Bare => None,
            Self::Nginx | Self::Haproxy => Some("-v"),
        }
    }
}

/// The name of the yardstick.
pub(crate) const BARE: &str = "bare Pingora";

/// A proxy to measure, and where its program lies.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
}

/// A proxy that answers.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// Where it speaks TLS.
    pub(crate) tls_address: SocketAddr,
    // INVARIANT: declared before `folder`, so that the process ends before its files go.
    pub(crate) process: Process,
    folder: TempDir,
}

impl Proxy {
    /// Starts the proxy on a free port, in a folder of its own, and waits for the right answer.
    pub(crate) fn start(&self, site: &Site<'_>) -> Result<Running> {
        let name = self.kind.name();
        let folder = folder(site.folder, "proxy")?;
        let [address, tls_address, _] = free_addresses()?;
        let start = || {
            let place =
                Place { site, address, tls_address, folder: folder.path(), program: &self.program };
            let command = match self.kind {
                Kind::Crestline(variant) => setup::crestline(&place, variant),
                Kind::Bare => Ok(setup::bare(&place)),
                Kind::Nginx => setup::nginx(&place),
                Kind::Haproxy => setup::haproxy(&place),
            }?;
            let mut process = Process::start(&command, &site.cores.proxy, place.folder)?;
            idle::check(&mut process, address, Some("\r\nkey1: value1\r\n"))?;
            Ok(process)
        };
        let process =
            start().map_err(|error: Box<dyn std::error::Error>| format!("{name}: {error}"))?;
        Ok(Running { name, address, tls_address, process, folder })
    }
}

impl Running {
    /// Empties the logs: seconds of load leave hundreds of megabytes.
    pub(crate) fn forget_logs(&self) -> Result<()> {
        for log in ["access.log", "stdout"] {
            let log = self.folder.path().join(log);
            if log.exists() {
                File::options().write(true).open(log)?.set_len(0)?;
            }
        }
        Ok(())
    }
}

/// Lets the system choose three free ports; held together, so that they differ.
fn free_addresses() -> Result<[SocketAddr; 3]> {
    let listen = || TcpListener::bind(("127.0.0.1", 0));
    let listeners = [listen()?, listen()?, listen()?];
    let [a, b, c] = &listeners;
    Ok([a.local_addr()?, b.local_addr()?, c.local_addr()?])
}
