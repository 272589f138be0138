//! Who may ask, by country, continent or network: the first rule that names the client decides.
//!
//! The client is the one that trusted proxies tell; nobody else's word counts.

mod base;
mod rule;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    policy::{
        contract::{Build, Flow, Hooks, Request, Written},
        geo::{
            base::{Base, Damaged, Kind},
            rule::{RuleConfig, Whom},
        },
        variable::{Variable, Word},
        verdict::{self, Rules, Verdict},
        whereabouts::Whereabouts,
    },
    reason::Reason,
    reply::Reply,
    yaml::Spanned,
};

/// Who may ask, by where their address is, as bases in MaxMind's format tell (GeoLite2, DB-IP and
/// others); the others get `403`. Addresses of this machine and of private networks are known to
/// none of them. The bases are read with the configuration, at a reload if they have changed, and
/// with `watch: true` when they change; one that cannot be used changes nothing, and the last good
/// one counts on. It tells `{geo.country}`, `{geo.continent}` and `{geo.asn}`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Geo")]
pub struct Config {
    /// A base of countries or cities, such as `GeoLite2-Country.mmdb`, seen from the folder of the
    /// main file. Default: none.
    #[serde(default)]
    pub country: Option<Spanned<PathBuf>>,
    /// A base of AS numbers, such as `GeoLite2-ASN.mmdb`. Default: none.
    #[serde(default)]
    pub asn: Option<Spanned<PathBuf>>,
    /// Rules such as `["deny asn:64496", "allow country:DE,AT", "deny all"]`; the first that names
    /// the client decides, and the last must be for `all`.
    pub rules: Rules<RuleConfig>,
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    bases: Box<[(Kind, Arc<Base>)]>,
    rules: Box<[RuleConfig]>,
}

impl Config {
    /// Reads the bases, unless they were read before and have not changed.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        let is_all = |rule: &RuleConfig| rule.whom == Whom::All;
        let has_end = verdict::end_with_all(&self.rules, is_all, ("a", "client"), cx);
        if self.country.is_none() && self.asn.is_none() {
            let help = "add `country: GeoLite2-Country.mmdb`, or `asn: GeoLite2-ASN.mmdb`";
            cx.problem("no base tells where clients are", help);
            return None;
        }
        for rule in &self.rules.value {
            let (message, help) = match rule.whom.kind() {
                Some(Kind::Countries) if self.country.is_none() => {
                    ("no base tells countries", "add `country: GeoLite2-Country.mmdb`")
                }
                Some(Kind::Systems) if self.asn.is_none() => {
                    ("no base tells AS numbers", "add `asn: GeoLite2-ASN.mmdb`")
                }
                _ => continue,
            };
            cx.problem_at(rule.span, message, help);
        }
        let written = [(Kind::Countries, &self.country), (Kind::Systems, &self.asn)];
        let written = written.into_iter().filter_map(|(kind, file)| Some((kind, file.as_ref()?)));
        let bases: Vec<_> =
            written.map(|(kind, file)| Some((kind, base::read(file, kind, cx)?))).collect();
        let bases: Option<Vec<_>> = bases.into_iter().collect();
        let rules = self.rules.value.iter().map(|rule| rule.value.clone()).collect();
        Some(Policy { bases: bases.filter(|_| has_end)?.into(), rules })
    }
}

impl Policy {
    fn place(&self, client: Option<IpAddr>) -> Result<Whereabouts, Damaged> {
        let mut place = Whereabouts::default();
        if let Some(client) = client {
            for (kind, base) in &self.bases {
                base.look_up(*kind, client, &mut place)?;
            }
        }
        Ok(place)
    }
}

impl Written for Config {
    fn files(&self) -> Vec<&Path> {
        self.country.iter().chain(&self.asn).map(|file| file.value.as_path()).collect()
    }

    fn tells(&self, variable: &Variable) -> bool {
        match variable {
            Variable::One(Word::GeoCountry | Word::GeoContinent) => self.country.is_some(),
            Variable::One(Word::GeoAsn) => self.asn.is_some(),
            _ => false,
        }
    }
}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        if let Ok(place) = self.place(request.facts.client) {
            let rule = self.rules.iter().find(|rule| rule.whom.names(&place));
            if rule.is_some_and(|rule| rule.verdict == Verdict::Allow) {
                request.facts.who.tell_place(place);
                return Flow::Continue;
            }
        }
        request.notes.reason = Some(Reason::GeoDenied);
        Flow::Respond(Reply::status(403))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{Given, build, problems};

    fn refused(policy: &Policy, client: &str) -> bool {
        Given::request("GET", "/").from(client).refused(policy) == Some(403)
    }

    #[test]
    fn the_first_rule_that_names_where_a_client_is_decides() {
        let yaml = "{ country: tests/geo/country.mmdb, asn: tests/geo/asn.mmdb, rules: [deny asn:64497, allow country:DE, allow continent:AS, 'deny country:unknown', deny all] }";
        let policy = build(yaml, |config: &Config, cx| config.build(cx));
        for (client, expected) in [
            ("127.0.0.2", false),
            ("::ffff:127.0.0.2", false),
            ("2001:db8::1", false),
            ("127.0.0.3", true),
            ("127.0.0.4", false),
            ("192.0.2.7", true),
            ("10.0.0.1", true),
        ] {
            assert_eq!(refused(&policy, client), expected, "{client}");
        }
        let given = Given::request("GET", "/").from("127.0.0.2");
        given.ask(&policy);
        let told = |word| {
            let mut out = Vec::new();
            Variable::One(word).write(&given.facts(), None, &mut out);
            String::from_utf8(out).unwrap()
        };
        let told = [Word::GeoCountry, Word::GeoContinent, Word::GeoAsn].map(told);
        assert_eq!(told, ["DE", "EU", "64496"]);
    }

    #[test]
    fn an_address_that_no_base_knows_is_unknown() {
        let yaml = "{ asn: tests/geo/asn.mmdb, rules: [deny unknown, allow all] }";
        let policy = build(yaml, |config: &Config, cx| config.build(cx));
        assert!(refused(&policy, "10.0.0.1") && refused(&policy, "2001:db8::1"));
        assert!(!refused(&policy, "127.0.0.2"));
        let yaml = "{ asn: tests/geo/asn.mmdb, rules: [allow asn:unknown, deny all] }";
        let policy = build(yaml, |config: &Config, cx| config.build(cx));
        assert!(!refused(&policy, "10.0.0.1") && refused(&policy, "127.0.0.2"));
    }

    #[test]
    fn one_file_is_read_once_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mmdb");
        std::fs::copy("tests/geo/country.mmdb", &path).unwrap();
        let yaml =
            format!("{{ country: {}, rules: [deny country:DE, allow all] }}", path.display());
        let policy = || build(&yaml, |config: &Config, cx| config.build(cx));
        let (first, second) = (policy(), policy());
        assert!(Arc::ptr_eq(&first.bases[0].1, &second.bases[0].1));
        let moved = folder.path().join("b.mmdb");
        std::fs::copy("tests/geo/moved.mmdb", &moved).unwrap();
        std::fs::rename(&moved, &path).unwrap();
        let third = policy();
        assert!(refused(&second, "127.0.0.2") && !refused(&third, "127.0.0.2"));
        std::fs::write(&path, "nothing").unwrap();
        let told = problems(&yaml, |config: &Config, cx| config.build(cx));
        assert!(told[0].ends_with("is no base of MaxMind's format"), "{told:?}");
    }

    #[test]
    fn a_damaged_base_lets_nobody_in_of_whom_it_cannot_tell() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mmdb");
        let mut bytes = std::fs::read("tests/geo/asn.mmdb").unwrap();
        // The entries lie between sixteen zeros and the mark of the description.
        let zeros = bytes.windows(16).rposition(|bytes| bytes == [0; 16]).unwrap();
        let end = bytes.windows(3).rposition(|bytes| bytes == [0xab, 0xcd, 0xef]).unwrap();
        bytes[zeros + 16..end].fill(0xff);
        std::fs::write(&path, bytes).unwrap();
        let yaml = format!("{{ asn: {}, rules: [allow all] }}", path.display());
        let policy = build(&yaml, |config: &Config, cx| config.build(cx));
        assert!(refused(&policy, "127.0.0.2") && !refused(&policy, "10.0.0.1"));
    }
}
