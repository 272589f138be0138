//! What a package installs: units, judged by systemd's own tools, and a first file.

use std::{collections::BTreeSet, fs, path::Path, process::Command, process::Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::Crestline;

/// The units in a folder of their own, with the program under test in the place of the installed
/// one: systemd looks whether it exists.
fn units() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["crestline.service", "crestline.socket"] {
        let unit = read(name).replace("/usr/bin/crestline", env!("CARGO_BIN_EXE_crestline"));
        fs::write(folder.path().join(name), unit).unwrap();
    }
    folder
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new("packaging").join(name)).unwrap()
}

fn analyze(arguments: &[&str]) -> Output {
    let folder = units();
    let mut command = Command::new("systemd-analyze");
    command.args(arguments).args(["./crestline.service"]).current_dir(folder.path());
    let output = command.env("SYSTEMD_COLORS", "0").output();
    output.expect("systemd-analyze is installed: `make setup` does it, or your package `systemd`")
}

/// The value of a setting, which stands there once.
fn setting<'a>(unit: &'a str, key: &str) -> &'a str {
    let mut found = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let value = found.next().unwrap_or_else(|| panic!("{key} is set"));
    assert_eq!(found.next(), None, "{key} is set once");
    value
}

#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    let output = analyze(&["verify", "--man=no", "./crestline.socket"]);
    let told = [output.stdout, output.stderr].concat();
    assert_eq!(String::from_utf8_lossy(&told), "");
    assert!(output.status.success());
}

/// systemd's own scale, from 0 to 100: what a service without any setting has is 96.
#[test]
fn the_service_may_do_little_else_than_serve() {
    let output = analyze(&["security", "--offline=yes", "--no-pager", "--threshold=20"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// By the comment above it, or above the settings that it stands with.
#[test]
fn every_setting_of_a_unit_is_explained() {
    for name in ["crestline.service", "crestline.socket"] {
        let mut is_explained = false;
        for line in read(name).lines() {
            match line.chars().next() {
                Some('#') => is_explained = true,
                None | Some('[') => is_explained = false,
                _ => {
                    let is_plain = ["Description=", "Documentation=", "WantedBy="];
                    let is_plain = is_plain.iter().any(|key| line.starts_with(key));
                    assert!(is_explained || is_plain, "{name}: {line}");
                }
            }
        }
    }
}

/// The grace period is over before systemd loses its patience, and files are where it makes room.
#[test]
fn the_unit_agrees_with_the_defaults_of_the_file() {
    let unit = read("crestline.service");
    let seconds = |key: &str| setting(&unit, key).trim_end_matches('s').parse::<u64>().unwrap();
    let manual = fs::read_to_string("docs/configuration.md").unwrap();
    assert!(manual.contains("`30`"), "the default of grace_period_seconds");
    assert!(30 + 10 < seconds("TimeoutStopSec"));
    let folder = format!("/run/{}/", setting(&unit, "RuntimeDirectory"));
    for file in ["crestline.pid", "upgrade.sock"] {
        assert!(manual.contains(&format!("{folder}{file}")), "{folder}{file}");
    }
    let log = format!("/var/log/{}/", setting(&unit, "LogsDirectory"));
    assert!(read("crestline.yaml").contains(&log));
    assert!(read("crestline.logrotate").starts_with('#'));
    assert!(read("crestline.logrotate").contains(&format!("{log}*.log {{")));
    let user = setting(&unit, "User");
    assert!(read("crestline.sysusers.conf").contains(&format!("\nu {user} - ")));
    assert!(read("crestline.socket").contains(&format!("SocketUser={user}\n")));
}

/// And its sockets are those of the socket unit.
#[tokio::test]
async fn the_first_file_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crestline.yaml");
    let yaml = read("crestline.yaml");
    assert!(
        yaml.contains(&format!(
            "address: {}\n",
            setting(&read("crestline.socket"), "ListenStream")
        ))
    );
    let logs = folder.path().display().to_string();
    fs::write(&file, yaml.replace("/var/log/crestline", &logs)).unwrap();
    let finished = Crestline::run(&["check", file.to_str().unwrap()]).await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}

/// Every metric that a text names, histograms by their base name; those that Prometheus makes
/// itself are left out.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_name = |byte: char| byte.is_ascii_alphanumeric() || byte == '_';
    let words = text.split(|byte| !is_name(byte));
    let named = words.filter(|word| word.starts_with("crestline_") || word.starts_with("process_"));
    let base = |word: &str| {
        let ends = ["_bucket", "_sum", "_count"];
        ends.iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word).to_owned()
    };
    named.map(base).collect()
}

/// Dashboards and alerts name no metric that there is not: the manual is made of the registry.
#[test]
fn dashboard_and_alerts_name_only_metrics_that_exist() {
    let manual = fs::read_to_string("docs/metrics.md").unwrap();
    let known: BTreeSet<&str> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name))
        .collect();
    for (file, least) in [("grafana/crestline.json", 20), ("prometheus/crestline.rules.yaml", 12)] {
        let text = read(file);
        // Of the dashboard, only what is asked: titles are free.
        let asked = match serde_json::from_str(&text) {
            Ok(dashboard) => queries(&dashboard),
            Err(_) => text,
        };
        let named = metrics_in(&asked);
        assert!(least <= named.len(), "{file} names {named:?}");
        let unknown: Vec<_> = named.iter().filter(|name| !known.contains(name.as_str())).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}");
    }
}

/// What a dashboard asks Prometheus, line by line.
fn queries(node: &Value) -> String {
    match node {
        Value::Object(entries) => {
            let each = entries.iter().map(|(key, value)| match value {
                Value::String(text) if ["expr", "query"].contains(&key.as_str()) => text.clone(),
                value => queries(value),
            });
            each.collect::<Vec<_>>().join("\n")
        }
        Value::Array(all) => all.iter().map(queries).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

/// Prometheus' own tool reads the alerts, and has them fire where they should.
#[test]
fn prometheus_takes_the_alerts_and_they_fire() {
    let promtool = |arguments: &[&str]| {
        let mut command = Command::new("promtool");
        let output = command.args(arguments).current_dir("packaging/prometheus").output();
        let output = output.expect("promtool is installed: `make setup` does it");
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{told}");
    };
    promtool(&["check", "rules", "crestline.rules.yaml"]);
    promtool(&["test", "rules", "crestline.rules.test.yaml"]);
}
