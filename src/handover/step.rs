//! The steps of an upgrade, as they are told to whoever asked for it.

use std::{fmt, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::Instant};

/// More steps than an upgrade has.
const STEPS_MAX: usize = 16;

/// Something that happened, and when, counted from the beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// Milliseconds since the upgrade began.
    pub after_ms: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Event {
    /// The new binary finds nothing wrong with the configuration.
    Checked,
    /// The successor was started.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// The successor has the sockets, and what is known of backends.
    HandedOver {
        /// How many sockets there were.
        sockets: usize,
    },
    /// The successor serves, beside the old process.
    Serving,
    /// The successor serves alone. The end of an upgrade.
    Drains,
    /// There was no upgrade, and the old process serves on. The end, too.
    Refused {
        /// In words.
        why: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = Duration::from_millis(self.after_ms);
        match &self.event {
            Event::Checked => write!(f, "checked in {after:?}"),
            Event::Started { pid } => write!(f, "started as process {pid} after {after:?}"),
            Event::HandedOver { .. } => write!(f, "sockets handed over after {after:?}"),
            Event::Serving => write!(f, "serving after {after:?}"),
            Event::Drains => write!(f, "old process drains after {after:?}"),
            Event::Refused { why } => write!(f, "refused after {after:?}: {why}"),
        }
    }
}

/// Where steps are told. Nobody needs to listen.
pub(super) struct Steps {
    began: Instant,
    listener: mpsc::Sender<Step>,
}

impl Steps {
    pub(super) fn begin() -> (Self, mpsc::Receiver<Step>) {
        let (listener, steps) = mpsc::channel(STEPS_MAX);
        (Self { began: Instant::now(), listener }, steps)
    }

    pub(super) fn tell(&self, event: Event) {
        let after_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let _ = self.listener.try_send(Step { event, after_ms });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_to_people_and_to_programs() {
        let cases = [
            (Event::Checked, "checked in 12ms", "{\"step\":\"checked\",\"after_ms\":12}"),
            (
                Event::Started { pid: 7 },
                "started as process 7 after 12ms",
                "{\"step\":\"started\",\"pid\":7,\"after_ms\":12}",
            ),
            (
                Event::HandedOver { sockets: 2 },
                "sockets handed over after 12ms",
                "{\"step\":\"handed_over\",\"sockets\":2,\"after_ms\":12}",
            ),
            (Event::Serving, "serving after 12ms", "{\"step\":\"serving\",\"after_ms\":12}"),
            (
                Event::Drains,
                "old process drains after 12ms",
                "{\"step\":\"drains\",\"after_ms\":12}",
            ),
        ];
        for (event, words, json) in cases {
            let step = Step { event, after_ms: 12 };
            assert_eq!(step.to_string(), words);
            assert_eq!(serde_json::to_string(&step).unwrap(), json);
            assert_eq!(serde_json::from_str::<Step>(json).unwrap(), step);
        }
    }
}
