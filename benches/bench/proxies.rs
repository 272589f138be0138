//! The servers: three origins, and one function for each proxy with its configuration.
//!
//! Every proxy does the same work as its documentation would have it done: round robin over
//! the origins through kept connections, one response header, an access log where it has one.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::load::{self, LARGE_BODY, SMALL_BODY};
use crate::machine::{self, Cores};
use crate::proc::Process;
use crate::{Result, folder};

/// What all proxies of one run have in common.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) cores: &'a Cores,
    pub(crate) threads: usize,
    pub(crate) origins: [SocketAddr; 3],
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
        let command = nginx_command(&nginx, &folder, cores.others_count.min(4), &server)?;
        let mut process = Process::start(&command, &cores.others, &folder)?;
        for address in addresses {
            load::check(&mut process, address, None).map_err(|e| format!("origins: {e}"))?;
        }
        Ok(Self { addresses, _process: process })
    }
}

/// The proxies that can be measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Crestline { work_stealing: bool },
    Bare,
    Nginx,
    Haproxy,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crestline { work_stealing: false } => "Crestline",
            Self::Crestline { work_stealing: true } => "Crestline, work stealing",
            Self::Bare => BARE,
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
        }
    }

    /// Answers with the flag that makes the program print its version, if it has one.
    pub(crate) fn version_flag(self) -> Option<&'static str> {
        match self {
            Self::Crestline { .. } => Some("--version"),
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
    // INVARIANT: declared before `folder`, so that the process ends before its files go.
    pub(crate) process: Process,
    folder: TempDir,
}

impl Proxy {
    /// Starts the proxy on a free port, in a folder of its own, and waits for the right answer.
    pub(crate) fn start(&self, site: &Site<'_>) -> Result<Running> {
        let name = self.kind.name();
        let folder = folder(site.folder, "proxy")?;
        let [address, ..] = free_addresses()?;
        let start = || {
            let place = Place { site, address, folder: folder.path(), program: &self.program };
            let command = match self.kind {
                Kind::Crestline { work_stealing } => crestline(&place, work_stealing),
                Kind::Bare => Ok(bare(&place)),
                Kind::Nginx => nginx(&place),
                Kind::Haproxy => haproxy(&place),
            }?;
            let mut process = Process::start(&command, &site.cores.proxy, folder.path())?;
            load::check(&mut process, address, Some("\r\nkey1: value1\r\n"))?;
            Ok(process)
        };
        let process =
            start().map_err(|error: Box<dyn std::error::Error>| format!("{name}: {error}"))?;
        Ok(Running { name, address, process, folder })
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

/// Where one proxy is set up.
struct Place<'a> {
    site: &'a Site<'a>,
    address: SocketAddr,
    folder: &'a Path,
    program: &'a Path,
}

/// Crestline, with access log and health checks, as its users run it.
fn crestline(place: &Place<'_>, work_stealing: bool) -> Result<Command> {
    let [a, b, c] = place.site.origins;
    let file = place.folder.join("crestline.yaml");
    let folder = place.folder.display();
    let text = format!(
        "threads: {threads}
work_stealing: {work_stealing}
pid_file: {folder}/crestline.pid
upgrade_sock: {folder}/upgrade.sock
listeners: [{{ address: \"{address}\" }}]
access_log: {{ path: {folder}/access.log }}
upstreams:
  app: {{ backends: [\"{a}\", \"{b}\", \"{c}\"], health_check: {{ tcp: {{}}, every: 1s }} }}
routes:
  - {{ name: all, policies: [ {{ response_headers: {{ set: {{ key1: value1 }} }} }} ], upstream: app }}
",
        threads = place.site.threads,
        address = place.address,
    );
    fs::write(&file, text)?;
    let mut command = Command::new(place.program);
    command.arg("-c").arg(file);
    Ok(command)
}

/// The tuned example of Pingora, `benches/bare.rs`: no log, no checks.
fn bare(place: &Place<'_>) -> Command {
    let mut command = Command::new(place.program);
    command.arg(place.address.to_string()).arg(place.site.threads.to_string());
    command.args(place.site.origins.map(|origin| origin.to_string()));
    command
}

/// nginx, with its access log and kept connections to the origins.
///
/// Its default buffers (eight of 4 KiB) double what a body of 100 KiB costs it; these hold one.
fn nginx(place: &Place<'_>) -> Result<Command> {
    let [a, b, c] = place.site.origins;
    let server = format!(
        "  access_log access.log combined;
  upstream app {{
    server {a};
    server {b};
    server {c};
    keepalive 256;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {address};
    location / {{
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffer_size 16k;
      proxy_buffers 16 16k;
      proxy_max_temp_file_size 0;
      add_header key1 value1;
    }}
  }}
",
        address = place.address,
    );
    nginx_command(place.program, place.folder, place.site.threads, &server)
}

/// Writes what every nginx here has in common, around its servers, and the command to start it.
fn nginx_command(program: &Path, folder: &Path, workers: usize, http: &str) -> Result<Command> {
    let text = format!(
        "daemon off;
user root root;
worker_processes {workers};
pid nginx.pid;
error_log stderr;
events {{ worker_connections 8192; }}
http {{
  keepalive_requests 1000000000;
  client_body_temp_path client;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
{http}}}
"
    );
    fs::write(folder.join("nginx.conf"), text)?;
    let mut command = Command::new(program);
    command.arg("-p").arg(folder).args(["-c", "nginx.conf", "-e", "stderr"]);
    Ok(command)
}

/// `HAProxy`, with checks, and its log on stdout, which is a file.
fn haproxy(place: &Place<'_>) -> Result<Command> {
    let [a, b, c] = place.site.origins;
    let file = place.folder.join("haproxy.cfg");
    let text = format!(
        "global
  nbthread {threads}
  maxconn 8192
  log stdout format raw local0

defaults
  mode http
  log global
  option httplog
  option http-keep-alive
  http-reuse always
  timeout connect 1s
  timeout client 75s
  timeout server 60s

frontend edge
  bind {address}
  default_backend app

backend app
  balance roundrobin
  http-response set-header key1 value1
  server a {a} check inter 1s
  server b {b} check inter 1s
  server c {c} check inter 1s
",
        threads = place.site.threads,
        address = place.address,
    );
    fs::write(&file, text)?;
    let mut command = Command::new(place.program);
    command.arg("-db").arg("-f").arg(file);
    Ok(command)
}

/// Lets the system choose three free ports; held together, so that they differ.
fn free_addresses() -> Result<[SocketAddr; 3]> {
    let listen = || TcpListener::bind(("127.0.0.1", 0));
    let listeners = [listen()?, listen()?, listen()?];
    let [a, b, c] = &listeners;
    Ok([a.local_addr()?, b.local_addr()?, c.local_addr()?])
}
