//! What is known of the process, and in which order it is shown.

use std::{collections::VecDeque, mem, str::FromStr};

use crate::{
    admin::{
        client::ClientError,
        live::{Pulse, Second, Start, Tick},
        status::UpstreamStatus,
    },
    cli::top::{
        feed::News,
        row::{Meters, Row},
    },
};

/// Seconds that are kept to be drawn.
const HISTORY: usize = 300;

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// What has the most to do.
    Load,
    /// What fails the most.
    Errors,
    /// As the alphabet has it.
    Name,
}

impl Order {
    /// In one word.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Errors => "errors",
            Self::Name => "name",
        }
    }
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Load, Self::Errors, Self::Name];
        let found = all.into_iter().find(|order| order.as_str() == text);
        found.ok_or_else(|| "write `load`, `errors` or `name`".to_owned())
    }
}

/// All that is known.
pub(super) struct World {
    pub(super) order: Order,
    /// Why the process is not reached.
    pub(super) lost: Option<String>,
    /// Rows that are above the first that is shown.
    pub(super) above: usize,
    known: Option<Known>,
}

/// A process as it was last heard of.
pub(super) struct Known {
    pub(super) program: String,
    pub(super) pid: u32,
    pub(super) version: u64,
    pub(super) pulse: Pulse,
    pub(super) history: VecDeque<Second>,
    upstreams: Vec<UpstreamStatus>,
    meters: Meters,
}

impl World {
    /// Knows nothing yet.
    pub(super) fn new(order: Order) -> Self {
        Self { order, lost: None, above: 0, known: None }
    }

    /// Takes in what has come.
    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Start(start) => self.begin(*start),
            News::Tick(tick) => self.go(*tick),
            News::Lost(ClientError::Unreachable(_, why)) => self.lost = Some(why.to_string()),
            News::Lost(why) => self.lost = Some(why.to_string()),
        }
    }

    /// Is told everything.
    fn begin(&mut self, start: Start) {
        let Start { status, pulse, history, .. } = start;
        let old = self.known.take().filter(|old| old.pid == status.pid);
        let mut known = Known {
            program: status.program,
            pid: status.pid,
            version: status.configuration.version,
            pulse,
            history: history.into(),
            upstreams: status.upstreams,
            meters: old.map(|old| old.meters).unwrap_or_default(),
        };
        known.measure();
        (self.known, self.lost) = (Some(known), None);
    }

    /// Is told what has changed.
    fn go(&mut self, tick: Tick) {
        let Some(known) = &mut self.known else { return };
        known.pulse = tick.pulse;
        known.history.push_back(tick.second);
        if HISTORY < known.history.len() {
            known.history.pop_front();
        }
        for changed in tick.upstreams {
            known.change(changed);
        }
        known.measure();
        self.lost = None;
    }

    /// What was last heard.
    pub(super) fn known(&self) -> Option<&Known> {
        self.known.as_ref()
    }

    /// Shows what is further down, or up.
    pub(super) fn scroll(&mut self, rows: isize) {
        self.above = self.above.saturating_add_signed(rows);
    }

    /// The rows in their order: upstreams, each followed by its backends.
    pub(super) fn rows(&self) -> Vec<Row> {
        let Some(known) = &self.known else { return Vec::new() };
        let mut groups: Vec<_> =
            known.upstreams.iter().map(|one| Row::group(one, &known.meters)).collect();
        groups.sort_by(|(one, _), (other, _)| one.compare(other, self.order));
        let mut rows = Vec::new();
        for (upstream, mut backends) in groups {
            backends.sort_by(|one, other| one.compare(other, self.order));
            rows.push(upstream);
            rows.append(&mut backends);
        }
        rows
    }
}

impl Known {
    /// Replaces what is told of an upstream, of its backends those that are told of.
    fn change(&mut self, changed: UpstreamStatus) {
        let Some(one) = self.upstreams.iter_mut().find(|one| one.name == changed.name) else {
            return;
        };
        let mut backends = mem::take(&mut one.backends);
        for now in &changed.backends {
            if let Some(old) = backends.iter_mut().find(|old| old.address == now.address) {
                old.clone_from(now);
            }
        }
        *one = UpstreamStatus { backends, ..changed };
    }

    /// Notes how far all that is counted has come.
    fn measure(&mut self) {
        if let Some(last) = self.history.back() {
            self.meters.look(last.at_ms, &self.upstreams);
        }
    }
}
