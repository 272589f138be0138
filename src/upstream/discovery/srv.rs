//! Backends from DNS SRV records (RFC 2782).
//!
//! Targets of the lowest priority are used, and get their share by their weights. Names of targets
//! are resolved as any other.

use std::{fmt, str::FromStr, sync::Arc};

use async_trait::async_trait;
use hickory_resolver::proto::rr::rdata::SRV;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use tokio::time::{self, Instant};

use crate::{
    upstream::{
        config::{Address, WEIGHT_MAX, is_name},
        discovery::{
            dns::Resolver,
            source::{Answer, Failure, Found, Source, bounded},
        },
        target::Target,
    },
    yaml,
};

/// The name of SRV records.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "SrvName", example = &"_http._tcp.app.internal")]
#[schemars(extend("pattern" = r"^[A-Za-z0-9._-]+$"))]
pub struct Config(String);

impl FromStr for Config {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Self, NoName> {
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err(NoName(text.to_owned())) }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is no name of records.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no name of SRV records\nhelp: write a name such as `_http._tcp.app.internal`, without a port: the records tell it"
)]
pub struct NoName(String);

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a name such as `_http._tcp.app.internal`")
    }
}

/// Looks the records up when the last answer has run out.
pub struct Srv {
    name: String,
    resolver: Arc<Resolver>,
    due: Option<Instant>,
}

impl Srv {
    /// Prepares the lookups.
    pub fn new(config: &Config, resolver: &Arc<Resolver>) -> Self {
        Self { name: config.0.clone(), resolver: resolver.clone(), due: None }
    }
}

#[async_trait]
impl Source for Srv {
    async fn next(&mut self) -> Answer {
        if let Some(due) = self.due.take() {
            time::sleep_until(due).await;
        }
        let kept = self.resolver.services(&self.name).await?;
        self.due = Some(kept.until);
        found(&kept.found)
    }
}

/// The backends that records name: those of the lowest priority.
fn found(records: &[SRV]) -> Answer {
    // A target `.` says that there is no such service.
    let records = records.iter().filter(|record| !record.target.is_root());
    let first = records.clone().map(|record| record.priority).min();
    let records = records.filter(|record| Some(record.priority) == first);
    let heaviest = records.clone().map(|record| record.weight).max().unwrap_or(0);
    let mut all = Vec::new();
    for record in records {
        let text = record.target.to_utf8();
        let host = text.trim_end_matches('.');
        let address: Address = format!("{host}:{}", record.port)
            .parse()
            .map_err(|_| Failure(format!("a record names `{host}:{}`", record.port)))?;
        let found = Found { address, target: Target::of(share(record.weight, heaviest)) };
        if !all.contains(&found) {
            all.push(found);
        }
    }
    bounded(all)
}

/// A weight of 16 bits as a share of ours, in proportion to the heaviest; none is left without.
fn share(weight: u16, heaviest: u16) -> u16 {
    let (weight, heaviest) = (u32::from(weight), u32::from(heaviest));
    let max = u32::from(WEIGHT_MAX);
    let share = if heaviest <= max { weight } else { (weight * max).div_ceil(heaviest) };
    u16::try_from(share.clamp(1, max)).unwrap_or(WEIGHT_MAX)
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::Name;

    use super::*;

    fn record(priority: u16, weight: u16, port: u16, target: &str) -> SRV {
        SRV::new(priority, weight, port, Name::from_utf8(target).unwrap())
    }

    fn told(records: &[SRV]) -> Vec<(String, u16)> {
        let found = found(records).unwrap().into_iter();
        found.map(|found| (found.address.to_string(), found.target.weight)).collect()
    }

    #[test]
    fn the_lowest_priority_serves_with_its_weights() {
        let records = [
            record(20, 5, 81, "c.test."),
            record(10, 60, 80, "a.test."),
            record(10, 20, 8080, "b.test."),
            record(10, 20, 8080, "b.test."),
        ];
        assert_eq!(told(&records), [("a.test:80".to_owned(), 60), ("b.test:8080".to_owned(), 20)]);
    }

    #[test]
    fn weights_are_brought_into_our_range_in_proportion() {
        assert_eq!([0, 1, 256].map(|weight| share(weight, 256)), [1, 1, 256]);
        assert_eq!([0, 1, 32_768, 65_535].map(|weight| share(weight, 65_535)), [1, 1, 129, 256]);
        assert_eq!(share(0, 0), 1, "a zone that does not weigh");
    }

    #[test]
    fn a_root_target_says_that_there_is_no_service() {
        assert_eq!(told(&[record(0, 0, 0, ".")]), []);
    }

    #[test]
    fn a_record_that_names_no_backend_is_refused() {
        let why = found(&[record(0, 0, 0, "a.test.")]).unwrap_err();
        assert_eq!(why.to_string(), "a record names `a.test:0`");
    }
}
