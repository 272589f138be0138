//! The one place that assembles Pingora's server: listeners and services.

mod leaving;
mod stop;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::FutureExt;
use log::{info, warn};
use pingora::server::{RunArgs, Server, configuration::Opt};
use pingora_core::{
    apps::HttpServerOptions,
    connectors::{ConnectorOptions, http::Connector},
    protocols::http::v2::server::{H2Options, default_h2_options},
    services::background::background_service,
};
use pingora_proxy::{HttpProxy, http_proxy};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::watch;

use crate::{
    admin::{Admin, Api, Names, front::Front, live::Live as Happenings, socket},
    control::{Control, Provenance, background::Background},
    downstream::config::{Address, socket::Config as Options},
    drain::Drain,
    handover::{
        launch::{self, Launch},
        pid_file::PidFile,
        predecessor::Predecessor,
        succession::Succession,
        successor::{self, WaitError},
    },
    http2::guard::STREAMS_MAX,
    listener::{
        Edge, Relay,
        admission::Admission,
        bind::{BindError, Bound, Listening},
        handed::{Handed, HandedError},
        sockets::Sockets,
    },
    proxy::{Caught, Proxy},
    server::{
        leaving::Leaving,
        stop::{LastActs, Stop, Watched},
    },
    snapshot::{Live, Snapshot},
    stream,
    tls::origin,
    units::ByteSize,
};

/// Streams of HTTP/2 that a client may make us reset by its mistakes, in the life of a connection.
const H2_MISTAKES: usize = 20;
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
    /// There is nobody to succeed.
    #[error(transparent)]
    Wait(#[from] WaitError),
}

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to, or has a successor.
    Stopped,
    /// It was to be a successor, and its predecessor serves on.
    TakenBack,
}

/// A server that is ready to run.
pub struct Prepared {
    server: Server,
    addresses: Vec<Address>,
    last: LastActs,
    watched: Watched,
    leaving: Leaving,
}

/// Binds, takes over, and assembles; nothing answers yet.
///
/// # Errors
/// If a socket cannot be bound, one that systemd handed in is wanted by no listener, or nobody
/// hands any over to a successor.
pub fn prepare(
    mut snapshot: Snapshot,
    mut provenance: Provenance,
    start: Start,
) -> Result<Prepared, StartError> {
    let wanted = snapshot.listeners.iter().map(|listener| &listener.address);
    let wanted = wanted.chain(snapshot.admin.iter().map(|admin| &admin.address));
    let mut handed = Handed::take(&wanted)?; // first of all: it takes them out of the environment
    let admission = Arc::new(Admission::new(raise_file_limit()));
    let launch = Launch::of_this_process(provenance.path.as_deref(), start.daemon);
    let opt = Opt { daemon: start.daemon, ..Opt::default() }; // sockets are handed over by us
    let mut conf = snapshot.file.server();
    let grace = Duration::from_secs(conf.grace_period_seconds.unwrap_or(GRACE));
    let farewell = Duration::from_secs(conf.graceful_shutdown_timeout_seconds.unwrap_or(FAREWELL));
    conf.ca_file = origin::roots_for_pingora();
    // The process leaves by itself before Pingora would end its runtimes.
    conf.grace_period_seconds = Some((grace + farewell).as_secs().saturating_add(SLACK));
    let mut server = Server::new_with_opt_and_conf(opt, conf);
    server.bootstrap();
    let upgrade_sock = PathBuf::from(&server.configuration.upgrade_sock);
    let (mut bound, predecessor) = if start.upgrade {
        provenance.summary = Some("taken over at an upgrade");
        let path = launch::told_upgrade_sock().unwrap_or_else(|| upgrade_sock.clone());
        succeed(&mut snapshot, &provenance, &path, &mut handed)?
    } else {
        (bind_all(&snapshot, &mut handed)?, None)
    };
    for (listener, bound) in snapshot.listeners.iter_mut().zip(&bound) {
        listener.address = bound.address.clone();
    }
    let front = snapshot.admin.as_mut().and_then(|admin| {
        let bound = bound.pop()?; // the last of all
        admin.address = bound.address.clone();
        Some(bound)
    });
    let beside = front.iter().map(Bound::copy).collect::<Result<_, _>>()?;
    let addresses: Vec<Address> = bound.iter().map(|bound| bound.address.clone()).collect();

    let live = Arc::new(ArcSwap::from_pointee(snapshot));
    let drain = Arc::new(Drain::default());
    let control = Control::new(live.clone(), provenance);
    let background = Background::new(control.clone());
    let background = server.add_service(background_service("upstreams", background));

    let app = Arc::new(proxy(&server, &live));
    let edge =
        Edge::new(app, relay(&server, &live), live.clone(), drain.clone(), admission.clone());
    let sockets = Sockets::default();
    let listening = Listening::new(edge, bound, beside, sockets.clone(), drain.clone(), admission);
    let listening = server.add_service(listening);
    listening.add_dependency(&background);

    // Without a file no command could find the process, and nobody named a pid file either.
    let pid_file = control.path().map(|_| PidFile::new(&server.configuration.pid_file));
    let (in_place, is_in_place) = watch::channel(pid_file.is_none());
    let handover =
        Predecessor::new(control.clone(), sockets.clone(), upgrade_sock, launch, pid_file.clone());
    let succession = predecessor.map(|predecessor| {
        let succession = Succession::new(predecessor, &control, sockets.clone(), is_in_place);
        let outcome = succession.outcome();
        (server.add_service(background_service("succession", succession)), outcome)
    });
    let api = Arc::new(Api {
        control: control.clone(),
        drain: drain.clone(),
        handover: handover.clone(),
        sockets: sockets.clone(),
        live: Happenings::new(control.clone(), drain.clone(), handover.clone()),
    });
    if let Some(bound) = front {
        let front = Front::new(bound, api.clone(), handover.clone());
        let front = server.add_service(background_service("admin listener", front));
        if let Some((succession, _)) = &succession {
            front.add_dependency(succession); // until then, the predecessor answers
        }
    }
    let mut last = LastActs::new(control.clone());
    if let Some(pid_file) = pid_file {
        let bound = bind_admin(&server.configuration.pid_file, start)?;
        last.names(bound.as_ref().map(|bound| bound.place().clone()), pid_file.clone());
        let names = Names { bound, pid_file, in_place };
        let admin = server.add_service(background_service("admin", Admin::new(api, names)));
        admin.add_dependency(&listening); // it is found when it serves
        if let Some((succession, _)) = &succession {
            admin.add_dependency(succession);
        }
    }
    let outcome = succession.map(|(_, outcome)| outcome);
    let watched = Watched { handover, outcome, sockets };
    let leaving = Leaving::new(drain, control, grace, farewell);
    Ok(Prepared { server, addresses, last, watched, leaving })
}

/// Where sockets are to be bound, and what they are told: the listeners, and at the end the admin
/// listener.
fn places(snapshot: &Snapshot) -> Vec<(Address, Options)> {
    let listeners = snapshot.file.listeners.iter().zip(&snapshot.listeners);
    let listeners =
        listeners.map(|(written, listener)| (listener.address.clone(), written.socket.clone()));
    let admin = snapshot.admin.iter().map(|admin| (admin.address.clone(), Options::default()));
    listeners.chain(admin).collect()
}

/// Binds a socket for each place.
fn bind_all(snapshot: &Snapshot, handed: &mut Handed) -> Result<Vec<Bound>, BindError> {
    let places = places(snapshot).into_iter();
    let bound =
        places.map(|(address, options)| handed.find_or_bind(&address, &options)?.with(&options));
    bound.collect()
}

/// Waits for a predecessor, and goes on where it was; binds what it does not have.
fn succeed(
    snapshot: &mut Snapshot,
    provenance: &Provenance,
    upgrade_sock: &Path,
    handed: &mut Handed,
) -> Result<(Vec<Bound>, Option<successor::Predecessor>), StartError> {
    let mut inheritance = successor::wait(upgrade_sock, successor::PATIENCE)?;
    inheritance.pass_to(snapshot, provenance.texts.fingerprint());
    let (written, options): (Vec<_>, Vec<_>) = places(snapshot).into_iter().unzip();
    let claimed = inheritance.claim(&written);
    let bound = written.iter().zip(&options).zip(claimed).map(|((address, options), claimed)| {
        claimed.map_or_else(|| handed.find_or_bind(address, options), Ok)?.with(options)
    });
    match bound.collect() {
        Ok(bound) => Ok((bound, Some(inheritance.into_predecessor()))),
        Err(why) => {
            inheritance.refuse(&BindError::to_string(&why));
            Err(why.into())
        }
    }
}

/// Pingora's proxy, with our own phases.
fn proxy(server: &Server, live: &Live) -> HttpProxy<Caught<Proxy>> {
    let snapshot = live.load();
    let options = ConnectorOptions::from_server_conf(&server.configuration);
    let direct = Connector::new(Some(options));
    let mut proxy = http_proxy(&server.configuration, Proxy::new(live.clone(), direct));
    // Pingora has one setting for all listeners: the widest of theirs, and hooks keep the rest.
    let (header_list, idle) = snapshot.file.http2_bounds();
    proxy.h2_options = Some(h2_options(header_list));
    proxy.server_options = Some(server_options(idle.0));
    proxy
}

/// What passes connections on as they come.
fn relay(server: &Server, live: &Live) -> Relay {
    let options = ConnectorOptions::from_server_conf(&server.configuration);
    let relay = Arc::new(stream::Relay::new(live.clone(), options));
    Arc::new(move |relayed, target| {
        let relay = relay.clone();
        async move { relay.relay(relayed, target).await }.boxed()
    })
}

/// Binds the admin socket; a successor's takes its place later.
fn bind_admin(pid_file: &str, start: Start) -> Result<Option<socket::Bound>, StartError> {
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

    /// Runs until a signal or a successor ends the process, and writes out what waits to be
    /// logged.
    pub fn run(self) -> Ended {
        let Self { server, last, watched, leaving, .. } = self;
        let (last, outcome) = (Arc::new(last), watched.outcome.clone());
        let shutdown_signal = Box::new(Stop::new(last.clone(), watched, leaving));
        server.run(RunArgs { shutdown_signal });
        last.perform();
        let is_taken_back = outcome.is_some_and(|outcome| outcome.is_taken_back());
        if is_taken_back { Ended::TakenBack } else { Ended::Stopped }
    }
}

fn h2_options(header_list: ByteSize) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_header_list_size(u32::try_from(header_list.0).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS_MAX)
        .max_local_error_reset_streams(Some(H2_MISTAKES))
        .initial_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .enable_connect_protocol();
    options
}

/// Connections speak HTTP/2 only where [`Edge`] has seen its preface on a listener that allows it.
fn server_options(idle: Duration) -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    options.h2_idle_timeout = Some(idle);
    options
}

/// Raises the soft limit of open files to the hard one, and returns it: each connection takes two.
fn raise_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => {
            info!("open files: limit raised to {:?}", limit.maximum.unwrap_or(u64::MAX));
            limit.maximum
        }
        Err(why) => {
            warn!("open files: limit stays at {:?}: {why}", limit.current);
            limit.current
        }
    }
}
