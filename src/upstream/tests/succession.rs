//! What stays of an upstream when its backends, or its configuration, change.

use super::*;

#[test]
fn a_changed_set_keeps_the_records_of_the_addresses_that_stay() {
    let upstream = three("");
    let (first, second) = (at(&upstream, 1), at(&upstream, 2));
    second.state.set_probe(Probe::Failing);
    let in_flight = upstream.select(Instant::now(), &Hints::NONE, |member| match port(member) {
        1 => Visit::None,
        _ => Visit::Failed,
    });

    upstream.replace(&Targets::from([
        (address(2), Target::of(1)),
        (address(3), Target::of(5)),
        (address(4), Target::of(1)),
    ]));

    assert!(Arc::ptr_eq(&at(&upstream, 2).state, &second.state));
    assert_eq!(at(&upstream, 2).state.probe(), Probe::Failing);
    assert_eq!(at(&upstream, 3).target.weight, 5);
    assert_eq!(counts(&upstream, 600, fresh).len(), 3);
    assert_eq!(counts(&upstream, 600, fresh)[0], 0, "it is still unhealthy");
    assert!(upstream.members().iter().all(|member| port(member) != 1));
    assert_eq!(first.state.in_flight(), 1, "what it is answering, it answers");
    drop(in_flight);
    assert_eq!(first.state.in_flight(), 0);
    let now = Instant::now();
    assert_eq!(first.availability(now), Availability::Draining);
}

/// A name that moves: between the old addresses and the first good check, somebody answers.
#[test]
fn the_old_addresses_serve_until_a_new_one_has_passed_a_check() {
    let upstream = three("");
    upstream.members().iter().skip(1).for_each(|old| old.state.set_probe(Probe::Failing));
    let moved = || Targets::from([(address(4), Target::of(1))]);

    let mut targets = moved();
    assert!(upstream.keep_serving(&mut targets, Instant::now()));
    assert_eq!(
        targets,
        Targets::from([(address(1), Target::of(1)), (address(4), Target::of(1))]),
        "the failing ones go"
    );
    upstream.replace(&targets);
    at(&upstream, 4).state.set_probe(Probe::Pending);
    assert_eq!(counts(&upstream, 10, fresh), [10, 0]);
    assert!(upstream.keep_serving(&mut moved(), Instant::now()), "not yet");

    at(&upstream, 4).state.set_probe(Probe::Passing);
    let mut targets = moved();
    assert!(!upstream.keep_serving(&mut targets, Instant::now()));
    upstream.replace(&targets);
    assert_eq!(counts(&upstream, 10, fresh), [10]);
}

#[test]
fn an_equal_set_changes_nothing() {
    let upstream = three("");
    let before = upstream.members();
    upstream.replace(&Targets::from([
        (address(3), Target::of(1)),
        (address(1), Target::of(1)),
        (address(2), Target::of(1)),
    ]));
    let after = upstream.members();
    assert!(before.iter().zip(&after).all(|(before, after)| Arc::ptr_eq(before, after)));
}

/// Before it is in force, while its predecessor serves.
#[test]
fn a_successor_inherits_by_address_and_changes_nothing_of_its_predecessor() {
    let old = three("ejection: { consecutive_failures: 1, max_ejected: 100% }");
    let now = Instant::now();
    at(&old, 1).state.set_probe(Probe::Failing);
    old.report(&at(&old, 2), Outcome::Refused, now);
    old.count_request();
    let records = old.members();
    let facts = |upstream: &Upstream| -> Vec<_> {
        let availability = |member: &Arc<Member>| (port(member), member.availability(now));
        upstream.members().iter().map(availability).collect()
    };
    let before = facts(&old);

    let backends = "backends: [127.0.0.1:1, { address: 127.0.0.1:2, weight: 7 }, 127.0.0.1:4]";
    let new = succeeding(Some(&old), &format!("{backends}, retries: 1"));
    for kept in [1, 2] {
        assert!(Arc::ptr_eq(&at(&new, kept).state, &at(&old, kept).state));
    }
    let fit = Availability::Unhealthy;
    assert_eq!(facts(&new), [(1, fit), (2, Availability::Ejected), (4, fit)]);
    assert_eq!((at(&new, 2).target.weight, at(&old, 2).target.weight), (7, 1));
    assert_eq!(new.requests(), 1);
    new.count_request();
    assert_eq!(old.requests(), 2, "the account is one");
    assert_eq!(
        new.parts.plan.template.group_key, old.parts.plan.template.group_key,
        "and so is the pool"
    );

    let trusting = succeeding(Some(&old), &format!("{backends}, health_check: off, ejection: off"));
    let ready = Availability::Ready;
    assert_eq!(facts(&trusting), [(1, ready), (2, ready), (4, ready)]);
    assert_eq!(facts(&old), before);
    assert!(old.members().iter().zip(&records).all(|(now, then)| Arc::ptr_eq(now, then)));

    trusting.take_over();
    let again = succeeding(Some(&trusting), backends);
    assert_eq!(facts(&again), [(1, ready), (2, ready), (4, ready)], "nothing stale is heeded");
}

/// Requests of before end by the rules of before.
#[test]
fn a_late_failure_ejects_nothing_from_an_upstream_that_does_not_eject() {
    let old = three("ejection: { consecutive_failures: 1, max_ejected: 100% }");
    let new = succeeding(Some(&old), "backends: [127.0.0.1:1], ejection: off");
    new.take_over();
    let now = Instant::now();
    old.report(&at(&old, 1), Outcome::Refused, now);
    assert_eq!(at(&old, 1).availability(now), Availability::Ejected);
    assert_eq!(at(&new, 1).availability(now), Availability::Ready);
}
