//! Metrics of what a configuration consists of: routes, listeners, certificates.

use std::{collections::BTreeMap, time::SystemTime};

use crate::{
    metrics::{Family, Page},
    observe::{process::seconds, requests::CLASSES},
    policy::{
        cache::Verdict,
        meter::{self, Metered},
    },
    snapshot::Snapshot,
    upstream,
};

const VERSION: Family<0> = Family::gauge(
    "crestline_configuration_version",
    "The version of the configuration in force",
    [],
);
const REQUESTS: Family<2> = Family::counter(
    "crestline_requests_total",
    "Requests that ended, by route and class of their status",
    ["route", "status_class"],
);
const DURATION: Family<2> = Family::durations(
    "crestline_request_duration_seconds",
    "How long requests took, from their head to the last byte of their answer",
    ["route", "status_class"],
);
const HANDSHAKES: Family<2> = Family::counter(
    "crestline_tls_handshakes_total",
    "TLS handshakes that led to a connection, in full or with a session of before",
    ["listener", "session"],
);
const FAILED_HANDSHAKES: Family<2> = Family::counter(
    "crestline_tls_handshake_failures_total",
    "TLS handshakes that led to none, by reason",
    ["listener", "reason"],
);
const EXPIRY: Family<3> = Family::gauge(
    "crestline_certificate_expiry_timestamp_seconds",
    "When a certificate in use expires, in seconds since 1970",
    ["listener", "names", "key"],
);
const ACME_READY: Family<1> = Family::gauge(
    "crestline_acme_certificate_ready",
    "Whether a certificate that is obtained by ACME is good, and not a self-signed stand-in",
    ["names"],
);

const CACHED: Family<2> = Family::counter(
    "crestline_cache_requests_total",
    "Requests on routes that keep answers, by what became of them there",
    ["route", "verdict"],
);

/// What stands for a route where none took the request.
pub const NO_ROUTE: &str = "(none)";

/// Writes all that hangs from a snapshot.
pub fn collect(snapshot: &Snapshot, now: SystemTime, page: &mut Page) {
    page.family(&VERSION).add([], snapshot.version);
    requests(snapshot, page);
    limits(snapshot, page);
    caches(snapshot, page);
    upstream::metrics::collect(snapshot.upstreams.values(), page);
    handshakes(snapshot, page);
    certificates(snapshot, now, page);
}

/// A class of which there was no request yet has no histogram: most routes never see most classes,
/// and each would be twenty lines.
fn requests(snapshot: &Snapshot, page: &mut Page) {
    let routes = snapshot.ledger.routes().chain([(NO_ROUTE, &*snapshot.ledger.unrouted)]);
    let read = routes.map(|(name, requests)| (name, requests.exemplars(), requests.read()));
    let read: Vec<_> = read.collect();
    let each = || {
        read.iter().flat_map(|(name, exemplars, classes)| {
            let classes = CLASSES.into_iter().zip(classes).zip(exemplars);
            classes.map(move |((class, read), shown)| ([*name, class], read, *shown))
        })
    };
    let mut counts = page.family(&REQUESTS);
    each().for_each(|(labels, read, _)| counts.add(labels, read.count()));
    let mut durations = page.family(&DURATION);
    each().filter(|(_, read, _)| 0 < read.count()).for_each(|(labels, read, shown)| {
        durations.durations_with(labels, read, shown);
    });
}

/// The limits of all routes. A route may stand in the table by several rules.
fn limits(snapshot: &Snapshot, page: &mut Page) {
    let routes: BTreeMap<&str, _> =
        snapshot.routes.routes().iter().map(|(_, route)| (route.name.as_str(), route)).collect();
    let limits: Vec<_> = routes
        .iter()
        .flat_map(|(name, route)| {
            let limits = route.policies.limits();
            limits.map(|(policy, shown)| Metered { route: name, policy, shown })
        })
        .collect();
    meter::collect(&limits, page);
}

/// What became of requests on routes that keep answers.
fn caches(snapshot: &Snapshot, page: &mut Page) {
    let routes: BTreeMap<&str, _> = snapshot
        .routes
        .routes()
        .iter()
        .filter_map(|(_, route)| Some((route.name.as_str(), route.policies.cache()?)))
        .collect();
    let mut samples = page.family(&CACHED);
    for (name, rules) in routes {
        for verdict in Verdict::ALL {
            samples.add([name, verdict.as_str()], rules.verdicts.get(verdict));
        }
    }
}

fn handshakes(snapshot: &Snapshot, page: &mut Page) {
    let speakers = snapshot.listeners.iter().filter(|listener| listener.tls.is_some());
    let speakers: Vec<_> =
        speakers.map(|one| (one.address.to_string(), one.handshakes.clone())).collect();
    let mut done = page.family(&HANDSHAKES);
    for (address, handshakes) in &speakers {
        let resumed = handshakes.resumed.get();
        let full = handshakes.done.get().saturating_sub(resumed);
        done.add([address, "full"], full);
        done.add([address, "resumed"], resumed);
    }
    let mut failed = page.family(&FAILED_HANDSHAKES);
    for (address, handshakes) in &speakers {
        for (reason, count) in handshakes.failed() {
            failed.add([address, reason.as_str()], count);
        }
    }
}

/// Of certificates that nothing tells apart, the one that expires first.
fn certificates(snapshot: &Snapshot, now: SystemTime, page: &mut Page) {
    let mut expiries: BTreeMap<[String; 3], SystemTime> = BTreeMap::new();
    for (address, keyring) in snapshot.keyrings() {
        for certificate in keyring.certificates() {
            let names: Vec<_> = certificate.names.iter().collect();
            let key = certificate.kind.as_str().to_owned();
            let labels = [address.to_string(), names.join(","), key];
            let expires = expiries.entry(labels).or_insert(certificate.expires);
            *expires = certificate.expires.min(*expires);
        }
    }
    let mut expiry = page.family(&EXPIRY);
    for (labels, expires) in &expiries {
        expiry.add(labels.each_ref().map(String::as_str), seconds(*expires));
    }
    let mut ready: BTreeMap<String, bool> = BTreeMap::new();
    for managed in snapshot.acme.iter().flat_map(|acme| acme.certificates()) {
        let is_ready = managed.standing(now).unready(now).is_none();
        *ready.entry(managed.names.join(",")).or_insert(true) &= is_ready;
    }
    let mut samples = page.family(&ACME_READY);
    for (names, is_ready) in &ready {
        samples.add([names], *is_ready);
    }
}
