//! Starting a successor: which program, with which arguments, and whether it likes what it reads.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    time,
};

use crate::{
    handover::{refusal::Refusal, told},
    systemd,
};

/// The variable that tells a successor where to wait. It counts more than its `upgrade_sock`,
/// which may be a new one.
const UPGRADE_SOCK: &str = "CRESTLINE_UPGRADE_SOCK";
/// So much of what a check says is told.
const WORDS_BYTES_MAX: u64 = 64 << 10;
/// A wrong configuration (`EX_CONFIG`).
const EXIT_CONFIG: i32 = 78;

/// How this process was started, as far as a successor is started the same way.
#[derive(Clone, Debug)]
pub struct Launch {
    binary: PathBuf,
    conf: Option<PathBuf>,
    daemon: bool,
}

/// Where the process that started this one said that it should wait.
pub fn told_upgrade_sock() -> Option<PathBuf> {
    env::var_os(UPGRADE_SOCK).map(PathBuf::from)
}

impl Launch {
    /// How this process was started, with this file. To be asked at the start, before the program
    /// is replaced or the folder changed.
    pub fn of_this_process(conf: Option<&Path>, daemon: bool) -> Self {
        let conf = conf.map(Path::to_owned);
        Self { binary: program(), conf, daemon }
    }

    /// The program, unless another one is to be taken.
    pub(super) fn binary<'a>(&'a self, other: Option<&'a Path>) -> &'a Path {
        other.unwrap_or(&self.binary)
    }

    /// Lets a program check the configuration.
    pub(super) async fn check(&self, binary: &Path) -> Result<(), Refusal> {
        let mut command = self.command(binary)?;
        systemd::hide_from(command.as_std_mut());
        command.arg("-t").stderr(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
        let cannot = |why| Refusal::Binary(format!("cannot run {}: {why}", told(binary)));
        let mut child = command.spawn().map_err(cannot)?;
        let mut words = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            let mut stderr = stderr.take(WORDS_BYTES_MAX);
            stderr.read_to_end(&mut words).await.map_err(cannot)?;
        }
        let ended = child.wait().await.map_err(cannot)?;
        let words = String::from_utf8_lossy(&words).trim_end().to_owned();
        match ended.code() {
            Some(0) => Ok(()),
            Some(EXIT_CONFIG) => Err(Refusal::Configuration(words)),
            _ => {
                let why = format!("{} -t did not check the file: {ended}\n{words}", told(binary));
                Err(Refusal::Binary(why.trim_end().to_owned()))
            }
        }
    }

    /// Starts a successor that waits at `upgrade_sock`. It outlives this process, and signals that
    /// a terminal sends to this one do not reach it; its output goes where this one's goes.
    pub(super) fn start(&self, binary: &Path, upgrade_sock: &Path) -> Result<Child, Refusal> {
        let mut command = self.command(binary)?;
        systemd::pass_on(command.as_std_mut());
        command.arg("-u").env(UPGRADE_SOCK, upgrade_sock).process_group(0);
        if self.daemon {
            command.arg("-d");
        }
        let cannot = |why| Refusal::Binary(format!("cannot run {}: {why}", told(binary)));
        command.spawn().map_err(cannot)
    }

    fn command(&self, binary: &Path) -> Result<Command, Refusal> {
        let conf = self.conf.as_ref().ok_or(Refusal::NoFile)?;
        let mut command = Command::new(binary);
        command.arg("-c").arg(conf).stdin(Stdio::null()).env_remove(UPGRADE_SOCK);
        Ok(command)
    }
}

/// The path by which this program was called: what lies there at an upgrade is the new one. The
/// file that the process began as may be gone by then, and is the target of a link at best.
fn program() -> PathBuf {
    let called = env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let called = if called.as_os_str().as_encoded_bytes().contains(&b'/') {
        std::path::absolute(&called).ok()
    } else {
        in_path(&called)
    };
    let called = called.filter(|path| path.is_file());
    called.or_else(|| env::current_exe().ok()).unwrap_or_default()
}

fn in_path(name: &Path) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    let mut places = env::split_paths(&folders).map(|folder| folder.join(name));
    places.find(|place| place.is_file()).and_then(|place| std::path::absolute(place).ok())
}

/// Ends a successor that must not serve, and tells how it ended: what it was told should have
/// been enough.
pub(super) async fn end(mut child: Child, within: Duration) -> String {
    if let Ok(ended) = time::timeout(within, child.wait()).await {
        return ended.map_or_else(|why| why.to_string(), |status| status.to_string());
    }
    // It leads a group of its own, in which others may be if it is a script.
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(Err(why)) = group.map(|group| kill_process_group(group, Signal::KILL)) {
        return format!("it could not be killed: {why}");
    }
    let _ = child.wait().await;
    "killed, since it did not end by itself".to_owned()
}
