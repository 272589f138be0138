//! Metrics of upstreams and their backends.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    metrics::{Family, Page, Value},
    upstream::{
        Upstream,
        backend::{Availability, Member, Probe},
    },
};

const REQUESTS: Family<1> = Family::counter(
    "crestline_upstream_requests_total",
    "Requests for which a backend of the upstream was looked for",
    ["upstream"],
);
const RETRIES: Family<1> = Family::counter(
    "crestline_upstream_retries_total",
    "Attempts beyond the first that failures led to",
    ["upstream"],
);
const CONNECTIONS: Family<2> = Family::counter(
    "crestline_upstream_connections_total",
    "Connections that attempts were made on, newly made or from the pool",
    ["upstream", "from"],
);
const CONNECT: Family<1> = Family::durations(
    "crestline_upstream_connect_seconds",
    "How long new connections took to make, TLS included",
    ["upstream"],
);
const HEDGES: Family<1> = Family::counter(
    "crestline_upstream_hedges_total",
    "Requests that were sent to a second backend while the first had not answered",
    ["upstream"],
);
const HEDGES_WON: Family<1> = Family::counter(
    "crestline_upstream_hedges_won_total",
    "Those of them that the second backend answered first",
    ["upstream"],
);
const WAITING: Family<1> = Family::gauge(
    "crestline_upstream_waiting",
    "Requests that wait for a backend that has room for them",
    ["upstream"],
);
const WAITED: Family<2> = Family::counter(
    "crestline_upstream_waited_total",
    "Requests that found all backends full, by what became of them",
    ["upstream", "result"],
);
const COPIES: Family<1> = Family::gauge(
    "crestline_mirror_copies_in_flight",
    "Copies of requests that are on their way to the upstream as a mirror",
    ["upstream"],
);
const COPIED: Family<2> = Family::counter(
    "crestline_mirror_copies_total",
    "Copies of requests for the upstream as a mirror, by what became of them",
    ["upstream", "result"],
);
const SETS: Family<1> = Family::counter(
    "crestline_upstream_set_changes_total",
    "How often discovery put another set of backends in force, each time with all that changed",
    ["upstream"],
);
const AVAILABLE: Family<2> = Family::gauge(
    "crestline_backend_available",
    "Whether the backend may take a request now, or one on trial",
    ["upstream", "backend"],
);
const HEALTHY: Family<2> = Family::gauge(
    "crestline_backend_healthy",
    "Whether its checks pass; always 1 without checks",
    ["upstream", "backend"],
);
const EJECTED: Family<2> = Family::gauge(
    "crestline_backend_ejected",
    "Whether the backend is ejected, or on trial after that",
    ["upstream", "backend"],
);
const EJECTIONS: Family<2> = Family::counter(
    "crestline_backend_ejections_total",
    "How often failures of requests ejected the backend",
    ["upstream", "backend"],
);
const IN_FLIGHT: Family<2> = Family::gauge(
    "crestline_backend_requests_in_flight",
    "Requests that the backend is answering",
    ["upstream", "backend"],
);
const IN_FLIGHT_MAX: Family<2> = Family::gauge(
    "crestline_backend_requests_max",
    "Requests that the backend is given at a time, at most; none if they are not bounded",
    ["upstream", "backend"],
);
const CONNECTED: Family<2> = Family::gauge(
    "crestline_backend_connections",
    "Connections to the backend, unused ones included; none if they are not bounded",
    ["upstream", "backend"],
);
const WEIGHT: Family<2> = Family::gauge(
    "crestline_backend_weight",
    "The share of the backend, relative to the others, by the file or by order",
    ["upstream", "backend"],
);
const DRAINED: Family<2> = Family::gauge(
    "crestline_backend_drained",
    "Whether the backend is drained by order",
    ["upstream", "backend"],
);
const ATTEMPTS: Family<2> = Family::counter(
    "crestline_backend_attempts_total",
    "Attempts that were made at the backend",
    ["upstream", "backend"],
);
const FAILURES: Family<2> = Family::counter(
    "crestline_backend_failures_total",
    "Attempts that failed: no connection, a break, a timeout, or the statuses 502, 503 and 504",
    ["upstream", "backend"],
);

/// Writes the metrics of all upstreams.
pub fn collect<'a>(upstreams: impl Iterator<Item = &'a Arc<Upstream>>, page: &mut Page) {
    let upstreams: Vec<_> = upstreams.map(|one| (&**one, one.members())).collect();
    let each = || upstreams.iter().map(|(upstream, _)| (*upstream, &**upstream.name()));
    let mut requests = page.family(&REQUESTS);
    each().for_each(|(upstream, name)| requests.add([name], upstream.requests()));
    let mut retries = page.family(&RETRIES);
    each().for_each(|(upstream, name)| retries.add([name], upstream.retries()));
    let mut connections = page.family(&CONNECTIONS);
    for (upstream, name) in each() {
        let account = upstream.account();
        connections.add([name, "new"], account.connects().count());
        connections.add([name, "pool"], account.pooled());
    }
    let mut connect = page.family(&CONNECT);
    each().for_each(|(upstream, name)| connect.durations([name], &upstream.account().connects()));
    let mut hedges = page.family(&HEDGES);
    each().for_each(|(upstream, name)| hedges.add([name], upstream.account().hedges.begun.get()));
    let mut won = page.family(&HEDGES_WON);
    each().for_each(|(upstream, name)| won.add([name], upstream.account().hedges.won.get()));
    let mut waiting = page.family(&WAITING);
    each().for_each(|(upstream, name)| waiting.add([name], upstream.account().line().len() as u64));
    let mut waited = page.family(&WAITED);
    for (upstream, name) in each() {
        let counts = &upstream.account().line().counts;
        for (result, count) in counts.by_name() {
            waited.add([name, result], count);
        }
    }
    let mut copies = page.family(&COPIES);
    each().for_each(|(upstream, name)| copies.add([name], upstream.account().copies().now()));
    let mut copied = page.family(&COPIED);
    for (upstream, name) in each() {
        for (result, count) in upstream.account().copies().ended() {
            copied.add([name, result], count);
        }
    }
    let mut sets = page.family(&SETS);
    each().for_each(|(upstream, name)| sets.add([name], upstream.account().sets()));
    backends(&upstreams, page);
}

fn backends(upstreams: &[(&Upstream, Vec<Arc<Member>>)], page: &mut Page) {
    let now = Instant::now();
    let mut of_some = |family, value: &dyn Fn(&Member) -> Option<Value>| {
        let mut samples = page.family(family);
        for (upstream, members) in upstreams {
            for member in members {
                if let Some(value) = value(member) {
                    samples.add([upstream.name(), member.state.name()], value);
                }
            }
        }
    };
    of_some(&IN_FLIGHT_MAX, &|member| {
        let max = member.state.occupancy.requests_max(&member.heeds.load);
        (max != u32::MAX).then(|| max.into())
    });
    of_some(&CONNECTED, &|member| {
        member.heeds.load.connections.map(|_| member.connections.get().into())
    });
    let mut of_backends = |family, value: &dyn Fn(&Member) -> Value| {
        of_some(family, &|member| Some(value(member)));
    };
    of_backends(&WEIGHT, &|member| u32::from(member.weight).into());
    of_backends(&DRAINED, &|member| member.state.orders.is_drained().into());
    of_backends(&AVAILABLE, &|member| {
        matches!(member.availability(now), Availability::Ready | Availability::Trial).into()
    });
    of_backends(&HEALTHY, &|member| {
        (!member.heeds.probe || member.state.probe() == Probe::Passing).into()
    });
    of_backends(&EJECTED, &|member| {
        (member.heeds.ejection && member.state.gate.is_ejected()).into()
    });
    of_backends(&EJECTIONS, &|member| member.state.ejections().into());
    of_backends(&IN_FLIGHT, &|member| member.state.in_flight().into());
    of_backends(&ATTEMPTS, &|member| member.state.attempts().into());
    of_backends(&FAILURES, &|member| member.state.failures().into());
}
