//! The real program under test: started with a file or arguments, watched through what it logs.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{self, Instant},
};

use super::{Answer, Client, Origin, PATIENCE, curl, eventually, get, soon};

/// So often it is looked whether a process of a test is left at its end.
const KILLED_IN_ROUNDS: usize = 1000;

/// From one look at `status` to the next, of which each is a process.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running Crestline. It, with all successors, is killed when this is dropped.
pub(crate) struct Crestline {
    /// Where it listens, in the order of its file: `127.0.0.1:40123`, `unix:/path`.
    pub(crate) addresses: Vec<String>,
    log: Arc<Mutex<Vec<String>>>,
    access_log: PathBuf,
    child: Child,
    folder: TempDir,
}

/// A Crestline that came to its end.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Crestline {
    /// Starts it with a file, completed by what every test needs: a listener, an access log, and
    /// paths of its own. Returns when it listens.
    pub(crate) async fn start(yaml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let yaml = completed(yaml, folder.path());
        let file = folder.path().join("crestline.yaml");
        fs::write(&file, &yaml).unwrap();
        let command = command(&["-c", file.to_str().unwrap()]);
        let crestline = Self::spawn(command, listeners_in(&yaml), folder).await;
        crestline.logs("admin: socket opened").await;
        crestline
    }

    /// Starts it with a file that lies beside others, in an environment.
    pub(crate) async fn start_among(
        files: &[(&str, &str)],
        environment: &[(&str, &str)],
        yaml: &str,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let yaml = completed(yaml, folder.path());
        let file = folder.path().join("crestline.yaml");
        fs::write(&file, &yaml).unwrap();
        let mut command = command(&["-c", file.to_str().unwrap()]);
        command.envs(environment.iter().copied());
        let crestline = Self::spawn(command, listeners_in(&yaml), folder).await;
        crestline.logs("admin: socket opened").await;
        crestline
    }

    /// Starts it with a file, in a process that may open so many files. Returns when it listens.
    pub(crate) async fn start_with_files(files: usize, yaml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let yaml = completed(yaml, folder.path());
        let file = folder.path().join("crestline.yaml");
        fs::write(&file, &yaml).unwrap();
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {files}; exec \"$@\"");
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_crestline"), "-c"]).arg(&file);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let crestline = Self::spawn(command, listeners_in(&yaml), folder).await;
        crestline.logs("admin: socket opened").await;
        crestline
    }

    /// How often it refused for a reason.
    pub(crate) async fn refused(&self, reason: &str) -> u64 {
        self.status().await["refused"][reason].as_u64().unwrap_or(0)
    }

    /// Waits until it refused so often, or more, for a reason: it counts when all is over.
    pub(crate) async fn has_refused(&self, reason: &str, times: u64) {
        let start = Instant::now();
        while self.refused(reason).await < times {
            assert!(start.elapsed() < PATIENCE, "waited in vain: {times} {reason}");
        }
    }

    /// Waits until it refused so often for a reason.
    pub(crate) async fn refuses_for(&self, reason: &str, times: u64) {
        self.has_refused(reason, times).await;
        assert_eq!(self.refused(reason).await, times, "{reason}");
    }

    /// Starts it with a file of several parts, each indented as it likes.
    pub(crate) async fn start_in_parts(parts: &[&str]) -> Self {
        Self::start(&parts.iter().map(|part| dedented(part)).collect::<String>()).await
    }

    /// Starts it with arguments alone. Returns when it listens.
    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        Self::spawn(command(arguments), 1, tempfile::tempdir().unwrap()).await
    }

    /// Starts it with arguments alone. Returns at once.
    pub(crate) async fn start_unready(arguments: &[&str]) -> Self {
        Self::spawn(command(arguments), 0, tempfile::tempdir().unwrap()).await
    }

    /// Starts it with a file and listening sockets that are open already. Returns when it listens.
    pub(crate) async fn start_handed(sockets: [Option<OwnedFd>; 2], yaml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let yaml = completed(yaml, folder.path());
        let file = folder.path().join("crestline.yaml");
        fs::write(&file, &yaml).unwrap();
        Self::spawn(handed(sockets, &file), listeners_in(&yaml), folder).await
    }

    /// The same, where it must refuse to start.
    pub(crate) async fn run_handed(sockets: [Option<OwnedFd>; 2], yaml: &str) -> Finished {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("crestline.yaml");
        fs::write(&file, completed(yaml, folder.path())).unwrap();
        Self::finish(&mut handed(sockets, &file)).await
    }

    async fn finish(command: &mut Command) -> Finished {
        let start = Instant::now();
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let id = child.id().unwrap();
        let ended = time::timeout(PATIENCE, child.wait_with_output()).await;
        let output = ended.unwrap_or_else(|_| panic!("{command:?} goes on:\n{}", state_of(id)));
        let output = output.unwrap();
        Finished {
            took: start.elapsed(),
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    async fn spawn(mut command: Command, listeners: usize, folder: TempDir) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut crestline = Self {
            addresses: Vec::new(),
            access_log: folder.path().join("access.log"),
            log: log.clone(),
            child,
            folder,
        };
        let reading = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                log.lock().unwrap().push(line);
            }
        });
        eventually("the listeners", || {
            crestline.addresses = crestline.opened();
            assert!(!reading.is_finished(), "it ended before it listened");
            crestline.addresses.len() == listeners
        })
        .await;
        crestline
    }

    /// Starts another process with its file, whose lines come into the same log.
    pub(crate) fn beside(&self, arguments: &[&str]) -> Child {
        let file = self.file().display().to_string();
        let mut command = command(&[&["-c", &file], arguments].concat());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = self.log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                log.lock().unwrap().push(line);
            }
        });
        child
    }

    /// Runs it to its end, which must come soon.
    pub(crate) async fn run(arguments: &[&str]) -> Finished {
        Self::finish(command(arguments).stdout(Stdio::piped())).await
    }

    fn opened(&self) -> Vec<String> {
        let opened = |line: &String| {
            let (_, rest) = line.split_once("listener: ")?;
            rest.strip_suffix(" opened").map(str::to_owned)
        };
        self.log.lock().unwrap().iter().filter_map(opened).collect()
    }

    /// Memory that it has in use, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim_end_matches("kB").trim().parse().unwrap()
    }

    /// How long processors have worked for it, in user space and in the kernel.
    pub(crate) fn processor(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10) // Linux shows a hundredth of a second, everywhere
    }

    /// The address of its first listener.
    pub(crate) fn address(&self) -> &str {
        &self.addresses[0]
    }

    /// A URL at its first listener.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// The folder of its own, for more files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder().join("crestline.yaml")
    }

    /// Replaces its file by a rename, as an editor does, completed as at the start.
    pub(crate) fn rewrite(&self, yaml: &str) {
        let draft = self.folder().join("crestline.yaml.new");
        fs::write(&draft, self.completed(yaml)).unwrap();
        fs::rename(&draft, self.file()).unwrap();
    }

    /// A file as [`Self::rewrite`] would write it.
    pub(crate) fn completed(&self, yaml: &str) -> String {
        completed(yaml, self.folder())
    }

    /// Runs a command with its file, which must end soon.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Finished {
        let file = self.file().display().to_string();
        Self::run(&[&["-c", &file], arguments].concat()).await
    }

    /// Rewrites its file and reloads, which must succeed; the receipt.
    pub(crate) async fn reload(&self, yaml: &str) -> String {
        self.rewrite(yaml);
        let Finished { code, stdout, stderr, .. } = self.command(&["reload"]).await;
        assert_eq!((code, &*stdout), (Some(0), ""), "{stderr}");
        stderr.trim_end().to_owned()
    }

    /// Rewrites its file and reloads, which must be refused; what was said.
    pub(crate) async fn refuses(&self, yaml: &str) -> String {
        self.rewrite(yaml);
        let Finished { code, stdout, stderr, .. } = self.command(&["reload"]).await;
        assert_eq!((code, &*stdout), (Some(78), ""), "{stderr}");
        stderr
    }

    /// What `crestline status` tells programs.
    pub(crate) async fn status(&self) -> Value {
        let finished = self.command(&["status", "--json"]).await;
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        serde_json::from_str(&finished.stdout).unwrap()
    }

    /// The version of the configuration in force.
    pub(crate) async fn version(&self) -> u64 {
        self.status().await["configuration"]["version"].as_u64().unwrap()
    }

    /// The availability of each backend of an upstream, by address.
    pub(crate) async fn availability(&self, upstream: &str) -> BTreeMap<String, String> {
        let status = self.status().await;
        let mut upstreams = status["upstreams"].as_array().unwrap().iter();
        let found = upstreams.find(|known| known["name"] == upstream).expect("an upstream");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let backends = found["backends"].as_array().unwrap().iter();
        backends.map(|one| (text(&one["address"]), text(&one["availability"]))).collect()
    }

    /// Waits until the source of its only upstream is in touch and these are all backends, by
    /// origin and weight, whatever the order.
    pub(crate) async fn finds(&self, expected: &[(&Origin, u64)]) {
        let mut expected: Vec<_> =
            expected.iter().map(|(origin, weight)| (origin.to_string(), *weight)).collect();
        expected.sort();
        let start = Instant::now();
        loop {
            let app = self.status().await["upstreams"][0].clone();
            let one = |one: &Value| {
                (one["address"].as_str().unwrap().to_owned(), one["weight"].as_u64().unwrap())
            };
            let mut backends: Vec<_> =
                app["backends"].as_array().unwrap().iter().map(one).collect();
            backends.sort();
            let source = &app["discovery"][0];
            if backends == expected
                && source["backends"] == expected.len()
                && source["error"] == Value::Null
            {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "waited in vain for {expected:?}: {app}");
            time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until the source of its only upstream is not in touch, and tells why.
    pub(crate) async fn misses(&self, why: &str) -> String {
        let start = Instant::now();
        loop {
            let source = self.status().await["upstreams"][0]["discovery"][0].clone();
            if let Some(error) = source["error"].as_str().filter(|error| error.contains(why)) {
                return error.to_owned();
            }
            assert!(start.elapsed() < PATIENCE, "waited in vain for `{why}`: {source}");
            time::sleep(LOOK_EVERY).await;
        }
    }

    /// Where its admin listener is, as soon as it listens: `127.0.0.1:40123`.
    pub(crate) async fn admin_address(&self) -> String {
        const LISTENS: &str = "admin: listens on ";
        self.logs(LISTENS).await;
        self.log_with(LISTENS)[0].trim_start_matches(LISTENS).to_owned()
    }

    /// Where its admin socket lies.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.folder().join("crestline.admin.sock")
    }

    /// Asks its admin socket with curl: the status and the answer.
    pub(crate) async fn api(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let socket = self.admin_socket().display().to_string();
        let url = format!("http://x{path}");
        let mut arguments = vec!["--unix-socket", &socket, "-X", method, "-w", "%{http_code}"];
        if !body.is_empty() {
            arguments.extend(["--data-binary", body]);
        }
        let told = curl(&[&arguments[..], &[&url]].concat()).await;
        let text = String::from_utf8(told.stdout).unwrap();
        let (answer, status) = text.split_at(text.len() - 3);
        (status.parse().unwrap(), serde_json::from_str(answer).unwrap_or_default())
    }

    /// The page of its metrics, from its admin socket.
    pub(crate) async fn metrics(&self) -> String {
        let Finished { code, stdout, stderr, .. } = self.command(&["metrics"]).await;
        assert_eq!(code, Some(0), "{stderr}");
        stdout
    }

    /// The value of one sample, as `name{label="value"}`.
    pub(crate) async fn metric(&self, sample: &str) -> f64 {
        let page = self.metrics().await;
        let found = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{sample} is not among\n{page}")).parse().unwrap()
    }

    /// Waits until one sample has a value: what is counted when all is over may be a moment late.
    pub(crate) async fn measures(&self, sample: &str, value: f64) {
        let start = Instant::now();
        loop {
            let now = self.metric(sample).await;
            if now.to_bits() == value.to_bits() {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{sample} stays at {now}, not {value}");
        }
    }

    /// A new connection.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// Sends a request on a connection of its own, and reads its answer.
    pub(crate) async fn send(&self, request: impl AsRef<[u8]>) -> Answer {
        self.client().await.exchange(request).await
    }

    /// Asks for a path on a connection of its own.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(get(path)).await
    }

    /// The texts that so many requests for `/` on one connection get.
    pub(crate) async fn texts(&self, requests: usize) -> Vec<String> {
        let mut client = self.client().await;
        let mut answers = Vec::new();
        for _ in 0..requests {
            answers.push(client.exchange(get("/")).await.text().to_owned());
        }
        answers
    }

    /// The lines of its process log that contain a text, from that text on.
    pub(crate) fn log_with(&self, text: &str) -> Vec<String> {
        let log = self.log.lock().unwrap();
        log.iter().filter_map(|line| Some(line[line.find(text)?..].to_owned())).collect()
    }

    /// Waits until its process log contains a text.
    pub(crate) async fn logs(&self, text: &str) {
        eventually(text, || !self.log_with(text).is_empty()).await;
    }

    /// The whole lines of its access log.
    pub(crate) fn access_lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.access_log).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect()
    }

    /// Waits until its access log has so many lines, and parses them.
    pub(crate) async fn access_log(&self, lines: usize) -> Vec<Value> {
        eventually("lines in the access log", || lines <= self.access_lines().len()).await;
        let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        let lines = self.access_lines();
        lines.iter().map(parse).collect()
    }

    /// Waits for a line of its access log.
    pub(crate) async fn access_line(&self, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        eventually("a line of the access log", || {
            let lines = self.access_lines();
            let mut parsed = lines.iter().filter_map(|line| serde_json::from_str(line).ok());
            found = parsed.find(|line| is_it(line));
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, and returns its exit code.
    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        soon("the end of the process", self.child.wait()).await.unwrap().code()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// The process that its pid file names.
    pub(crate) fn in_force(&self) -> Option<u32> {
        fs::read_to_string(self.folder().join("crestline.pid")).ok()?.trim().parse().ok()
    }

    /// Whether a process runs with the file of this test.
    pub(crate) fn is_of_this_test(&self, pid: u32) -> bool {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split('\0').any(|part| Path::new(part) == self.file())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.id()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }
}

impl Drop for Crestline {
    fn drop(&mut self) {
        // A successor is no child of the test, and may just be about to be started.
        for _ in 0..KILLED_IN_ROUNDS {
            let left = processes().filter(|pid| self.is_of_this_test(*pid));
            let left: Vec<_> =
                left.filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).collect();
            if left.is_empty() {
                break;
            }
            for pid in left {
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if std::thread::panicking() {
            eprintln!("--- process log\n{}", self.log.lock().unwrap().join("\n"));
            eprintln!("--- access log\n{}", self.access_lines().join("\n"));
        }
    }
}

/// All processes.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crestline"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    // Only what a test says is said.
    for name in ["CRESTLINE_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
    command
}

/// What a process waits for, to find out why it does.
fn state_of(id: u32) -> String {
    let shown = |name: &str| {
        fs::read_to_string(format!("/proc/{id}/{name}")).unwrap_or_else(|why| why.to_string())
    };
    let files = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
    let files: Vec<_> = files.filter_map(|file| fs::read_link(file.path()).ok()).collect();
    format!("{}\n{}\n{}\n{files:?}", shown("status"), shown("wchan"), shown("syscall"))
}

/// Runs the program as systemd does with sockets of its own: they are descriptors 3 and 4.
///
/// Descriptors cannot be put at a number from here without `unsafe`; a shell can.
fn handed(sockets: [Option<OwnedFd>; 2], file: &Path) -> Command {
    let count = sockets.iter().flatten().count();
    let script = "exec 3<&0 4>&1 </dev/null >/dev/null; \
                  LISTEN_PID=$$ LISTEN_FDNAMES=first:second exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_crestline"), "-c"]).arg(file);
    command.env("LISTEN_FDS", count.to_string()).kill_on_drop(true);
    let [first, second] = sockets.map(|socket| socket.map_or_else(Stdio::null, Stdio::from));
    command.stdin(first).stdout(second);
    command
}

/// Adds the keys that a test left out.
fn completed(yaml: &str, folder: &Path) -> String {
    let mut yaml = dedented(yaml);
    let folder = folder.display();
    let defaults = [
        ("listeners", "[{ address: \"127.0.0.1:0\" }]".to_owned()),
        ("access_log", format!("{{ path: {folder}/access.log }}")),
        ("pid_file", format!("{folder}/crestline.pid")),
        ("upgrade_sock", format!("{folder}/upgrade.sock")),
        ("threads", "2".to_owned()),
    ];
    for (key, value) in defaults {
        if !yaml.lines().any(|line| line.starts_with(&format!("{key}:"))) {
            yaml.extend([key, ": ", &value, "\n"]);
        }
    }
    yaml
}

/// Takes the indentation of the test away, which all lines share.
fn dedented(yaml: &str) -> String {
    let lines = yaml.lines().filter(|line| !line.trim().is_empty());
    let indent = lines.clone().map(|line| line.len() - line.trim_start().len()).min();
    lines.flat_map(|line| [&line[indent.unwrap_or(0)..], "\n"]).collect()
}

/// How many listeners a file names.
fn listeners_in(yaml: &str) -> usize {
    let (_, after) = yaml.split_once("listeners:").expect("it was completed");
    let lines = after.lines();
    let block = lines.enumerate().take_while(|(n, line)| *n == 0 || line.starts_with([' ', '-']));
    block.map(|(_, line)| line.matches("address:").count()).sum()
}
