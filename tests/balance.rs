//! Requests are shared out by weight, evenly interleaved.

use crate::support::{Crestline, Origin, get};

#[tokio::test]
async fn equal_weights_get_equal_shares() {
    let origins = [Origin::replying("a"), Origin::replying("b"), Origin::replying("c")];
    let [a, b, c] = &origins;
    let yaml = format!("upstreams: {{ app: {{ backends: [\"{a}\", \"{b}\", \"{c}\"] }} }}");

    ask(&yaml, 300).await;
    for origin in &origins {
        assert!(origin.count().abs_diff(100) <= 1, "{}", origin.count());
    }
}

#[tokio::test]
async fn weights_are_shares_within_one_percent() {
    let origins = [Origin::replying("a"), Origin::replying("b"), Origin::replying("c")];
    let [a, b, c] = &origins;
    let yaml = format!(
        "
        upstreams:
          app:
            backends:
              - {{ address: \"{a}\", weight: 5 }}
              - {{ address: \"{b}\", weight: 3 }}
              - {{ address: \"{c}\", weight: 2 }}
        "
    );

    ask(&yaml, 500).await;
    for (origin, share) in origins.iter().zip([250, 150, 100]) {
        assert!(origin.count().abs_diff(share) <= 5, "{} of {share}", origin.count());
    }
}

/// Two of three go to the heavier one, never two to the lighter one in a row, and never three to
/// the heavier one.
#[tokio::test]
async fn weighted_picks_are_interleaved() {
    let (heavy, light) = (Origin::replying("heavy"), Origin::replying("light"));
    let yaml = format!(
        "upstreams: {{ app: {{ backends: [{{ address: \"{heavy}\", weight: 2 }}, \"{light}\"] }} }}"
    );

    let answers = ask(&yaml, 90).await;
    for three in answers.windows(3) {
        let lights = three.iter().filter(|answer| *answer == "light").count();
        assert_eq!(lights, 1, "{answers:?}");
    }
}

/// Sends requests one after the other; who answered?
async fn ask(yaml: &str, requests: usize) -> Vec<String> {
    let proxy = Crestline::start(yaml).await;
    let mut client = proxy.client().await;
    let mut answers = Vec::new();
    for _ in 0..requests {
        answers.push(client.exchange(get("/")).await.text().to_owned());
    }
    answers
}
