//! What a request carries from its first hook to its line in the log.
//!
//! INVARIANT: every count that a request takes is held here as a guard, so that it is given back
//! whenever the request ends, also when the client hangs up and no later hook runs.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Uri};
use pingora_http::RequestHeader;
use tokio::time::Instant;

use crate::{
    clock::Brief,
    downstream::connection::Exchange,
    policy::{
        Policies,
        body::BodyFilters,
        contract::{Facts, Notes},
        identity::Identity,
    },
    proxy::{cached, mirror},
    reason::Reason,
    snapshot::Route,
    traces::Trace,
    upstream::{
        attempts::{Attempts, Begun},
        backend::InFlight,
        outcome::Outcome,
    },
};

/// A request on its way.
pub struct Context {
    /// When its first hook ran.
    pub(crate) started: Instant,
    /// Its id.
    pub(crate) id: HeaderValue,
    /// Its connection; `None` before the first hook.
    pub(crate) connection: Option<Exchange>,
    /// The client, as far as trusted proxies tell.
    pub(crate) client: Option<IpAddr>,
    /// The route, kept to the end whatever is reloaded meanwhile.
    pub(crate) route: Option<Arc<Route>>,
    /// The trace that it belongs to; `None` where nothing is traced.
    pub(crate) trace: Option<Trace>,
    /// What the origin is asked for, if it differs from what the client sent.
    pub(crate) target: Option<Uri>,
    /// From the start until the route was found.
    pub(crate) routed: Option<Brief>,
    /// From the start until its policies let the request pass, or answered it.
    pub(crate) judged: Option<Brief>,
    /// Who it is, as far as the policies of the route have found out.
    pub(crate) who: Identity,
    /// What the policies of the route noted.
    pub(crate) notes: Notes,
    /// What changes the body of the answer.
    pub(crate) filters: BodyFilters,
    /// What is known of it where answers are kept; `None` on other routes.
    pub(crate) cache: Option<Box<cached::State>>,
    /// When the head of an answer must be here, whatever happens; `None` is never.
    pub(crate) deadline: Option<Instant>,
    /// How long the origin asked to be left alone, before the next attempt.
    pub(crate) pause: Option<Duration>,
    /// What became of the body when another attempt was wanted.
    pub(crate) replay: Option<Replay>,
    /// The attempts so far.
    pub(crate) attempts: Attempts,
    /// The place at the backend of the current attempt, or the one reserved for the first.
    pub(crate) in_flight: Option<InFlight>,
    /// Whether the head of an answer came from the origin.
    pub(crate) is_answered: bool,
    /// The current attempt.
    pub(crate) attempt: Begun,
    /// Whether the whole request was handed on in this attempt.
    pub(crate) is_sent: bool,
    /// Bytes of the request's body in this attempt.
    pub(crate) body_bytes: u64,
    /// Interim answers (1xx) of this attempt.
    pub(crate) interim: u32,
    /// What becomes of its copy.
    pub(crate) mirror: mirror::State,
    /// Why Crestline refused or failed the request, in one word.
    pub(crate) reason: Option<Reason>,
    /// The status that was given up on, when nothing could be sent to the client.
    pub(crate) unsent_status: Option<u16>,
}

impl Context {
    /// A request that has just arrived.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            id: HeaderValue::from_static("-"),
            connection: None,
            client: None,
            route: None,
            trace: None,
            target: None,
            routed: None,
            judged: None,
            who: Identity::default(),
            notes: Notes::default(),
            filters: BodyFilters::default(),
            cache: None,
            deadline: None,
            pause: None,
            replay: None,
            attempts: Attempts::default(),
            in_flight: None,
            is_answered: false,
            attempt: Begun::at(now),
            is_sent: false,
            body_bytes: 0,
            interim: 0,
            mirror: mirror::State::default(),
            reason: None,
            unsent_status: None,
        }
    }

    /// What policies are told of the request; `None` before it has a route.
    pub(crate) fn facts<'a>(&'a self, header: &'a RequestHeader) -> Option<Facts<'a>> {
        let (route, connection) = (self.route.as_ref()?, self.connection.as_ref()?);
        let current = self.in_flight.as_ref().map(|taken| taken.member().state.name());
        Some(Facts {
            header,
            canonical: self.target.as_ref(),
            connection,
            client: self.client,
            id: &self.id,
            who: &self.who,
            route: &route.name,
            upstream: route.upstream.name(),
            backend: current.or_else(|| self.attempts.last_backend()),
        })
    }

    /// The same, with where they note things, and the policies themselves.
    pub(crate) fn exchange<'a>(
        &'a mut self,
        header: &'a RequestHeader,
    ) -> Option<(Facts<'a>, &'a mut Notes, &'a Policies)> {
        let (route, connection) = (self.route.as_ref()?, self.connection.as_ref()?);
        let facts = Facts {
            header,
            canonical: self.target.as_ref(),
            connection,
            client: self.client,
            id: &self.id,
            who: &self.who,
            route: &route.name,
            upstream: route.upstream.name(),
            backend: None,
        };
        Some((facts, &mut self.notes, &route.policies))
    }

    /// Ends the current attempt: records it, tells the upstream, and gives its place back.
    pub(crate) fn end_attempt(&mut self, outcome: Outcome) {
        let (Some(in_flight), Some(route)) = (self.in_flight.take(), &self.route) else { return };
        let (member, now) = (in_flight.member(), Instant::now());
        let took = now.saturating_duration_since(self.attempt.at);
        route.upstream.report_latency(member, outcome, took, now);
        self.attempt.has_ejected |= route.upstream.report(member, outcome, now);
        if matches!(outcome, Outcome::Timeout | Outcome::ConnectTimeout | Outcome::Outrun) {
            in_flight.took(took, now);
        }
        self.attempts.record(member.clone(), outcome, self.attempt.times(self.started, now));
    }
}

impl Context {
    /// From the start to the head of the answer.
    pub(crate) fn first_byte(&self) -> Option<Duration> {
        self.attempt.first_byte.map(|at| at.saturating_duration_since(self.started))
    }

    /// From the start until now, for the story of the request.
    pub(crate) fn since_start(&self) -> Brief {
        Brief::between(self.started, Instant::now())
    }

    /// Whether the time of the route is over.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// When the head of an answer must be here that is asked for at `from`: within the time of
    /// an attempt, and within that of the route.
    pub(crate) fn limit(&self, from: Instant) -> Option<Instant> {
        let per_try = self.route.as_ref().and_then(|route| route.upstream.retry_policy().per_try);
        let per_try = per_try.map(|time| from + time);
        self.deadline.into_iter().chain(per_try).min()
    }

    /// Whether the request's body can be sent again: all that was read of it is kept, and it is
    /// no longer than the upstream allows.
    pub(crate) fn keeps_body(&self, is_truncated: bool) -> bool {
        let max = self.route.as_ref().map_or(0, |route| route.upstream.retry_policy().buffer);
        !is_truncated && self.body_bytes <= max
    }
}

/// What became of the body when another attempt was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    /// So many bytes were sent again.
    Sent(u64),
    /// It was too long to be kept, so that there was no other attempt.
    TooLong,
}
