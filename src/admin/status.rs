//! What runs: the answer to `crestline status`.

mod acme;
mod backend;
mod discovery;
mod listener;
mod load;
mod route;

use std::{
    collections::BTreeMap,
    fmt, process,
    time::{Duration, SystemTime},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use acme::AcmeStatus;
pub use backend::{BackendStatus, Trouble};
pub use discovery::DiscoveryStatus;
pub use load::{BackendLoad, LoadStatus, MirrorStatus};
pub use route::RouteStatus;

use crate::{
    control::{Control, probation::Standing},
    downstream::refused::Refused,
    drain::{Drain, Load, State},
    overload::{self, Level},
    panics::Panics,
    snapshot::Listener,
    tls::keyring::Keyring,
    upstream::{Upstream, backend::Availability},
};

/// What runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The version of the program.
    pub program: String,
    /// The id of the process.
    pub pid: u32,
    /// How long it has been serving.
    pub uptime_seconds: u64,
    /// Whether it serves: `serving`, `draining`, `leaving` or `ending`.
    pub state: State,
    /// Why it should not be sent clients yet; nothing if it should.
    pub unready: Vec<String>,
    /// What is in flight.
    pub in_flight: Load,
    /// Whether there is too much to do: `calm`, `shedding` or `critical`.
    #[serde(default)]
    pub overload: Level,
    /// Panics since the process began: mistakes in this program.
    pub panics: Panics,
    /// What was refused since the process began, by reason.
    #[serde(default)]
    pub refused: Refused,
    /// The configuration in force.
    pub configuration: Configuration,
    /// Where connections arrive.
    pub listeners: Vec<ListenerStatus>,
    /// The groups of backends, by name.
    pub upstreams: Vec<UpstreamStatus>,
}

/// The configuration in force, and those before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Configuration {
    /// Its version.
    pub version: u64,
    /// How long it has been in force.
    pub age_seconds: u64,
    /// The file that it was read from.
    pub file: Option<String>,
    /// Whether it is read again when its files change.
    pub watch: bool,
    /// How the last probation stands, if there was one.
    pub probation: Option<Standing>,
    /// The last reload that was refused since the process began, and why.
    #[serde(default)]
    pub last_refused: Option<Trouble>,
    /// The versions that can be gone back to, the newest first.
    pub versions: Vec<VersionStatus>,
}

/// A version that is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VersionStatus {
    /// Its number.
    pub version: u64,
    /// How long ago it came into force.
    pub age_seconds: u64,
    /// What it changed.
    pub summary: String,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListenerStatus {
    /// Where it listens.
    pub address: String,
    /// What is spoken on it: `http` or `tcp`.
    #[serde(default)]
    pub protocol: String,
    /// The upstreams that connections are relayed to as they come.
    #[serde(default)]
    pub relays_to: Vec<String>,
    /// Whether it speaks HTTP/2 with prior knowledge.
    pub h2c: bool,
    /// What it shows its clients; `None` in plaintext.
    pub tls: Option<TlsStatus>,
}

/// TLS on a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TlsStatus {
    /// Handshakes that led to a connection, since the process began.
    pub handshakes: u64,
    /// Those of them that went on with a session of before.
    #[serde(default)]
    pub resumed_handshakes: u64,
    /// Those that did not lead to one.
    pub failed_handshakes: u64,
    /// The same by reason.
    #[serde(default)]
    pub failed_by_reason: BTreeMap<String, u64>,
    /// Whether clients must show certificates: `off`, `optional` or `required`.
    #[serde(default)]
    pub client_certificates: String,
    /// Its certificates, in the order of the file.
    pub certificates: Vec<CertificateStatus>,
}

/// A certificate in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateStatus {
    /// Its names.
    pub names: Vec<String>,
    /// The kind of its key: `ECDSA`, `Ed25519` or `RSA`.
    pub key: String,
    /// The day on which it expires: `2027-01-31`.
    pub expires: String,
    /// For how many days it is good still; negative once it expired.
    pub days_left: i64,
    /// The last day of the OCSP response that is shown with it.
    #[serde(default)]
    pub ocsp_until: Option<String>,
    /// How it is obtained; `None` if it is from files.
    pub acme: Option<AcmeStatus>,
}

/// A group of backends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UpstreamStatus {
    /// Its name.
    pub name: String,
    /// Requests that were sent to it since the process began.
    pub requests: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Where its backends are found, but for those that are given by address.
    #[serde(default)]
    pub discovery: Vec<DiscoveryStatus>,
    /// What is bounded, and who waits; `None` if nothing is.
    #[serde(default)]
    pub load: Option<LoadStatus>,
    /// What became of the copies that it got as a mirror; `None` if it never got any.
    #[serde(default)]
    pub mirrored: Option<MirrorStatus>,
    /// Its backends, by address.
    pub backends: Vec<BackendStatus>,
}

impl Status {
    /// Looks at what runs now.
    pub fn of(control: &Control, drain: &Drain) -> Self {
        let snapshot = control.live().load();
        let now = SystemTime::now();
        let age = |since| now.duration_since(since).unwrap_or_default().as_secs();
        let versions = control.versions().into_iter().rev();
        let versions: Vec<_> = versions
            .map(|kept| VersionStatus {
                version: kept.number,
                age_seconds: age(kept.since),
                summary: kept.summary,
            })
            .collect();
        let current = versions.iter().find(|kept| kept.version == snapshot.version);
        Self {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            pid: process::id(),
            uptime_seconds: age(control.started()),
            state: drain.state(),
            unready: snapshot.unready(now),
            in_flight: drain.load(),
            overload: overload::level(),
            panics: Panics::get(),
            refused: Refused::get(),
            configuration: Configuration {
                version: snapshot.version,
                age_seconds: current.map_or(0, |kept| kept.age_seconds),
                file: control.path().map(|path| path.display().to_string()),
                watch: snapshot.file.watch,
                probation: control.probation().as_ref().map(Standing::of),
                last_refused: control.last_refused().map(Trouble::of),
                versions,
            },
            listeners: snapshot
                .listeners
                .iter()
                .map(|listener| ListenerStatus {
                    address: listener.address.to_string(),
                    protocol: listener.relays.protocol.as_str().to_owned(),
                    relays_to: listener.relays.upstreams(),
                    h2c: listener.h2c,
                    tls: listener.tls.as_ref().map(|keyring| tls(listener, &keyring.now(), now)),
                })
                .collect(),
            upstreams: snapshot
                .upstreams
                .values()
                .map(|upstream| upstream.as_ref().into())
                .collect(),
        }
    }
}

fn tls(listener: &Listener, keyring: &Keyring, now: SystemTime) -> TlsStatus {
    let certificates = keyring.certificates().iter().map(|certificate| CertificateStatus {
        names: certificate.names.iter().map(str::to_owned).collect(),
        key: certificate.kind.as_str().to_owned(),
        expires: certificate.last_day(),
        days_left: certificate.days_left(now),
        ocsp_until: certificate.staple_until(now),
        acme: certificate.acme.as_ref().map(|managed| AcmeStatus::of(managed, now)),
    });
    let failed = listener.handshakes.failed().filter(|(_, count)| 0 < *count);
    let failed = failed.map(|(why, count)| (why.as_str().to_owned(), count));
    let failed_by_reason: BTreeMap<_, _> = failed.collect();
    TlsStatus {
        handshakes: listener.handshakes.done.get(),
        resumed_handshakes: listener.handshakes.resumed.get(),
        failed_handshakes: failed_by_reason.values().sum(),
        failed_by_reason,
        client_certificates: keyring
            .clients()
            .map_or("off", |clients| clients.mode.as_str())
            .to_owned(),
        certificates: certificates.collect(),
    }
}

impl From<&Upstream> for UpstreamStatus {
    fn from(upstream: &Upstream) -> Self {
        Self {
            name: upstream.name().to_string(),
            requests: upstream.requests(),
            retries: upstream.retries(),
            discovery: DiscoveryStatus::of(upstream, Instant::now()),
            load: LoadStatus::of(upstream),
            mirrored: MirrorStatus::of(upstream),
            backends: upstream.members().iter().map(|member| BackendStatus::of(member)).collect(),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, pid, uptime_seconds, state, in_flight, panics, refused, .. } = self;
        let Self { configuration, listeners, upstreams, unready, overload, .. } = self;
        writeln!(f, "crestline {program}, process {pid}, up {}", span(*uptime_seconds))?;
        writeln!(f, "{}, {in_flight}", state.as_str())?;
        if *overload != Level::Calm {
            let closes = if *overload == Level::Critical { " and connections closed" } else { "" };
            writeln!(f, "overload: new requests are shed{closes}")?;
        }
        if *panics != Panics::default() {
            let Panics { requests, tasks, others } = panics;
            writeln!(f, "panics: {requests} in requests, {tasks} in tasks, {others} elsewhere")?;
        }
        if !refused.0.is_empty() {
            writeln!(f, "refused: {refused}")?;
        }
        unready.iter().try_for_each(|why| writeln!(f, "not ready: {why}"))?;
        configuration.fmt(f)?;
        listeners.iter().try_for_each(|listener| listener.fmt(f))?;
        upstreams.iter().try_for_each(|upstream| write!(f, "\n{upstream}"))
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, age_seconds, file, watch, probation, .. } = self;
        write!(f, "configuration v{version}")?;
        if let Some(file) = file {
            write!(f, " of {file}")?;
        }
        let watched = if *watch { ", watched" } else { "" };
        writeln!(f, ", in force for {}{watched}", span(*age_seconds))?;
        match probation {
            None | Some(Standing::Passed { .. } | Standing::Overtaken { .. }) => Ok(()),
            Some(standing) => writeln!(f, "{standing}"),
        }
    }
}

impl fmt::Display for UpstreamStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fit = |backend: &&BackendStatus| {
            matches!(backend.availability, Availability::Ready | Availability::Trial)
        };
        let (fit, all) = (self.backends.iter().filter(fit).count(), self.backends.len());
        let Self { name, requests, retries, .. } = self;
        writeln!(
            f,
            "upstream {name}: {fit} of {all} in service; requests: {requests}, retries: {retries}"
        )?;
        self.discovery.iter().try_for_each(|source| source.fmt(f))?;
        self.load.as_ref().map_or(Ok(()), |load| load.fmt(f))?;
        self.mirrored.as_ref().map_or(Ok(()), |mirrored| mirrored.fmt(f))?;
        let widest = self.backends.iter().map(|backend| backend.address.len()).max().unwrap_or(0);
        for backend in &self.backends {
            backend.show(f, widest)?;
        }
        Ok(())
    }
}

/// `3h 12m`, `42s`: two units at most, as a person says it.
pub(crate) fn span(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, size)| *size <= seconds).unwrap_or(units.len() - 1);
    let mut rest = Duration::from_secs(seconds).as_secs();
    let mut words = Vec::new();
    for (unit, size) in units.iter().skip(first).take(2) {
        let count = rest / size;
        rest %= size;
        if 0 < count || words.is_empty() {
            words.push(format!("{count}{unit}"));
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests;
