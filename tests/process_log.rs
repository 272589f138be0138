//! What the process tells of itself on standard error.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{Crestline, Origin, eventually};

fn yaml(origin: &Origin, log: &str) -> String {
    format!("process_log: {{ {log} }}\nupstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n")
}

#[tokio::test]
async fn form_and_levels_follow_the_file_at_a_reload() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&yaml(&origin, "format: text")).await;
    proxy.reload(&yaml(&origin, "format: json, levels: \"info,crestline::proxy=debug\"")).await;
    proxy.logs("{\"time\":\"").await;
    let told: Value = serde_json::from_str(&proxy.log_with("{\"time\":\"")[0]).unwrap();
    assert_eq!((&told["level"], &told["module"]), (&"info".into(), &"crestline::control".into()));
    assert_eq!(told["message"], "reload: v1 → v2: process_log changed");

    // What fails is told by `crestline::proxy` at `debug`, and by nobody else.
    origin.kill().await;
    assert_eq!(proxy.get("/").await.status, 502);
    proxy.logs("\"level\":\"debug\",\"module\":\"crestline::proxy").await;

    // At run time, until the next reload.
    let shown = async |arguments: &[&str]| {
        let finished = proxy.command(&[&["log-levels"], arguments].concat()).await;
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.stderr.trim().to_owned()
    };
    let of_file = "info,crestline::proxy=debug";
    assert_eq!(shown(&[]).await, of_file);
    assert_eq!(shown(&["crestline::proxy=off"]).await, format!("{of_file},crestline::proxy=off"));
    assert_eq!(shown(&["--reset"]).await, of_file);
    let (status, answer) = proxy.api("POST", "/v1/log-levels", r#"{"levels": "loud"}"#).await;
    assert_eq!(status, 400, "{answer}");
    assert_eq!(proxy.api("GET", "/v1/log-levels", "").await.1["levels"], of_file);

    let told = proxy.refuses(&yaml(&origin, "levels: crestline::prxy=debug")).await;
    assert!(told.contains("Crestline has no module `prxy`"), "{told}");
    assert!(told.contains("did you mean `proxy`?"), "{told}");
}

/// systemd names the stream that leads to its journal; lines on it begin with a priority.
#[tokio::test]
async fn lines_for_the_journal_have_a_priority_and_no_time() {
    let folder = tempfile::tempdir().unwrap();
    let (file, log) = (folder.path().join("a.yaml"), folder.path().join("stderr"));
    let pid_file = folder.path().join("pid");
    fs::write(
        &file,
        format!(
            "pid_file: {0}\nupgrade_sock: {0}.sock\nlisteners: [{{ address: \"127.0.0.1:0\" }}]\nupstreams: {{ app: {{ backends: [\"127.0.0.1:1\"] }} }}\n",
            pid_file.display()
        ),
    )
    .unwrap();
    let stderr = File::create(&log).unwrap();
    let facts = stderr.metadata().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_crestline"))
        .arg("-c")
        .arg(&file)
        .env("JOURNAL_STREAM", format!("{}:{}", facts.dev(), facts.ino()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap();
    let told = || fs::read_to_string(&log).unwrap();
    eventually("a warning in the log", || told().contains("<4>")).await;
    eventually("an event in the log", || told().contains("<6>")).await;
    child.kill().unwrap();
    child.wait().unwrap();
    for line in told().lines() {
        assert!(line.starts_with("<6>") || line.starts_with("<4>"), "{line}");
        assert!(!line.contains(" INFO "), "{line}");
    }
}
