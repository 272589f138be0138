//! Who may ask, by a key that only its digest is kept of.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use pingora::Result;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    field::{Lookup, Name},
    policy::{
        contract::{Build, Facts, Flow, Hooks, Request, Written},
        variable::{Variable, Word},
    },
    reason::Reason,
    reply::Reply,
    yaml::Spanned,
};

/// Lets in who shows one of these keys, in a header field or as a bearer token; others get `401`.
/// Of a key only its SHA-256 is kept, as `printf %s KEY | sha256sum` prints it; it must be made by
/// chance, such as by `openssl rand -hex 32`. Origins do not see it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ApiKey")]
pub struct Config {
    /// The names of those who have a key, each with its digest in hexadecimal digits.
    /// Default: `{}`.
    #[serde(default)]
    pub keys: BTreeMap<String, Spanned<String>>,
    /// A file of more, seen from the folder of the main file: a name and a digest on each line,
    /// with comments behind `#`. Default: none.
    #[serde(default)]
    pub file: Option<Spanned<PathBuf>>,
    /// The field that a key is shown in. Default: `x-api-key`.
    #[serde(default = "header")]
    pub header: Lookup,
    /// Whether `Authorization: Bearer KEY` does as well. Default: `false`.
    #[serde(default)]
    pub bearer: bool,
    /// The field that tells origins whose key it was; what a client says in it is replaced.
    /// Default: none, they are not told.
    #[serde(default)]
    pub tell: Option<Name>,
    /// Whether origins are sent the key itself. Default: `false`.
    #[serde(default)]
    pub forward: bool,
}

fn header() -> Lookup {
    Lookup(HeaderName::from_static("x-api-key"))
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    /// Looked up by digest, which tells nobody by its time how much of a key was right.
    keys: HashMap<[u8; 32], HeaderValue>,
    header: HeaderName,
    bearer: bool,
    tell: Option<HeaderName>,
    forward: bool,
}

/// A digest of 64 hexadecimal digits.
fn digits(text: &str) -> Option<[u8; 32]> {
    let text = text.strip_prefix("sha256:").unwrap_or(text);
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

const NO_DIGEST: &str = "write the 64 digits that `printf %s KEY | sha256sum` prints";

impl Config {
    /// Reads the digests.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        let mut keys = HashMap::new();
        for (name, written) in &self.keys {
            match (digits(&written.value), HeaderValue::from_str(name)) {
                (Some(key), Ok(name)) => drop(keys.insert(key, name)),
                // What is written may be a key, and is not repeated.
                _ => cx.problem_at(
                    written.span,
                    format!("the key of `{name}` is no SHA-256"),
                    NO_DIGEST,
                ),
            }
        }
        if let Some(file) = &self.file {
            let text = cx.read(&file.value, file.span)?;
            for (index, line) in String::from_utf8_lossy(&text).lines().enumerate() {
                let entry = line.split('#').next().unwrap_or_default().trim();
                if entry.is_empty() {
                    continue;
                }
                let parts = entry.split_once(char::is_whitespace);
                let read = parts.and_then(|(name, key)| {
                    Some((digits(key.trim())?, HeaderValue::from_str(name).ok()?))
                });
                let Some((key, name)) = read else {
                    let (place, at) = (file.value.display(), index + 1);
                    let message = format!("line {at} of `{place}` is no name with a SHA-256");
                    cx.problem_at(file.span, message, NO_DIGEST);
                    return None;
                };
                keys.insert(key, name);
            }
        }
        if keys.is_empty() {
            cx.problem("there is no key, so that nobody is let in", "write `keys`, or a `file`");
            return None;
        }
        Some(Policy {
            keys,
            header: self.header.0.clone(),
            bearer: self.bearer,
            tell: self.tell.as_ref().map(Name::to_header),
            forward: self.forward,
        })
    }
}

impl Policy {
    /// The key that a request shows; two are none, since the origin could mean the other.
    fn shown<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        let mut shown = headers.get_all(&self.header).iter().map(HeaderValue::as_bytes);
        let (first, second) = (shown.next(), shown.next());
        if first.is_some() || !self.bearer {
            return first.filter(|_| second.is_none());
        }
        let mut fields = headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        let (first, second) = (fields.next()?, fields.next());
        let (scheme, key) = first.split_at_checked(7)?;
        let is_bearer = scheme.eq_ignore_ascii_case(b"bearer ") && second.is_none();
        is_bearer.then(|| key.trim_ascii())
    }

    fn owner(&self, headers: &HeaderMap) -> Option<&HeaderValue> {
        let digest = digest(&SHA256, self.shown(headers)?);
        self.keys.get(digest.as_ref())
    }
}

impl Written for Config {
    fn files(&self) -> Vec<&Path> {
        self.file.iter().map(|file| file.value.as_path()).collect()
    }

    fn tells(&self, variable: &Variable) -> bool {
        *variable == Variable::One(Word::ApiKey)
    }
}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let Some(owner) = self.owner(request.facts.headers()) else {
            request.notes.reason = Some(Reason::KeyDenied);
            let scheme = if self.bearer { "Bearer" } else { "ApiKey" };
            let challenge = HeaderValue::from_static(scheme);
            return Flow::Respond(Reply::status(401).with(WWW_AUTHENTICATE, challenge));
        };
        if let Some(field) = &self.tell {
            request.notes.to_origin.push((field.clone(), owner.clone()));
        }
        request.facts.who.tell_key(owner.clone());
        Flow::Continue
    }

    /// The name is put in after all policies; a client's own word is not.
    fn on_upstream_request(&self, header: &mut RequestHeader, _: &Facts<'_>) -> Result<()> {
        if let Some(field) = &self.tell {
            header.remove_header(field);
        }
        if !self.forward {
            header.remove_header(&self.header);
            if self.bearer {
                header.remove_header(&AUTHORIZATION);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::policy::tests::{Given, build, problems};

    /// Of `secret`.
    const DIGEST: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn of(yaml: &str) -> Policy {
        build(yaml, |config: &Config, cx| config.build(cx))
    }

    #[test]
    fn who_shows_a_key_is_let_in_and_named() {
        let policy =
            of(&format!("{{ keys: {{ shop: \"{DIGEST}\" }}, bearer: true, tell: x-client }}"));
        let given = Given::request("GET", "/").field("x-api-key", "secret");
        let (flow, notes) = given.ask(&policy);
        assert!(matches!(flow, Flow::Continue));
        assert_eq!(notes.to_origin, [("x-client".parse().unwrap(), "shop".parse().unwrap())]);
        assert_eq!(given.facts().who.key(), Some(&b"shop"[..]), "the name, never the key");
        for (name, value, expected) in [
            ("x-api-key", "Secret", Some(401)),
            ("x-api-key", DIGEST, Some(401)),
            ("authorization", "Bearer secret", None),
            ("authorization", "bearer  secret", None),
            ("authorization", "Basic secret", Some(401)),
            ("authorization", "Bearer", Some(401)),
            ("x-other", "secret", Some(401)),
        ] {
            let refused = Given::request("GET", "/").field(name, value).refused(&policy);
            assert_eq!(refused, expected, "{name}: {value}");
        }
        let twice = Given::request("GET", "/").field("x-api-key", "secret").field("x-api-key", "a");
        assert_eq!(twice.refused(&policy), Some(401));
    }

    #[test]
    fn origins_do_not_see_the_key() {
        let policy = of(&format!("{{ keys: {{ shop: \"{DIGEST}\" }} }}"));
        let mut header = RequestHeader::build("GET", b"/", None).unwrap();
        header.insert_header("x-api-key", "secret").unwrap();
        let given = Given::request("GET", "/");
        policy.on_upstream_request(&mut header, &given.facts()).unwrap();
        assert!(!header.headers.contains_key("x-api-key"));
    }

    #[test]
    fn keys_are_read_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        fs::write(&path, format!("# who\nshop sha256:{DIGEST} # since May\n\n")).unwrap();
        let yaml = format!("{{ file: {} }}", path.display());
        let given = Given::request("GET", "/").field("x-api-key", "secret");
        assert_eq!(given.refused(&of(&yaml)), None);
        fs::write(&path, "shop secret\n").unwrap();
        let told = problems(&yaml, |config: &Config, cx| config.build(cx));
        assert!(told[0].starts_with("line 1 of "), "{told:?}");
        assert!(!told[0].contains("secret"), "{told:?}");
        let told = problems("{}", |config: &Config, cx| config.build(cx));
        assert_eq!(told, ["there is no key, so that nobody is let in"]);
    }
}
