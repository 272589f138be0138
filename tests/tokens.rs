//! Who may ask, by a signed token, or by the word of another service.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::SystemTime,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::support::{Answer, Crestline, Origin, Signer, eventually, request};

/// Claims that are good for an hour from now, or from some seconds before or after it.
fn claims(shift: i64) -> Value {
    let now =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
    json!({
        "iss": "https://login.test", "aud": ["api"], "sub": "ali", "scope": "read write",
        "exp": now + shift + 3600, "nbf": now + shift,
    })
}

fn changed(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn yaml(origin: &Origin, policy: &str) -> String {
    format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes: [{{ name: all, policies: [{policy}], upstream: app }}]
        "
    )
}

async fn with(proxy: &Crestline, token: &str) -> Answer {
    let fields = format!("Authorization: Bearer {token}\r\nX-User: forged\r\n");
    proxy.send(request("GET", "/", &fields, "")).await
}

#[tokio::test]
async fn a_token_lets_in_and_tells_who_it_is() {
    let (signer, stranger, origin) =
        (Signer::new("a"), Signer::new("a"), Origin::replying("hello"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    std::fs::write(&file, json!({ "keys": [signer.jwk()] }).to_string()).unwrap();
    let policy = format!(
        "{{ jwt: {{ keys: {{ file: {} }}, issuer: \"https://login.test\", audience: [api], require: {{ scope: read }}, tell: {{ x-user: sub }}, forward: false }} }}",
        file.display()
    );
    let proxy = Crestline::start(&yaml(&origin, &policy)).await;
    assert_eq!(with(&proxy, &signer.token(&claims(0))).await.status, 200);
    let got = origin.last().fields;
    assert_eq!((got.all("x-user"), got.get("authorization")), (vec!["ali"], None));

    // A good token that says nothing of the user lets no forged one through.
    let mut nameless = claims(0);
    nameless.as_object_mut().unwrap().remove("sub");
    assert_eq!(with(&proxy, &signer.token(&nameless)).await.status, 200);
    assert_eq!(origin.last().fields.get("x-user"), None);

    let parts = |header: Value| {
        let coded = |part: &Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
        format!("{}.{}", coded(&header), coded(&claims(0)))
    };
    let public = EncodingKey::from_secret(&signer.public);
    let confused = encode(&Header::new(Algorithm::HS256), &claims(0), &public).unwrap();
    let good = signer.token(&claims(0));
    let (signed, _) = good.rsplit_once('.').unwrap();
    let refused = [
        ("nothing", String::new()),
        ("no token", "abc".to_owned()),
        ("another key", stranger.token(&claims(0))),
        ("without a signature", format!("{}.", parts(json!({ "alg": "none" })))),
        ("with the signature taken off", format!("{signed}.")),
        ("the public key as a secret", confused),
        ("expired", signer.token(&claims(-7200))),
        ("not yet good", signer.token(&claims(600))),
        ("of another issuer", signer.token(&changed(claims(0), "iss", json!("https://evil.test")))),
        ("for others", signer.token(&changed(claims(0), "aud", json!("other")))),
        ("for ever", signer.token(&changed(claims(0), "exp", Value::Null))),
    ];
    let before = origin.count();
    for (what, token) in refused {
        let answer = with(&proxy, &token).await;
        assert_eq!(answer.status, 401, "{what}");
        assert!(answer.get("www-authenticate").unwrap().starts_with("Bearer"), "{what}");
    }
    let narrow = signer.token(&changed(claims(0), "scope", json!("reader")));
    assert_eq!(with(&proxy, &narrow).await.status, 403);
    assert_eq!(origin.count(), before);
    proxy.access_line(|line| line["reason"] == "token_denied").await;
}

/// What stands behind the policy that tells who it is knows it.
#[tokio::test]
async fn a_user_and_its_claims_are_counted_passed_on_and_logged() {
    let (signer, origin) = (Signer::new("a"), Origin::replying("hello"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    std::fs::write(&file, json!({ "keys": [signer.jwk()] }).to_string()).unwrap();
    let policies = format!(
        "{{ request_headers: {{ set: {{ x-who: \"{{user}} of {{claim.tenant}}\" }} }} }}, {{ jwt: {{ keys: {{ file: {} }} }} }}, {{ rate_limit: {{ by: [claim.tenant], rates: [1/h] }} }}",
        file.display()
    );
    let proxy = Crestline::start(&yaml(&origin, &policies)).await;
    let ask = async |user: &str, tenant: Value| {
        let claims = changed(changed(claims(0), "sub", json!(user)), "tenant", tenant);
        with(&proxy, &signer.token(&claims)).await.status
    };
    assert_eq!(ask("ali", json!("blue")).await, 200);
    assert_eq!(origin.last().fields.get("x-who"), Some("ali of blue"));
    assert_eq!(ask("hasan", json!("blue")).await, 429, "of the same tenant");
    assert_eq!(ask("hasan", json!("red")).await, 200);
    assert_eq!(ask("nobody", Value::Null).await, 200, "the client stands for its tenant");
    assert_eq!(ask("nobody", json!({})).await, 429);
    let line = proxy.access_line(|line| line["user"] == "hasan" && line["status"] == 429).await;
    assert_eq!(line["reason"], "rate_limited");
}

/// The set of keys, as the service tells it now; `None` while it is out of order.
type Told = Arc<Mutex<Option<Value>>>;

fn key_service(told: &Told) -> Origin {
    let told = told.clone();
    Origin::with(move |exchange| {
        let now = told.lock().unwrap().clone();
        async move {
            match now {
                Some(keys) => exchange.reply(keys.to_string()).await,
                None => exchange.answer("500 Internal Server Error", "", "").await,
            }
        }
    })
}

#[tokio::test]
async fn keys_of_a_url_outlive_its_absence_and_nobody_is_let_in_without_any() {
    let (signer, origin) = (Signer::new("a"), Origin::replying("hello"));
    let told: Told = Arc::default();
    let service = key_service(&told);
    let policy =
        format!("{{ jwt: {{ keys: {{ url: \"http://{service}/keys\", refresh: 1h }} }} }}");
    let proxy = Crestline::start(&yaml(&origin, &policy)).await;
    let token = signer.token(&claims(0));
    assert_eq!(with(&proxy, &token).await.status, 503);
    proxy.logs("nobody is let in until they can").await;
    proxy.access_line(|line| line["reason"] == "auth_away").await;

    // It is asked again after a pause, and what it said stays when it goes.
    *told.lock().unwrap() = Some(json!({ "keys": [signer.jwk()] }));
    let mut tries = 0;
    while with(&proxy, &token).await.status != 200 {
        tries += 1;
        assert!(tries < 2_000, "the keys are never had");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // What makes no sense, comes too late or not at all leaves those that are known.
    *told.lock().unwrap() = Some(json!({ "keys": [] }));
    let (unknown, asked) = (Signer::new("b").token(&claims(0)), service.count());
    while service.count() == asked {
        assert_eq!(with(&proxy, &unknown).await.status, 401);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    proxy.logs("the last ones count until they can").await;
    assert_eq!(with(&proxy, &token).await.status, 200);
    service.kill().await;
    assert_eq!(with(&proxy, &token).await.status, 200);
    proxy.reload(&yaml(&origin, &policy.replace("keys: {", "leeway: 10s, keys: {"))).await;
    assert_eq!(with(&proxy, &token).await.status, 200, "a reload forgets no keys");
    assert_eq!(with(&proxy, &Signer::new("b").token(&claims(0))).await.status, 401);
}

/// A service of keys that is slow holds nobody up whose key is known.
#[tokio::test]
async fn keys_are_fetched_before_anybody_asks_and_renewed_beside_requests() {
    let (signer, origin) = (Signer::new("a"), Origin::replying("hello"));
    let keys = json!({ "keys": [signer.jwk()] }).to_string();
    let (asked, left) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let service = Origin::with({
        let (asked, left) = (asked.clone(), left.clone());
        move |exchange| {
            let (keys, left) = (keys.clone(), left.clone());
            let is_first = asked.fetch_add(1, SeqCst) == 0;
            async move {
                if is_first {
                    return exchange.reply(keys).await;
                }
                let after = exchange.hang().await;
                left.fetch_add(1, SeqCst);
                after
            }
        }
    });
    let policy =
        format!("{{ jwt: {{ keys: {{ url: \"http://{service}/keys\", refresh: 1s }} }} }}");
    let proxy = Crestline::start(&yaml(&origin, &policy)).await;
    eventually("the first question", || 0 < asked.load(SeqCst)).await;
    let token = signer.token(&claims(0));
    assert_eq!(with(&proxy, &token).await.status, 200);
    assert_eq!(origin.count(), 1);

    eventually("the second question", || 1 < asked.load(SeqCst)).await;
    let mut meanwhile = 0;
    while left.load(SeqCst) == 0 {
        assert_eq!(with(&proxy, &token).await.status, 200);
        meanwhile += usize::from(left.load(SeqCst) == 0);
    }
    assert!(0 < meanwhile, "all requests waited for the service");
    service.kill().await;
    assert_eq!(with(&proxy, &token).await.status, 200);
}

/// What the service was told, and what it says, by the token.
#[tokio::test]
async fn another_service_decides_who_may_ask() {
    let origin = Origin::replying("hello");
    let service = Origin::with(|exchange| async move {
        let fields = exchange.request.fields.clone();
        match fields.get("authorization") {
            Some("good") => exchange.answer("204 No Content", "X-User: ali\r\n", "").await,
            Some("odd") => exchange.answer("500 Internal Server Error", "", "").await,
            Some("mute") => exchange.hang().await,
            _ => {
                let fields = "Location: https://login.test/\r\nX-Own: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n";
                exchange.answer("302 Found", fields, "log in").await
            }
        }
    });
    let policy = format!(
        "{{ forward_auth: {{ url: \"http://{service}/verify\", take: [x-user], user: x-user, timeout: 1s, cache: {{ by: [header.authorization, path], life: 1h }} }} }}, {{ request_headers: {{ set: {{ x-who: \"{{user}}\" }} }} }}"
    );
    let proxy = Crestline::start(&yaml(&origin, &policy)).await;
    let ask = async |who: &str, path: &str| {
        let fields = format!("Authorization: {who}\r\nX-User: forged\r\n");
        proxy.send(request("GET", path, &fields, "")).await
    };
    // However it is spelt, the service judges what the origin is asked for.
    assert_eq!(ask("good", "/x/../%61?b=1").await.status, 200);
    assert_eq!(origin.last().target, "/a?b=1");
    assert_eq!(origin.last().fields.all("x-user"), ["ali"]);
    let asked = service.last();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("GET", "/verify"));
    let fields = asked.fields;
    assert_eq!(fields.get("x-forwarded-uri"), Some("/a?b=1"));
    assert_eq!(fields.get("x-forwarded-method"), Some("GET"));
    assert_eq!(fields.get("x-forwarded-host"), Some("a.test"));

    // Once for the same request, anew for another.
    assert_eq!(ask("good", "/a?b=1").await.status, 200);
    assert_eq!((service.count(), origin.last().fields.all("x-user")), (1, vec!["ali"]));
    assert_eq!(origin.last().fields.get("x-who"), Some("ali"), "remembered with the answer");
    assert_eq!(ask("good", "/b").await.status, 200);
    assert_eq!(service.count(), 2);

    let before = origin.count();
    let sent = ask("bad", "/a").await;
    assert_eq!(
        (sent.status, sent.get("location"), sent.text()),
        (302, Some("https://login.test/"), "log in")
    );
    assert_eq!(sent.get("x-own"), None);
    assert_eq!(sent.fields().all("set-cookie"), ["a=1", "b=2"]);
    for who in ["odd", "mute"] {
        assert_eq!(ask(who, "/a").await.status, 503, "{who}");
    }
    service.kill().await;
    assert_eq!(ask("new", "/a").await.status, 503);
    assert_eq!(origin.count(), before, "it fails closed");
    assert_eq!(ask("good", "/b").await.status, 200, "what was said counts for its time");
}
