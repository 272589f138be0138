//! The admin socket: who may open it, what it answers, and when it is there.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    process::Stdio,
};

use rustix::process::Signal;
use tokio::process::Command;

use crate::support::{Crestline, Finished, Origin, curl, eventually, get, soon};

async fn started(origin: &Origin) -> Crestline {
    Crestline::start(&format!(
        "grace_period_seconds: 1\nupstreams: {{ app: {{ backends: [\"{origin}\"] }} }}"
    ))
    .await
}

#[tokio::test]
async fn the_socket_lies_beside_the_pid_file_for_its_owner_alone() {
    let origin = Origin::replying("hello");
    let proxy = started(&origin).await;

    let found = fs::symlink_metadata(proxy.admin_socket()).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    let mut names: Vec<_> = fs::read_dir(proxy.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["access.log", "crestline.admin.sock", "crestline.pid", "crestline.yaml"],
        "and no draft"
    );
}

#[tokio::test]
async fn it_is_removed_at_a_stop_and_commands_say_that_nobody_is_there() {
    let origin = Origin::replying("hello");
    let mut proxy = started(&origin).await;
    proxy.signal(Signal::TERM);
    eventually("its end", || !proxy.is_running()).await;
    assert!(!proxy.admin_socket().exists());
    for arguments in [&["status"][..], &["reload"], &["reload", "--to", "1"]] {
        let Finished { code, stdout, stderr, .. } = proxy.command(arguments).await;
        let socket = proxy.admin_socket().display().to_string();
        let expected = format!("error: no running process can be reached at {socket}: ");
        assert_eq!((code, &*stdout), (Some(69), ""), "{stderr}");
        assert!(stderr.starts_with(&expected), "{stderr}");
    }
}

/// However often: Pingora's accept loops spun now and then, and the process did not end.
#[tokio::test]
async fn sigint_ends_the_process_at_once_in_good_order() {
    let origin = Origin::replying("hello");
    for _ in 0..20 {
        let mut proxy = started(&origin).await;
        // A line waits for the log when the next request of its connection is answered.
        let mut client = proxy.client().await;
        for _ in 0..2 {
            client.exchange(get("/")).await;
        }
        proxy.signal(Signal::INT);
        eventually("its end", || !proxy.is_running()).await;
        assert!(!proxy.admin_socket().exists());
        assert!(!proxy.access_lines().is_empty(), "what waits to be logged is written");
    }
}

/// What is under way may be asked for to the end.
#[tokio::test]
async fn it_answers_while_a_stop_waits_for_requests() {
    let origin = Origin::stalling();
    let mut proxy = Crestline::start(&format!(
        "grace_period_seconds: 2\nupstreams: {{ app: {{ backends: [\"{origin}\"] }} }}"
    ))
    .await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    eventually("the request at the origin", || origin.count() == 1).await;

    proxy.signal(Signal::TERM);
    proxy.logs(&format!("listener: {} closed", proxy.address())).await;
    let backend = proxy.status().await["upstreams"][0]["backends"][0].clone();
    assert_eq!(backend["in_flight"], 1, "{backend}");
    eventually("its end", || !proxy.is_running()).await;
}

#[tokio::test]
async fn a_second_process_with_the_same_pid_file_is_refused() {
    let origin = Origin::replying("hello");
    let proxy = started(&origin).await;

    let told = proxy.command(&[]).await;
    assert_eq!(told.code, Some(69), "{}", told.stderr);
    let expected = format!(
        "error: cannot listen on unix:{}: another process answers there; \
         give each its own `pid_file`\n",
        proxy.admin_socket().display()
    );
    assert!(told.stderr.ends_with(&expected), "{}", told.stderr);
    assert_eq!(proxy.version().await, 1, "the first one still answers");
}

#[tokio::test]
async fn a_socket_that_a_dead_process_left_is_replaced() {
    let origin = Origin::replying("hello");
    let mut first = started(&origin).await;
    first.signal(Signal::KILL);
    eventually("its end", || !first.is_running()).await;
    let socket = first.admin_socket();
    let left = fs::symlink_metadata(&socket).unwrap().ino();
    assert_eq!(first.command(&["status"]).await.code, Some(69));

    let pid_file = first.folder().join("crestline.pid").display().to_string();
    let second = Crestline::start(&format!(
        "pid_file: {pid_file}\nupstreams: {{ app: {{ backends: [\"{origin}\"] }} }}"
    ))
    .await;
    assert_ne!(fs::symlink_metadata(&socket).unwrap().ino(), left);
    assert_eq!(first.command(&["status"]).await.code, Some(0), "found by the same file");
    drop(second);
}

/// A process does not need it to serve.
#[tokio::test]
async fn without_a_folder_for_the_socket_the_process_serves_and_says_so() {
    let origin = Origin::replying("hello");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crestline.yaml");
    let yaml = format!(
        "pid_file: /no/such/folder/crestline.pid\n\
         listeners: [{{ address: \"127.0.0.1:0\" }}]\n\
         upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n"
    );
    fs::write(&file, yaml).unwrap();
    let proxy = Crestline::start_with(&["-c", file.to_str().unwrap()]).await;

    proxy.logs("admin: no socket at /no/such/folder/crestline.admin.sock").await;
    assert_eq!(proxy.get("/").await.text(), "hello");
}

#[tokio::test]
async fn what_the_socket_does_not_know_is_refused() {
    let origin = Origin::replying("hello");
    let proxy = started(&origin).await;
    let cases = [
        ("GET", "/v1", "", 404, "there is no such path"),
        ("GET", "/v1/status/", "", 404, "there is no such path"),
        ("GET", "/v1/probation", "", 404, "no version is or was on probation"),
        ("POST", "/v1/status", "", 405, "another method"),
        ("GET", "/v1/reload", "", 405, "another method"),
        ("DELETE", "/v1/probation", "", 405, "another method"),
        ("POST", "/v1/reload", "reload!", 400, "expected value at line 1"),
        ("POST", "/v1/reload", "[1]", 400, "invalid type: sequence, expected a map"),
        ("POST", "/v1/reload", "{\"force\": true}", 400, "unknown field `force`"),
        ("POST", "/v1/reload", "{\"to\": \"one\"}", 400, "invalid type"),
        ("POST", "/v1/reload", "{\"probation\": \"5\"}", 400, "5"),
        ("POST", "/v1/reload", "{\"probation\": \"0s\"}", 400, "no time"),
        ("POST", "/v1/reload", "{\"tolerate\": \"5%\"}", 400, "nothing without `probation`"),
    ];

    for (method, path, body, status, words) in cases {
        let (answered, answer) = proxy.api(method, path, body).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert_eq!(answered, status, "{method} {path} {body}: {answer}");
        assert!(error.contains(words), "{method} {path} {body}: {words} in {error}");
    }
    assert_eq!(proxy.version().await, 1);
}

#[tokio::test]
async fn a_body_is_bounded() {
    let origin = Origin::replying("hello");
    let proxy = started(&origin).await;
    let body = |length: usize| {
        let path = proxy.folder().join(format!("body-{length}"));
        fs::write(&path, " ".repeat(length - 2) + "{}").unwrap();
        format!("@{}", path.display())
    };

    let (status, receipt) = proxy.api("POST", "/v1/reload", &body(64 * 1024)).await;
    assert_eq!((status, &receipt["to"]), (200, &1.into()));
    for (length, framing) in [(64 * 1024 + 1, ""), (4 * 1024 * 1024, "Transfer-Encoding: chunked")]
    {
        let socket = proxy.admin_socket().display().to_string();
        let mut arguments = vec!["--unix-socket", &socket, "-w", "%{http_code}", "-H", "Expect:"];
        let body = body(length);
        arguments.extend(["--data-binary", &body, "http://x/v1/reload"]);
        if !framing.is_empty() {
            arguments.extend(["-H", framing]);
        }
        let answer = String::from_utf8(curl(&arguments).await.stdout).unwrap();
        assert!(answer.contains("larger than 64 KiB") && answer.ends_with("413"), "{answer}");
    }
}

/// It is owned by one user, and still not to be filled up.
#[tokio::test]
async fn connections_beyond_the_bound_wait_for_their_turn() {
    let origin = Origin::replying("hello");
    let proxy = started(&origin).await;
    let mut held = Vec::new();
    for _ in 0..32 {
        held.push(std::os::unix::net::UnixStream::connect(proxy.admin_socket()).unwrap());
    }

    let waiting = proxy.command(&["status"]);
    let leaving = async { held.clear() };
    assert_eq!(tokio::join!(waiting, leaving).0.code, Some(0));
}

/// As Pingora upgrades: the new one is started with `-u`, and the old one gets `SIGQUIT`.
#[tokio::test]
async fn after_an_upgrade_commands_reach_the_successor() {
    let origin = Origin::replying("hello");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut old = Crestline::start(&format!(
        "listeners: [{{ address: \"{free}\" }}]\ngrace_period_seconds: 1\n\
         upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}"
    ))
    .await;
    let file = old.file();
    let mut new = Command::new(env!("CARGO_BIN_EXE_crestline"))
        .args(["-u", "-c", file.to_str().unwrap()])
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let socket = old.folder().join("upgrade.sock");
    eventually("the successor asks for the sockets", || socket.exists()).await;
    assert_eq!(old.status().await["pid"], old.id());
    old.signal(Signal::QUIT);

    let successor = new.id().unwrap();
    while old.status().await["pid"] != successor {
        assert!(old.is_running(), "nobody answers commands");
    }
    eventually("the end of the old one", || !old.is_running()).await;
    assert_eq!(old.status().await["pid"], successor, "its socket was left to the successor");
    let told = old.command(&["reload"]).await;
    assert_eq!((told.code, &*told.stderr), (Some(0), "v1: nothing changed\n"));
    new.start_kill().unwrap();
    soon("its end", new.wait()).await.unwrap();
}
