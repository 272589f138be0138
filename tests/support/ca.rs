//! A real CA on loopback: Pebble, Let's Encrypt's own for tests, and the names that it looks up.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
    thread,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, IsCa, KeyPair,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::eventually;

/// Somebody may take a port before Pebble does; hardly ever this often.
const STARTS_MAX: usize = 10;

/// A running Pebble. It ends when this is dropped.
pub(crate) struct Ca {
    port: u16,
    folder: TempDir,
    log: Arc<Mutex<Vec<String>>>,
    _child: Child,
    _names: Names,
}

/// What a CA is to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Habits {
    /// Where it asks for a page, and makes a handshake.
    pub(crate) looks_at: (u16, u16),
    /// How long its certificates are good, in seconds; five years if nothing is said.
    pub(crate) life: Option<u64>,
    /// The key of the external account that it wants, in base64url; its id is `kid-1`.
    pub(crate) external_key: Option<&'static str>,
}

impl Ca {
    /// Starts one. All names are at 127.0.0.1, but for those that begin with `nowhere`.
    pub(crate) async fn start(habits: &Habits) -> Self {
        let names = Names::serve();
        for _ in 0..STARTS_MAX {
            // The port is free now, and somebody may take it before Pebble does: then another.
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(started) = Self::try_start(habits, free, &names).await {
                let (child, folder, log) = started;
                return Self { port: free, folder, log, _child: child, _names: names };
            }
        }
        panic!("pebble did not start on any of {STARTS_MAX} ports");
    }

    async fn try_start(
        habits: &Habits,
        port: u16,
        names: &Names,
    ) -> Option<(Child, TempDir, Arc<Mutex<Vec<String>>>)> {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        certify(&folder);
        let mut config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "certificate": path("ca.pem"),
            "privateKey": path("ca.key"),
            "httpPort": habits.looks_at.0,
            "tlsPort": habits.looks_at.1,
            "externalAccountBindingRequired": habits.external_key.is_some(),
        } });
        if let Some(life) = habits.life {
            config["pebble"]["certificateValidityPeriod"] = life.into();
        }
        if let Some(key) = habits.external_key {
            config["pebble"]["externalAccountMACKeys"] = serde_json::json!({ "kid-1": key });
        }
        fs::write(path("pebble.json"), config.to_string()).unwrap();
        let mut pebble = Command::new("pebble");
        pebble.arg("-config").arg(path("pebble.json"));
        pebble.args(["-dnsserver", &names.address.to_string()]);
        // It does not wait at random before it looks, but refuses one nonce in twenty.
        pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "5");
        pebble.env("PEBBLE_AUTHZREUSE", "0");
        pebble.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = pebble.spawn().expect("pebble is installed");
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let written = log.clone();
        let reading = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                written.lock().unwrap().push(line);
            }
        });
        let mut is_there = false;
        eventually("pebble", || {
            is_there = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
            is_there || reading.is_finished()
        })
        .await;
        // Somebody else may be there; then Pebble could not be, and ended.
        let says_so = |log: &Mutex<Vec<String>>| {
            log.lock().unwrap().iter().any(|line| line.contains("ACME directory available at"))
        };
        eventually("pebble's word", || says_so(&log) || reading.is_finished()).await;
        tokio::task::yield_now().await;
        let answers = is_there && child.try_wait().unwrap().is_none() && ours(port, &folder).await;
        answers.then_some((child, folder, log))
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.port)
    }

    /// The file of the certificate that its own is signed with.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// What a file says of it under `acme:`.
    pub(crate) fn key(&self) -> String {
        let (directory, root) = (self.directory(), self.root());
        format!("directory: \"{directory}\", ca: {}, accept_terms: true", root.display())
    }

    /// The lines of its log that contain a text.
    pub(crate) fn log_with(&self, text: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.contains(text)).count()
    }
}

/// Whether it is our Pebble that answers at the port: nobody else has its certificate.
async fn ours(port: u16, folder: &TempDir) -> bool {
    let root = folder.path().join("root.pem").display().to_string();
    let url = format!("https://127.0.0.1:{port}/dir");
    super::curl(&["--cacert", &root, "-o", "/dev/null", &url]).await.status.success()
}

/// Makes a CA and the certificate of the directory itself.
fn certify(folder: &TempDir) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new(); // that of the root would look self-signed
    let certificate = params.signed_by(&key, &root).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("root.pem", &root.pem());
    write("ca.pem", &certificate.pem());
    write("ca.key", &key.serialize_pem());
}

/// A server of names: whatever is asked for is at 127.0.0.1.
struct Names {
    address: SocketAddr,
    socket: Arc<UdpSocket>,
}

impl Names {
    fn serve() -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let (address, asked) = (socket.local_addr().unwrap(), socket.clone());
        thread::spawn(move || {
            let mut question = [0; 1500];
            loop {
                let Ok((length, from)) = asked.recv_from(&mut question) else { continue };
                if length == 0 && from == address {
                    return; // its own word for the end
                }
                if let Some(answer) = answer(&question[..length]) {
                    let _ = asked.send_to(&answer, from);
                }
            }
        });
        Self { address, socket }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let _ = self.socket.send_to(&[], self.address);
    }
}

/// The answer to a question (RFC 1035 §4): an address for type A, nothing for others.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    const HEAD: usize = 12;
    let mut end = HEAD;
    while 0 < *question.get(end)? {
        end += usize::from(question[end]) + 1;
    }
    let kind = question.get(end + 1..end + 3)?;
    let end = end + 5;
    let is_nowhere = question.get(HEAD + 1..)?.starts_with(b"nowhere");
    let is_address = kind == [0, 1] && !is_nowhere;
    let mut answer = question.get(..2)?.to_vec();
    answer.extend([0x81, if is_nowhere { 0x83 } else { 0x80 }]); // no such name; else no error
    answer.extend([0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    answer.extend(question.get(HEAD..end)?);
    if is_address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(Ipv4Addr::LOCALHOST.octets());
    }
    Some(answer)
}
