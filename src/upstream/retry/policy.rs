//! What is worth another try.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode};

use crate::upstream::{
    outcome::Outcome,
    retry::{budget, pause::Backoff},
};

/// When a request is tried again, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Retries of one request.
    pub max: usize,
    /// What they are for.
    pub on: Conditions,
    /// How long an attempt may take to the head of its answer, the sending of a body apart.
    pub per_try: Option<Duration>,
    /// How long the first backend has for itself, where a second one is to be asked beside.
    pub hedge_after: Option<Duration>,
    /// The pause before a retry.
    pub backoff: Backoff,
    /// The longest `Retry-After` of an origin that is waited for.
    pub retry_after_max: Duration,
    /// A longer body is not sent again.
    pub buffer: u64,
    /// How much all requests of the upstream may spend.
    pub budget: budget::Share,
}

/// What retries are for. What was provably not processed is tried again in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// A connection that was not made.
    pub connect: bool,
    /// A connection that broke before the answer.
    pub reset: bool,
    /// An answer that did not come in time.
    pub timeout: bool,
    /// Answers with these statuses: 502, 503, 504.
    pub statuses: [bool; 3],
    /// Answers with this field.
    pub header: Option<HeaderName>,
}

impl Conditions {
    /// Whether an attempt that ended so, without an answer, is worth another. What failed of our
    /// own failed before there was a connection.
    pub fn meets(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Refused
            | Outcome::Unroutable
            | Outcome::ConnectTimeout
            | Outcome::ConnectError
            | Outcome::Tls(_)
            | Outcome::NoSource
            | Outcome::Internal => self.connect,
            Outcome::Reset => self.reset,
            Outcome::Timeout => self.timeout,
            Outcome::RefusedStream | Outcome::Unprocessed | Outcome::Stale | Outcome::Full => true,
            Outcome::Status(_)
            | Outcome::Connected
            | Outcome::Nonsense
            | Outcome::ClientLeft
            | Outcome::Deadline
            | Outcome::Outrun => false,
        }
    }

    /// Whether an answer is worth another attempt: by its status, where doing the same twice does
    /// no harm (RFC 9110 §9.2.2); by its field, whatever the method, since the origin says so.
    pub fn meets_answer(&self, method: &Method, status: StatusCode, headers: &HeaderMap) -> bool {
        let by_status = match status.as_u16() {
            status @ 502..=504 => self.statuses[usize::from(status - 502)],
            _ => false,
        };
        by_status && method.is_idempotent()
            || self.header.as_ref().is_some_and(|name| headers.contains_key(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_worth_another_attempt_by_its_status_or_its_field() {
        let on = Conditions {
            statuses: [false, true, false],
            header: Some(HeaderName::from_static("x-retry")),
            ..Conditions::default()
        };
        let none = HeaderMap::new();
        let says_so =
            HeaderMap::from_iter([(HeaderName::from_static("x-retry"), "".parse().unwrap())]);
        let meets = |method, status: u16, headers| {
            on.meets_answer(&method, StatusCode::from_u16(status).unwrap(), headers)
        };
        assert!(meets(Method::GET, 503, &none));
        assert!(!meets(Method::POST, 503, &none), "it may have been done");
        assert!(!meets(Method::GET, 502, &none) && !meets(Method::GET, 200, &none));
        assert!(meets(Method::POST, 500, &says_so), "the origin says that it was not");
    }

    #[test]
    fn what_was_not_processed_needs_no_condition() {
        let none = Conditions::default();
        for outcome in [Outcome::RefusedStream, Outcome::Unprocessed, Outcome::Stale] {
            assert!(none.meets(outcome), "{outcome}");
        }
        for outcome in [Outcome::Refused, Outcome::Reset, Outcome::Timeout] {
            assert!(!none.meets(outcome), "{outcome}");
        }
    }
}
