//! Who may ask, by what the certificate of the client says.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{
    policy::{
        contract::{Build, Flow, Hooks, Request, Written},
        verdict::{self, Rules, Verdict},
    },
    reason::Reason,
    reply::Reply,
    yaml,
};

/// Rules of who may ask, by the client's certificate, such as
/// `["allow san:DNS:*.internal.example.com", "deny all"]`; the first that names it decides, and the
/// last must be for `all`. The others get `403`, and so does every client without a certificate
/// that the listener has verified (`client_certificates`).
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Config(pub Rules<RuleConfig>);

/// A rule: `allow` or `deny`, and `all`, `subject:` and a name as the access log shows it,
/// `san:` and one of the other names, or `fingerprint:` and a SHA-256 in hexadecimal digits. A `*`
/// stands for any text without a comma.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "CertificateRule")]
#[schemars(example = &"allow san:DNS:*.internal.example.com", example = &"allow subject:CN=*,O=Example")]
#[schemars(extend("pattern" = "^(allow|deny) .*[^ ]"))]
pub struct RuleConfig {
    verdict: Verdict,
    whom: Whom,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Whom {
    All,
    Subject(Pattern),
    San(Pattern),
    Fingerprint(String),
}

/// A text with `*` in it, in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    parts: Vec<String>,
    /// Whether the case of letters is the same, as it is of hosts.
    ignores_case: bool,
}

/// Why a rule is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}\nhelp: write `allow san:DNS:*.example.com`, `deny subject:CN=old,*`, `allow fingerprint:HEX` or `deny all`"
)]
pub struct NoRule(String);

impl FromStr for RuleConfig {
    type Err = NoRule;

    fn from_str(text: &str) -> Result<Self, NoRule> {
        let (verdict, whom) = Verdict::split(text, "client_cert").map_err(NoRule)?;
        let whom = match whom.split_once(':') {
            None if whom == "all" => Whom::All,
            Some(("subject", pattern)) if !pattern.is_empty() => Whom::Subject(pattern.into()),
            Some(("san", name)) if is_san(name) => Whom::San(name.into()),
            Some(("san", name)) => {
                let kinds = "which begin with `DNS:`, `URI:`, `IP:` or `email:`";
                return Err(NoRule(format!("`{name}` is none of the other names, {kinds}")));
            }
            Some(("fingerprint", digits)) => {
                let digits = digits.replace(':', "").to_ascii_lowercase();
                if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(NoRule(format!("`{digits}` is no SHA-256 of 64 digits")));
                }
                Whom::Fingerprint(digits)
            }
            _ => return Err(NoRule(format!("`{whom}` names no certificate"))),
        };
        Ok(Self { verdict, whom })
    }
}

fn is_san(name: &str) -> bool {
    let kinds = ["DNS:", "URI:", "IP:", "email:"];
    kinds.iter().any(|kind| name.strip_prefix(kind).is_some_and(|name| !name.is_empty()))
}

impl<'de> Deserialize<'de> for RuleConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a rule such as `allow san:DNS:*.example.com`")
    }
}

impl From<&str> for Pattern {
    fn from(text: &str) -> Self {
        let ignores_case = text.starts_with("DNS:") || text.starts_with("email:");
        let text = if ignores_case { text.to_ascii_lowercase() } else { text.to_owned() };
        Self { parts: text.split('*').map(str::to_owned).collect(), ignores_case }
    }
}

impl Pattern {
    /// Whether a name is one of those: every part in its order, and what is between without a
    /// comma, which parts names from each other; one that is part of a name is escaped.
    fn names(&self, name: &str) -> bool {
        let lower;
        let mut rest = name;
        if self.ignores_case {
            lower = name.to_ascii_lowercase();
            rest = &lower;
        }
        let Some((first, others)) = self.parts.split_first() else { return false };
        let Some(after) = rest.strip_prefix(first.as_str()) else { return false };
        Self::follow(others, after)
    }

    fn follow(parts: &[String], rest: &str) -> bool {
        let Some((part, others)) = parts.split_first() else { return rest.is_empty() };
        if others.is_empty() {
            let between = rest.strip_suffix(part.as_str());
            return between.is_some_and(|between| !between.contains(','));
        }
        let reach = rest.find(',').map_or(rest.len(), |comma| comma + part.len());
        let places = rest.match_indices(part.as_str());
        let near = places.take_while(|(at, _)| *at <= reach);
        near.filter(|(at, _)| !rest[..*at].contains(','))
            .any(|(at, _)| Self::follow(others, &rest[at + part.len()..]))
    }
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    rules: Box<[RuleConfig]>,
}

impl Config {
    /// Checks that every client is spoken of.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        let is_all = |rule: &RuleConfig| rule.whom == Whom::All;
        if !verdict::end_with_all(&self.0, is_all, ("a", "certificate"), cx) {
            return None;
        }
        Some(Policy { rules: self.0.iter().map(|rule| rule.value.clone()).collect() })
    }
}

impl RuleConfig {
    fn speaks_of(&self, [subject, sans, fingerprint]: [&str; 3]) -> bool {
        match &self.whom {
            Whom::All => true,
            Whom::Subject(pattern) => pattern.names(subject),
            Whom::San(pattern) => sans.split(',').any(|name| pattern.names(name)),
            Whom::Fingerprint(digits) => digits == fingerprint,
        }
    }
}

impl Policy {
    fn allows(&self, certificate: [&str; 3]) -> bool {
        let rule = self.rules.iter().find(|rule| rule.speaks_of(certificate));
        rule.is_some_and(|rule| rule.verdict == Verdict::Allow)
    }
}

impl Written for Config {}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let client = request.facts.connection.tls_entry().client;
        // They are made of visible ASCII.
        let words = client.map(|words| words.map(|word| str::from_utf8(word).unwrap_or_default()));
        if words.is_some_and(|words| self.allows(words)) {
            return Flow::Continue;
        }
        request.notes.reason = Some(Reason::CertificateDenied);
        Flow::Respond(Reply::status(403))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{Given, build, problems};

    fn pattern(text: &str, name: &str) -> bool {
        Pattern::from(text).names(name)
    }

    #[test]
    fn a_star_stands_for_a_text_without_a_comma() {
        assert!(pattern("CN=alice,O=Example", "CN=alice,O=Example"));
        assert!(!pattern("CN=alice", "CN=alice,O=Example"));
        assert!(pattern("CN=*,O=Example", "CN=alice,O=Example"));
        assert!(!pattern("CN=*,O=Example", "CN=alice,OU=x,O=Example"));
        assert!(pattern("CN=a*e,*,O=*", "CN=alice,OU=x,O=y"));
        assert!(pattern("CN=*b*c", "CN=abbc"));
        assert!(!pattern("CN=*,O=Example", "CN=mallory\\2CO=Example"), "an escaped comma is none");
        assert!(pattern("DNS:*.Internal.test", "DNS:a.b.internal.TEST"));
        assert!(!pattern("DNS:*.internal.test", "DNS:internal.test"));
        assert!(!pattern("URI:spiffe://a.test/B", "URI:spiffe://a.test/b"), "case counts there");
    }

    #[test]
    fn the_first_rule_that_names_a_certificate_decides() {
        let digits = "ab".repeat(32);
        let rules = format!(
            "['deny san:DNS:old.test', 'allow san:DNS:*.test', 'allow fingerprint:{digits}', 'deny all']"
        );
        let policy = build(&rules, |config: &Config, cx| config.build(cx));
        assert!(policy.allows(["CN=a", "DNS:x.org,DNS:a.test", "00"]));
        assert!(!policy.allows(["CN=a", "DNS:a.test,DNS:old.test", "00"]));
        assert!(policy.allows(["CN=a", "", &digits]));
        assert!(!policy.allows(["CN=DNS:a.test", "", "00"]));
        let everybody = build("['allow all']", |config: &Config, cx| config.build(cx));
        assert_eq!(Given::request("GET", "/").refused(&everybody), Some(403), "no certificate");
    }

    #[test]
    fn what_names_no_certificate_is_refused() {
        let told = |yaml: &str| problems(yaml, |config: &Config, cx| config.build(cx));
        assert_eq!(
            told("['allow san:DNS:a.test']"),
            ["what becomes of all other certificates is not said"]
        );
        assert_eq!(told("['deny all', 'allow subject:a']"), ["this rule is never asked"]);
        for text in ["allow", "permit all", "allow san:a.test", "allow fingerprint:12", "deny me"] {
            assert!(text.parse::<RuleConfig>().is_err(), "{text}");
        }
    }
}
