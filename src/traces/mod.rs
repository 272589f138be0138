//! Traces: requests as spans of OpenTelemetry.
//!
//! A request whose route traces begins a [`Trace`], or goes on with the one that it came with
//! (`propagation`), and it is decided whether that is recorded ([`sampling`]). Each attempt tells
//! its origin the id of its own span. When the request is over, its story is [`Finished`], and an
//! [`Exporter`] makes spans of it and brings them to the receiver, by a thread of its own.
//!
//! INVARIANT: a request that is not traced allocates nothing here but the fields that its origin is
//! sent; one that is traced waits for nobody, and what finds no room is dropped and counted.

mod b3;
pub mod config;
mod exporter;
mod finished;
mod propagation;
pub mod sampling;
pub mod w3c;

use std::sync::Arc;

use http::HeaderMap;

pub use self::{
    exporter::{Exporter, Outlet},
    finished::{Finished, Mark},
};
use crate::{
    observe::traced::{SpanId, TraceId, Traced},
    routing::request::RequestParts,
    traces::{config::Propagator, propagation::Given, sampling::Sampling},
};

/// What a request carries of the trace that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The trace, and the span of the request.
    pub ids: Traced,
    /// The span that it came from, which is another program's.
    pub parent: Option<SpanId>,
    /// Whether it is recorded.
    pub is_sampled: bool,
    /// Flags of W3C, as they came.
    flags: u8,
    /// Whether `tracestate` belongs to it.
    pub keeps_state: bool,
}

/// How the requests of a route are traced.
#[derive(Debug)]
pub struct Tracing {
    propagation: Box<[Propagator]>,
    sampling: Sampling,
    outlet: Arc<Outlet>,
}

impl Tracing {
    /// Takes how traces go on, which are recorded, and where.
    pub fn new(propagation: Box<[Propagator]>, sampling: Sampling, outlet: Arc<Outlet>) -> Self {
        Self { propagation, sampling, outlet }
    }

    /// Where spans go.
    pub fn outlet(&self) -> &Arc<Outlet> {
        &self.outlet
    }

    /// Begins the span of a request. A trace goes on whoever sent it; whether it is recorded is
    /// for us to say, unless a client that is trusted has said so.
    pub fn begin(&self, request: &RequestParts<'_>, is_trusted: bool) -> Trace {
        let given = propagation::read(&self.propagation, request.headers);
        let Given { parent, is_sampled, flags, keeps_state } = given;
        let trace = parent.map_or_else(TraceId::random, |(trace, _)| trace);
        let is_strange = !is_trusted && parent.is_some();
        let told = is_sampled.filter(|_| is_trusted);
        let decide = || self.sampling.takes(request, trace, is_strange);
        Trace {
            ids: Traced { trace, span: SpanId::random() },
            parent: parent.map(|(_, span)| span),
            is_sampled: told.unwrap_or_else(decide),
            flags,
            keeps_state,
        }
    }

    /// Tells an origin the span of an attempt, by the number of the attempt.
    pub fn tell(&self, trace: &Trace, attempt: u8, headers: &mut HeaderMap) {
        propagation::tell(&self.propagation, trace, trace.ids.span.below(attempt), headers);
    }

    /// Has the spans of a request exported.
    pub fn export(&self, request: Finished) {
        self.outlet.exporter().offer(request);
    }
}

#[cfg(test)]
mod tests;
