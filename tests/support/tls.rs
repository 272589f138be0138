//! Certificates of a test's own, and clients that speak TLS.

use std::{fs, io, path::Path, process::Stdio, sync::Arc, time::SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::{
    ClientConfig, NamedGroup, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};
use tokio_rustls::{TlsConnector, client};

use super::{client::curl, crestline::Crestline, soon};

/// A certificate that vouches for itself, and its key.
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Pair {
    /// One for these names.
    pub(crate) fn of(names: &[&str]) -> Self {
        Self::with(names, |_| {})
    }

    /// One with more than names.
    pub(crate) fn with(names: &[&str], edit: impl Fn(&mut CertificateParams)) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        Self { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    /// Writes `NAME.pem` and `NAME.key`.
    pub(crate) fn write(&self, folder: &Path, name: &str) {
        fs::write(folder.join(format!("{name}.pem")), &self.cert).unwrap();
        fs::write(folder.join(format!("{name}.key")), &self.key).unwrap();
    }
}

/// Who signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub(crate) cert: String,
    /// The key of that.
    pub(crate) key: String,
}

impl Authority {
    /// One with a name and a key of its own.
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate().unwrap();
        let (cert, text) = (params.self_signed(&key).unwrap().pem(), key.serialize_pem());
        Self { issuer: Issuer::new(params, key), cert, key: text }
    }

    /// Signs a certificate for these names, with this serial number.
    pub(crate) fn signs(
        &self,
        names: &[&str],
        serial: u64,
        edit: impl Fn(&mut CertificateParams),
    ) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        Pair { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    /// Lists the certificates with these serial numbers as revoked.
    pub(crate) fn revokes(&self, serials: &[u64]) -> String {
        let now = SystemTime::now();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + std::time::Duration::from_secs(86_400)).into(),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A session of openssl's, kept in a file.
pub(crate) struct Session {
    path: String,
    arguments: Vec<String>,
}

impl Session {
    /// Makes a connection with a version of TLS, asks for `/`, and keeps the session.
    pub(crate) async fn begin(
        address: &str,
        folder: &Path,
        version: &str,
        arguments: &[&str],
    ) -> Self {
        let number = fs::read_dir(folder).unwrap().count();
        let path = folder.join(format!("session{number}")).display().to_string();
        let arguments: Vec<String> = ["-servername", "a.test", version]
            .iter()
            .chain(arguments)
            .map(|argument| (*argument).to_owned())
            .collect();
        // The tickets of TLS 1.3 come after the handshake: openssl has to wait for some.
        let script = format!(
            "printf 'GET / HTTP/1.0\\r\\nHost: a.test\\r\\n\\r\\n' | openssl s_client \
             -ign_eof -connect {address} {} -sess_out {path}",
            arguments.join(" ")
        );
        let output = Command::new("sh").args(["-c", &script]).kill_on_drop(true).output();
        let told =
            String::from_utf8_lossy(&soon("openssl", output).await.unwrap().stdout).into_owned();
        assert!(told.contains("New, TLSv1.") && told.contains(" 200 "), "{told}");
        Self { path, arguments }
    }

    /// Whether a connection goes on with it, and what openssl said.
    pub(crate) async fn resumes(&self, address: &str) -> (bool, String) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let told = s_client(address, &[&arguments[..], &["-sess_in", &self.path]].concat()).await;
        (told.contains("Reused, TLSv1."), told)
    }
}

/// A connection over TLS that tells how it ended.
pub(crate) struct TlsClient {
    stream: client::TlsStream<TcpStream>,
}

/// How a connection over TLS ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsEnding {
    /// With the word for it (`close_notify`).
    Told,
    /// Without it.
    CutOff,
    /// With a reset, or an alert.
    Reset,
}

impl TlsClient {
    /// Connects to an address by a name, and trusts one certificate.
    pub(crate) async fn try_connect(address: &str, name: &str, trusted: &str) -> io::Result<Self> {
        Self::connect_trusting(address, name, &[trusted]).await
    }

    /// The same, with several certificates that are trusted.
    pub(crate) async fn connect_trusting(
        address: &str,
        name: &str,
        trusted: &[&str],
    ) -> io::Result<Self> {
        Ok(Self { stream: handshake(address, name, config(trusted)).await? })
    }

    /// The same, which must succeed.
    pub(crate) async fn connect(address: &str, name: &str, trusted: &str) -> Self {
        Self::try_connect(address, name, trusted).await.unwrap()
    }

    /// How the keys were agreed on.
    pub(crate) fn key_exchange(&self) -> NamedGroup {
        self.stream.get_ref().1.negotiated_key_exchange_group().unwrap().name()
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Reads until a text has come.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(text) {
            let more = soon(text, self.stream.read_buf(&mut read)).await.unwrap();
            assert!(0 < more, "it ended before {text:?}: {}", String::from_utf8_lossy(&read));
        }
        String::from_utf8(read).unwrap()
    }

    /// Says that nothing more will be sent, with the word for it.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Closes the sending side of the socket without a word.
    pub(crate) async fn cut_off(&mut self) {
        self.stream.get_mut().0.shutdown().await.unwrap();
    }

    /// Reads to the end.
    pub(crate) async fn rest(&mut self) -> (Vec<u8>, TlsEnding) {
        let mut read = Vec::new();
        let ending = match soon("the end", self.stream.read_to_end(&mut read)).await {
            Ok(_) => TlsEnding::Told,
            Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => TlsEnding::CutOff,
            Err(_) => TlsEnding::Reset,
        };
        (read, ending)
    }
}

fn config(trusted: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for trusted in trusted {
        roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
    }
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

async fn handshake(
    address: &str,
    name: &str,
    config: ClientConfig,
) -> io::Result<client::TlsStream<TcpStream>> {
    let socket = soon("a connection", TcpStream::connect(address)).await?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    soon("a handshake", TlsConnector::from(Arc::new(config)).connect(name, socket)).await
}

/// Connects for HTTP/2.
pub(crate) async fn connect_http2(
    address: &str,
    name: &str,
    trusted: &str,
) -> client::TlsStream<TcpStream> {
    let mut config = config(&[trusted]);
    config.alpn_protocols = vec![b"h2".to_vec()];
    handshake(address, name, config).await.unwrap()
}

/// Runs `openssl s_client` until it is connected: all that it says.
pub(crate) async fn s_client(address: &str, arguments: &[&str]) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", address]).args(arguments).kill_on_drop(true);
    openssl.stdin(Stdio::null());
    let output = soon("openssl", openssl.output()).await.expect("openssl is installed");
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The status that curl is given for a URL whose host is this machine, as the client with this
/// certificate or as none; 0 without an answer. Beside the proxy's file lie its own certificate,
/// `a.pem`, and the clients'.
pub(crate) async fn curl_with_certificate(
    proxy: &Crestline,
    url: &str,
    client: Option<&str>,
    more: &[&str],
) -> u16 {
    let in_folder = |name: &str| proxy.folder().join(name).display().to_string();
    let place = url.strip_prefix("https://").and_then(|rest| rest.split('/').next()).unwrap();
    let resolve = format!("{place}:127.0.0.1");
    let ca = in_folder("a.pem");
    let mut all = vec!["--cacert", &ca, "--resolve", &resolve, "-o", "/dev/null"];
    all.extend(["-w", "%{http_code}"]);
    let files = client.map(|name| [".pem", ".key"].map(|end| in_folder(&format!("{name}{end}"))));
    if let Some([cert, key]) = &files {
        all.extend(["--cert", cert, "--key", key]);
    }
    all.extend(more);
    all.push(url);
    String::from_utf8(curl(&all).await.stdout).unwrap().parse().unwrap()
}
