//! The one place that assembles Pingora's server: listeners and services.

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
    listener::{
        Edge,
        bind::{self, BindError, Bound, Listening},
    },
    proxy::Proxy,
    server::stop::{LastActs, Stop},
    snapshot::Snapshot,
    units::ByteSize,
};

/// Streams at a time on one HTTP/2 connection.
const H2_STREAMS: u32 = 128;
/// What a client may send on one stream before it is read.
const H2_STREAM_WINDOW: u32 = 256 * 1024;
/// The same for a connection.
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How Pingora is told to start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Take over the sockets of a running process.
    pub upgrade: bool,
    /// Run in the background.
    pub daemon: bool,
}

/// Why a server cannot start.
pub type StartError = BindError;

/// A server that is ready to run.
pub struct Prepared {
    server: Server,
    addresses: Vec<Address>,
    control: Arc<Control>,
    admin_place: Option<socket::Place>,
}

/// Binds, takes over, and assembles; nothing answers yet.
///
/// # Errors
/// If a socket cannot be bound.
pub fn prepare(
    mut snapshot: Snapshot,
    provenance: Provenance,
    start: Start,
) -> Result<Prepared, StartError> {
    raise_file_limit();
    // A successor is handed its sockets; what it is not handed, it binds when it starts.
    let bound: Vec<Bound> = if start.upgrade {
        Vec::new()
    } else {
        let bound = snapshot.listeners.iter().map(|listener| bind::bind(&listener.address));
        bound.collect::<Result<_, _>>()?
    };
    for (listener, bound) in snapshot.listeners.iter_mut().zip(&bound) {
        listener.address = bound.address.clone();
    }
    let opt = Opt { upgrade: start.upgrade, daemon: start.daemon, ..Opt::default() };
    let mut server = Server::new_with_opt_and_conf(opt, snapshot.file.server());
    server.bootstrap();

    let live = Arc::new(ArcSwap::from_pointee(snapshot));
    let control = Control::new(live.clone(), provenance);
    let background = Background::new(control.clone());
    let background = server.add_service(background_service("upstreams", background));

    let snapshot = live.load();
    let mut proxy = http_proxy(&server.configuration, Proxy::new(live.clone()));
    // Pingora has one setting for all listeners: the widest of theirs, and hooks keep the rest.
    let (header_list, idle) = snapshot.file.http2_bounds();
    proxy.h2_options = Some(h2_options(header_list));
    proxy.server_options = Some(server_options(idle.0));
    let addresses: Vec<Address> =
        snapshot.listeners.iter().map(|listener| listener.address.clone()).collect();
    let edge = Edge::new(Arc::new(proxy), live.clone());
    let listening = server.add_service(Listening::new(edge, addresses.clone(), bound));
    listening.add_dependency(&background);
    let admin = bind_admin(&control, &server.configuration.pid_file, start)?;
    let admin_place = admin.as_ref().map(|bound| bound.place().clone());
    if let Some(bound) = admin {
        let admin = background_service("admin", Admin::new(control.clone(), bound));
        server.add_service(admin).add_dependency(&background);
    }
    Ok(Prepared { server, addresses, control, admin_place })
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
        return Err(BindError { address: Address::Unix(path), why });
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
        let shutdown_signal = Box::new(Stop::new(last.clone()));
        self.server.run(RunArgs { shutdown_signal });
        last.perform();
    }
}

fn h2_options(header_list: ByteSize) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_header_list_size(u32::try_from(header_list.0).unwrap_or(u32::MAX))
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
