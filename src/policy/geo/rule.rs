//! Rules by where a client is: `deny country:DE,AT`, `allow asn:64496`, `deny unknown`.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{
    policy::{
        geo::base::Kind,
        verdict::Verdict,
        whereabouts::{Code, Whereabouts},
    },
    yaml,
};

/// A rule: `allow` or `deny`, and `country:`, `continent:` or `asn:` with codes or numbers;
/// `unknown`, for clients of whom no base tells anything; or `all`. Among codes and numbers,
/// `unknown` stands for a client of whom that is not known. Continents are `AF`, `AN`, `AS`, `EU`,
/// `NA`, `OC` and `SA`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "GeoRule")]
#[schemars(example = &"allow country:DE,AT", example = &"deny asn:64496", example = &"deny unknown")]
#[schemars(extend("pattern" = "^(allow|deny) (all|unknown|(country|continent|asn):[A-Za-z0-9,]+)$"))]
pub struct RuleConfig {
    pub(super) verdict: Verdict,
    pub(super) whom: Whom,
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    All,
    Unknown,
    Countries(Box<[Option<Code>]>),
    Continents(Box<[Option<Code>]>),
    Systems(Box<[Option<u32>]>),
}

/// Why a rule is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}\nhelp: {1}")]
pub struct NoRule(String, &'static str);

const EXAMPLE: &str = "write `allow country:DE,AT`, `deny continent:AN`, `deny asn:64496`, `deny unknown` or `deny all`";

impl FromStr for RuleConfig {
    type Err = NoRule;

    fn from_str(text: &str) -> Result<Self, NoRule> {
        let (verdict, whom) = Verdict::split(text, "geo").map_err(|why| NoRule(why, EXAMPLE))?;
        let whom = match (whom, whom.split_once(':')) {
            ("all", _) => Whom::All,
            ("unknown", _) => Whom::Unknown,
            (_, Some(("country", codes))) => Whom::Countries(each(codes, country)?),
            (_, Some(("continent", codes))) => Whom::Continents(each(codes, continent)?),
            (_, Some(("asn", numbers))) => Whom::Systems(each(numbers, system)?),
            _ => return Err(NoRule(format!("`{whom}` is nobody that a rule is about"), EXAMPLE)),
        };
        Ok(Self { verdict, whom })
    }
}

/// Reads a list with commas, in which `unknown` stands for none.
fn each<T>(
    text: &str,
    read: impl Fn(&str) -> Result<T, NoRule>,
) -> Result<Box<[Option<T>]>, NoRule> {
    let words = text.split(',').map(str::trim);
    words.map(|word| if word == "unknown" { Ok(None) } else { read(word).map(Some) }).collect()
}

fn country(text: &str) -> Result<Code, NoRule> {
    if text.eq_ignore_ascii_case("uk") {
        return Err(NoRule("`UK` is the code of no country".to_owned(), "write `GB`"));
    }
    let wrong = |()| NoRule(format!("`{text}` is the code of no country"), TWO_LETTERS);
    text.parse().map_err(wrong)
}

const TWO_LETTERS: &str = "write the two letters of ISO 3166-1, such as `DE`";

fn continent(text: &str) -> Result<Code, NoRule> {
    const ALL: [&str; 7] = ["AF", "AN", "AS", "EU", "NA", "OC", "SA"];
    let help = "write AF, AN, AS, EU, NA, OC or SA";
    let code = text.parse().ok().filter(|code: &Code| ALL.contains(&&*code.to_string()));
    code.ok_or_else(|| NoRule(format!("`{text}` is the code of no continent"), help))
}

fn system(text: &str) -> Result<u32, NoRule> {
    let digits = text.strip_prefix("AS").unwrap_or(text);
    let number = digits.parse().ok().filter(|_| !digits.starts_with('+'));
    number.ok_or_else(|| NoRule(format!("`{text}` is no AS number"), "write a number: `64496`"))
}

impl<'de> Deserialize<'de> for RuleConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a rule such as `allow country:DE`")
    }
}

impl Whom {
    /// The base that tells of them, if a certain one must.
    pub(super) fn kind(&self) -> Option<Kind> {
        match self {
            Self::All | Self::Unknown => None,
            Self::Countries(_) | Self::Continents(_) => Some(Kind::Countries),
            Self::Systems(_) => Some(Kind::Systems),
        }
    }

    /// Whether it names a client that is there.
    pub(super) fn names(&self, place: &Whereabouts) -> bool {
        match self {
            Self::All => true,
            Self::Unknown => *place == Whereabouts::default(),
            Self::Countries(codes) => codes.contains(&place.country),
            Self::Continents(codes) => codes.contains(&place.continent),
            Self::Systems(numbers) => numbers.contains(&place.asn),
        }
    }
}

impl fmt::Display for RuleConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = self.verdict.as_str();
        match &self.whom {
            Whom::All => write!(f, "{verdict} all"),
            Whom::Unknown => write!(f, "{verdict} unknown"),
            Whom::Countries(codes) => write!(f, "{verdict} country:{}", listed(codes)),
            Whom::Continents(codes) => write!(f, "{verdict} continent:{}", listed(codes)),
            Whom::Systems(numbers) => write!(f, "{verdict} asn:{}", listed(numbers)),
        }
    }
}

fn listed<T: ToString>(all: &[Option<T>]) -> String {
    let word = |one: &Option<T>| one.as_ref().map_or("unknown".to_owned(), T::to_string);
    all.iter().map(word).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_printed_back() {
        for text in [
            "allow all",
            "deny unknown",
            "allow country:DE,AT",
            "deny continent:AN,unknown",
            "deny asn:64496,unknown",
        ] {
            assert_eq!(text.parse::<RuleConfig>().unwrap().to_string(), text);
        }
        let same = |one: &str, two: &str| assert_eq!(one.parse::<RuleConfig>(), two.parse());
        same("allow country:de", "allow country:DE");
        same("allow asn:AS64496", "allow asn:64496");
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for (text, why) in [
            ("allow", "is no rule of `geo`"),
            ("permit all", "is no verdict"),
            ("deny DE", "is nobody that a rule is about"),
            ("deny country:", "is the code of no country"),
            ("deny country:DEU", "is the code of no country"),
            ("deny country:UK", "write `GB`"),
            ("deny continent:XX", "is the code of no continent"),
            ("deny asn:AS", "is no AS number"),
            ("deny asn:4294967296", "is no AS number"),
        ] {
            let told = text.parse::<RuleConfig>().unwrap_err().to_string();
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
