//! What runs: the answer to `crestline status`.

mod acme;

use std::{
    collections::BTreeMap,
    fmt, process,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use acme::AcmeStatus;

use crate::{
    control::{Control, probation::Standing},
    downstream::refused::Refused,
    drain::{Drain, Load, State},
    panics::Panics,
    snapshot::Listener,
    tls::keyring::Keyring,
    upstream::{Upstream, backend::Availability, backend::Member},
};

/// What runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// The versions that can be gone back to, the newest first.
    pub versions: Vec<VersionStatus>,
}

/// A version that is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionStatus {
    /// Its number.
    pub version: u64,
    /// How long ago it came into force.
    pub age_seconds: u64,
    /// What it changed.
    pub summary: String,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Where it listens.
    pub address: String,
    /// Whether it speaks HTTP/2 with prior knowledge.
    pub h2c: bool,
    /// What it shows its clients; `None` in plaintext.
    pub tls: Option<TlsStatus>,
}

/// TLS on a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Its name.
    pub name: String,
    /// Requests that were sent to it since the process began.
    pub requests: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Its backends, by address.
    pub backends: Vec<BackendStatus>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its address.
    pub address: String,
    /// Its share, relative to the others.
    pub weight: u16,
    /// Whether it may take a request: `ready`, `trial`, `unhealthy`, `ejected` or `draining`.
    pub availability: Availability,
    /// For how long it is ejected still, begun seconds included.
    pub ejected_seconds: Option<u64>,
    /// Requests that it is answering.
    pub in_flight: u32,
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
            panics: Panics::get(),
            refused: Refused::get(),
            configuration: Configuration {
                version: snapshot.version,
                age_seconds: current.map_or(0, |kept| kept.age_seconds),
                file: control.path().map(|path| path.display().to_string()),
                watch: snapshot.file.watch,
                probation: control.probation().as_ref().map(Standing::of),
                versions,
            },
            listeners: snapshot
                .listeners
                .iter()
                .map(|listener| ListenerStatus {
                    address: listener.address.to_string(),
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
        let now = Instant::now();
        Self {
            name: upstream.name().to_string(),
            requests: upstream.requests(),
            retries: upstream.retries(),
            backends: upstream.members().iter().map(|member| backend(member, now)).collect(),
        }
    }
}

fn backend(member: &Member, now: Instant) -> BackendStatus {
    let state = &member.state;
    let availability = member.availability(now);
    let ejected = state.gate.ejected_until().filter(|_| availability == Availability::Ejected);
    let ejected = ejected.map(|until| until.saturating_duration_since(now));
    BackendStatus {
        address: state.name().to_owned(),
        weight: member.target.weight,
        availability,
        ejected_seconds: ejected.map(|rest| rest.as_secs() + 1),
        in_flight: state.in_flight(),
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, pid, uptime_seconds, state, in_flight, panics, refused, .. } = self;
        let Self { configuration, listeners, upstreams, unready, .. } = self;
        writeln!(f, "crestline {program}, process {pid}, up {}", span(*uptime_seconds))?;
        writeln!(f, "{}, {in_flight}", state.as_str())?;
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

impl fmt::Display for ListenerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, h2c, tls } = self;
        let Some(tls) = tls else {
            return writeln!(f, "listener {address}{}", if *h2c { " (h2c)" } else { "" });
        };
        let TlsStatus { handshakes, resumed_handshakes: resumed, failed_handshakes, .. } = tls;
        let clients = match tls.client_certificates.as_str() {
            "" | "off" => String::new(),
            mode => format!(", client certificates {mode}"),
        };
        write!(f, "listener {address} (tls{clients}); handshakes: {handshakes}")?;
        if 0 < *resumed {
            write!(f, " ({resumed} resumed)")?;
        }
        write!(f, ", failed: {failed_handshakes}")?;
        if 0 < *failed_handshakes {
            let reasons = tls.failed_by_reason.iter();
            let reasons: Vec<_> = reasons.map(|(why, count)| format!("{why} {count}")).collect();
            write!(f, " ({})", reasons.join(", "))?;
        }
        writeln!(f)?;
        for CertificateStatus { names, key, expires, days_left, ocsp_until, acme } in
            &tls.certificates
        {
            write!(f, "  {}  {key}, ", names.join(", "))?;
            if let Some(acme) = acme.as_ref().filter(|acme| acme.self_signed) {
                write!(f, "self-signed meanwhile; {acme}")?;
                continue;
            }
            let s = if *days_left == 1 { "" } else { "s" };
            let left = match days_left {
                ..0 => "expired".to_owned(),
                left => format!("in {left} day{s}"),
            };
            write!(f, "until {expires} ({left})")?;
            if let Some(until) = ocsp_until {
                write!(f, ", OCSP until {until}")?;
            }
            match acme {
                Some(acme) => write!(f, "; {acme}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
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
        let widest = self.backends.iter().map(|backend| backend.address.len()).max().unwrap_or(0);
        for backend in &self.backends {
            let BackendStatus { address, weight, availability, ejected_seconds, in_flight } =
                backend;
            let word = availability.as_str();
            write!(f, "  {address:widest$}  {word:9}  weight {weight}, {in_flight} in flight")?;
            if let Some(rest) = ejected_seconds {
                write!(f, ", ejected for {rest}s")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// `3h 12m`, `42s`: two units at most, as a person says it.
fn span(seconds: u64) -> String {
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
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_as_people_say_them() {
        let cases = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m 1s"),
            (3_600, "1h"),
            (90_000, "1d 1h"),
            (86_401, "1d"),
        ];
        for (seconds, words) in cases {
            assert_eq!(span(seconds), words);
        }
    }
    #[test]
    fn people_read_who_is_in_service() {
        let backend = |address: &str, availability, ejected_seconds| BackendStatus {
            address: address.to_owned(),
            weight: 1,
            availability,
            ejected_seconds,
            in_flight: 2,
        };
        let certificate = |days_left, expires: &str, acme| CertificateStatus {
            names: vec!["a.test".to_owned(), "*.a.test".to_owned()],
            key: "RSA".to_owned(),
            expires: expires.to_owned(),
            days_left,
            ocsp_until: (days_left == 1).then(|| "2027-01-01".to_owned()),
            acme,
        };
        let obtained = |error: Option<&str>| AcmeStatus {
            challenge: "http-01".to_owned(),
            self_signed: error.is_some(),
            next_order: "2027-03-01T08:00:00Z".to_owned(),
            last_error: error.map(str::to_owned),
        };
        let told = "6 % of its 50 answers were 5xx".to_owned();
        let status = Status {
            program: "0.1.0".to_owned(),
            pid: 7,
            uptime_seconds: 3_725,
            state: State::Draining,
            unready: vec!["certificate for b.test: self-signed meanwhile".to_owned()],
            in_flight: Load { connections: 3, requests: 1, tunnels: 0 },
            panics: Panics { requests: 1, tasks: 0, others: 0 },
            refused: Refused([("bad_host".to_owned(), 1), ("silent".to_owned(), 2)].into()),
            configuration: Configuration {
                version: 3,
                age_seconds: 5,
                file: Some("/etc/app.yaml".to_owned()),
                watch: true,
                probation: Some(Standing::TakenBack { version: 2, told }),
                versions: Vec::new(),
            },
            listeners: vec![
                ListenerStatus { address: "0.0.0.0:80".to_owned(), h2c: false, tls: None },
                ListenerStatus { address: "unix:/run/app.sock".to_owned(), h2c: true, tls: None },
                ListenerStatus {
                    address: "0.0.0.0:443".to_owned(),
                    h2c: false,
                    tls: Some(TlsStatus {
                        handshakes: 7,
                        resumed_handshakes: 3,
                        failed_handshakes: 2,
                        failed_by_reason: [("timeout".to_owned(), 2)].into(),
                        client_certificates: "required".to_owned(),
                        certificates: vec![
                            certificate(1, "2027-01-31", None),
                            certificate(-1, "2027-01-29", None),
                            certificate(60, "2027-03-31", Some(obtained(None))),
                            certificate(9, "4096-01-01", Some(obtained(Some("no")))),
                        ],
                    }),
                },
            ],
            upstreams: vec![UpstreamStatus {
                name: "app".to_owned(),
                requests: 10,
                retries: 1,
                backends: vec![
                    backend("127.0.0.1:3031", Availability::Ready, None),
                    backend("127.0.0.1:303", Availability::Ejected, Some(9)),
                    backend("127.0.0.1:3033", Availability::Trial, None),
                ],
            }],
        };
        let expected = "\
crestline 0.1.0, process 7, up 1h 2m
draining, 3 connections, 1 request, 0 WebSockets
panics: 1 in requests, 0 in tasks, 0 elsewhere
refused: silent 2, bad_host 1
not ready: certificate for b.test: self-signed meanwhile
configuration v3 of /etc/app.yaml, in force for 5s, watched
v2 was taken back: 6 % of its 50 answers were 5xx
listener 0.0.0.0:80
listener unix:/run/app.sock (h2c)
listener 0.0.0.0:443 (tls, client certificates required); handshakes: 7 (3 resumed), failed: 2 (timeout 2)
  a.test, *.a.test  RSA, until 2027-01-31 (in 1 day), OCSP until 2027-01-01
  a.test, *.a.test  RSA, until 2027-01-29 (expired)
  a.test, *.a.test  RSA, until 2027-03-31 (in 60 days); by ACME (http-01), renewed at 2027-03-01T08:00:00Z
  a.test, *.a.test  RSA, self-signed meanwhile; by ACME (http-01), ordered at 2027-03-01T08:00:00Z
    last order failed: no

upstream app: 2 of 3 in service; requests: 10, retries: 1
  127.0.0.1:3031  ready      weight 1, 2 in flight
  127.0.0.1:303   ejected    weight 1, 2 in flight, ejected for 9s
  127.0.0.1:3033  trial      weight 1, 2 in flight
";
        assert_eq!(status.to_string(), expected);
    }

    #[test]
    fn a_probation_is_told_while_it_says_something() {
        let told = |probation| {
            let configuration = Configuration {
                version: 2,
                age_seconds: 0,
                file: None,
                watch: false,
                probation,
                versions: Vec::new(),
            };
            let text = configuration.to_string();
            text.lines().nth(1).map(str::to_owned)
        };
        let cases = [
            (None, None),
            (Some(Standing::Passed { version: 2 }), None),
            (Some(Standing::Overtaken { version: 1 }), None),
            (Some(Standing::Running { version: 2 }), Some("v2 is on probation")),
        ];
        for (probation, expected) in cases {
            assert_eq!(told(probation).as_deref(), expected);
        }
    }
}
