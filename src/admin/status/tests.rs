//! How what runs is told in words.

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

/// A listener in plaintext.
fn listener(address: &str, protocol: &str, relays_to: &[&str]) -> ListenerStatus {
    ListenerStatus {
        address: address.to_owned(),
        protocol: protocol.to_owned(),
        relays_to: relays_to.iter().map(|&name| name.to_owned()).collect(),
        h2c: false,
        tls: None,
    }
}

fn backend(
    address: &str,
    availability: Availability,
    ejected_seconds: Option<u64>,
) -> BackendStatus {
    BackendStatus {
        address: address.to_owned(),
        weight: 1,
        weight_in_file: None,
        availability,
        drained: false,
        ejected_seconds,
        in_flight: 2,
        attempts: 9,
        failures: 1,
        ejections: 0,
        last_failure: None,
        last_check_failure: None,
    }
}

#[test]
fn people_read_who_is_in_service() {
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
        overload: Level::Critical,
        panics: Panics { requests: 1, tasks: 0, others: 0 },
        refused: Refused([("bad_host".to_owned(), 1), ("silent".to_owned(), 2)].into()),
        configuration: Configuration {
            version: 3,
            age_seconds: 5,
            file: Some("/etc/app.yaml".to_owned()),
            watch: true,
            probation: Some(Standing::TakenBack { version: 2, told }),
            last_refused: None,
            versions: Vec::new(),
        },
        listeners: vec![
            listener("0.0.0.0:80", "http", &[]),
            ListenerStatus { h2c: true, ..listener("unix:/run/app.sock", "http", &[]) },
            listener("0.0.0.0:5432", "tcp", &["app", "db"]),
            ListenerStatus {
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
                ..listener("0.0.0.0:443", "http", &["db"])
            },
        ],
        upstreams: vec![UpstreamStatus {
            load: None,
            mirrored: Some(MirrorStatus { now: 2, ended: [("busy".to_owned(), 1)].into() }),
            name: "app".to_owned(),
            requests: 10,
            retries: 1,
            discovery: vec![
                source("dns", 1, Some(61), None),
                source("file /etc/app.yaml", 2, None, Some("cannot read it")),
            ],
            backends: vec![
                backend("127.0.0.1:3031", Availability::Ready, None),
                backend("127.0.0.1:303", Availability::Ejected, Some(9)),
                backend("127.0.0.1:3033", Availability::Trial, None),
            ],
        }],
    };
    let expected = "\
crestline 0.1.0, process 7, up 1h 2m
draining, 3 connections, 1 request, 0 tunnels
overload: new requests are shed and connections closed
panics: 1 in requests, 0 in tasks, 0 elsewhere
refused: silent 2, bad_host 1
not ready: certificate for b.test: self-signed meanwhile
configuration v3 of /etc/app.yaml, in force for 5s, watched
v2 was taken back: 6 % of its 50 answers were 5xx
listener 0.0.0.0:80
listener unix:/run/app.sock (h2c)
listener 0.0.0.0:5432 (tcp, relays to app, db)
listener 0.0.0.0:443 (tls, client certificates required, relays to db); handshakes: 7 (3 resumed), failed: 2 (timeout 2)
  a.test, *.a.test  RSA, until 2027-01-31 (in 1 day), OCSP until 2027-01-01
  a.test, *.a.test  RSA, until 2027-01-29 (expired)
  a.test, *.a.test  RSA, until 2027-03-31 (in 60 days); by ACME (http-01), renewed at 2027-03-01T08:00:00Z
  a.test, *.a.test  RSA, self-signed meanwhile; by ACME (http-01), ordered at 2027-03-01T08:00:00Z
    last order failed: no

upstream app: 2 of 3 in service; requests: 10, retries: 1
  by dns: 1 backend, in touch 1m 1s ago
  by file /etc/app.yaml: 2 backends, never in touch; cannot read it
  copies: 2 now, busy 1
  127.0.0.1:3031  ready      weight 1, 2 in flight
  127.0.0.1:303   ejected    weight 1, 2 in flight, ejected for 9s
  127.0.0.1:3033  trial      weight 1, 2 in flight
";
    assert_eq!(status.to_string(), expected);
}

fn source(
    source: &str,
    backends: usize,
    since: Option<u64>,
    error: Option<&str>,
) -> DiscoveryStatus {
    let (source, error) = (source.to_owned(), error.map(str::to_owned));
    DiscoveryStatus { source, backends, in_touch_seconds: since, error }
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
            last_refused: None,
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
