//! Who may ask, by name and password (RFC 7617).
//!
//! A password is verified on a thread that may take its time, so many at once, and what was good
//! is remembered for a while. Who names an unknown user waits as long as others.

mod remembered;
mod users;

use std::{
    num::NonZero,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use pingora::Result;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{sync::Semaphore, task, time::Instant};

use crate::{
    field::{Name, Value},
    policy::{
        basic_auth::{
            remembered::Remembered,
            users::{Credentials, Users},
        },
        contract::{Build, Facts, Flow, Hooks, Request, Written},
        variable::{Variable, Word},
    },
    reason::Reason,
    reply::Reply,
    units::{self, Duration},
    yaml::Spanned,
};

/// Who waits for a password to be verified; more are sent away.
const WAITING_MAX: usize = 64;

/// So many are verified at a time, whatever route they are for.
static VERIFYING: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    Arc::new(Semaphore::new(cores))
});

/// Those who wait.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Lets in who knows a password; others get `401`. Passwords are in a file as `htpasswd -B` makes
/// it, with bcrypt, or with Argon2; other hashes are refused when it is read. Origins do not see
/// them. At most 64 requests wait for a password to be verified, further ones get `503`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BasicAuth")]
pub struct Config {
    /// The file, seen from the folder of the main file: `USER:HASH` on each line, with `$2y$…` of
    /// bcrypt or `$argon2id$…`.
    pub file: Spanned<PathBuf>,
    /// What browsers show where they ask for a password. Default: `restricted`.
    #[serde(default = "realm")]
    pub realm: Value,
    /// How long a password that was good is remembered, each by a digest; a changed file forgets
    /// it. Default: `5m`.
    #[serde(default = "remember", deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub remember: Duration,
    /// The field that tells origins who it is; what a client says in it is replaced.
    /// Default: none, they are not told.
    #[serde(default)]
    pub tell: Option<Name>,
    /// Whether origins are sent the password itself. Default: `false`.
    #[serde(default)]
    pub forward: bool,
}

fn realm() -> Value {
    Value(HeaderValue::from_static("restricted"))
}

fn remember() -> Duration {
    Duration::from_secs(300)
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    users: Arc<Users>,
    good: Arc<Remembered>,
    remember: std::time::Duration,
    challenge: HeaderValue,
    tell: Option<HeaderName>,
    forward: bool,
}

impl Config {
    /// Reads the file.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        let text = cx.read(&self.file.value, self.file.span)?;
        let users = match Users::read(&String::from_utf8_lossy(&text)) {
            Ok(users) => users,
            Err(why) => {
                let message = format!("`{}`: {why}", self.file.value.display());
                let help = "write `USER:HASH` on each line, as `htpasswd -B FILE USER` does";
                cx.problem_at(self.file.span, message, help);
                return None;
            }
        };
        let realm = self.realm.0.to_str().unwrap_or_default().replace(['"', '\\'], "");
        let challenge = format!("Basic realm=\"{realm}\", charset=\"UTF-8\"");
        Some(Policy {
            users: Arc::new(users),
            good: cx.state(|_: &Remembered| true, Remembered::new),
            remember: self.remember.0,
            challenge: HeaderValue::try_from(challenge).ok()?,
            tell: self.tell.as_ref().map(Name::to_header),
            forward: self.forward,
        })
    }
}

/// What became of a name and a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Bad,
    /// Too many wait already.
    Busy,
}

/// One who waits, until it is dropped.
struct Waits;

impl Drop for Waits {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Relaxed);
    }
}

impl Policy {
    async fn judge(&self, shown: Credentials) -> Verdict {
        let mark = self.good.mark(&shown, &self.users);
        if self.good.knows(mark.as_ref(), Instant::now()) {
            return Verdict::Good;
        }
        let waiting = WAITING.fetch_add(1, Relaxed);
        let _waits = Waits;
        if WAITING_MAX <= waiting {
            return Verdict::Busy;
        }
        let Ok(permit) = VERIFYING.clone().acquire_owned().await else { return Verdict::Busy };
        let users = self.users.clone();
        let verified = task::spawn_blocking(move || {
            let is_good = users.verify(&shown);
            drop(permit); // not before, also if nobody waits any more
            is_good
        });
        let verified = verified.await;
        match verified {
            Ok(true) => {
                self.good.remember(mark, Instant::now() + self.remember);
                Verdict::Good
            }
            _ => Verdict::Bad,
        }
    }

    fn refuse(&self, request: &mut Request<'_>) -> Flow {
        request.notes.reason = Some(Reason::PasswordDenied);
        Flow::Respond(Reply::status(401).with(WWW_AUTHENTICATE, self.challenge.clone()))
    }
}

/// Reads `Basic dXNlcjpwYXNz`; two fields are none, since the origin could mean the other.
fn shown(headers: &HeaderMap) -> Option<Credentials> {
    let mut fields = headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let (first, second) = (fields.next()?, fields.next());
    let (scheme, coded) = first.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") || second.is_some() {
        return None;
    }
    let text = String::from_utf8(BASE64_STANDARD.decode(coded.trim_ascii()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Credentials { user: user.to_owned(), password: password.to_owned() })
}

impl Written for Config {
    fn files(&self) -> Vec<&Path> {
        vec![&self.file.value]
    }

    fn tells(&self, variable: &Variable) -> bool {
        *variable == Variable::One(Word::User)
    }
}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let Some(shown) = shown(request.facts.headers()) else { return self.refuse(request) };
        let user = HeaderValue::from_str(&shown.user).ok();
        match Box::pin(self.judge(shown)).await {
            Verdict::Bad => self.refuse(request),
            Verdict::Busy => {
                request.notes.reason = Some(Reason::AccessBusy);
                Flow::Respond(Reply::unavailable(1))
            }
            Verdict::Good => {
                if let (Some(field), Some(user)) = (&self.tell, &user) {
                    request.notes.to_origin.push((field.clone(), user.clone()));
                }
                request.facts.who.tell_user(user);
                Flow::Continue
            }
        }
    }

    /// The name is put in after all policies; a client's own word is not.
    fn on_upstream_request(&self, header: &mut RequestHeader, _: &Facts<'_>) -> Result<()> {
        if let Some(field) = &self.tell {
            header.remove_header(field);
        }
        if !self.forward {
            header.remove_header(&AUTHORIZATION);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::policy::tests::{Given, build, problems};

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[tokio::test]
    async fn who_knows_the_password_is_let_in() {
        let hash = bcrypt::hash("open:sesame", 4).unwrap();
        let (_folder, path) = file(&format!("# who\nali:{hash}\n"));
        let yaml = format!("{{ file: {}, tell: x-user }}", path.display());
        let policy = build(&yaml, |config: &Config, cx| config.build(cx));
        let ask = async |text: &str| {
            let coded = format!("Basic {}", BASE64_STANDARD.encode(text));
            let given = Given::request("GET", "/").field("authorization", &coded);
            let mut notes = crate::policy::contract::Notes::default();
            let mut request = Request { facts: given.facts(), notes: &mut notes };
            let flow = policy.on_request(&mut request).await;
            assert_eq!(given.facts().who.user().is_some(), matches!(flow, Flow::Continue));
            (matches!(flow, Flow::Continue), notes.to_origin.len())
        };
        assert_eq!(ask("ali:open:sesame").await, (true, 1));
        assert_eq!(ask("ali:open:sesame").await, (true, 1), "remembered");
        for wrong in ["ali:open", "ali:", "hasan:open:sesame", "ali"] {
            assert_eq!(ask(wrong).await, (false, 0), "{wrong}");
        }
        let Flow::Respond(reply) = Given::request("GET", "/").ask(&policy).0 else { panic!() };
        assert_eq!(reply.status, 401);
        assert_eq!(reply.fields[0].1, "Basic realm=\"restricted\", charset=\"UTF-8\"");
    }

    #[test]
    fn a_file_with_other_hashes_is_refused() {
        for (text, why) in [
            ("ali:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=\n", "line 1: the hash of `ali` is neither"),
            ("ali:secret\n", "line 1: the hash of `ali` is neither"),
            ("# nobody\n", "there is no user"),
            ("ali\n", "line 1: there is no `:`"),
        ] {
            let (_folder, path) = file(text);
            let told =
                problems(&format!("{{ file: {} }}", path.display()), |config: &Config, cx| {
                    config.build(cx)
                });
            assert!(told[0].contains(why), "{told:?}");
            assert!(!told[0].contains("secret"), "{told:?}");
        }
    }
}
