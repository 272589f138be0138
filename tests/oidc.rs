//! Who may ask, by signing in at a provider: browsers are sent there and come back.

use std::time::Duration;

use serde_json::json;

use crate::support::{Answer, Browser, Crestline, Origin, Provider, Signer};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const OTHER_KEY: &str = "fedcba9876543210fedcba9876543210";

/// The policy, with more keys of it.
fn policy(provider: &Provider, more: &str) -> String {
    format!(
        "{{ oidc: {{ issuer: \"{provider}\", client_id: shop, client_secret: \"s:1\", keys: [{KEY}], tell: {{ x-user: sub }}, {more} }} }}"
    )
}

fn yaml(origin: &Origin, policies: &str) -> String {
    format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes: [{{ name: all, policies: [{policies}], upstream: app }}]
        "
    )
}

/// Asks until an answer is as it should be.
async fn until(
    browser: &mut Browser,
    proxy: &Crestline,
    what: &str,
    is_it: impl Fn(&Answer) -> bool,
) -> Answer {
    for _ in 0..2_000 {
        let answer = browser.get(proxy, "/page").await;
        if is_it(&answer) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited in vain: {what}")
}

#[tokio::test]
async fn a_browser_signs_in_comes_back_and_signs_out() {
    let (provider, origin) = (Provider::new(), Origin::replying("hello"));
    let policies = format!(
        "{}, {{ request_headers: {{ set: {{ x-tenant: \"{{claim.tenant}}\" }} }} }}",
        policy(&provider, "claims: [tenant], require: { role: admin }, scopes: [email]")
    );
    let blog = "routes: [{ name: blog, match: { path: /blog }, upstream: app }, ";
    let with_blog = yaml(&origin, &policies).replace("routes: [", blog);
    let proxy = Crestline::start(&with_blog).await;
    let mut browser = Browser::default();
    browser.cookies.insert("theme".to_owned(), "dark".to_owned());

    // A script is told, and not sent elsewhere.
    let json = browser.ask(&proxy, "/page", "Accept: application/json\r\n").await;
    assert_eq!((json.status, json.get("location")), (401, None));
    let sent = browser.clone().get(&proxy, "/page?a=1").await;
    let place = sent.get("location").unwrap();
    assert!(place.starts_with(&format!("{provider}/auth?response_type=code&")), "{place}");
    assert!(place.contains("&scope=email+openid&"), "{place}");
    assert_eq!(sent.get("cache-control"), Some("no-store"));
    let cookie = sent.get("set-cookie").unwrap();
    assert!(cookie.ends_with("; Secure; HttpOnly; SameSite=Lax"), "{cookie}");
    assert_eq!(origin.count(), 0);

    // Browsers send some bytes in a query as they are that stand in no URI.
    let back = browser.sign_in(&proxy, "/page?a=1|{b}").await;
    let place = "http://a.test/page?a=1%7C%7Bb%7D";
    assert_eq!((back.status, back.get("location")), (303, Some(place)));
    assert_eq!(browser.cookies.len(), 2, "the theme, and the session");
    let page = browser.ask(&proxy, "/page?a=1", "X-User: forged\r\n").await;
    assert_eq!((page.status, page.text()), (200, "hello"));
    let got = origin.last().fields;
    assert_eq!((got.all("x-user"), got.get("x-tenant")), (vec!["ali"], Some("blue")));
    assert_eq!(got.get("cookie"), Some("theme=dark"), "the session is not for origins");
    proxy.access_line(|line| line["user"] == "ali").await;
    assert_eq!(browser.get(&proxy, "/blog").await.status, 200);
    let got = origin.last().fields;
    assert_eq!(got.get("cookie"), Some("theme=dark"), "nor for those of other routes");
    // The way back of another tab, which came too late.
    let late = browser.get(&proxy, "/oidc/callback?code=code+1&state=abc").await;
    assert_eq!((late.status, late.get("location")), (303, Some("http://a.test/")));

    // Nobody else's page signs out; one of this site does, at the provider too.
    let session = browser.clone();
    let other = "Accept: text/html\r\nSec-Fetch-Site: cross-site\r\n";
    assert_eq!(browser.ask(&proxy, "/oidc/sign-out", other).await.status, 403);
    assert_eq!(
        browser.ask(&proxy, "/oidc/sign-out", "Referer: http://a.test.evil/\r\n").await.status,
        403
    );
    assert_eq!(browser.get(&proxy, "/page").await.status, 200);
    let out = browser.ask(&proxy, "/oidc/sign-out", "Sec-Fetch-Site: same-origin\r\n").await;
    let place =
        format!("{provider}/out?client_id=shop&post_logout_redirect_uri=http%3A%2F%2Fa.test%2F");
    assert_eq!((out.status, out.get("location")), (303, Some(&*place)));
    assert_eq!(browser.get(&proxy, "/page").await.status, 302);

    // Keys are replaced one after the other; without the old one, its sessions are over.
    let status = async |keys: &str| {
        let policies = policies.replace(KEY, keys);
        proxy.reload(&yaml(&origin, &policies)).await;
        session.clone().get(&proxy, "/page").await.status
    };
    assert_eq!(status(&format!("{OTHER_KEY}, {KEY}")).await, 200);
    assert_eq!(status(OTHER_KEY).await, 302);
}

#[tokio::test]
async fn a_sign_in_that_is_not_what_it_should_be_is_refused() {
    let (provider, origin) = (Provider::new(), Origin::replying("hello"));
    let proxy =
        Crestline::start(&yaml(&origin, &policy(&provider, "require: { role: admin }"))).await;

    // The attacker's own way back, shown to somebody else: whose sign-in would it be?
    let (mut attacker, mut victim) = (Browser::default(), Browser::default());
    let theirs = attacker.leave(&proxy, "/page").await;
    victim.leave(&proxy, "/page").await;
    let (asked, kept) = (provider.asked(), victim.cookies.clone());
    assert_eq!(victim.get(&proxy, &theirs).await.status, 403);
    let bare = "/oidc/callback?code=code+1";
    for back in
        [bare, "/oidc/callback", "/oidc/callback?error=access_denied", &format!("{theirs}&state=a")]
    {
        assert_eq!(attacker.clone().get(&proxy, back).await.status, 403, "{back}");
    }
    assert_eq!((provider.asked(), &victim.cookies), (asked, &kept), "nobody was asked");

    // Whoever comes back once more, with all that the browser had, is not let in again.
    let before = attacker.clone();
    assert_eq!(attacker.get(&proxy, &theirs).await.status, 303);
    assert_eq!(before.clone().get(&proxy, &theirs).await.status, 403);
    assert_eq!(provider.asked(), asked + 1);
    proxy.access_line(|line| line["reason"] == "sign_in_denied").await;

    for (claim, value) in [
        ("nonce", json!("other")),
        ("aud", json!("other")),
        ("aud", json!(["shop", "other"])),
        ("azp", json!("other")),
        ("iss", json!("https://evil.test")),
        ("exp", json!(1)),
        ("sub", json!("")),
    ] {
        provider.state().claims = json!({ claim: value });
        let mut browser = Browser::default();
        assert_eq!(browser.sign_in(&proxy, "/page").await.status, 403, "{claim}: {value}");
        assert_eq!(browser.get(&proxy, "/page").await.status, 302, "{claim}: {value}");
    }
    provider.state().claims = json!({});
    provider.state().forger = Some(Signer::new("a"));
    assert_eq!(Browser::default().sign_in(&proxy, "/page").await.status, 403, "of another key");
    provider.state().forger = None;

    // Who is good and may not is told so, with no way round in circles.
    provider.state().claims = json!({ "role": "user" });
    let mut user = Browser::default();
    assert_eq!(user.sign_in(&proxy, "/page").await.status, 303);
    assert_eq!(user.get(&proxy, "/page").await.status, 403);
    provider.state().claims = json!({});

    // Whatever was asked for, the way back leads to this host.
    for path in
        ["//evil.test/", "///evil.test", "/%2f%2fevil.test/", "/%5cevil.test", "/a/..//evil.test"]
    {
        let back = Browser::default().sign_in(&proxy, path).await;
        let place = back.get("location").unwrap();
        let rest =
            place.strip_prefix("http://a.test/").unwrap_or_else(|| panic!("{path}: {place}"));
        assert!(!rest.starts_with(['/', '\\']), "{path}: {place}");
    }
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn a_cookie_stands_for_nothing_but_what_it_was_made_for() {
    let (provider, origin) = (Provider::new(), Origin::replying("hello"));
    let route = |name: &str, more: &str| {
        let policy = policy(&provider, &format!("callback: /{name}/back, {more}"));
        format!(
            "{{ name: {name}, match: {{ path: /{name}/ }}, policies: [{policy}], upstream: app }}"
        )
    };
    let yaml = format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        routes: [{}, {}, {}, {}, {}]
        ",
        route("a", ""),
        route("b", ""),
        route("short", "life: 1s"),
        route("one", "realm: both"),
        route("two", "realm: both, require: { role: admin }, claims: [role]"),
    );
    let proxy = Crestline::start(&yaml).await;
    let mut browser = Browser::default();
    assert_eq!(browser.sign_in(&proxy, "/a/").await.status, 303);
    assert_eq!(browser.get(&proxy, "/a/").await.status, 200);

    // That of another route, under the name of this one.
    let (of_a, value) = browser.cookies.clone().into_iter().next().unwrap();
    let mut other = Browser::default();
    let _ = other.get(&proxy, "/b/").await;
    let (sign_in, sealed) = other.cookies.clone().into_iter().next().unwrap();
    let of_b = sign_in.split("-sign-in").next().unwrap().to_owned();
    assert_ne!(of_a, of_b);
    let mut forged: Vec<_> = (0..value.len())
        .step_by(37)
        .map(|at| {
            let mut forged = value.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            (of_a.clone(), String::from_utf8(forged).unwrap(), "/a/")
        })
        .collect();
    forged.push((of_b.clone(), value.clone(), "/b/"));
    forged.push((of_b, format!("1{sealed}"), "/b/"));
    forged.push((of_a, String::new(), "/a/"));
    for (name, value, path) in forged {
        let mut forger = Browser::default();
        forger.cookies.insert(name, value);
        assert_eq!(forger.get(&proxy, path).await.status, 302, "{path}: {:?}", forger.cookies);
    }

    // One that is over is kept by somebody who ought not to.
    let mut short = Browser::default();
    assert_eq!(short.sign_in(&proxy, "/short/").await.status, 303);
    let kept = short.clone();
    let mut tries = 0;
    while kept.clone().get(&proxy, "/short/").await.status != 302 {
        tries += 1;
        assert!(tries < 2_000, "it is never over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // Routes of one realm share it, and each looks at what it asks for.
    let mut shared = Browser::default();
    assert_eq!(shared.sign_in(&proxy, "/two/").await.status, 303);
    assert_eq!(shared.get(&proxy, "/one/").await.status, 200);
    assert_eq!(shared.get(&proxy, "/two/").await.status, 200);
    let mut less = Browser::default();
    assert_eq!(less.sign_in(&proxy, "/one/").await.status, 303);
    assert_eq!(less.get(&proxy, "/two/").await.status, 403);
}

#[tokio::test]
async fn a_session_is_renewed_once_and_ends_when_the_provider_says_so() {
    let (provider, origin) = (Provider::new(), Origin::replying("hello"));
    provider.state().expires_in = 2;
    let proxy = Crestline::start(&yaml(&origin, &policy(&provider, ""))).await;
    let mut browser = Browser::default();
    assert_eq!(browser.sign_in(&proxy, "/page").await.status, 303);

    // The refresh token counts once: whoever comes with the old session is given the new one.
    let old = browser.clone();
    let renewed = |answer: &Answer| !answer.fields().all("set-cookie").is_empty();
    let answer = until(&mut browser, &proxy, "a renewal", renewed).await;
    assert_eq!((answer.status, answer.get("cache-control")), (200, Some("no-store")));
    assert_ne!(old.cookies, browser.cookies);
    let mut others = Vec::new();
    for _ in 0..4 {
        let mut other = old.clone();
        let answer = other.get(&proxy, "/page").await;
        others.push((answer.status, other.cookies != old.cookies));
    }
    assert_eq!(others, [(200, true); 4]);

    // Gone, wrong or slow: nobody is let in whose session is stale, and it is kept.
    provider.origin.swallow().await;
    let kept = browser.clone();
    until(&mut browser, &proxy, "nobody to ask", |answer| answer.status == 503).await;
    proxy.access_line(|line| line["reason"] == "auth_away").await;
    proxy.logs("gives no tokens").await;
    assert_eq!(browser.cookies, kept.cookies);
    provider.origin.kill().await;
    assert_eq!(Browser::default().get(&proxy, "/page").await.status, 302, "what it is, is known");
    provider.origin.revive();
    until(&mut browser, &proxy, "the provider again", |answer| answer.status == 200).await;

    provider.state().denies = true;
    until(&mut browser, &proxy, "the end", |answer| answer.status == 302).await;
}

#[tokio::test]
async fn nobody_signs_in_at_a_provider_that_is_not_there_or_another() {
    let origin = Origin::replying("hello");
    let liar = Origin::with(|exchange| async move {
        let told = json!({
            "issuer": "https://evil.test", "authorization_endpoint": "https://evil.test/auth",
            "token_endpoint": "https://evil.test/token", "jwks_uri": "https://evil.test/keys",
        });
        exchange.reply(told.to_string()).await
    });
    let provider = Provider::new();
    provider.origin.kill().await;
    let policy = policy(&provider, "");
    let proxy = Crestline::start(&yaml(&origin, &policy)).await;
    proxy.logs("nobody is let in until they can").await;
    let mut browser = Browser::default();
    assert_eq!(browser.get(&proxy, "/page").await.status, 503);
    assert_eq!(browser.ask(&proxy, "/page", "Accept: */*\r\n").await.status, 401);
    provider.origin.revive();
    until(&mut browser, &proxy, "the provider", |answer| answer.status == 302).await;

    let policy = policy.replace(&provider.to_string(), &format!("http://{liar}"));
    proxy.reload(&yaml(&origin, &policy)).await;
    proxy.logs("it says that it is `https://evil.test`").await;
    assert_eq!(browser.get(&proxy, "/page").await.status, 503);
    assert_eq!(origin.count(), 0);
}
