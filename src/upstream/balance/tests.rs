//! Each algorithm against its definition. Chance is seeded, so that these tests do what they did.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::{
    diagnostic::Problems,
    upstream::{
        backend::{Heeds, InFlight, Probe, Visit},
        ejection::Rules,
        peer,
        set::{Plan, Set, Targets},
        target::Target,
    },
    yaml,
};

fn address(port: u16) -> SocketAddr {
    SocketAddr::Inet(([127, 0, 0, 1], port).into())
}

fn port(member: &Member) -> u16 {
    member.state.address().as_inet().unwrap().port()
}

fn config(text: &str) -> Config {
    let mut problems = Problems::default();
    let read = yaml::read(&yaml::parse(text).unwrap(), "", &mut problems);
    read.unwrap_or_else(|| panic!("{problems:?}"))
}

fn plan(balance: Config) -> Plan {
    Plan {
        upstream: "app".into(),
        key: Arc::default(),
        balance,
        slow_start: None,
        zone: None,
        heeds: Heeds::ALL,
        observes: false,
        template: peer::at(address(1), false),
    }
}

/// A set of these backends, on the ports from 1 on, all of them fit.
fn set_of(targets: &[(u16, Target)], plan: &Plan) -> Set {
    let targets: Targets =
        targets.iter().map(|(port, target)| (address(*port), target.clone())).collect();
    let set = Set::new(&targets, plan, &Arc::default(), None, false);
    set.members().iter().for_each(|member| member.state.set_probe(Probe::Passing));
    set
}

fn weighted(weights: &[u16], balance: &str) -> Set {
    let targets: Vec<_> = (1..).zip(weights.iter().copied().map(Target::of)).collect();
    set_of(&targets, &plan(config(balance)))
}

/// A pool of fit members.
pub(super) fn pool(weights: &[u16]) -> Pool {
    weighted(weights, "random").members().iter().cloned().collect()
}

fn take(set: &Set, hints: &Hints<'_>) -> InFlight {
    set.next(Instant::now(), hints, |_| Visit::None).expect("a backend")
}

/// How many of so many requests each got, answered at once.
fn counts(set: &Set, requests: u32) -> BTreeMap<u16, u32> {
    let mut counts: BTreeMap<u16, u32> =
        (1..=u16::try_from(set.members().len()).unwrap()).map(|port| (port, 0)).collect();
    for _ in 0..requests {
        *counts.entry(port(take(set, &Hints::NONE).member())).or_default() += 1;
    }
    counts
}

const ALL: [&str; 5] =
    ["round_robin", "random", "least_requests", "peak_ewma", "consistent_hash: { on: client }"];

const ONE_FAILURE: Rules =
    Rules { consecutive_failures: 1, eject_for: Duration::from_secs(10), max_ejected: 1.0 };

/// Where nobody is busy and all are as fast, the share of each is its weight; for the algorithms
/// that draw this is chance, and for the ring the luck of its points.
#[test]
fn shares_are_within_one_percent_of_the_weights() {
    fastrand::seed(1);
    for balance in ["round_robin", "random", "least_requests", "peak_ewma"] {
        for weights in [&[1, 1, 1][..], &[5, 3, 2], &[1, 256], &[7, 1, 1, 1, 40]] {
            let set = weighted(weights, balance);
            let sum: u16 = weights.iter().sum();
            let requests = 100_000;
            for (port, count) in counts(&set, requests) {
                let share = f64::from(weights[usize::from(port) - 1]) / f64::from(sum);
                let got = f64::from(count) / f64::from(requests);
                assert!((got - share).abs() < 0.01, "{balance} {weights:?}: {got} of {share}");
            }
        }
    }
}

/// Also among those that are left, where Pingora's own would forget the weights.
#[test]
fn shares_follow_the_weights_when_one_is_out() {
    fastrand::seed(2);
    for balance in ["random", "least_requests", "peak_ewma"] {
        let set = weighted(&[1, 6, 3], balance);
        set.members()[0].state.set_probe(Probe::Failing);
        let counts = counts(&set, 50_000);
        assert_eq!(counts[&1], 0, "{balance}");
        let share = f64::from(counts[&2]) / 50_000.0;
        // Where two are drawn of two, the first drawn is taken: chance by weight.
        assert!((share - 2.0 / 3.0).abs() < 0.01, "{balance}: {share}");
    }
}

#[test]
fn whatever_the_algorithm_an_unfit_backend_gets_nothing_and_the_last_fit_one_is_found() {
    fastrand::seed(3);
    for balance in ALL {
        let set = weighted(&[1; 40], balance);
        let now = Instant::now();
        for (index, member) in set.members().iter().enumerate() {
            match index % 4 {
                _ if index == 17 => {}
                0 => member.state.set_probe(Probe::Failing),
                1 => member.state.set_draining(true),
                2 => assert!(member.state.orders.drain(true)),
                _ => assert!(member.state.gate.failed(now, &ONE_FAILURE, || true).is_some()),
            }
        }
        for _ in 0..50 {
            assert_eq!(port(take(&set, &Hints::NONE).member()), 18, "{balance}");
        }
        let nothing = set.next(now, &Hints::NONE, |member| match port(member) {
            18 => Visit::Failed,
            _ => Visit::None,
        });
        assert!(nothing.is_none(), "{balance}");
    }
}

#[test]
fn a_slow_backend_gets_less_by_peak_ewma_and_more_again_as_it_recovers() {
    fastrand::seed(4);
    let set = weighted(&[1, 1, 1], "peak_ewma");
    let learn = |millis: [u64; 3]| {
        for (member, millis) in set.members().iter().zip(millis) {
            member.state.latency.observe(Duration::from_millis(millis), Instant::now());
        }
    };
    learn([10, 10, 200]);
    // It is never the better one of two.
    assert_eq!(counts(&set, 3_000)[&3], 0);
    learn([10, 10, 200]);
    let busy: Vec<_> = (0..60).map(|_| take(&set, &Hints::NONE)).collect();
    let slow = busy.iter().filter(|taken| port(taken.member()) == 3).count();
    assert!((1..20).contains(&slow), "when the others are busy it gets its part: {slow}");
    drop(busy);
    learn([200, 200, 200]);
    let share = f64::from(counts(&set, 30_000)[&3]) / 30_000.0;
    assert!(0.2 < share, "{share}");
}

fn hashed(ports: impl IntoIterator<Item = u16>) -> Set {
    let targets: Vec<_> = ports.into_iter().map(|port| (port, Target::of(1))).collect();
    set_of(&targets, &plan(config("consistent_hash: { on: { header: x-key } }")))
}

fn port_for(set: &Set, key: u32) -> u16 {
    port(take_for(set, key).member())
}

fn take_for(set: &Set, key: u32) -> InFlight {
    let mut headers = HeaderMap::new();
    headers.insert("x-key", HeaderValue::from(key));
    take(set, &Hints { headers: Some(&headers), ..Hints::NONE })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// When a backend goes, only its keys move; when one comes, keys move only to it.
    #[test]
    fn only_the_keys_move_that_must(count in 2u16..24, gone in 1u16..24, seed in any::<u64>()) {
        fastrand::seed(seed);
        let gone = gone % count + 1;
        let with = hashed(1..=count);
        let without = hashed((1..=count).filter(|port| *port != gone));
        let mut moved = 0;
        for key in 0..500 {
            let (then, now) = (port_for(&with, key), port_for(&without, key));
            prop_assert!(then == now || then == gone, "key {key} went from {then} to {now}");
            moved += u32::from(then != now);
        }
        let share = f64::from(moved) / 500.0;
        prop_assert!(share < 2.5 / f64::from(count) + 0.05, "{share} of the keys moved");
    }

    /// The same key goes to the same backend, and out of service is as good as gone.
    #[test]
    fn an_unfit_backend_moves_its_keys_and_no_other(count in 2u16..24, out in 0usize..24) {
        let set = hashed(1..=count);
        let before: Vec<_> = (0..200).map(|key| port_for(&set, key)).collect();
        let out = &set.members()[out % usize::from(count)];
        out.state.set_probe(Probe::Failing);
        for (key, then) in (0..).zip(&before) {
            let now = port_for(&set, key);
            prop_assert!(now != port(out));
            prop_assert!(now == *then || *then == port(out));
        }
        out.state.set_probe(Probe::Passing);
        let after: Vec<_> = (0..200).map(|key| port_for(&set, key)).collect();
        prop_assert_eq!(before, after);
    }

    /// However hot a key is, no backend has more than its bound, which is 1.25 times the average.
    #[test]
    fn a_hot_key_spills_over_at_the_bound(
        weights in prop::collection::vec(1u16..8, 2..12), requests in 1u32..150, hot in 1u32..10,
    ) {
        let targets: Vec<_> = (1..).zip(weights.iter().copied().map(Target::of)).collect();
        let set = set_of(&targets, &plan(config("consistent_hash: { on: { header: x-key } }")));
        let sum: u16 = weights.iter().sum();
        let mut all = Vec::new();
        for request in 0..requests {
            all.push(take_for(&set, request % hot));
            let taken = f64::from(request + 1);
            for member in set.members() {
                let bound = (1.25 * taken * f64::from(member.weight) / f64::from(sum)).ceil();
                prop_assert!(f64::from(member.state.in_flight()) <= bound);
            }
        }
    }
}

#[test]
fn a_request_without_the_key_goes_anywhere() {
    fastrand::seed(5);
    let set = hashed(1..=3);
    assert!(counts(&set, 300).values().all(|count| 30 < *count));
}

#[test]
fn the_same_key_is_found_in_every_place_of_a_request() {
    let ip = "192.0.2.7".parse().ok();
    let mut headers = HeaderMap::new();
    headers.insert("x-key", HeaderValue::from_static("seven"));
    headers.insert("cookie", HeaderValue::from_static("sid=eight"));
    headers.insert("host", HeaderValue::from_static("Shop.test:8080"));
    let uri = "/a/b?user=nine".parse().unwrap();
    let hints = Hints { client: ip, headers: Some(&headers), uri: Some(&uri) };
    for (on, expected) in [
        ("client", Some(&[192, 0, 2, 7][..])),
        ("path", Some(b"/a/b")),
        ("host", Some(b"shop.test")),
        ("{ header: X-Key }", Some(b"seven")),
        ("{ header: x-other }", None),
        ("{ cookie: sid }", Some(b"eight")),
        ("{ query: user }", Some(b"nine")),
    ] {
        let Config::ConsistentHash(config) = config(&format!("consistent_hash: {{ on: {on} }}"))
        else {
            panic!("another algorithm")
        };
        config.on.with_key(&hints, |key| assert_eq!(key, expected, "{on}"));
    }
}

fn target(backup: bool, zone: Option<&str>) -> Target {
    Target { backup, zone: zone.map(Into::into), ..Target::of(1) }
}

#[test]
fn backups_take_over_when_no_other_is_fit_and_not_before() {
    for balance in ALL {
        let targets = [1, 2, 3, 4].map(|port| (port, target(2 < port, None)));
        let set = set_of(&targets, &plan(config(balance)));
        assert_eq!(counts(&set, 200)[&3] + counts(&set, 200)[&4], 0, "{balance}");
        set.members()[0].state.set_probe(Probe::Failing);
        assert_eq!(counts(&set, 100)[&2], 100, "{balance}: one is enough");
        let stale = set.next(Instant::now(), &Hints::NONE, |member| match port(member) {
            2 => Visit::Stale,
            _ => Visit::None,
        });
        assert_eq!(port(stale.expect("a backend").member()), 2, "{balance}: not to blame");
        set.members()[1].state.set_probe(Probe::Failing);
        let taken = counts(&set, 100);
        assert_eq!(taken[&3] + taken[&4], 100, "{balance}");
        set.members()[0].state.set_probe(Probe::Passing);
        assert_eq!(counts(&set, 100)[&1], 100, "{balance}: and back");
    }
}

#[test]
fn the_own_zone_keeps_what_it_can_bear() {
    fastrand::seed(6);
    let zones = ["a", "a", "a", "a", "b", "b"];
    let targets: Vec<_> = (1..).zip(zones.map(|zone| target(false, Some(zone)))).collect();
    let own = |fit: usize| {
        // A new set each, since what is fit is looked at only now and then.
        let set = set_of(&targets, &Plan { zone: Some("a".into()), ..plan(Config::Random) });
        set.members()[fit..4].iter().for_each(|member| member.state.set_probe(Probe::Failing));
        f64::from(counts(&set, 20_000).range(1..=4).map(|(_, count)| count).sum::<u32>()) / 20_000.0
    };
    for (fit, share) in [(4, 1.0), (3, 1.0), (2, 0.7), (1, 0.35), (0, 0.0)] {
        assert!((own(fit) - share).abs() < 0.02, "{fit} of 4: {}", own(fit));
    }
    let nowhere = set_of(&targets, &plan(Config::RoundRobin));
    assert_eq!(counts(&nowhere, 600)[&6], 100, "without a place of its own no zone is preferred");
}

#[test]
fn a_backend_that_comes_back_grows_to_its_share() {
    fastrand::seed(7);
    let lasts = Duration::from_secs(30);
    for balance in ["round_robin", "random", "least_requests", "peak_ewma"] {
        let set = set_of(
            &[1, 2].map(|port| (port, Target::of(1))),
            &Plan { slow_start: Some(lasts), ..plan(config(balance)) },
        );
        let back = &set.members()[1];
        back.state.set_probe(Probe::Failing);
        back.state.set_probe(Probe::Passing);
        let start = Instant::now();
        let share = |after: u64| {
            let at = start + Duration::from_secs(after);
            let got = (0..4_000).filter(|_| {
                let taken = set.next(at, &Hints::NONE, |_| Visit::None).expect("a backend");
                port(taken.member()) == 2
            });
            got.count() as f64 / 4_000.0
        };
        let shares = [share(0), share(10), share(20), share(31)];
        assert!(shares.is_sorted(), "{balance}: {shares:?}");
        assert!(shares[0] < 0.1 && (shares[3] - 0.5).abs() < 0.03, "{balance}: {shares:?}");
    }
}

/// A key stays on one side as long as the share does not pass it by.
#[test]
fn keys_move_to_a_backend_that_comes_back_one_by_one_and_never_to_and_fro() {
    let balance = config("consistent_hash: { on: { header: x-key } }");
    let plan = Plan { slow_start: Some(Duration::from_secs(30)), ..plan(balance) };
    let set = set_of(&[1, 2, 3].map(|port| (port, Target::of(1))), &plan);
    let home: Vec<_> = (0..300).map(|key| port_for(&set, key)).collect();
    let back = &set.members()[1];
    back.state.set_probe(Probe::Failing);
    back.state.set_probe(Probe::Passing);
    let start = Instant::now();
    let mut at_home = vec![false; home.len()];
    for after in (0..=31).step_by(3) {
        for (key, at_home) in at_home.iter_mut().enumerate() {
            let mut headers = HeaderMap::new();
            headers.insert("x-key", HeaderValue::from(key));
            let hints = Hints { headers: Some(&headers), ..Hints::NONE };
            let at = start + Duration::from_secs(after);
            let taken = set.next(at, &hints, |_| Visit::None).expect("a backend");
            let is_home = port(taken.member()) == home[key];
            assert!(is_home || !*at_home, "key {key} left again after {after} s");
            *at_home = is_home;
        }
    }
    assert!(at_home.iter().all(|is_home| *is_home));
}
