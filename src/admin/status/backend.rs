//! One backend, as `crestline status` and the orders for it tell of it.

use std::{fmt, time::SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    acme::instant,
    upstream::backend::{Availability, Member},
};

/// A backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BackendStatus {
    /// Its address.
    pub address: String,
    /// Its share, relative to the others.
    pub weight: u16,
    /// The share that the file gives it, where the operator ordered another.
    #[serde(default)]
    pub weight_in_file: Option<u16>,
    /// Whether it may take a request: `ready`, `trial`, `unhealthy`, `ejected` or `draining`.
    pub availability: Availability,
    /// Whether the operator drains it.
    #[serde(default)]
    pub drained: bool,
    /// For how long it is ejected still, begun seconds included.
    pub ejected_seconds: Option<u64>,
    /// Requests that it is answering.
    pub in_flight: u32,
    /// Attempts that were made at it since the process knows it.
    #[serde(default)]
    pub attempts: u64,
    /// Those of them that failed.
    #[serde(default)]
    pub failures: u64,
    /// How often it was ejected.
    #[serde(default)]
    pub ejections: u64,
    /// How an attempt last failed, in the words of the access log.
    #[serde(default)]
    pub last_failure: Option<Trouble>,
    /// Why a check last failed.
    #[serde(default)]
    pub last_check_failure: Option<Trouble>,
}

/// What went wrong, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trouble {
    /// When, in UTC, as `2027-01-31T08:15:00Z`.
    pub at: String,
    /// What.
    pub what: String,
}

impl Trouble {
    pub(super) fn of((at, what): (SystemTime, impl ToString)) -> Self {
        Self { at: instant(at), what: what.to_string() }
    }
}

impl BackendStatus {
    /// A backend now.
    pub(in crate::admin) fn of(member: &Member) -> Self {
        let (state, now) = (&member.state, Instant::now());
        let availability = member.availability(now);
        let ejected = state.gate.ejected_until().filter(|_| availability == Availability::Ejected);
        let ejected = ejected.map(|until| until.saturating_duration_since(now));
        let written = member.target.weight;
        Self {
            address: state.name().to_owned(),
            weight: member.weight,
            weight_in_file: Some(written).filter(|written| *written != member.weight),
            availability,
            drained: state.orders.is_drained(),
            ejected_seconds: ejected.map(|rest| rest.as_secs() + 1),
            in_flight: state.in_flight(),
            attempts: state.attempts(),
            failures: state.failures(),
            ejections: state.ejections(),
            last_failure: state.troubles.attempt().map(Trouble::of),
            last_check_failure: state.troubles.check().map(Trouble::of),
        }
    }

    /// A line of a list in which the longest address is so wide.
    pub(super) fn show(&self, f: &mut fmt::Formatter<'_>, widest: usize) -> fmt::Result {
        let Self { address, weight, in_flight, .. } = self;
        let word = self.availability.as_str();
        write!(f, "  {address:widest$}  {word:9}  weight {weight}")?;
        if let Some(written) = self.weight_in_file {
            write!(f, " (by order; {written} in the file)")?;
        }
        write!(f, ", {in_flight} in flight")?;
        if self.drained {
            f.write_str(", drained by order")?;
        }
        if let Some(rest) = self.ejected_seconds {
            write!(f, ", ejected for {rest}s")?;
        }
        writeln!(f)
    }
}
