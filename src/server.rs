//! The one place that assembles Pingora's server: listeners and services.

mod leaving;
mod stop;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use log::{info, warn};
use pingora::server::{RunArgs, Server, configuration::Opt};
use pingora_core::{
    apps::HttpServerOptions,
    protocols::http::v2::server::{H2Options, default_h2_options},
    services::background::background_service,
};
use pingora_proxy::http_proxy;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    admin::{Admin, socket},
    control::{Control, Provenance, background::Background},
    downstream::config::Address,
    drain::Drain,
    listener::{
        Edge,
        bind::{BindError, Bound, Listening},
        handed::{Handed, HandedError},
    },
    proxy::Proxy,
    server::{
        leaving::Leaving,
        stop::{LastActs, Stop},
    },
    snapshot::Snapshot,
};

/// Streams at a time on one HTTP/2 connection.
const H2_STREAMS: u32 = 128;
/// What a client may send on one stream before it is read.
const H2_STREAM_WINDOW: u32 = 256 * 1024;
/// The same for a connection.
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What Pingora gives requests in flight at a stop if nothing is said, in seconds.
const GRACE: u64 = 300;
/// What it gives its runtimes after that.
const FAREWELL: u64 = 5;
/// How much later Pingora ends the process than the process itself.
const SLACK: u64 = 10;

/// How Pingora is told to start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Take over the sockets of a running process.
    pub upgrade: bool,
    /// Run in the background.
    pub daemon: bool,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A socket that systemd handed in is of no use: the configuration and its unit disagree.
    #[error(transparent)]
    Handed(#[from] HandedError),
}

/// A server that is ready to run.
pub struct Prepared {
    server: Server,
    addresses: Vec<Address>,
    control: Arc<Control>,
    admin_place: Option<socket::Place>,
    leaving: Leaving,
}

/// Binds, takes over, and assembles; nothing answers yet.
///
/// # Errors
/// If a socket cannot be bound, or one that systemd handed in is wanted by no listener.
pub fn prepare(
    mut snapshot: Snapshot,
    provenance: Provenance,
    start: Start,
) -> Result<Prepared, StartError> {
    let wanted = snapshot.listeners.iter().map(|listener| &listener.address);
    let mut handed = Handed::take(&wanted)?;
    raise_file_limit();
    // A successor is handed its sockets; what it is not handed, it binds when it starts.
    let bound: Vec<Bound> = if start.upgrade {
        wanted.filter_map(|address| handed.find(address)).collect()
    } else {
        wanted.map(|address| handed.find_or_bind(address)).collect::<Result<_, _>>()?
    };
    if !start.upgrade {
        for (listener, bound) in snapshot.listeners.iter_mut().zip(&bound) {
            listener.address = bound.address.clone();
        }
    }
    let opt = Opt { upgrade: start.upgrade, daemon: start.daemon, ..Opt::default() };
    let mut conf = snapshot.file.server();
    let grace = Duration::from_secs(conf.grace_period_seconds.unwrap_or(GRACE));
    let farewell = Duration::from_secs(conf.graceful_shutdown_timeout_seconds.unwrap_or(FAREWELL));
    // The process leaves by itself before Pingora would end its runtimes.
    conf.grace_period_seconds = Some((grace + farewell).as_secs().saturating_add(SLACK));
    let mut server = Server::new_with_opt_and_conf(opt, conf);
    server.bootstrap();

    let live = Arc::new(ArcSwap::from_pointee(snapshot));
    let drain = Arc::new(Drain::default());
    let control = Control::new(live.clone(), provenance);
    let background = Background::new(control.clone());
    let background = server.add_service(background_service("upstreams", background));

    let snapshot = live.load();
    let mut proxy = http_proxy(&server.configuration, Proxy::new(live.clone()));
    // Pingora has one setting for all listeners: the widest of theirs, and hooks keep the rest.
    let http2 = snapshot.listeners.iter().filter(|listener| listener.h2c);
    let bounds = || http2.clone().map(|listener| &listener.bounds);
    let header_list = bounds().map(|bounds| bounds.head.header_size).max();
    proxy.h2_options = Some(h2_options(header_list.unwrap_or(0)));
    let idle = bounds().map(|bounds| bounds.idle_timeout).max();
    proxy.server_options = Some(server_options(idle.unwrap_or_default()));
    let addresses: Vec<Address> =
        snapshot.listeners.iter().map(|listener| listener.address.clone()).collect();
    let edge = Edge::new(Arc::new(proxy), live.clone(), drain.clone());
    let listening = Listening::new(edge, addresses.clone(), bound, drain.clone());
    let listening = server.add_service(listening);
    listening.add_dependency(&background);
    let admin = bind_admin(&control, &server.configuration.pid_file, start)?;
    let admin_place = admin.as_ref().map(|bound| bound.place().clone());
    if let Some(bound) = admin {
        let admin = background_service("admin", Admin::new(control.clone(), drain.clone(), bound));
        server.add_service(admin).add_dependency(&background);
    }
    let leaving = Leaving::new(drain, control.clone(), grace, farewell);
    Ok(Prepared { server, addresses, control, admin_place, leaving })
}

/// Binds the admin socket; a process without a file has none, since no command could find it.
fn bind_admin(
    control: &Control,
    pid_file: &str,
    start: Start,
) -> Result<Option<socket::Bound>, StartError> {
    if control.path().is_none() {
        return Ok(None);
    }
    let path = socket::path(pid_file);
    if !start.upgrade && socket::is_in_use(&path) {
        let why = "another process answers there; give each its own `pid_file`".to_owned();
        return Err(BindError { address: Address::Unix(path), why }.into());
    }
    let bound = socket::bind(&path);
    if let Err(why) = &bound {
        let path = path.display();
        warn!("admin: no socket at {path}, so that no command reaches this process: {why}");
    }
    Ok(bound.ok())
}

impl Prepared {
    /// The addresses of the TCP listeners, with the ports that the system chose.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let sockets = self.addresses.iter().filter_map(|address| match address {
            Address::Socket(socket) => Some(*socket),
            Address::Unix(_) => None,
        });
        sockets.collect()
    }

    /// Runs until a signal ends the process, and writes out what waits to be logged.
    pub fn run(self) {
        let last = Arc::new(LastActs::new(self.control, self.admin_place));
        let shutdown_signal = Box::new(Stop::new(last.clone(), self.leaving));
        self.server.run(RunArgs { shutdown_signal });
        last.perform();
    }
}

fn h2_options(header_list: usize) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_header_list_size(u32::try_from(header_list).unwrap_or(u32::MAX))
        .max_concurrent_streams(H2_STREAMS)
        .initial_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW);
    options
}

/// Connections speak HTTP/2 only where [`Edge`] has seen its preface on a listener that allows it.
fn server_options(idle: Duration) -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    options.h2_idle_timeout = Some(idle);
    options
}

/// Raises the soft limit of open files to the hard one: each connection takes two.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => info!("open files: limit raised to {:?}", limit.maximum.unwrap_or(u64::MAX)),
        Err(why) => warn!("open files: limit stays at {:?}: {why}", limit.current),
    }
}
