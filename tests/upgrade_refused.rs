//! Upgrades that do not happen: the process in force serves on, untouched, and says why.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, Signal, getuid, kill_process};
use serde_json::json;
use tokio::process::{Child, Command};

use crate::support::{Crestline, Finished, Origin, Pair, TlsClient, eventually, get, soon};

/// A process in force, of which it is remembered how it was.
struct InForce {
    proxy: Crestline,
    origin: Origin,
    admin_inode: u64,
}

impl InForce {
    async fn start() -> Self {
        let origin = Origin::replying("hello");
        let proxy = Crestline::start(&yaml(&origin, "")).await;
        let admin_inode = fs::metadata(proxy.admin_socket()).unwrap().ino();
        Self { proxy, origin, admin_inode }
    }

    fn upgrade_sock(&self) -> PathBuf {
        self.proxy.folder().join("upgrade.sock")
    }

    /// It serves as if nothing had happened, and could still be succeeded.
    async fn serves_on(mut self) {
        let proxy = &mut self.proxy;
        assert!(proxy.is_running());
        assert_eq!(proxy.get("/").await.text(), "hello");
        assert_eq!(proxy.in_force(), Some(proxy.id()));
        assert_eq!(fs::metadata(proxy.admin_socket()).unwrap().ino(), self.admin_inode);
        proxy.rewrite(&yaml(&self.origin, "watch: false\n"));
        let Finished { code, stderr, .. } = proxy.command(&["reload"]).await;
        assert_eq!(code, Some(0), "it can be reloaded again: {stderr}");
        let Finished { code, stderr, .. } = proxy.command(&["upgrade"]).await;
        assert_eq!(code, Some(0), "the next upgrade succeeds: {stderr}");
        eventually("the end of the old process", || !proxy.is_running()).await;
        assert_eq!(proxy.get("/").await.text(), "hello");
        let names = fs::read_dir(proxy.folder()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<_> = names.filter(|name| name.starts_with("crestline.admin.")).collect();
        assert_eq!(left, ["crestline.admin.sock"], "nothing is left of successors that died");
    }

    /// Runs an upgrade that must be refused; what was said.
    async fn refuses(&self, code: i32, arguments: &[&str]) -> String {
        let told = self.proxy.command(&[&["upgrade"], arguments].concat()).await;
        assert_eq!(told.code, Some(code), "{}", told.stderr);
        told.stderr
    }

    /// A configuration whose first round of checks takes longer than any test: its successor
    /// never serves.
    fn never_serves(&self, silent: &Origin) {
        let slow = format!(
            "  slow:\n    backends: [\"{silent}\"]\n    \
             health_check: {{ http: {{ path: / }}, every: 60s, timeout: 60s }}\n\
             routes: [{{ name: all, upstream: app }}]\n"
        );
        self.proxy.rewrite(&yaml(&self.origin, &slow));
    }
}

fn yaml(origin: &Origin, more: &str) -> String {
    format!(
        "grace_period_seconds: 0\ngraceful_shutdown_timeout_seconds: 1\nupstreams:\n  app: {{ backends: [\"{origin}\"] }}\n{more}\n"
    )
}

/// A program that finds every configuration good, and then does this.
fn program(folder: &Path, then: &str) -> String {
    let path = folder.join("successor").display().to_string();
    let text = format!("#!/bin/sh\ncase \"$*\" in *-t*) exit 0;; esac\n{then}\n");
    // Written by another process: while this one has it open, a child of another test may, too.
    let write = ["-c", "printf '%s' \"$1\" > \"$2\" && chmod +x \"$2\"", "sh", &text, &path];
    assert!(std::process::Command::new("sh").args(write).status().unwrap().success());
    path
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

fn is_gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

async fn status_of(mut child: Child) -> Option<i32> {
    soon("its end", child.wait()).await.unwrap().code()
}

#[tokio::test]
async fn sigquit_with_no_successor_is_refused_with_one_line() {
    let it = InForce::start().await;
    it.proxy.signal(Signal::QUIT);
    it.proxy.logs("upgrade: ").await;
    let path = it.upgrade_sock();
    let expected = format!(
        "upgrade: refused: no successor waits at {}: start one with `-u` first; \
         this process serves on",
        path.display()
    );
    assert_eq!(it.proxy.log_with("upgrade: "), [expected]);
    it.serves_on().await;
}

#[tokio::test]
async fn a_successor_that_exits_at_once_is_refused() {
    let it = InForce::start().await;
    let program = program(it.proxy.folder(), "exit 3");
    let told = it.refuses(1, &["--binary", &program]).await;
    assert!(told.contains("\nstarted as process "), "{told}");
    assert!(told.ends_with("(exit status: 3); the running process serves on\n"), "{told}");
    it.serves_on().await;
}

#[tokio::test]
async fn a_program_that_cannot_be_run_is_refused() {
    let it = InForce::start().await;
    let told = it.refuses(1, &["--binary", "/no/such/program"]).await;
    assert!(told.starts_with("error: cannot run /no/such/program: No such file"), "{told}");
    let folder = it.proxy.folder().display().to_string();
    assert!(it.refuses(1, &["--binary", &folder]).await.contains("Permission denied"));
    assert!(it.refuses(1, &["--binary", "/bin/false"]).await.contains("exit status: 1"));
    it.serves_on().await;
}

/// With the problems, where it was asked for.
#[tokio::test]
async fn a_wrong_configuration_is_refused_before_anything_is_started() {
    let it = InForce::start().await;
    it.proxy.rewrite(&yaml(&it.origin, "listenrs: []\n"));
    let told = it.refuses(78, &[]).await;
    assert!(told.contains("listenrs") && told.contains("crestline.yaml:5:1"), "{told}");
    assert!(!told.contains("started"), "{told}");
    it.serves_on().await;
}

/// The file says what it said before; what it names has changed.
#[tokio::test]
async fn a_successor_whose_certificate_cannot_be_read_is_refused() {
    let (origin, pair) = (Origin::replying("hello"), Pair::of(&["a.test"]));
    let files = [("a.pem", pair.cert.as_str()), ("a.key", &pair.key)];
    let listeners = "listeners: [{ address: \"127.0.0.1:0\", \
                     tls: { certificates: [{ cert: a.pem, key: a.key }] } }]\n";
    let mut proxy = Crestline::start_among(&files, &[], &yaml(&origin, listeners)).await;
    let serves = async |proxy: &Crestline| {
        let mut client = TlsClient::connect(proxy.address(), "a.test", &pair.cert).await;
        client.send(get("/")).await;
        client.until("hello").await;
    };
    let real = env!("CARGO_BIN_EXE_crestline");
    let unchecked = program(proxy.folder(), &format!("exec '{real}' \"$@\""));
    let cert = proxy.folder().join("a.pem");

    fs::remove_file(&cert).unwrap();
    let gone = "cannot read `a.pem`: No such file or directory";
    for (breaks, why) in
        [(None, gone), (Some(&pair.key), "`a.pem` holds a private key, and no certificate")]
    {
        if let Some(text) = breaks {
            fs::write(&cert, text).unwrap();
        }
        for arguments in [&["upgrade"][..], &["-u"]] {
            let told = proxy.command(arguments).await;
            assert_eq!(told.code, Some(78), "{}", told.stderr);
            assert!(
                told.stderr.contains(why) && told.stderr.contains("crestline.yaml:"),
                "{}",
                told.stderr
            );
        }
        // It may become so after the check.
        let told = proxy.command(&["upgrade", "--binary", &unchecked]).await;
        assert_eq!(told.code, Some(1), "{}", told.stderr);
        let end = "it did not wait for the sockets (exit status: 78); \
                   the running process serves on\n";
        assert!(told.stderr.ends_with(end), "{}", told.stderr);
        proxy.logs(why).await;
        assert_eq!((proxy.is_running(), proxy.in_force()), (true, Some(proxy.id())));
        serves(&proxy).await;
    }
    pair.write(proxy.folder(), "a");
    let told = proxy.command(&["upgrade"]).await;
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    eventually("the end of the old process", || !proxy.is_running()).await;
    serves(&proxy).await;
}

/// Its reason is told in the process in force.
#[tokio::test]
async fn a_successor_that_cannot_bind_what_is_new_is_refused() {
    let it = InForce::start().await;
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let kept = it.proxy.address();
    let listeners = format!("listeners: [{{ address: \"{kept}\" }}, {{ address: \"{taken}\" }}]\n");
    it.proxy.rewrite(&yaml(&it.origin, &listeners));
    let told = it.refuses(1, &[]).await;
    let why = format!(
        "error: the successor refused: cannot listen on {taken}: another process listens there; \
         the running process serves on\n"
    );
    assert!(told.ends_with(&why), "{told}");
    it.serves_on().await;
}

#[tokio::test]
async fn a_successor_that_dies_after_it_received_the_sockets_is_refused() {
    let (it, silent) = (InForce::start().await, Origin::stalling());
    it.never_serves(&silent);
    let upgrade = it.refuses(1, &[]);
    let killing = async {
        it.proxy.logs(" handed 1 sockets over").await;
        eventually("its first check", || silent.count() == 1).await;
        let pid = successor_of(&it.proxy);
        signal(pid, Signal::KILL);
        pid
    };
    let (told, pid) = tokio::join!(upgrade, killing);
    let draft = it.proxy.folder().join(format!("crestline.admin.{pid}"));
    assert!(draft.exists(), "its admin socket never came into its place");
    assert!(told.contains("\nsockets handed over after "), "{told}");
    let why = "the other process closed the conversation (signal: 9 (SIGKILL))";
    assert!(told.contains(why), "{told}");
    it.serves_on().await;
}

/// The only child of the process in force.
fn successor_of(proxy: &Crestline) -> u32 {
    let folder = format!("/proc/{}/task", proxy.id());
    let tasks = fs::read_dir(folder).unwrap().map(|task| task.unwrap().path());
    let children: String =
        tasks.map(|task| fs::read_to_string(task.join("children")).unwrap_or_default()).collect();
    children.trim().parse().unwrap_or_else(|_| panic!("one child: {children:?}"))
}

#[tokio::test]
async fn a_successor_that_hangs_before_it_waits_is_killed() {
    let it = InForce::start().await;
    let program = program(it.proxy.folder(), "sleep 1000");
    let told = it.refuses(1, &["--timeout", "300ms", "--binary", &program]).await;
    let pid: u32 = told
        .split_once("started as process ")
        .unwrap()
        .1
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let why = "error: the successor did not report that it serves within 300ms; \
               the running process serves on\n";
    assert!(told.ends_with(why), "{told}");
    assert!(is_gone(pid), "with all that it started");
    it.serves_on().await;
}

#[tokio::test]
async fn a_successor_that_never_reports_leaves_when_it_is_told() {
    let (it, silent) = (InForce::start().await, Origin::stalling());
    it.never_serves(&silent);
    let told = it.refuses(1, &["--timeout", "1s"]).await;
    assert!(told.contains("\nsockets handed over after ") && !told.contains("\nserving"), "{told}");
    let why = "upgrade: refused: the successor did not report that it serves within ";
    let log = it.proxy.log_with(why);
    let both = ["; this process leaves", "; this process serves on"];
    assert!(both.iter().all(|end| log.iter().any(|line| line.ends_with(end))), "{log:?}");
    it.serves_on().await;
}

/// Stopped in the middle: it hears nothing, and is killed.
#[tokio::test]
async fn a_successor_that_hangs_with_the_sockets_is_killed() {
    let (it, silent) = (InForce::start().await, Origin::stalling());
    it.never_serves(&silent);
    let upgrade = it.refuses(1, &["--timeout", "1s"]);
    let stopping = async {
        eventually("its first check", || silent.count() == 1).await;
        let pid = successor_of(&it.proxy);
        signal(pid, Signal::STOP);
        pid
    };
    let (told, pid) = tokio::join!(upgrade, stopping);
    assert!(told.contains("did not report that it serves within"), "{told}");
    assert!(is_gone(pid));
    it.serves_on().await;
}

#[tokio::test]
async fn a_second_upgrade_at_the_same_time_is_refused() {
    let (it, silent) = (InForce::start().await, Origin::stalling());
    it.never_serves(&silent);
    let upgrade = it.refuses(1, &["--timeout", "3s"]);
    let others = async {
        eventually("its first check", || silent.count() == 1).await;
        let told = it.refuses(1, &[]).await;
        assert_eq!(told, "error: an upgrade is under way already\n");
        it.proxy.signal(Signal::QUIT);
        it.proxy.logs("upgrade: refused: an upgrade is under way already").await;
        let Finished { code, stderr, .. } = it.proxy.command(&["reload"]).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.starts_with("error: an upgrade is under way, "), "{stderr}");
    };
    tokio::join!(upgrade, others);
    it.serves_on().await;
}

#[tokio::test]
async fn a_second_successor_by_hand_is_refused() {
    let it = InForce::start().await;
    let mut first = it.proxy.beside(&["-u"]);
    it.proxy.logs("upgrade: waits at ").await;
    let told = it.proxy.command(&["-u"]).await;
    let path = it.upgrade_sock();
    let why = format!("error: another successor waits at {} already\n", path.display());
    assert_eq!(told.code, Some(69));
    assert!(told.stderr.ends_with(&why), "{}", told.stderr);
    let told = it.refuses(1, &[]).await;
    let why = format!("error: another successor waits at {} already: send SIGQUIT", path.display());
    assert!(told.starts_with(&why), "{told}");
    first.kill().await.unwrap();
    it.serves_on().await;
}

#[tokio::test]
async fn an_upgrade_waits_for_the_end_of_a_probation() {
    let it = InForce::start().await;
    it.proxy.rewrite(&yaml(&it.origin, "access_log: off\n"));
    let (status, _) = it.proxy.api("POST", "/v1/reload", "{\"probation\": \"1h\"}").await;
    assert_eq!(status, 200);
    let told = it.refuses(1, &[]).await;
    assert!(told.starts_with("error: v2 is on probation"), "{told}");
    let (status, _) = it.proxy.api("POST", "/v1/reload", "{\"to\": 1}").await;
    assert_eq!(status, 200);
    it.serves_on().await;
}

/// Whatever they say, they change nothing, and the one that is meant still comes through.
#[tokio::test]
async fn strangers_at_the_upgrade_socket_get_nothing() {
    let mut it = InForce::start().await;
    let new = it.proxy.beside(&["-u"]);
    it.proxy.logs("upgrade: waits at ").await;
    let path = it.upgrade_sock();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);

    drop(UnixStream::connect(&path).unwrap());
    let mut stranger = UnixStream::connect(&path).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut said = Vec::new();
    let _ = stranger.read_to_end(&mut said);
    assert!(!String::from_utf8_lossy(&said).contains("sockets"));
    it.proxy.logs(" was turned away: the other process does not speak as expected").await;
    if getuid().is_root() {
        // The folder and the mode would stop it before.
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        mode(it.proxy.folder(), 0o755).unwrap();
        mode(&path, 0o666).unwrap();
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "15", "http://x/", "--unix-socket"]);
        let finished = soon("a stranger", curl.arg(&path).uid(65_534).output()).await.unwrap();
        assert!(finished.stdout.is_empty());
        it.proxy.logs("upgrade: a stranger, user 65534 (process ").await;
    }

    it.proxy.signal(Signal::QUIT);
    it.proxy.logs("upgrade: serves alone").await;
    eventually("the end of the old process", || !it.proxy.is_running()).await;
    assert_eq!(it.proxy.in_force(), new.id());
    assert_eq!(it.proxy.get("/").await.text(), "hello");
}

/// Who waits there could be anybody, too.
#[tokio::test]
async fn a_successor_that_is_a_stranger_gets_nothing() {
    if !getuid().is_root() {
        return; // nobody else to be
    }
    let it = InForce::start().await;
    let path = it.upgrade_sock();
    let folder = it.proxy.folder();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    let listen = format!(
        "socket(S,1,1,0);bind(S,pack('S a*',1,'{}'));listen(S,8);accept(C,S);sleep 99",
        path.display()
    );
    let mut perl = Command::new("perl");
    let Ok(mut stranger) = perl.args(["-e", &listen]).uid(65_534).kill_on_drop(true).spawn() else {
        return; // no language in which to be one
    };
    eventually("a stranger that waits", || path.exists()).await;
    it.proxy.signal(Signal::QUIT);
    let why =
        format!("upgrade: refused: who waits at {} is a stranger, user 65534", path.display());
    it.proxy.logs(&why).await;
    stranger.kill().await.unwrap();
    fs::remove_file(&path).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    it.serves_on().await;
}

#[tokio::test]
async fn a_folder_in_which_others_may_write_is_refused_by_the_successor() {
    let it = InForce::start().await;
    let folder = it.proxy.folder();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    let told = it.proxy.command(&["-u"]).await;
    assert_eq!(told.code, Some(69), "{}", told.stderr);
    let why = format!(
        "error: others may write in the folder of `upgrade_sock`, {0} (mode 0777), and could be \
         handed the sockets\nhelp: chmod go-w {0}\n",
        folder.display()
    );
    assert!(told.stderr.ends_with(&why), "{}", told.stderr);
    let told = it.refuses(1, &[]).await;
    assert!(told.contains("(exit status: 69)"), "{told}");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    it.serves_on().await;
}

/// Then it serves in its place: it is the only one.
#[tokio::test]
async fn a_successor_whose_predecessor_dies_serves() {
    let (mut it, silent) = (InForce::start().await, Origin::stalling());
    it.never_serves(&silent);
    let mut new = it.proxy.beside(&["-u"]);
    it.proxy.logs("upgrade: waits at ").await;
    it.proxy.signal(Signal::QUIT);
    eventually("its first check", || silent.count() == 1).await;
    it.proxy.signal(Signal::KILL);
    eventually("the end of the old process", || !it.proxy.is_running()).await;
    it.proxy.logs(" died before it had handed over; serves in its place").await;
    assert!(new.try_wait().unwrap().is_none());
    // Connections wait in the socket until it listens to them.
    silent.kill().await;
    eventually("its pid file", || it.proxy.in_force() == new.id()).await;
    assert_eq!(it.proxy.get("/").await.text(), "hello");
}

/// The stop is meant for both.
#[tokio::test]
async fn a_stop_during_an_upgrade_ends_both() {
    let (mut it, silent) = (InForce::start().await, Origin::stalling());
    it.never_serves(&silent);
    let new = it.proxy.beside(&["-u"]);
    it.proxy.logs("upgrade: waits at ").await;
    it.proxy.signal(Signal::QUIT);
    eventually("its first check", || silent.count() == 1).await;
    it.proxy.signal(Signal::TERM);
    assert_eq!(status_of(new).await, Some(69));
    eventually("the end of the old process", || !it.proxy.is_running()).await;
    it.proxy.logs("upgrade: refused: this process was told to stop; this process leaves").await;
    assert!(TcpStream::connect(it.proxy.address()).is_err());
    assert_eq!(it.proxy.in_force(), None);
}

/// One that speaks, but badly: a double of a successor, by hand.
struct Double {
    stream: UnixStream,
}

impl Double {
    /// Waits where a successor would, and is found there.
    async fn found(it: &InForce) -> Self {
        let listener = UnixListener::bind(it.upgrade_sock()).unwrap();
        it.proxy.signal(Signal::QUIT);
        let accepting = tokio::task::spawn_blocking(move || listener.accept().unwrap().0);
        let stream = soon("the process in force", accepting).await.unwrap();
        fs::remove_file(it.upgrade_sock()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream }
    }

    fn say(&mut self, message: &serde_json::Value) {
        let text = message.to_string();
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        self.stream.write_all(&[&length, &[0; 4], text.as_bytes()].concat()).unwrap();
    }

    /// Reads until a message of this kind; descriptors are closed unseen.
    fn hear(&mut self, kind: &str) {
        loop {
            let mut head = [0; 8];
            self.stream.read_exact(&mut head).unwrap();
            let mut text = vec![0; u32::from_be_bytes(head[..4].try_into().unwrap()) as usize];
            self.stream.read_exact(&mut text).unwrap();
            let message: serde_json::Value = serde_json::from_slice(&text).unwrap();
            if message["say"] == kind {
                return;
            }
        }
    }
}

fn hello() -> serde_json::Value {
    json!({ "say": "hello", "protocol": 1, "program": "double", "pid": 1 })
}

#[tokio::test]
async fn a_successor_of_another_protocol_is_refused() {
    let it = InForce::start().await;
    let mut double = Double::found(&it).await;
    double.say(&json!({ "say": "hello", "protocol": 99, "program": "double", "pid": 1 }));
    it.proxy.logs("it speaks version 99 of the conversation, not 1; this process serves on").await;
    double.hear("taken_back");
    it.serves_on().await;
}

#[tokio::test]
async fn a_successor_that_talks_nonsense_is_refused() {
    let it = InForce::start().await;
    let mut double = Double::found(&it).await;
    double.say(&hello());
    double.hear("sockets");
    double.stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    it.proxy.logs("does not speak as expected").await;
    double.hear("taken_back");
    it.serves_on().await;
}

/// The sockets are the successor's by then, and the stop is one of this process alone.
#[tokio::test]
async fn a_stop_after_the_last_word_waits_for_the_successor() {
    let mut it = InForce::start().await;
    let mut double = Double::found(&it).await;
    double.say(&hello());
    double.say(&json!({ "say": "received" }));
    double.say(&json!({ "say": "serving", "pid": 1 }));
    double.hear("over_to_you");
    it.proxy.signal(Signal::TERM);
    tokio::time::sleep(Duration::from_millis(1500)).await; // as long as it waits for a refusal
    assert!(it.proxy.is_running());
    double.say(&json!({ "say": "alone" }));
    assert_eq!(it.proxy.exit_code().await, Some(0));
    it.proxy.logs("upgrade: process 1 serves alone; this process drains").await;
    assert_eq!(it.proxy.log_with("stop: draining"), [""; 0], "the service goes on");
}

/// After the last word, even.
#[tokio::test]
async fn a_successor_that_dies_before_it_is_alone_is_refused() {
    let it = InForce::start().await;
    let mut double = Double::found(&it).await;
    double.say(&hello());
    double.say(&json!({ "say": "received" }));
    double.say(&json!({ "say": "serving", "pid": 1 }));
    double.hear("over_to_you");
    drop(double);
    it.proxy.logs("upgrade: refused: the successor failed before it served: ").await;
    it.serves_on().await;
}
