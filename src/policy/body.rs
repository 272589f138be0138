//! What changes the body of an answer on its way to the client, piece by piece.

use std::{fmt, time::Duration};

use bytes::Bytes;
use pingora::Result;

/// Changes a body, or holds it back.
pub trait BodyFilter: Send + Sync {
    /// Lets a piece pass; what is left in `body` goes on. The last one may be empty, and is the
    /// time to write what was kept. Answers how long the client is to wait for what follows.
    ///
    /// # Errors
    /// If the body cannot be passed on whole: the client's connection breaks.
    fn pass(&mut self, body: &mut Option<Bytes>, is_last: bool) -> Result<Duration>;
}

/// What the policies of a route want with the body of one answer, in the order of its way.
#[derive(Default)]
pub struct BodyFilters(Vec<Box<dyn BodyFilter>>);

impl BodyFilters {
    /// Adds one behind the others.
    pub fn push(&mut self, filter: impl BodyFilter + 'static) {
        self.0.push(Box::new(filter));
    }

    /// Whether bodies pass as they are.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets a piece pass all of them.
    ///
    /// # Errors
    /// If one of them cannot go on.
    pub fn pass(&mut self, body: &mut Option<Bytes>, is_last: bool) -> Result<Option<Duration>> {
        let mut pause = Duration::ZERO;
        for filter in &mut self.0 {
            pause += filter.pass(body, is_last)?;
        }
        Ok((!pause.is_zero()).then_some(pause))
    }
}

impl fmt::Debug for BodyFilters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BodyFilters({})", self.0.len())
    }
}
