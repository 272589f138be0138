//! Upgrades: by `crestline upgrade`, and by hand with `-u` and `SIGQUIT`.

use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt, symlink},
        net::UnixStream,
    },
    process::Stdio,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Client, Crestline, Finished, Origin, eventually, get};

async fn started(origin: &Origin, more: &str) -> Crestline {
    Crestline::start(&yaml(origin, more)).await
}

fn yaml(origin: &Origin, more: &str) -> String {
    format!(
        "grace_period_seconds: 1\ngraceful_shutdown_timeout_seconds: 1\nupstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n{more}\n"
    )
}

/// Upgrades, which must succeed; what was told.
async fn upgrade(proxy: &Crestline, arguments: &[&str]) -> String {
    let told = proxy.command(&[&["upgrade"], arguments].concat()).await;
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    told.stderr + &told.stdout
}

/// The inode of the listening socket of a port: the same as long as it is the same object.
fn inode(address: &str) -> String {
    let port: u16 = address.rsplit(':').next().unwrap().parse().unwrap();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let is_it = |line: &Vec<&str>| line[1].ends_with(&format!(":{port:04X}")) && line[3] == "0A";
    lines.find(is_it).expect("somebody listens")[9].to_owned()
}

#[tokio::test]
async fn an_upgrade_tells_each_step_and_leaves_the_new_process_alone() {
    let origin = Origin::replying("hello");
    let mut proxy = started(&origin, "").await;
    let (old, socket) = (proxy.id(), inode(proxy.address()));

    let told = upgrade(&proxy, &[]).await;
    let lines: Vec<&str> = told.lines().collect();
    let expected = [
        "checked in ",
        "started as process ",
        "sockets handed over after ",
        "serving after ",
        "old process drains after ",
    ];
    assert_eq!(lines.len(), expected.len(), "{told}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{told}");
    }
    let new: u32 = lines[1].split(' ').nth(3).unwrap().parse().unwrap();
    assert_ne!(new, old);
    assert_eq!(proxy.in_force(), Some(new));
    assert_eq!(proxy.status().await["pid"], new, "commands reach the new one at once");
    assert_eq!(proxy.get("/").await.text(), "hello");
    assert_eq!(inode(proxy.address()), socket, "the same kernel object");

    eventually("the end of the old process", || !proxy.is_running()).await;
    assert_eq!(proxy.get("/").await.text(), "hello");
    assert_eq!(proxy.in_force(), Some(new), "the old one leaves what is not its own");
    assert!(proxy.admin_socket().exists());
    assert!(!proxy.folder().join("upgrade.sock").exists());
}

#[tokio::test]
async fn programs_are_told_each_step_as_json() {
    let origin = Origin::replying("hello");
    let proxy = started(&origin, "").await;
    let Finished { code, stdout, stderr, .. } = proxy.command(&["upgrade", "--json"]).await;
    assert_eq!((code, &*stderr), (Some(0), ""));
    let steps: Vec<Value> =
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(names, ["checked", "started", "handed_over", "serving", "drains"]);
    assert_eq!(steps[1]["pid"], proxy.in_force().unwrap());
    assert_eq!(steps[2]["sockets"], 1);
    let times: Vec<_> = steps.iter().map(|step| step["after_ms"].as_u64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test]
async fn by_hand_a_successor_waits_and_takes_over_at_sigquit() {
    let origin = Origin::replying("hello");
    let mut old = started(&origin, "").await;
    let address = old.address().to_owned();

    let mut new = old.beside(&["-u"]);
    old.logs("upgrade: waits at ").await;
    assert!(old.log_with("listener: ").len() == 1, "it has no sockets yet");
    old.signal(Signal::QUIT);
    old.logs(&format!("listener: {address} taken over")).await;
    while old.is_running() {
        assert_eq!(old.get("/").await.status, 200);
    }
    assert_eq!(old.get("/").await.text(), "hello", "the successor alone");
    assert_eq!(old.in_force(), new.id());
    old.logs(&format!("upgrade: process {} serves alone", new.id().unwrap())).await;
    assert!(new.try_wait().unwrap().is_none());
}

/// Scripts that do not wait between the two still work.
#[tokio::test]
async fn a_signal_may_be_a_moment_ahead_of_the_successor() {
    let origin = Origin::replying("hello");
    let mut old = started(&origin, "").await;
    old.signal(Signal::QUIT);
    let new = old.beside(&["-u"]);
    old.logs("upgrade: serves alone").await;
    eventually("the end of the old process", || !old.is_running()).await;
    assert_eq!(old.in_force(), new.id());
}

/// Unix sockets included: the path of one that stays survives, that of one that is removed goes.
#[tokio::test]
async fn added_and_removed_listeners_take_effect() {
    let origin = Origin::replying("hello");
    let folder = tempfile::tempdir().unwrap();
    let unix = |name: &str| folder.path().join(name);
    let listeners = |list: &[&str]| {
        let list = list.iter().map(|address| format!("{{ address: \"{address}\" }}"));
        format!("listeners: [{}]", list.collect::<Vec<_>>().join(", "))
    };
    let path = |name: &str| format!("unix:{}", unix(name).display());
    let before = listeners(&["127.0.0.1:0", "[::1]:0", &path("kept"), &path("removed")]);
    let mut proxy = started(&origin, &before).await;
    let [kept, removed] = [&proxy.addresses[0], &proxy.addresses[1]].map(String::clone);

    let after = listeners(&[&path("added"), &path("kept"), "127.0.0.2:0", &kept]);
    proxy.rewrite(&yaml(&origin, &after));
    assert!(proxy.refuses(&yaml(&origin, &after)).await.contains("crestline upgrade"));
    upgrade(&proxy, &[]).await;

    let listed: Vec<String> = proxy.status().await["listeners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|listener| listener["address"].as_str().unwrap().to_owned())
        .collect();
    let fresh = listed[2].clone();
    assert_eq!(listed, [path("added"), path("kept"), fresh.clone(), kept.clone()]);
    eventually("the end of the old process", || !proxy.is_running()).await;
    for address in [&kept, &fresh] {
        assert_eq!(Client::connect(address).await.exchange(get("/")).await.text(), "hello");
    }
    for name in ["added", "kept"] {
        assert!(fs::symlink_metadata(unix(name)).unwrap().file_type().is_socket());
        UnixStream::connect(unix(name)).unwrap();
    }
    assert!(std::net::TcpStream::connect(&removed).is_err(), "it is closed in both");
    assert!(!unix("removed").exists(), "its path goes with it");
    assert_eq!(
        proxy.log_with("listener: ").iter().filter(|line| line.ends_with("removed")).count(),
        2
    );
}

/// Pingora's own keys take effect, those included by which the two find each other.
#[tokio::test]
async fn where_the_process_is_found_may_change() {
    let origin = Origin::replying("hello");
    let mut proxy = started(&origin, "").await;
    let moved = proxy.folder().join("moved");
    fs::create_dir(&moved).unwrap();
    let file = proxy.file().display().to_string();
    let more = format!(
        "pid_file: {0}/other.pid\nupgrade_sock: {0}/other.sock\nthreads: 1",
        moved.display()
    );

    // The command looks for the process where the file says.
    let order = "{\"timeout\": \"20s\"}";
    proxy.rewrite(&yaml(&origin, &more));
    let (status, _) = proxy.api("POST", "/v1/upgrade", order).await;
    assert_eq!(status, 200);
    eventually("the end of the old process", || !proxy.is_running()).await;
    let new: u32 = fs::read_to_string(moved.join("other.pid")).unwrap().trim().parse().unwrap();
    let told = Crestline::run(&["-c", &file, "status", "--json"]).await;
    let status: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(status["pid"], new);
    assert_eq!(proxy.in_force(), None, "what was the old one's is gone");
    assert!(!proxy.admin_socket().exists());
    let stopped = std::process::Command::new("kill").arg(new.to_string()).status().unwrap();
    assert!(stopped.success());
    eventually("the end of the new process", || !moved.join("other.pid").exists()).await;
}

/// What is started is the name by which the process was started, whatever lies there now; going
/// back is an upgrade like any other.
#[tokio::test]
async fn a_program_is_replaced_and_gone_back_to() {
    let origin = Origin::replying("hello");
    let proxy = started(&origin, "").await;
    let real = env!("CARGO_BIN_EXE_crestline");
    let bin = tempfile::tempdir().unwrap();
    let (current, other) = (bin.path().join("crestline"), bin.path().join("other"));
    symlink(real, &current).unwrap();
    symlink(real, &other).unwrap();
    let program = || {
        let pid = proxy.in_force().unwrap();
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        command.split('\0').next().unwrap().to_owned()
    };

    upgrade(&proxy, &["--binary", current.to_str().unwrap()]).await;
    assert_eq!(program(), current.display().to_string());
    upgrade(&proxy, &["--binary", other.to_str().unwrap()]).await;
    assert_eq!(program(), other.display().to_string());
    upgrade(&proxy, &["--binary", current.to_str().unwrap()]).await;
    fs::remove_file(&current).unwrap();
    symlink(&other, &current).unwrap();
    upgrade(&proxy, &[]).await;
    assert_eq!(program(), current.display().to_string());
    assert_eq!(proxy.get("/").await.text(), "hello");
}

#[tokio::test]
async fn the_pid_file_is_there_while_the_process_serves() {
    let origin = Origin::replying("hello");
    let mut proxy = started(&origin, "").await;
    assert_eq!(proxy.in_force(), Some(proxy.id()));
    proxy.signal(Signal::TERM);
    eventually("its end", || !proxy.is_running()).await;
    assert_eq!(proxy.in_force(), None);
}

/// The process serves all the same.
#[tokio::test]
async fn a_pid_file_that_cannot_be_written_is_a_warning() {
    let origin = Origin::replying("hello");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crestline.yaml");
    let more = "pid_file: /no/such/folder/a.pid\naccess_log: off\n\
                listeners: [{ address: \"127.0.0.1:0\" }]";
    fs::write(&file, yaml(&origin, more)).unwrap();
    let proxy = Crestline::start_with(&["-c", file.to_str().unwrap()]).await;
    proxy.logs("pid file: /no/such/folder/a.pid was not written: No such file").await;
    assert_eq!(proxy.get("/").await.text(), "hello");
}

/// A daemon's predecessor is a process of another parent, and its successor forks meanwhile.
#[tokio::test]
async fn a_daemon_is_upgraded_like_any_other() {
    let origin = Origin::replying("hello");
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let text = format!(
        "{}\naccess_log: off\nerror_log: {}\npid_file: {}\nupgrade_sock: {}\n\
         listeners: [{{ address: \"127.0.0.1:0\" }}]\n",
        yaml(&origin, "daemon: true"),
        at("error.log"),
        at("crestline.pid"),
        at("upgrade.sock"),
    );
    fs::write(at("crestline.yaml"), text).unwrap();
    let file = at("crestline.yaml");
    let started = std::process::Command::new(env!("CARGO_BIN_EXE_crestline"))
        .args(["-c", &file])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(started.success());
    let pid = || fs::read_to_string(at("crestline.pid")).ok()?.trim().parse::<u32>().ok();
    let log = || fs::read_to_string(at("error.log")).unwrap_or_default();
    eventually("its admin socket", || log().contains("admin: socket opened")).await;
    let old = pid().unwrap();
    let _guards = [Killed(old)];

    let told = Crestline::run(&["-c", &file, "upgrade"]).await;
    assert_eq!(told.code, Some(0), "{}\n{}", told.stderr, log());
    let new = pid().unwrap();
    let _guards = [Killed(new)];
    assert_ne!(new, old);
    eventually("the end of the old process", || !fs::exists(format!("/proc/{old}")).unwrap()).await;
    let told = Crestline::run(&["-c", &file, "status", "--json"]).await;
    let status: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(status["pid"], new);
    let address = status["listeners"][0]["address"].as_str().unwrap();
    assert_eq!(Client::connect(address).await.exchange(get("/")).await.text(), "hello");
}

/// A process that is no child of the test ends with it.
struct Killed(u32);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kill").args(["-9", &self.0.to_string()]).output();
    }
}
