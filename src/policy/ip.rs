//! Who may ask, by address: the first rule that names the client's network decides.
//!
//! The client is the one that trusted proxies tell; nobody else's word counts.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{
    downstream::config::Network,
    policy::{
        contract::{Build, Flow, Hooks, Request, Written},
        verdict::{self, Rules, Verdict},
    },
    reason::Reason,
    reply::Reply,
    yaml::{self, Spanned},
};

/// Rules of who may ask, such as `["allow 10.0.0.0/8", "deny all"]`; the first that names the
/// client decides, and the last must be for `all`. The others get `403`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Config(pub Rules<RuleConfig>);

/// A rule: `allow` or `deny`, and a network, `all`, `unix`, or `file:` and the path of a list.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "IpRule", example = &"allow 10.0.0.0/8", example = &"deny all")]
#[schemars(extend("pattern" = "^(allow|deny) .*[^ ]"))]
pub struct RuleConfig {
    verdict: Verdict,
    whom: Whom,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Whom {
    All,
    /// Clients on a Unix socket.
    Unix,
    Network(IpNet),
    File(PathBuf),
}

/// Why a rule is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}\nhelp: {1}")]
pub struct NoRule(String, &'static str);

impl FromStr for RuleConfig {
    type Err = NoRule;

    fn from_str(text: &str) -> Result<Self, NoRule> {
        const EXAMPLE: &str = "write `allow 10.0.0.0/8`, `deny file:bad.txt` or `deny all`";
        let (verdict, whom) = Verdict::split(text, "ip").map_err(|why| NoRule(why, EXAMPLE))?;
        let whom = match whom {
            "all" => Whom::All,
            "unix" => Whom::Unix,
            whom => match whom.strip_prefix("file:") {
                Some("") => return Err(NoRule("a file has no name".to_owned(), EXAMPLE)),
                Some(path) => Whom::File(path.into()),
                None => Whom::Network(network(whom).map_err(|why| NoRule(why, EXAMPLE))?),
            },
        };
        Ok(Self { verdict, whom })
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<Network>().map(|network| network.0).map_err(|why| {
        let why = why.to_string();
        why.lines().next().unwrap_or_default().to_owned()
    })
}

impl<'de> Deserialize<'de> for RuleConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a rule such as `allow 10.0.0.0/8`")
    }
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    rules: Box<[Rule]>,
}

#[derive(Debug)]
struct Rule {
    verdict: Verdict,
    whom: Clients,
}

#[derive(Debug)]
enum Clients {
    All,
    Unix,
    /// Sorted, and none within another, so that one look finds the only one that may hold a client.
    Networks(Box<[IpNet]>),
}

impl Config {
    /// Reads the lists, and sorts the networks.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        let is_all = |rule: &RuleConfig| rule.whom == Whom::All;
        if !verdict::end_with_all(&self.0, is_all, ("a", "client"), cx) {
            return None;
        }
        let mut rules = Vec::new();
        for rule in &self.0.value {
            let whom = match &rule.value.whom {
                Whom::All => Clients::All,
                Whom::Unix => Clients::Unix,
                Whom::Network(network) => Clients::Networks(Box::new([*network])),
                Whom::File(path) => {
                    let text = cx.read(path, rule.span)?;
                    Clients::Networks(list(&text, path, rule, cx)?)
                }
            };
            rules.push(Rule { verdict: rule.value.verdict, whom });
        }
        Some(Policy { rules: rules.into() })
    }
}

/// Reads a list: a network on each line, with comments behind `#`.
fn list(
    text: &[u8],
    path: &Path,
    rule: &Spanned<RuleConfig>,
    cx: &mut Build<'_>,
) -> Option<Box<[IpNet]>> {
    let (text, mut networks, mut is_good) = (String::from_utf8_lossy(text), Vec::new(), true);
    for (index, line) in text.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        match network(entry) {
            Ok(network) => networks.push(network),
            Err(why) => {
                let message = format!("line {} of `{}`: {why}", index + 1, path.display());
                cx.problem_at(rule.span, message, "write an address or a network on each line");
                is_good = false;
            }
        }
    }
    is_good.then(|| IpNet::aggregate(&networks).into())
}

impl Rule {
    fn names(&self, client: Option<IpAddr>) -> bool {
        match (&self.whom, client) {
            (Clients::All, _) | (Clients::Unix, None) => true,
            (Clients::Networks(networks), Some(client)) => {
                // The last that begins at the client or before it.
                let after = networks.partition_point(|network| network.network() <= client);
                after.checked_sub(1).is_some_and(|at| networks[at].contains(&client))
            }
            (Clients::Networks(_), None) | (Clients::Unix, Some(_)) => false,
        }
    }
}

impl Written for Config {
    fn files(&self) -> Vec<&Path> {
        let written = self.0.value.iter();
        let files = written.filter_map(|rule| match &rule.value.whom {
            Whom::File(path) => Some(path.as_path()),
            _ => None,
        });
        files.collect()
    }
}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let client = request.facts.client;
        let rule = self.rules.iter().find(|rule| rule.names(client));
        if rule.is_some_and(|rule| rule.verdict == Verdict::Allow) {
            return Flow::Continue;
        }
        request.notes.reason = Some(Reason::IpDenied);
        Flow::Respond(Reply::status(403))
    }
}

impl fmt::Display for RuleConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = self.verdict.as_str();
        match &self.whom {
            Whom::All => write!(f, "{verdict} all"),
            Whom::Unix => write!(f, "{verdict} unix"),
            Whom::Network(network) => write!(f, "{verdict} {network}"),
            Whom::File(path) => write!(f, "{verdict} file:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::policy::tests::{Given, build, problems};

    fn refused(policy: &Policy, client: &str) -> Option<u16> {
        Given::request("GET", "/").from(client).refused(policy)
    }

    #[test]
    fn the_first_rule_that_names_a_client_decides() {
        let rules = r#"["deny 10.0.0.7", "allow 10.0.0.0/8", "allow 2001:db8::/32", "deny all"]"#;
        let policy = build(rules, |config: &Config, cx| config.build(cx));
        assert_eq!(refused(&policy, "10.0.0.7"), Some(403));
        assert_eq!(refused(&policy, "10.0.0.8"), None);
        assert_eq!(refused(&policy, "::ffff:10.0.0.8"), None, "a mapped address is the same");
        assert_eq!(refused(&policy, "2001:db8::1"), None);
        assert_eq!(refused(&policy, "2001:db9::1"), Some(403));
        assert_eq!(refused(&policy, "192.0.2.7"), Some(403));
    }

    #[test]
    fn a_list_is_read_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.txt");
        fs::write(&path, "# known bad\n192.0.2.0/25\n192.0.2.200 # one more\n\n::1\n").unwrap();
        let rules = format!(r#"["deny file:{}", "allow all"]"#, path.display());
        let policy = build(&rules, |config: &Config, cx| config.build(cx));
        for (client, expected) in [
            ("192.0.2.7", Some(403)),
            ("192.0.2.127", Some(403)),
            ("192.0.2.128", None),
            ("192.0.2.200", Some(403)),
            ("::1", Some(403)),
            ("::2", None),
        ] {
            assert_eq!(refused(&policy, client), expected, "{client}");
        }
        fs::write(&path, "192.0.2.0/33\n").unwrap();
        let told = problems(&rules, |config: &Config, cx| config.build(cx));
        assert!(told[0].starts_with("line 1 of"), "{told:?}");
    }

    #[test]
    fn a_list_without_an_end_is_refused() {
        let told = problems(r#"["allow 10.0.0.0/8"]"#, |config: &Config, cx| config.build(cx));
        assert_eq!(told, ["what becomes of all other clients is not said"]);
        let rules = r#"["deny all", "allow 10.0.0.0/8"]"#;
        let told = problems(rules, |config: &Config, cx| config.build(cx));
        assert_eq!(told, ["this rule is never asked"]);
    }

    #[test]
    fn what_is_written_is_printed_back() {
        for text in ["allow all", "deny unix", "deny file:a.txt", "allow 10.0.0.0/8"] {
            assert_eq!(text.parse::<RuleConfig>().unwrap().to_string(), text);
        }
        for text in ["allow", "permit all", "deny 10.0.0.0/33", "deny file:"] {
            assert!(text.parse::<RuleConfig>().is_err(), "{text}");
        }
    }

    proptest::proptest! {
        /// One look at the sorted list agrees with a look at every network.
        #[test]
        fn one_look_agrees_with_a_scan(
            networks in proptest::collection::vec((0u32..64, 24u8..=32), 0..20), client in 0u32..64
        ) {
            let address = |low: u32| IpAddr::from((0x0a00_0000 + low * 16).to_be_bytes());
            let all: Vec<IpNet> = networks
                .iter()
                .map(|(low, prefix)| IpNet::new(address(*low), *prefix).unwrap().trunc())
                .collect();
            let rule = Rule {
                verdict: Verdict::Deny,
                whom: Clients::Networks(IpNet::aggregate(&all).into()),
            };
            let scanned = all.iter().any(|network| network.contains(&address(client)));
            proptest::prop_assert_eq!(rule.names(Some(address(client))), scanned);
        }
    }
}
