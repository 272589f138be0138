//! The real rsyslogd, which writes what it makes of each message as a line of JSON.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::eventually;

/// A running rsyslogd. It is killed when this is dropped.
pub(crate) struct Rsyslog {
    folder: TempDir,
    _child: Child,
}

impl Rsyslog {
    /// Starts it, on a TCP port of its own and on a Unix socket.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let configuration = folder.path().join("rsyslog.conf");
        fs::write(&configuration, configured(folder.path())).unwrap();
        let mut command = Command::new("rsyslogd");
        command.args(["-n", "-i", "NONE", "-f"]).arg(&configuration).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("`make setup` installs rsyslog");
        let this = Self { folder, _child: child };
        let port = this.folder.path().join("port");
        let is_there = || fs::read_to_string(&port).is_ok_and(|text| text.trim() != "");
        eventually("rsyslogd", || is_there() && this.socket().exists()).await;
        this
    }

    /// Where it listens over TCP.
    pub(crate) fn tcp(&self) -> String {
        let port = fs::read_to_string(self.folder.path().join("port")).unwrap();
        format!("tcp://127.0.0.1:{}", port.trim())
    }

    /// The Unix socket where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// What it read, once there are so many messages.
    pub(crate) async fn messages(&self, count: usize) -> Vec<Value> {
        let path = self.folder.path().join("out");
        let read = || fs::read_to_string(&path).unwrap_or_default();
        eventually("messages", || count <= read().matches('\n').count()).await;
        read().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn configured(folder: &Path) -> String {
    let folder = folder.display();
    let fields = [
        ("pri", "pri"),
        ("version", "protocol-version"),
        ("host", "hostname"),
        ("app", "app-name"),
        ("process", "procid"),
        ("id", "msgid"),
        ("data", "structured-data"),
        ("input", "inputname"),
        ("message", "msg"),
    ];
    let fields = fields.map(|(name, property)| {
        format!("property(outname=\"{name}\" name=\"{property}\" format=\"jsonf\")")
    });
    let time =
        "property(outname=\"time\" name=\"timereported\" dateFormat=\"rfc3339\" format=\"jsonf\")";
    let comma = " constant(value=\",\") ";
    format!(
        r#"global(workDirectory="{folder}" maxMessageSize="64k")
module(load="imtcp")
module(load="imuxsock" SysSock.Use="off")
input(type="imtcp" address="127.0.0.1" port="0" listenPortFileName="{folder}/port")
input(type="imuxsock" Socket="{folder}/socket" UseSpecialParser="off" ParseHostname="on" IgnoreTimestamp="off" RateLimit.Interval="0")
template(name="json" type="list") {{ constant(value="{{") {} {comma} {time} constant(value="}}\n") }}
action(type="omfile" file="{folder}/out" template="json" asyncWriting="off" flushOnTXEnd="on")
"#,
        fields.join(comma)
    )
}
