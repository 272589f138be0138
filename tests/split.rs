//! A route whose requests are split between upstreams: by weight, and stable by a key.

use std::collections::BTreeMap;

use crate::support::{Crestline, Origin, request};

/// Two upstreams with a weight each behind one route.
fn split(a: (&Origin, u32), b: (&Origin, u32), key: &str) -> String {
    let ((a, of_a), (b, of_b)) = (a, b);
    format!(
        "
        upstreams: {{ a: {{ backends: [\"{a}\"] }}, b: {{ backends: [\"{b}\"] }} }}
        routes:
          - name: all
            upstream:
              split: [{{ name: a, weight: {of_a} }}, {{ name: b, weight: {of_b} }}]
              key: {key}
        "
    )
}

/// Who answers the requests of so many users, by name.
async fn answers(proxy: &Crestline, users: usize) -> BTreeMap<usize, String> {
    let mut client = proxy.client().await;
    let mut answers = BTreeMap::new();
    for user in 0..users {
        let fields = format!("cookie: a=b; user=u{user}\r\n");
        let answer = client.exchange(request("GET", "/", &fields, "")).await;
        answers.insert(user, answer.text().to_owned());
    }
    answers
}

fn share_of_b(answers: &BTreeMap<usize, String>) -> f64 {
    answers.values().filter(|answer| *answer == "b").count() as f64 / answers.len() as f64
}

/// The second answer of each user is that of the first, and a weight that grows moves users to
/// its upstream alone.
#[tokio::test]
async fn users_stay_where_they_are_unless_the_other_weight_grows() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let key = "{ cookie: user }";
    let proxy = Crestline::start(&split((&a, 90), (&b, 10), key)).await;
    let before = answers(&proxy, 1_000).await;
    assert!((share_of_b(&before) - 0.10).abs() < 0.03, "{}", share_of_b(&before));
    assert_eq!(answers(&proxy, 1_000).await, before);

    proxy.reload(&split((&a, 90), (&b, 60), key)).await;
    let after = answers(&proxy, 1_000).await;
    assert!((share_of_b(&after) - 0.40).abs() < 0.05, "{}", share_of_b(&after));
    let moved: Vec<_> = before.iter().filter(|(user, old)| after[user] != **old).collect();
    assert!(moved.iter().all(|(_, old)| *old == "a"), "{moved:?}");
}

#[tokio::test]
async fn one_client_stays_and_chance_spreads() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let proxy = Crestline::start(&split((&a, 50), (&b, 50), "client")).await;
    let of_client = answers(&proxy, 50).await;
    assert!([0.0, 1.0].contains(&share_of_b(&of_client)), "{of_client:?}");

    proxy.reload(&split((&a, 50), (&b, 50), "random")).await;
    let by_chance = share_of_b(&answers(&proxy, 1_000).await);
    assert!((by_chance - 0.5).abs() < 0.1, "{by_chance}");
}

/// The choice holds for all attempts of a request: a leg that fails is not the other's to mend.
#[tokio::test]
async fn a_request_keeps_its_leg_whatever_fails() {
    let (a, b) = (Origin::refusing(), Origin::replying("b"));
    let yaml = split((&a, 1), (&b, 0), "random").replace(
        &format!("a: {{ backends: [\"{a}\"] }}"),
        &format!("a: {{ backends: [\"{a}\"], health_check: off }}"),
    );
    let proxy = Crestline::start(&yaml).await;
    assert_eq!(proxy.get("/").await.status, 502);
    assert_eq!(b.count(), 0);
    let line = proxy.access_line(|line| line["status"] == 502).await;
    assert_eq!(line["upstream"], "a");
}

#[tokio::test]
async fn an_explanation_shows_the_shares_and_the_leg() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let proxy = Crestline::start(&split((&a, 90), (&b, 10), "{ cookie: user }")).await;
    let url = proxy.url("/");
    let told = proxy.command(&["explain", "--live", "GET", &url]).await;
    let expected = "  split    a 90%, b 10%, by cookie user; this may be any of them\n";
    assert!(told.stderr.contains(expected), "{told:?}");
    let answers = answers(&proxy, 30).await;
    let (user, _) = answers.iter().find(|(_, answer)| *answer == "b").expect("one of b");
    let cookie = format!("cookie: user=u{user}");
    let told = proxy.command(&["explain", "--live", "-H", &cookie, "GET", &url]).await;
    assert!(told.stderr.contains("  split    a 90%, b 10%, by cookie user\n"), "{told:?}");
    assert!(told.stderr.contains("upstream   b "), "{told:?}");
}
