//! When the process has too much to do, as the operator writes it.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{
    units::{self, ByteSize, Duration, Percent, UnitError},
    yaml,
};

/// When new requests are shed, with `503` and `Retry-After`, because the process has too much to
/// do.
///
/// What the operator writes under `overload:`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Overload")]
pub struct Config {
    /// From how much memory on: a share of what the control group (or else the machine) allows,
    /// such as `90%`; a size of the process, such as `2GiB`; or `off`. A twentieth above, answers
    /// close their connections as well. Default: `90%`.
    pub memory: Bound,
    /// From which delay on that the event loops have which serve connections. Default: none.
    #[serde(deserialize_with = "delay")]
    #[schemars(with = "Duration", extend("pattern" = units::POSITIVE))]
    pub loop_delay: Option<Duration>,
}

fn delay<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    units::positive(deserializer).map(Some)
}

/// How much memory there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "MemoryBound", example = &"90%")]
#[schemars(extend("pattern" = "^(off|0*(100|[1-9][0-9]?)%|[0-9]*[1-9][0-9]*(B|KiB|MiB|GiB))$"))]
pub enum Bound {
    /// As much as there is.
    Off,
    /// A share of the limit of the control group, or of the machine's memory.
    Share(Percent),
    /// So much for the process.
    Size(ByteSize),
}

impl Default for Bound {
    fn default() -> Self {
        Self::Share(Percent::new(90))
    }
}

/// What bounds no memory.
#[derive(Debug, thiserror::Error)]
pub enum NoBound {
    /// It is nothing that is known.
    #[error("{0}")]
    Unit(#[from] UnitError),
    /// It leaves nothing.
    #[error("`{0}` leaves no memory at all\nhelp: write `90%`, `2GiB`, or `off`")]
    Nothing(String),
}

impl FromStr for Bound {
    type Err = NoBound;

    fn from_str(text: &str) -> Result<Self, NoBound> {
        let bound = match text {
            "off" => return Ok(Self::Off),
            _ if text.ends_with('%') => Self::Share(text.parse()?),
            _ => Self::Size(text.parse()?),
        };
        match bound {
            Self::Share(share) if share.get() == 0 => Err(NoBound::Nothing(text.to_owned())),
            Self::Size(ByteSize(0)) => Err(NoBound::Nothing(text.to_owned())),
            _ => Ok(bound),
        }
    }
}

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "`90%`, `2GiB`, or `off`")
    }
}
