//! A provider of OpenID Connect that does what a test wants, and a browser that keeps cookies.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::SystemTime,
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    client::{Answer, Client, request},
    crestline::Crestline,
    origin::{After, Exchange, Origin},
    signer::Signer,
};

type Form = BTreeMap<String, String>;

/// The provider: its client is `shop`, with the secret `s:1`, and its user `ali`.
pub(crate) struct Provider {
    pub(crate) origin: Origin,
    state: Arc<Mutex<State>>,
}

/// What it knows, and what it is told to do.
pub(crate) struct State {
    signer: Signer,
    /// Signs ID tokens instead, under the same name.
    pub(crate) forger: Option<Signer>,
    /// What ID tokens say instead.
    pub(crate) claims: Value,
    pub(crate) expires_in: u64,
    /// Whether there are no more tokens for anybody.
    pub(crate) denies: bool,
    /// Codes that were given out, each with what was asked.
    codes: BTreeMap<String, Form>,
    /// The refresh token that counts; one that was used does not.
    refresh: String,
    pub(crate) renewals: usize,
    given: usize,
}

impl Provider {
    pub(crate) fn new() -> Self {
        let state = Arc::new(Mutex::new(State {
            signer: Signer::new("a"),
            forger: None,
            claims: json!({}),
            expires_in: 3600,
            denies: false,
            codes: BTreeMap::new(),
            refresh: String::new(),
            renewals: 0,
            given: 0,
        }));
        let origin = Origin::with({
            let state = state.clone();
            move |exchange| answer(exchange, state.clone())
        });
        Self { origin, state }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// How often a code or a refresh token was turned in.
    pub(crate) fn asked(&self) -> usize {
        self.origin.requests().iter().filter(|asked| asked.target == "/token").count()
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.origin)
    }
}

async fn answer(mut exchange: Exchange, state: Arc<Mutex<State>>) -> After {
    let body = exchange.body().await;
    let issuer = format!("http://{}", exchange.request.fields.get("host").unwrap());
    let target = exchange.request.target.clone();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (status, fields, body) = match path {
        "/.well-known/openid-configuration" => {
            let told = json!({
                "issuer": issuer,
                "authorization_endpoint": format!("{issuer}/auth"),
                "token_endpoint": format!("{issuer}/token"),
                "jwks_uri": format!("{issuer}/keys"),
                "end_session_endpoint": format!("{issuer}/out"),
                "authorization_response_iss_parameter_supported": true,
            });
            ("200 OK", String::new(), told.to_string())
        }
        "/keys" => {
            let keys = json!({ "keys": [state.lock().unwrap().signer.jwk()] });
            ("200 OK", String::new(), keys.to_string())
        }
        "/auth" => {
            let place = state.lock().unwrap().authorize(&form(query.as_bytes()), &issuer);
            ("302 Found", format!("Location: {place}\r\n"), String::new())
        }
        "/token" => {
            let who = exchange.request.fields.get("authorization").unwrap_or_default();
            let is_known = who == format!("Basic {}", BASE64_STANDARD.encode("shop:s%3A1"));
            let granted = state.lock().unwrap().grant(&form(&body), &issuer);
            if let Some(granted) = granted.filter(|_| is_known) {
                ("200 OK", String::new(), granted.to_string())
            } else {
                let refused = json!({ "error": "invalid_grant" });
                ("400 Bad Request", String::new(), refused.to_string())
            }
        }
        _ => ("404 Not Found", String::new(), String::new()),
    };
    exchange.answer(status, &fields, body).await
}

/// Takes a query or a form apart.
pub(crate) fn form(text: &[u8]) -> Form {
    form_urlencoded::parse(text).into_owned().collect()
}

impl State {
    /// Lets the user sign in, and tells where the browser goes on.
    fn authorize(&mut self, asked: &Form, issuer: &str) -> String {
        assert_eq!(
            (asked["response_type"].as_str(), asked["client_id"].as_str()),
            ("code", "shop")
        );
        assert_eq!(asked["code_challenge_method"], "S256");
        self.given += 1;
        let code = format!("code {}", self.given);
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("code", &code).append_pair("state", &asked["state"]);
        query.append_pair("iss", issuer);
        self.codes.insert(code, asked.clone());
        format!("{}?{}", asked["redirect_uri"], query.finish())
    }

    /// Gives tokens, if this is the one that they are for.
    fn grant(&mut self, shown: &Form, issuer: &str) -> Option<Value> {
        if self.denies {
            return None;
        }
        let nonce = match shown["grant_type"].as_str() {
            "authorization_code" => {
                let asked = self.codes.remove(&shown["code"])?;
                let digest = digest(&SHA256, shown["code_verifier"].as_bytes());
                let is_same = asked["code_challenge"] == BASE64_URL_SAFE_NO_PAD.encode(digest);
                if !is_same || asked["redirect_uri"] != shown["redirect_uri"] {
                    return None;
                }
                Some(asked["nonce"].clone())
            }
            "refresh_token" if shown["refresh_token"] == self.refresh => {
                self.renewals += 1;
                None
            }
            _ => return None,
        };
        self.given += 1;
        self.refresh = format!("refresh {}", self.given);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "iss": issuer, "sub": "ali", "aud": "shop", "exp": now + 3600, "iat": now,
            "nonce": nonce, "role": "admin", "tenant": "blue",
        });
        for (name, value) in self.claims.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let signer = self.forger.as_ref().unwrap_or(&self.signer);
        Some(json!({
            "access_token": "x", "token_type": "Bearer", "expires_in": self.expires_in,
            "id_token": signer.token(&claims), "refresh_token": self.refresh,
        }))
    }
}

/// A browser, which knows the proxy as `http://a.test`.
#[derive(Clone, Default)]
pub(crate) struct Browser {
    /// Its cookies, by their names.
    pub(crate) cookies: BTreeMap<String, String>,
}

impl Browser {
    /// Asks for a page.
    pub(crate) async fn get(&mut self, proxy: &Crestline, path: &str) -> Answer {
        self.ask(proxy, path, "Accept: text/html\r\n").await
    }

    /// Asks with these fields, and takes the cookies of the answer.
    pub(crate) async fn ask(&mut self, proxy: &Crestline, path: &str, fields: &str) -> Answer {
        let mut fields = fields.to_owned();
        if !self.cookies.is_empty() {
            let pairs = self.cookies.iter().map(|(name, value)| format!("{name}={value}"));
            let pairs = pairs.collect::<Vec<_>>().join("; ");
            fields = format!("{fields}Cookie: {pairs}\r\n");
        }
        let answer = proxy.send(request("GET", path, &fields, "")).await;
        for cookie in answer.fields().all("set-cookie") {
            let (pair, attributes) = cookie.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.contains("Max-Age=0;") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    /// Is sent to the provider for a page, and tells the path by which it comes back.
    pub(crate) async fn leave(&mut self, proxy: &Crestline, path: &str) -> String {
        let sent = self.get(proxy, path).await;
        assert_eq!(sent.status, 302, "{path}: {sent:?}");
        let place = sent.get("location").unwrap().strip_prefix("http://").unwrap().to_owned();
        let at = place.find('/').unwrap();
        let (host, target) = place.split_at(at);
        let mut provider = Client::connect(host).await;
        let asked = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let back = provider.exchange(asked).await;
        back.get("location").unwrap().strip_prefix("http://a.test").unwrap().to_owned()
    }

    /// Signs in for a page, and tells how that ended.
    pub(crate) async fn sign_in(&mut self, proxy: &Crestline, path: &str) -> Answer {
        let back = self.leave(proxy, path).await;
        self.get(proxy, &back).await
    }
}
