//! Who may ask, by signing in at a provider (OpenID Connect Core 1.0): for browsers.
//!
//! Sessions are kept by browsers alone, sealed: any process with the same keys knows them, and
//! none keeps a table. What is asked of the provider is asked beside requests where it can be:
//! what it is, its keys, and whether a session still holds.

mod cookies;
mod party;
mod provider;
mod renewal;
mod seal;
mod session;
mod sign_in;
mod sign_out;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use http::{HeaderValue, header::CACHE_CONTROL};
use pingora::Result;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    client::endpoint::Endpoint,
    field::Name,
    policy::{
        claims::Wanted,
        contract::{Build, Facts, Flow, Hooks, Request, Written},
        errand::Errand,
        location,
        oidc::{
            cookies::Cookies,
            party::Party,
            provider::{Issuer, Provider},
            renewal::State,
            seal::{Purpose, Seal},
            session::{Session, Standing, now},
        },
        origin::Origin,
        secret::Secret,
        token::{self, Algorithms, Rules},
        variable::{Variable, Word},
    },
    reason::Reason,
    reply::Reply,
    routing::path::{self, Canonical},
    units::{self, Duration},
    yaml::Spanned,
};

/// A shorter secret could be guessed.
const SECRET_MIN: usize = 32;
/// So many keys open cookies.
const KEYS_MAX: usize = 4;

/// Lets in who has signed in at a provider of OpenID Connect (authorization code with PKCE).
/// Browsers that ask for a page are sent there and come back to it; scripts and other programs get
/// `401`. The session is kept in a sealed cookie for this host, which origins do not see. While the
/// provider cannot be asked nobody can sign in (`503`), and those who have go on; a session that
/// the provider must renew is renewed beside requests, and ends if it says no. The route must take
/// the paths `callback` and `sign_out`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Oidc")]
pub struct Config {
    /// The provider, as its tokens name it: what it tells of itself is found below this URL, under
    /// `/.well-known/openid-configuration`.
    pub issuer: Issuer,
    /// The name of this site at the provider.
    pub client_id: String,
    /// What proves that to the provider, such as `"${file:/run/secrets/oidc}"`. Default: nothing,
    /// as for a public client.
    #[serde(default)]
    pub client_secret: Option<Secret>,
    /// The secrets that sessions are sealed with, such as `["${file:/run/secrets/session}"]`, each
    /// of at least 32 letters made by chance (`openssl rand -hex 32`). The first seals, all of them
    /// open: put a new one first, and take the old one off when sessions have ended.
    pub keys: Spanned<Vec<Secret>>,
    /// What the provider is asked for beside `openid`; `offline_access` makes many give a refresh
    /// token. Default: `[]`.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The path that the provider sends browsers back to, which it must know as a redirect URI.
    /// Default: `/oidc/callback`.
    #[serde(default = "callback")]
    pub callback: Spanned<String>,
    /// The path that signs out, here and at the provider; only pages of this site can use it.
    /// Default: `/oidc/sign-out`.
    #[serde(default = "sign_out")]
    pub sign_out: Spanned<String>,
    /// The path that those who have signed out are sent to. Default: `/`.
    #[serde(default = "after_sign_out")]
    pub after_sign_out: Spanned<String>,
    /// The origin under which browsers know the site, where it cannot be told by the request:
    /// behind a load balancer that speaks TLS for it. Default: the scheme and host that were asked.
    #[serde(default)]
    pub origin: Option<Spanned<Origin>>,
    /// Routes that write the same realm, provider and client share their sign-ins; they should name
    /// the same claims as well. Default: the name of the route.
    #[serde(default)]
    pub realm: Option<String>,
    /// How long a sign-in counts, however often it is renewed. Default: `8h`.
    #[serde(default = "life", deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub life: Duration,
    /// The algorithms that ID tokens may be signed with. Default: `[RS256, PS256, ES256, EdDSA]`.
    #[serde(default = "token::algorithms")]
    pub algorithms: Algorithms,
    /// By how much the clocks may differ. Default: `30s`.
    #[serde(default = "leeway")]
    pub leeway: Duration,
    /// Claims that must have a value, as in `jwt`; who lacks one gets `403`. Default: `{}`.
    #[serde(default)]
    pub require: BTreeMap<String, String>,
    /// Fields that tell origins of claims, each with the name of its claim; what a client says in
    /// them is replaced, or removed where there is no such claim. Default: `{}`.
    #[serde(default)]
    pub tell: BTreeMap<Name, String>,
    /// More claims that sessions keep, for `{claim.NAME}`, beside `sub` and those above.
    /// Default: `[]`.
    #[serde(default)]
    pub claims: Vec<String>,
}

fn callback() -> Spanned<String> {
    Spanned::new("/oidc/callback".to_owned())
}

fn sign_out() -> Spanned<String> {
    Spanned::new("/oidc/sign-out".to_owned())
}

fn after_sign_out() -> Spanned<String> {
    Spanned::new("/".to_owned())
}

fn life() -> Duration {
    Duration::from_secs(8 * 60 * 60)
}

fn leeway() -> Duration {
    Duration::from_secs(30)
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    party: Arc<Party>,
    issuer: String,
    scopes: String,
    callback: String,
    sign_out: String,
    after_sign_out: String,
    origin: Option<String>,
    seal: Seal,
    cookies: Cookies,
    wanted: Wanted,
}

impl Config {
    /// Makes it ready; nobody is asked yet.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        let algorithms = token::ready(&self.algorithms, cx)?;
        self.check(cx)?;
        let origin = match &self.origin {
            None => None,
            Some(origin) => match &origin.value {
                Origin::Exact(text) if text.parse::<Endpoint>().is_ok() => Some(text.clone()),
                _ => {
                    let help = "write one: `https://shop.example.com`";
                    cx.problem_at(origin.span, "this is not the origin of one site", help);
                    return None;
                }
            },
        };
        let issuer = self.issuer.to_string();
        let owner = [self.realm(cx.route), &issuer, &self.client_id];
        let scopes = ["openid"].into_iter().chain(self.scopes.iter().map(String::as_str));
        let scopes: BTreeSet<_> = scopes.collect();
        Some(Policy {
            party: Arc::new(Party {
                provider: Provider::of(&self.issuer),
                id: self.client_id.clone(),
                secret: self.client_secret.clone(),
                rules: Rules {
                    algorithms,
                    issuer: Some(issuer.clone()),
                    audience: Box::new([self.client_id.clone()]),
                    leeway: self.leeway.0.as_secs(),
                },
                keep: self.kept().map(str::to_owned).collect(),
                life: self.life.0.as_secs().max(1),
            }),
            scopes: scopes.into_iter().collect::<Vec<_>>().join(" "),
            callback: self.callback.value.clone(),
            sign_out: self.sign_out.value.clone(),
            after_sign_out: self.after_sign_out.value.clone(),
            origin,
            seal: Seal::new(self.keys.iter().map(|key| key.0.as_str()), &owner),
            cookies: self.cookies(cx.route),
            issuer,
            wanted: Wanted::new(&self.require, &self.tell),
        })
    }

    fn realm<'a>(&'a self, route: &'a str) -> &'a str {
        self.realm.as_deref().unwrap_or(route)
    }

    fn cookies(&self, route: &str) -> Cookies {
        Cookies::of(&[self.realm(route), &self.issuer.to_string(), &self.client_id].join("\n"))
    }

    /// With what the names of its cookies begin on a route.
    pub fn withheld(&self, route: &str) -> String {
        self.cookies(route).into_base()
    }

    fn check(&self, cx: &mut Build<'_>) -> Option<()> {
        let mut is_good = true;
        let mut refuse = |span, message: String, help: &str| {
            cx.problem_at(span, message, help);
            is_good = false;
        };
        let help =
            "make one by `openssl rand -hex 32`, and write `[\"${file:/run/secrets/session}\"]`";
        if self.keys.is_empty() || KEYS_MAX < self.keys.len() {
            let message = match self.keys.len() {
                0 => "there is no key to seal sessions with".to_owned(),
                more => format!("there are {more} keys, and not at most {KEYS_MAX}"),
            };
            refuse(self.keys.span, message, help);
        }
        // It may be a secret, and is not repeated.
        if self.keys.iter().any(|key| key.0.len() < SECRET_MIN) {
            let message = format!("a key of fewer than {SECRET_MIN} letters could be guessed");
            refuse(self.keys.span, message, help);
        }
        for written in [&self.callback, &self.sign_out, &self.after_sign_out] {
            if !matches!(path::canonicalize(written), Ok(Canonical::AsIs(_))) {
                let message = format!("`{}` is no canonical path", written.value);
                refuse(written.span, message, "write a path such as `/oidc/callback`");
            }
        }
        if self.callback.value == self.sign_out.value {
            let help = "give `sign_out` another path";
            refuse(self.sign_out.span, "both paths are the same".to_owned(), help);
        }
        is_good.then_some(())
    }

    /// The names of the claims that sessions keep, each once.
    fn kept(&self) -> impl Iterator<Item = &str> {
        let told = self.tell.values().chain(self.require.keys()).chain(&self.claims);
        let all: BTreeSet<_> = told.map(String::as_str).chain(["sub"]).collect();
        all.into_iter()
    }
}

impl Policy {
    /// The session that a browser shows, whether or not it still holds.
    fn session(&self, facts: &Facts<'_>) -> Option<Session> {
        let text = self.cookies.session(facts)?;
        serde_json::from_slice(&self.seal.open(Purpose::Session, &text)?).ok()
    }

    /// What keeps a session in the browser.
    fn keep(&self, session: &Session, facts: &Facts<'_>) -> Option<Vec<HeaderValue>> {
        let text = self.seal.seal(Purpose::Session, &serde_json::to_vec(session).ok()?)?;
        self.cookies.keep(&text, session.until.saturating_sub(now()), facts)
    }

    /// A path on this site, as browsers know it.
    fn absolute(&self, facts: &Facts<'_>, path: &str) -> String {
        match &self.origin {
            Some(origin) => format!("{origin}{path}"),
            None => location::absolute(facts, path),
        }
    }

    fn callback_url(&self, facts: &Facts<'_>) -> String {
        self.absolute(facts, &self.callback)
    }

    /// Lets go on who has signed in.
    fn admit(&self, session: Session, request: &mut Request<'_>) -> Flow {
        if !self.wanted.is_in(&session.claims) {
            request.notes.reason = Some(Reason::SignInDenied);
            return Flow::Respond(Reply::status(403));
        }
        self.wanted.tell(session.claims, request);
        Flow::Continue
    }

    /// Goes on with what a renewal has made of a session.
    async fn renewed(&self, old: Session, is_stale: bool, request: &mut Request<'_>) -> Flow {
        let state = if is_stale {
            renewal::end(&self.party, &old).await
        } else {
            renewal::now(&self.party, &old)
        };
        match state {
            State::Renewed(new) => {
                if let Some(fields) = self.keep(&new, &request.facts) {
                    let no_store = HeaderValue::from_static("no-store");
                    request.notes.to_client.push((CACHE_CONTROL, no_store));
                    request.notes.cookies.extend(fields);
                } else {
                    log::error!("a renewed session is too long for cookies, and ends soon");
                }
                self.admit((*new).clone(), request)
            }
            State::Denied => sign_in::begin(self, request).await,
            State::UnderWay | State::Away if !is_stale => self.admit(old, request),
            State::UnderWay | State::Away => {
                request.notes.reason = Some(Reason::AuthAway);
                Flow::Respond(Reply::unavailable(1))
            }
        }
    }
}

impl Written for Config {
    fn tells(&self, variable: &Variable) -> bool {
        match variable {
            Variable::One(Word::User) => true,
            Variable::Claim(name) => self.kept().any(|kept| kept == name),
            _ => false,
        }
    }
}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let path = request.facts.path();
        if path == self.callback {
            return Box::pin(sign_in::end(self, request)).await;
        }
        if path == self.sign_out {
            return sign_out::answer(self, request);
        }
        let Some(session) = self.session(&request.facts) else {
            return Box::pin(sign_in::begin(self, request)).await;
        };
        match session.standing(now()) {
            Standing::Good => self.admit(session, request),
            Standing::Over => Box::pin(sign_in::begin(self, request)).await,
            Standing::Due => Box::pin(self.renewed(session, false, request)).await,
            Standing::Stale => Box::pin(self.renewed(session, true, request)).await,
        }
    }

    fn on_upstream_request(&self, header: &mut RequestHeader, _: &Facts<'_>) -> Result<()> {
        self.wanted.cleanse(header);
        Ok(())
    }

    fn errand(&self) -> Option<Arc<dyn Errand>> {
        Some(self.party.provider.clone())
    }
}
