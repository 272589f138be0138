//! The command line: arguments, problems and exit codes.

mod drain;
mod explain;
mod log_levels;
mod metrics;
mod purge;
mod remote;
mod requests;
mod top;
mod upgrade;

use std::{
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use structopt::{
    StructOpt,
    clap::{self, AppSettings},
};

use crate::{
    admin::openapi,
    config::{self, File, schema},
    control::Provenance,
    demo,
    diagnostic::{Color, Problems, Sources, render},
    downstream::config::Address,
    observe::process_log,
    panics,
    server::{self, Ended, Start, StartError},
    snapshot::{self, Snapshot},
    upstream::config::{AddressError, BackendConfig, Config},
};

/// The file that is taken without `-c`.
const CONF: &str = "/etc/crestline/crestline.yaml";

/// The port that is listened on without a file.
const PORT: u16 = 3030;

/// Wrong usage (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;
/// A port that cannot be bound (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: u8 = 69;
/// A wrong configuration (`EX_CONFIG`).
const EXIT_CONFIG: u8 = 78;

/// An edge proxy: one binary, one YAML file.
#[derive(Debug, StructOpt)]
#[structopt(name = "crestline", global_setting = AppSettings::UnifiedHelpMessage)]
struct Arguments {
    /// The configuration [default: /etc/crestline/crestline.yaml]
    #[structopt(short, long, value_name = "FILE", parse(from_os_str), global = true)]
    conf: Option<PathBuf>,
    /// Runs in the background
    #[structopt(short, long)]
    daemon: bool,
    /// Waits for the sockets of the running process, which hands them over at SIGQUIT
    #[structopt(short, long)]
    upgrade: bool,
    /// Checks the configuration and exits
    #[structopt(short, long)]
    test: bool,
    /// Runs without a file, in front of these backends
    #[structopt(long, value_name = "URL", require_delimiter = true, conflicts_with_all = &["conf", "test"])]
    backends: Vec<BackendUrl>,
    /// The port to listen on with --backends [default: 3030]
    #[structopt(long, requires = "backends")]
    port: Option<u16>,
    #[structopt(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, StructOpt)]
enum Command {
    /// Runs three origins and a proxy in one process, to try things out
    Demo(demo::Options),
    /// Checks a configuration, and shows all problems at once
    Check {
        /// The configuration
        #[structopt(value_name = "FILE", parse(from_os_str))]
        file: Option<PathBuf>,
    },
    /// Reads the configuration of the running process again, and tells what changed
    Reload(remote::Reload),
    /// Tells what becomes of a request, and why: route, policies, upstream, settings
    Explain(explain::Explain),
    /// Lets a new process take the place of the running one, without losing a request
    Upgrade(upgrade::Upgrade),
    /// Shows what the running process is doing
    Status(remote::Show),
    /// Shows live, in a terminal, what the running process is doing, and which backends have the
    /// most to do, or fail the most
    Top(top::Top),
    /// Stops the running process gracefully, and shows what is in flight until it is gone; or
    /// drains one of its backends
    Drain(drain::Drain),
    /// Removes answers that the running process keeps, by URL, prefix, tag or route
    Purge(purge::Purge),
    /// Shows the requests that failed, were refused, or were slow, or tells the story of one
    Requests(requests::Requests),
    /// Shows what the process log tells, or has it tell more or less until the next reload
    LogLevels(log_levels::LogLevels),
    /// Prints the metrics of the running process, as Prometheus reads them
    Metrics(metrics::Metrics),
    /// Prints the JSON Schema of the configuration, for editors
    Schema {
        /// Prints the reference manual instead
        #[structopt(long)]
        markdown: bool,
        /// Prints the OpenAPI document of the admin API instead
        #[structopt(long, conflicts_with = "markdown")]
        openapi: bool,
        /// Prints what policies there are instead
        #[structopt(long, conflicts_with_all = &["markdown", "openapi"])]
        policies: bool,
    },
}

/// A backend as the command line takes it: `http://host:port`, or an address.
#[derive(Debug)]
struct BackendUrl(BackendConfig);

impl std::str::FromStr for BackendUrl {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let address = text.strip_prefix("http://").unwrap_or(text);
        let address = address.strip_suffix('/').unwrap_or(address);
        match address.parse() {
            Err(AddressError::NoPort(_)) => format!("{address}:80").parse().map(Self),
            parsed => parsed.map(Self),
        }
    }
}

/// Runs the program with the arguments of this process.
pub fn run() -> ExitCode {
    match Arguments::from_args_safe() {
        Ok(arguments) => arguments.run(),
        Err(error) => usage(&error),
    }
}

/// Help and version are answers; everything else is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    let asked =
        matches!(error.kind, clap::ErrorKind::HelpDisplayed | clap::ErrorKind::VersionDisplayed);
    if asked {
        let _ = writeln!(io::stdout(), "{}", error.message);
        return ExitCode::SUCCESS;
    }
    say(&format!("{}\n", error.message));
    ExitCode::from(EXIT_USAGE)
}

impl Arguments {
    /// Was any flag given that is about running?
    fn is_given_flags(&self) -> bool {
        let Self { conf, daemon, upgrade, test, backends, port, command: _ } = self;
        conf.is_some() || *daemon || *upgrade || *test || !backends.is_empty() || port.is_some()
    }

    fn run(self) -> ExitCode {
        let start = Start { upgrade: self.upgrade, daemon: self.daemon };
        match self.command {
            Some(Command::Demo(options)) => demo(options),
            Some(Command::Check { file }) => check(file.or(self.conf)),
            Some(Command::Reload(options)) => options.run(self.conf),
            Some(Command::Explain(options)) => options.run(self.conf),
            Some(Command::Upgrade(options)) => options.run(self.conf),
            Some(Command::Status(options)) => options.status(self.conf),
            Some(Command::Top(options)) => options.run(self.conf),
            Some(Command::Drain(options)) => options.run(self.conf),
            Some(Command::Metrics(options)) => options.run(self.conf),
            Some(Command::Purge(options)) => options.run(self.conf),
            Some(Command::LogLevels(options)) => options.run(self.conf),
            Some(Command::Requests(options)) => options.run(self.conf),
            Some(Command::Schema { .. }) if self.is_given_flags() => {
                say(
                    "error: `crestline schema` takes no other flag than `--markdown`, `--openapi` or `--policies`\n",
                );
                ExitCode::from(EXIT_USAGE)
            }
            Some(Command::Schema { openapi: true, .. }) => print(&openapi::printed()),
            Some(Command::Schema { policies: true, .. }) => print(&schema::policies()),
            Some(Command::Schema { markdown: true, .. }) => print(&schema::manual()),
            Some(Command::Schema { .. }) => print(&schema::editors()),
            None if self.test => check(self.conf),
            None if !self.backends.is_empty() => {
                let backends = self.backends.into_iter().map(|backend| backend.0).collect();
                serve(without_file(backends, self.port.unwrap_or(PORT)), start)
            }
            None => serve(with_file(self.conf), start),
        }
    }
}

/// Output for programs goes to stdout; a reader that has seen enough is no failure.
fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(why) if why.kind() != io::ErrorKind::BrokenPipe => {
            say(&format!("error: cannot print: {why}\n"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

fn check(file: Option<PathBuf>) -> ExitCode {
    let path = file.unwrap_or_else(|| CONF.into());
    match with_file(Some(path.clone())) {
        Ok(_) => {
            say(&format!("{} is good\n", path.display()));
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

fn demo(options: demo::Options) -> ExitCode {
    listen();
    match demo::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}\n"));
            ExitCode::from(EXIT_UNAVAILABLE)
        }
    }
}

fn serve(read: Result<Good, ExitCode>, start: Start) -> ExitCode {
    let Good { snapshot, provenance } = match read {
        Ok(read) => read,
        Err(code) => return code,
    };
    listen();
    match server::prepare(snapshot, provenance, start) {
        Ok(prepared) => match prepared.run() {
            Ended::Stopped => ExitCode::SUCCESS,
            Ended::TakenBack => ExitCode::from(EXIT_UNAVAILABLE),
        },
        Err(error) => {
            say(&format!("error: {error}\n"));
            ExitCode::from(match error {
                StartError::Bind(_) | StartError::Wait(_) => EXIT_UNAVAILABLE,
                StartError::Handed(_) => EXIT_CONFIG,
            })
        }
    }
}

/// Starts the process log, and has panics told there.
fn listen() {
    process_log::start();
    panics::take_note();
}

/// A configuration that is good, and where it is from.
struct Good {
    snapshot: Snapshot,
    provenance: Provenance,
}

/// Reads and compiles a file; problems are shown here.
fn with_file(path: Option<PathBuf>) -> Result<Good, ExitCode> {
    let path = path.unwrap_or_else(|| CONF.into());
    let mut problems = Problems::default();
    let loaded = config::load(&path, &mut problems);
    let file = File::read(&loaded, &mut problems).map(Arc::new);
    let mut texts = loaded.texts();
    texts.watched.add(file.iter().flat_map(|file| file.files()));
    let snapshot = file.map(|file| snapshot::assemble(file, None, &mut problems));
    show(&problems, &loaded.sources);
    let snapshot = snapshot.filter(|_| !problems.has_errors());
    let snapshot = snapshot.ok_or(ExitCode::from(EXIT_CONFIG))?;
    // A daemon may change its folder, and the file must be found again.
    let path = std::path::absolute(&path).unwrap_or(path);
    Ok(Good { snapshot, provenance: Provenance { path: Some(path), texts, summary: None } })
}

fn without_file(backends: Vec<BackendConfig>, port: u16) -> Result<Good, ExitCode> {
    let mut problems = Problems::default();
    let any = Address::Socket(SocketAddr::from(([0, 0, 0, 0], port)));
    let file = File::of(any, Config::of(backends));
    let snapshot = snapshot::assemble(Arc::new(file), None, &mut problems);
    show(&problems, &Sources::default());
    if problems.has_errors() {
        return Err(ExitCode::from(EXIT_USAGE));
    }
    Ok(Good { snapshot, provenance: Provenance::default() })
}

fn show(problems: &Problems, sources: &Sources) {
    if problems.is_empty() {
        return;
    }
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colored = io::stderr().is_terminal() && !plain;
    say(&render(problems, sources, if colored { Color::Always } else { Color::Never }));
    let errors = problems.errors();
    if 0 < errors {
        let s = if errors == 1 { "" } else { "s" };
        say(&format!("\n{errors} error{s}\n"));
    }
}

/// Output for people goes to stderr; if that is closed, there is nobody to tell.
fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
