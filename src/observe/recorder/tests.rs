use super::{slowest::SLOW_FOR, *};
use crate::observe::access_log::line::Tls;

fn entry(status: u16, reason: Reason, waited: Duration) -> Entry<'static> {
    Entry {
        id: b"1",
        traced: None,
        client: Some([192, 0, 2, 1].into()),
        method: "GET",
        host: "shop.test",
        target: b"/a\x1b[2J",
        protocol: "HTTP/1.1",
        tls: Tls::default(),
        status,
        bytes: 5,
        total: waited * 2,
        connect: None,
        first_byte: Some(waited),
        route: Some("shop"),
        upstream: Some("app"),
        backend: None,
        attempts: 0,
        via: &"",
        replayed: None,
        is_too_long_to_replay: false,
        cache: None,
        reason,
        user: None,
        user_agent: None,
        referer: None,
        request: None,
        response: None,
    }
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn what_is_kept_is_what_failed_was_refused_or_was_slow() {
    let (recorder, now) = (Recorder::default(), Instant::now());
    let wants = |status, reason| recorder.wants(&entry(status, reason, millis(1)), now);
    assert_eq!(wants(502, Reason::ConnectRefused), Some(Kind::Failed));
    assert_eq!(wants(500, Reason::Ok), Some(Kind::Failed), "by the origin");
    assert_eq!(wants(499, Reason::ClientAbort), Some(Kind::Failed));
    assert_eq!(wants(403, Reason::IpDenied), Some(Kind::Refused));
    assert_eq!(wants(400, Reason::BadHost), Some(Kind::Refused));
    assert_eq!(wants(503, Reason::AnsweredHere), Some(Kind::Slow), "as it is configured");
    assert_eq!(wants(200, Reason::Ok), Some(Kind::Slow), "the first are the slowest so far");
    assert_eq!(wants(101, Reason::Ok), None);
    assert_eq!(wants(200, Reason::Closed), None);
}

#[test]
fn the_last_failures_are_kept_and_the_last_comes_first() {
    let (recorder, now) = (Recorder::default(), Instant::now());
    for index in 0..=FAILED_MAX {
        let id = index.to_string();
        let entry = Entry { id: id.as_bytes(), ..entry(502, Reason::OriginReset, millis(1)) };
        recorder.keep(Kind::Failed, Record::of(&entry, entry.target), now);
    }
    let kept = recorder.list(Kind::Failed, now);
    assert_eq!(kept.len(), FAILED_MAX);
    assert!(kept.is_sorted_by_key(|record| std::cmp::Reverse(record.ended())));
    assert!(recorder.find("0", now).is_none(), "the oldest is forgotten");
    let found = recorder.find("500", now).unwrap();
    assert_eq!((&*found.path, &*found.client), ("/a\u{fffd}[2J", "192.0.2.1"));
}

#[test]
fn the_slowest_are_kept_for_a_while() {
    let (recorder, now) = (Recorder::default(), Instant::now());
    let see = |waited: u64, now| {
        let entry = entry(200, Reason::Ok, millis(waited));
        if let Some(kind) = recorder.wants(&entry, now) {
            recorder.keep(kind, Record::of(&entry, entry.target), now);
        }
    };
    (1..=250).for_each(|waited| see(waited, now));
    let waited = |now| -> Vec<f64> {
        recorder.list(Kind::Slow, now).iter().map(|record| record.waited_ms()).collect()
    };
    let expected: Vec<f64> = (151..=250).rev().map(f64::from).collect();
    assert_eq!(waited(now), expected);
    let quick = entry(200, Reason::Ok, millis(150));
    assert_eq!(recorder.wants(&quick, now), None, "there are a hundred slower ones");

    let later = now + SLOW_FOR;
    assert_eq!(recorder.wants(&quick, later), Some(Kind::Slow), "a new list begins");
    see(150, later);
    assert_eq!(waited(later), expected, "those before are still slower");
    assert_eq!(waited(later + SLOW_FOR), [150.0]);
    assert!(waited(later + SLOW_FOR * 3).is_empty());
}

#[test]
fn a_story_is_told_in_the_order_of_time() {
    let entry = entry(200, Reason::Ok, millis(14));
    let tried = |backend: &str, outcome: &str, began_ms, ended_ms| Tried {
        backend: backend.to_owned(),
        outcome: outcome.to_owned(),
        began_ms,
        connection: None,
        connect_ms: None,
        tls_ms: None,
        first_byte_ms: None,
        ended_ms,
    };
    let step = |at_ms, event| Step { at_ms, event };
    let record = Record {
        time: "2026-11-26T08:00:00Z".parse().unwrap(),
        timeline: vec![
            step(-1.5, Event::Accepted),
            step(0.0, Event::HeadRead),
            step(0.01, Event::Routed),
            step(0.02, Event::PoliciesAsked),
            step(14.0, Event::Answered),
            step(28.0, Event::Ended),
        ],
        attempts: vec![
            tried("127.0.0.1:1", "refused", 0.03, 0.2),
            Tried {
                connection: Some(Connection::Made),
                connect_ms: Some(2.0),
                tls_ms: Some(1.5),
                first_byte_ms: Some(13.9),
                ..tried("127.0.0.1:2", "200", 10.0, 28.0)
            },
        ],
        ..Record::of(&entry, b"/a")
    };
    let expected = "\
request 1: 200 ok
  GET shop.test/a, HTTP/1.1, from 192.0.2.1, at 2026-11-26T08:00:00.000Z
  route shop, upstream app, 5 bytes sent
      -1.500 ms  connection accepted
       0.000 ms  head read
       0.010 ms  route found
       0.020 ms  policies asked
       0.030 ms  attempt 1: 127.0.0.1:1 chosen
       0.200 ms  attempt 1: ended: refused
      10.000 ms  attempt 2: 127.0.0.1:2 chosen
      12.000 ms  attempt 2: connected in 2.000 ms, TLS 1.500 ms
      13.900 ms  attempt 2: head of the answer
      14.000 ms  answer passed on
      28.000 ms  attempt 2: ended: 200
      28.000 ms  ended: 200 ok
";
    assert_eq!(record.story().to_string(), expected);
    let line = "2026-11-26T08:00:00.000Z 1 200 ok GET shop.test/a 28.0 ms via \
                127.0.0.1:1:refused,127.0.0.1:2:200";
    assert_eq!(record.to_string(), line);
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    assert!(text.contains("\"reason\":\"ok\"") && text.contains("\"event\":\"head_read\""));
}
