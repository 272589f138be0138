//! Bodies of the operator's own for errors that Crestline answers with.

use std::{collections::BTreeMap, ops::RangeInclusive, path::Path, str::FromStr};

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{
    policy::{
        contract::{Build, Facts, Hooks, Page, Written},
        page::{self, Body},
        variable::When,
    },
    yaml::{self, Spanned},
};

/// Bodies for errors that Crestline answers with on this route, by status: `404`, `5xx` or
/// `500-504`. What origins answer is passed on as it is.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Config(pub BTreeMap<Statuses, Spanned<page::Config>>);

/// A status or several: `404`, `5xx`, `500-504`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String", rename = "ErrorStatuses", example = &"5xx")]
#[schemars(extend("pattern" = "^([45]xx|[45][0-9][0-9](-[45][0-9][0-9])?)$"))]
pub struct Statuses {
    first: u16,
    last: u16,
}

/// What names no errors.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no errors\nhelp: write `404`, `5xx` or `500-504`: errors are 400 to 599")]
pub struct NoStatuses(String);

impl FromStr for Statuses {
    type Err = NoStatuses;

    fn from_str(text: &str) -> Result<Self, NoStatuses> {
        let wrong = || NoStatuses(text.to_owned());
        let status = |text: &str| {
            let status = text.parse::<u16>().ok().filter(|_| text.len() == 3);
            status.filter(|status| (400..=599).contains(status)).ok_or_else(wrong)
        };
        let (first, last) = match (text, text.split_once('-')) {
            ("4xx", _) => (400, 499),
            ("5xx", _) => (500, 599),
            (_, Some((first, last))) => (status(first)?, status(last)?),
            (text, None) => (status(text)?, status(text)?),
        };
        if last < first { Err(wrong()) } else { Ok(Self { first, last }) }
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a status such as `404` or `5xx`")
    }
}

impl Statuses {
    fn range(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    /// Those that name fewer statuses first.
    pages: Box<[(Statuses, Body)]>,
}

impl Config {
    /// Reads the pages.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        let mut pages = Vec::new();
        for (statuses, page) in &self.0 {
            if page.body.is_none() && page.file.is_none() {
                cx.problem_at(page.span, "there is neither `body` nor `file`", "add one of them");
                continue;
            }
            pages.push((*statuses, page.build(When::Answered, cx)?));
        }
        pages.sort_by_key(|(statuses, _)| statuses.range().count());
        Some(Policy { pages: pages.into() })
    }
}

impl Written for Config {
    fn files(&self) -> Vec<&Path> {
        self.0.values().flat_map(|page| page.files()).collect()
    }
}

impl Hooks for Policy {
    fn page(&self, status: StatusCode, facts: &Facts<'_>) -> Option<Page> {
        let status = status.as_u16();
        let page = self.pages.iter().find(|(statuses, _)| statuses.range().contains(&status));
        page.map(|(_, body)| body.page(facts, status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{Given, build};

    #[test]
    fn the_narrowest_page_is_shown() {
        let config = "{ 5xx: { body: five }, 502-504: { body: some }, 503: { body: '{status}' } }";
        let policy = build(config, |config: &Config, cx| config.build(cx));
        let given = Given::request("GET", "/");
        let page = |status| {
            let page = policy.page(StatusCode::from_u16(status).unwrap(), &given.facts())?;
            Some(String::from_utf8(page.body.to_vec()).unwrap())
        };
        assert_eq!(page(503).as_deref(), Some("503"));
        assert_eq!(page(502).as_deref(), Some("some"));
        assert_eq!(page(500).as_deref(), Some("five"));
        assert_eq!(page(404), None);
    }

    #[test]
    fn what_names_no_error_is_refused() {
        for text in ["200", "6xx", "504-500", "5x", "0500", "400-600", ""] {
            assert_eq!(text.parse::<Statuses>(), Err(NoStatuses(text.to_owned())), "{text}");
        }
    }
}
