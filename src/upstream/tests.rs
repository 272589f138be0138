//! Which backend an upstream chooses, and what it learns from how attempts end.

mod succession;

use std::{collections::BTreeMap, path::Path};

use futures::FutureExt;
use pingora_core::protocols::l4::socket::SocketAddr;
use proptest::prelude::*;

use super::*;
use crate::{
    diagnostic::Problems,
    upstream::{ejection::Rules, outcome::Outcome, target::Target},
    yaml,
};

/// An upstream as a file would write it; all its backends have passed their checks.
fn upstream(yaml: &str) -> Upstream {
    let upstream = succeeding(None, yaml);
    upstream.members().iter().for_each(|member| member.state.set_probe(Probe::Passing));
    upstream
}

/// An upstream as a file would write it, after a predecessor.
fn succeeding(predecessor: Option<&Upstream>, yaml: &str) -> Upstream {
    let mut problems = Problems::default();
    let node = yaml::parse(&format!("{{ {yaml} }}")).unwrap();
    let config: Option<config::Config> = yaml::read(&node, "", &mut problems);
    let upstream = config.and_then(|config| {
        let link = config.link(Path::new(""), &mut problems)?;
        config.build("app", link, &site::Site::default(), predecessor, &mut problems)
    });
    upstream.unwrap_or_else(|| panic!("{problems:?}"))
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::Inet(([127, 0, 0, 1], port).into())
}

/// Three backends, on the ports 1, 2 and 3.
fn three(more: &str) -> Upstream {
    upstream(&format!("backends: [127.0.0.1:1, 127.0.0.1:2, 127.0.0.1:3], {more}"))
}

fn port(member: &Member) -> u16 {
    member.state.address().as_inet().unwrap().port()
}

/// The backend of a port.
fn at(upstream: &Upstream, wanted: u16) -> Arc<Member> {
    upstream.members().into_iter().find(|member| port(member) == wanted).expect("a backend")
}

/// The ports that so many requests go to, each answered at once.
fn counts(upstream: &Upstream, requests: usize, visit: impl Fn(&Member) -> Visit) -> Vec<usize> {
    let mut counts: BTreeMap<u16, usize> =
        upstream.members().iter().map(|member| (port(member), 0)).collect();
    for _ in 0..requests {
        if let Some(in_flight) = upstream.select(Instant::now(), &Hints::NONE, &visit) {
            *counts.get_mut(&port(in_flight.member())).expect("one of the set") += 1;
        }
    }
    counts.into_values().collect()
}

fn fresh(_: &Member) -> Visit {
    Visit::None
}

const ONE_FAILURE: Rules =
    Rules { consecutive_failures: 1, eject_for: Duration::from_secs(10), max_ejected: 1.0 };

#[test]
fn weights_are_shares() {
    let weighted = upstream(
        "backends: [{ address: 127.0.0.1:1, weight: 3 }, { address: 127.0.0.1:2, weight: 2 }, 127.0.0.1:3]",
    );
    assert_eq!(counts(&weighted, 600, fresh), [300, 200, 100]);
    assert_eq!(counts(&three(""), 600, fresh), [200, 200, 200]);
}

#[test]
fn who_is_next_can_be_told_and_stays_next() {
    for backends in [
        "backends: [127.0.0.1:1]",
        "backends: [127.0.0.1:1, 127.0.0.1:2, 127.0.0.1:3]",
        "backends: [{ address: 127.0.0.1:1, weight: 5 }, 127.0.0.1:2, { address: 127.0.0.1:3, weight: 2 }]",
    ] {
        let upstream = upstream(backends);
        for _ in 0..30 {
            let upcoming = upstream.upcoming();
            assert_eq!(upcoming.len(), upstream.members().len());
            assert_eq!(port(&upstream.upcoming()[0]), port(&upcoming[0]), "asking changes nothing");
            let taken = upstream.select(Instant::now(), &Hints::NONE, fresh).expect("a backend");
            assert_eq!(port(taken.member()), port(&upcoming[0]), "{backends}");
        }
    }
}

#[test]
fn a_backend_that_is_not_fit_gets_nothing() {
    for put_out in [
        |member: &Member| member.state.set_probe(Probe::Pending),
        |member: &Member| member.state.set_probe(Probe::Failing),
        |member: &Member| member.state.set_draining(true),
        |member: &Member| {
            member.state.gate.failed(Instant::now(), &ONE_FAILURE, || true);
        },
    ] {
        let upstream = three("");
        put_out(&at(&upstream, 2));
        let [first, second, third] = counts(&upstream, 300, fresh)[..] else { panic!("three") };
        assert_eq!((first + third, second), (300, 0));
        assert!(100 <= first && 100 <= third, "{first} {third}");
    }
}

#[test]
fn a_request_never_goes_back_to_a_backend_that_failed_it() {
    let upstream = three("");
    let failed_first = |member: &Member| match port(member) {
        1 => Visit::Failed,
        _ => Visit::None,
    };
    assert_eq!(counts(&upstream, 30, failed_first)[0], 0);
    assert_eq!(counts(&upstream, 30, |_| Visit::Failed), [0, 0, 0]);
    at(&upstream, 1).state.gate.failed(Instant::now(), &ONE_FAILURE, || true);
    assert_eq!(counts(&upstream, 30, |_| Visit::Failed), [0, 0, 0], "nor when it is ejected");
}

#[test]
fn what_is_left_is_tried_from_the_best_to_the_worst() {
    let upstream = three("");
    let stale_third = |member: &Member| match port(member) {
        1 => Visit::Failed,
        3 => Visit::Stale,
        _ => Visit::None,
    };
    assert_eq!(counts(&upstream, 10, stale_third), [0, 10, 0], "a fresh one first");
    at(&upstream, 2).state.gate.failed(Instant::now(), &ONE_FAILURE, || true);
    assert_eq!(counts(&upstream, 10, stale_third), [0, 0, 10], "then a stale one");
    at(&upstream, 3).state.set_probe(Probe::Failing);
    assert_eq!(counts(&upstream, 10, stale_third), [0, 10, 0], "then an ejected one");
    at(&upstream, 2).state.set_probe(Probe::Failing);
    assert_eq!(counts(&upstream, 10, stale_third), [0, 0, 0], "an unhealthy one never");
}

#[test]
fn backends_that_are_checked_serve_once_a_check_has_passed() {
    let upstream = upstream("backends: [127.0.0.1:1]").parts;
    let mut problems = Problems::default();
    let checks = health::config::Config::default()
        .build(&upstream.link, &Arc::default(), &mut problems)
        .map(Arc::new);
    assert!(checks.is_some() && upstream.plan.heeds.probe);
    let upstream = Upstream::new(Parts { checks, ..upstream }, Account::open(), None);
    assert!(upstream.select(Instant::now(), &Hints::NONE, fresh).is_none());
    at(&upstream, 1).state.set_probe(Probe::Passing);
    assert!(upstream.select(Instant::now(), &Hints::NONE, fresh).is_some());
}

#[test]
fn failures_in_a_row_eject_and_a_trial_returns() {
    let upstream =
        three("ejection: { consecutive_failures: 2, eject_for: 10s, max_ejected: 100% }");
    let (member, now) = (at(&upstream, 2), Instant::now());
    for outcome in [Outcome::Refused, Outcome::Status(500), Outcome::Status(503)] {
        upstream.report(&member, outcome, now);
    }
    assert!(!member.state.gate.is_ejected(), "a 500 is an answer");
    for innocent in [Outcome::Stale, Outcome::ClientLeft, Outcome::Internal] {
        upstream.report(&member, innocent, now);
    }
    assert!(!member.state.gate.is_ejected(), "not its fault");
    upstream.report(&member, Outcome::Timeout, now);
    assert!(member.state.gate.is_ejected());
    assert_eq!(counts(&upstream, 30, fresh)[1], 0);

    let after = now + Duration::from_secs(11);
    let places: Vec<_> =
        (0..30).filter_map(|_| upstream.select(after, &Hints::NONE, fresh)).collect();
    let on_trial = places.iter().filter(|place| port(place.member()) == 2).count();
    assert_eq!((places.len(), on_trial), (30, 1), "one request at a time");
    upstream.report(&member, Outcome::Status(200), after);
    drop(places);
    assert!(!member.state.gate.is_ejected());
    assert_eq!(counts(&upstream, 300, fresh), [100, 100, 100]);
}

#[test]
fn only_a_share_may_be_ejected_and_off_ejects_none() {
    let eject_all = |upstream: &Upstream| {
        for member in upstream.members() {
            for _ in 0..9 {
                upstream.report(&member, Outcome::Reset, Instant::now());
            }
        }
        upstream.members().iter().filter(|member| member.state.gate.is_ejected()).count()
    };
    assert_eq!(eject_all(&three("")), 1, "half of three");
    assert_eq!(eject_all(&three("ejection: { max_ejected: 100% }")), 3);
    assert_eq!(eject_all(&three("ejection: { max_ejected: 0% }")), 0);
    assert_eq!(eject_all(&three("ejection: off")), 0);
}

#[test]
fn a_broken_connection_wakes_the_checks_and_a_bad_status_does_not() {
    let is_woken = |outcome| {
        let upstream = three("ejection: off");
        let member = at(&upstream, 1);
        upstream.report(&member, outcome, Instant::now());
        member.state.suspicion.notified().now_or_never().is_some()
    };
    assert!(is_woken(Outcome::Refused));
    assert!(is_woken(Outcome::Reset));
    assert!(!is_woken(Outcome::Status(503)));
    assert!(!is_woken(Outcome::Status(200)));
    assert!(!is_woken(Outcome::ClientLeft));
}

/// What may be the case with a backend.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Case {
    Ready,
    Pending,
    Failing,
    Draining,
    Ejected,
    OnTrial,
    TrialTaken,
}

impl Case {
    /// Brings a backend into this case, as it will be a minute after `base`.
    fn apply(self, member: &Member, base: Instant) {
        let state = &member.state;
        let eject = |at| state.gate.failed(at, &ONE_FAILURE, || true);
        match self {
            Self::Ready => {}
            Self::Pending => state.set_probe(Probe::Pending),
            Self::Failing => state.set_probe(Probe::Failing),
            Self::Draining => state.set_draining(true),
            Self::Ejected => assert!(eject(base + Duration::from_secs(60)).is_some()),
            Self::OnTrial => assert!(eject(base).is_some()),
            Self::TrialTaken => assert!(eject(base).is_some() && state.gate.take_trial()),
        }
    }

    fn is_fit(self) -> bool {
        matches!(self, Self::Ready | Self::OnTrial)
    }

    fn is_ejected(self) -> bool {
        matches!(self, Self::Ejected | Self::TrialTaken)
    }
}

fn any_backend() -> impl Strategy<Value = (u16, Case, Visit)> {
    use Case::{Draining, Ejected, Failing, OnTrial, Pending, Ready, TrialTaken};
    let cases =
        prop::sample::select(vec![Ready, Pending, Failing, Draining, Ejected, OnTrial, TrialTaken]);
    let visits = prop::sample::select(vec![Visit::None, Visit::Stale, Visit::Failed]);
    (prop_oneof![Just(1u16), 1u16..40], cases, visits)
}

proptest! {
    /// Whatever is the case with its backends, an upstream chooses one of the best kind there is,
    /// finds it if there is one, and takes nothing for longer than the request lives.
    #[test]
    fn the_choice_is_always_of_the_best_kind_there_is(
        backends in prop::collection::vec(any_backend(), 1..12),
        requests in 1usize..20,
    ) {
        let template = upstream("backends: [127.0.0.1:1]").parts;
        let fixed = (1u16..).zip(&backends);
        let fixed = fixed.map(|(port, (weight, ..))| (address(port), Target::of(*weight)));
        let upstream = Upstream::new(Parts { fixed: fixed.collect(), ..template }, Account::open(), None);
        let base = Instant::now();
        let of = |member: &Member| backends[usize::from(port(member)) - 1];
        for member in upstream.members() {
            member.state.set_probe(Probe::Passing);
            of(&member).1.apply(&member, base);
        }
        let kind = |(_, case, visit): (u16, Case, Visit)| match visit {
            Visit::None if case.is_fit() => 1,
            Visit::Stale if case.is_fit() => 2,
            Visit::None | Visit::Stale if case.is_ejected() => 3,
            _ => 4,
        };
        let best = backends.iter().copied().map(kind).min().filter(|best| *best < 4);
        for _ in 0..requests {
            let now = base + Duration::from_secs(60);
            let taken = upstream.select(now, &Hints::NONE, |member| of(member).2);
            prop_assert_eq!(taken.as_ref().map(|taken| kind(of(taken.member()))), best);
        }
        prop_assert!(upstream.members().iter().all(|member| member.state.in_flight() == 0));
    }
}

/// Ends a slice of the windows of an upstream that judges them.
fn end_slice(upstream: &Upstream, now: Instant) {
    let Parts { ejection: Some(rules), outliers: Some(outliers), .. } = &upstream.parts else {
        panic!("no window is judged")
    };
    upstream.end_slice(now, rules, outliers);
}

fn ejected(upstream: &Upstream) -> Vec<u16> {
    let members = upstream.members();
    members
        .iter()
        .filter(|member| member.state.gate.is_ejected())
        .map(|member| port(member))
        .collect()
}

#[test]
fn a_share_of_failures_ejects_though_they_are_never_in_a_row() {
    let upstream = three("ejection: { failure_share: 40%, min_requests: 10 }");
    let now = Instant::now();
    end_slice(&upstream, now);
    for member in upstream.members() {
        let bad = if port(&member) == 2 { 503 } else { 200 };
        for status in [200, bad, 200, bad].into_iter().cycle().take(12) {
            upstream.report(&member, Outcome::Status(status), now);
        }
    }
    assert_eq!(ejected(&upstream), [0; 0]);
    end_slice(&upstream, now);
    assert_eq!(ejected(&upstream), [2]);

    // What was before the ejection does not eject it again.
    let later = now + Duration::from_secs(11);
    end_slice(&upstream, later);
    upstream.report(&at(&upstream, 2), Outcome::Status(200), later);
    (0..3).for_each(|_| end_slice(&upstream, later));
    assert_eq!(ejected(&upstream), [0; 0]);
}

#[test]
fn who_answers_later_than_the_others_is_ejected() {
    let upstream = three("ejection: { latency_factor: 3, min_requests: 10 }");
    let now = Instant::now();
    end_slice(&upstream, now);
    for member in upstream.members() {
        let millis = if port(&member) == 3 { 110 } else { 10 };
        for _ in 0..10 {
            upstream.report(&member, Outcome::Status(200), now);
            upstream.report_latency(
                &member,
                Outcome::Status(200),
                Duration::from_millis(millis),
                now,
            );
        }
    }
    end_slice(&upstream, now);
    assert_eq!(ejected(&upstream), [3]);
}

#[test]
fn when_nobody_is_fit_the_upstream_says_whether_anybody_is_tried() {
    let now = Instant::now();
    for (word, is_tried) in [("fail", false), ("any", true)] {
        let upstream = three(&format!("on_no_healthy: {word}"));
        for member in upstream.members() {
            member.state.set_probe(Probe::Failing);
        }
        assert_eq!(upstream.select(now, &Hints::NONE, fresh).is_some(), is_tried, "{word}");
        assert!(
            upstream.select(now, &Hints::NONE, |_| Visit::Failed).is_none(),
            "{word}: nobody twice"
        );

        at(&upstream, 1).state.set_probe(Probe::Passing);
        let failed_at_1 =
            |member: &Member| if port(member) == 1 { Visit::Failed } else { Visit::None };
        assert!(upstream.select(now, &Hints::NONE, failed_at_1).is_none(), "{word}: one is fit");
        assert_eq!(counts(&upstream, 9, fresh), [9, 0, 0], "{word}");
    }
    let dropped = three("on_no_healthy: any");
    dropped.members().iter().for_each(|member| member.state.set_draining(true));
    assert!(
        dropped.select(now, &Hints::NONE, fresh).is_none(),
        "nobody is tried that discovery dropped"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever fails, however and whenever.
    #[test]
    fn never_more_are_ejected_than_may_be(
        percent in 0u8..=100,
        events in prop::collection::vec((1u16..=6, 0u8..6, 0u64..20_000), 1..200),
    ) {
        let backends: Vec<String> = (1..=6).map(|port| format!("127.0.0.1:{port}")).collect();
        let upstream = upstream(&format!(
            "backends: [{}], ejection: {{ max_ejected: {percent}%, consecutive_failures: 2,
             failure_share: 50%, success_rate_deviations: 1, latency_factor: 2, min_requests: 1 }}",
            backends.join(", ")
        ));
        let max = 6 * usize::from(percent) / 100;
        let mut now = Instant::now();
        for (port, kind, millis) in events {
            now += Duration::from_millis(millis);
            let member = at(&upstream, port);
            match kind {
                0 => { upstream.report(&member, Outcome::Reset, now); }
                1 => { upstream.report(&member, Outcome::Status(503), now); }
                2 | 3 => {
                    upstream.report(&member, Outcome::Status(200), now);
                    upstream.report_latency(&member, Outcome::Status(200), Duration::from_millis(millis), now);
                }
                _ => end_slice(&upstream, now),
            }
            prop_assert!(ejected(&upstream).len() <= max);
            let until = member.state.gate.ejected_until();
            prop_assert!(until.is_none_or(|until| until <= now + ejection::EJECT_FOR_MAX));
        }
    }
}

/// Where nothing is checked, nothing would ever tell that the old ones are gone.
#[test]
fn an_empty_answer_is_believed_at_once_only_where_nothing_is_checked() {
    let now = Instant::now();
    let mut targets = Targets::new();
    assert!(three("").keep_serving(&mut targets, now));
    assert_eq!(targets.len(), 3);
    let mut targets = Targets::new();
    assert!(!three("health_check: off").keep_serving(&mut targets, now));
    assert_eq!(targets.len(), 0);
}

/// A backup stands in for those that are unfit, not for those that are busy.
#[test]
fn a_backup_is_no_help_for_one_that_is_full() {
    let upstream = upstream(
        "backends: [127.0.0.1:1, { address: 127.0.0.1:2, backup: true }], max_requests: 1",
    );
    let now = Instant::now();
    let first = upstream.select(now, &Hints::NONE, fresh).expect("a place");
    assert_eq!(port(first.member()), 1);
    assert!(matches!(upstream.admit(now, &Hints::NONE, fresh), load::Admission::Busy));
    at(&upstream, 1).state.set_probe(Probe::Failing);
    let second = upstream.select(now, &Hints::NONE, fresh).expect("a place");
    assert_eq!(port(second.member()), 2);
}

/// An ejected backend stands in for none that is fit, not for one that has enough to do.
#[test]
fn a_full_upstream_is_waited_for_and_its_ejected_backends_are_left_alone() {
    let upstream = upstream(
        "backends: [127.0.0.1:1, 127.0.0.1:2], max_requests: 1, queue: { max: 1 }, \
         ejection: { max_ejected: 100% }",
    );
    let now = Instant::now();
    at(&upstream, 2).state.gate.failed(now, &ONE_FAILURE, || true);
    let load::Admission::Taken(first) = upstream.admit(now, &Hints::NONE, fresh) else {
        panic!("a place")
    };
    assert_eq!(port(first.member()), 1);
    assert!(matches!(upstream.admit(now, &Hints::NONE, fresh), load::Admission::Busy));
    let failed = |member: &Member| match port(member) {
        1 => Visit::Failed,
        _ => Visit::None,
    };
    let load::Admission::Taken(second) = upstream.admit(now, &Hints::NONE, failed) else {
        panic!("a place")
    };
    assert_eq!(port(second.member()), 2, "the full one is of no use");

    drop((first, second));
    let place = upstream.account().line().join(1).expect("room");
    assert!(
        matches!(upstream.admit(now, &Hints::NONE, fresh), load::Admission::Busy),
        "nobody overtakes"
    );
    assert!(upstream.take_turn(now, &Hints::NONE, fresh).is_some(), "but the one whose turn it is");
    drop(place);
    assert!(matches!(upstream.admit(now, &Hints::NONE, fresh), load::Admission::Taken(_)));
    at(&upstream, 1).state.set_probe(Probe::Failing);
    at(&upstream, 2).state.set_probe(Probe::Failing);
    assert!(matches!(upstream.admit(now, &Hints::NONE, fresh), load::Admission::Nobody));
}
