//! The requests that are recorded: lists of them, and the story of one.

use std::{fmt, str::FromStr, sync::Arc, time::SystemTime};

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    admin::answer::refused,
    observe::recorder::{Kind, Record, Recorder},
    units::Duration,
};

/// What is recorded, by why it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Requests {
    /// The last that failed, the last first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Vec<Arc<Record>>>,
    /// The last that were refused, the last first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Vec<Arc<Record>>>,
    /// The slowest of the last ten to twenty minutes, the slowest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<Vec<Arc<Record>>>,
}

/// What is asked for, as parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(inline)]
pub(super) struct Wanted {
    /// Only of this kind.
    #[schemars(with = "Kind")]
    kind: Option<Kind>,
    /// Only what ended within this time.
    #[schemars(with = "Duration")]
    since: Option<Duration>,
    /// At most so many of each kind.
    #[schemars(with = "u16")]
    limit: Option<u16>,
}

impl Wanted {
    fn read(query: &str) -> Result<Self, String> {
        let mut wanted = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "kind" => wanted.kind = Some(Kind::from_str(&value)?),
                "since" => {
                    let since = value.parse().map_err(|why| format!("`since`: {why}"))?;
                    wanted.since = Some(since);
                }
                "limit" => {
                    let limit = value.parse().map_err(|why| format!("`limit`: {why}"))?;
                    wanted.limit = Some(limit);
                }
                _ => {
                    return Err(format!(
                        "no parameter `{name}`: there are `kind`, `since` and `limit`"
                    ));
                }
            }
        }
        Ok(wanted)
    }
}

/// Answers with lists.
pub(super) fn list(recorder: &Recorder, query: Option<&str>) -> (StatusCode, Value) {
    match Wanted::read(query.unwrap_or_default()) {
        Ok(wanted) => (StatusCode::OK, json!(Requests::of(recorder, wanted))),
        Err(why) => (StatusCode::BAD_REQUEST, refused(&why)),
    }
}

/// Answers with one.
pub(super) fn one(recorder: &Recorder, id: &str) -> (StatusCode, Value) {
    match recorder.find(id, Instant::now()) {
        Some(record) => (StatusCode::OK, json!(record)),
        None => (
            StatusCode::NOT_FOUND,
            refused(
                "no request with this id is recorded: it was good and quick, or is forgotten, or \
                 another process answered it",
            ),
        ),
    }
}

impl Requests {
    fn of(recorder: &Recorder, wanted: Wanted) -> Self {
        let now = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
        let since = wanted.since.map(|since| {
            let since = SignedDuration::try_from(since.0).unwrap_or(SignedDuration::MAX);
            now.saturating_sub(since).unwrap_or(Timestamp::MIN)
        });
        let list = |kind| {
            wanted.kind.is_none_or(|wanted| wanted == kind).then(|| {
                let mut kept = recorder.list(kind, Instant::now());
                kept.retain(|record| since.is_none_or(|since| since <= record.ended()));
                kept.truncate(wanted.limit.map_or(usize::MAX, usize::from));
                kept
            })
        };
        Self { failed: list(Kind::Failed), refused: list(Kind::Refused), slow: list(Kind::Slow) }
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [("failed", &self.failed), ("refused", &self.refused), ("slow", &self.slow)];
        for (title, list) in lists.iter().filter_map(|(title, list)| Some((title, list.as_ref()?)))
        {
            writeln!(f, "{title}: {}", list.len())?;
            for record in list {
                writeln!(f, "  {record}")?;
            }
        }
        Ok(())
    }
}
