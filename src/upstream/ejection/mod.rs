//! Ejection: a backend that fails real requests is left alone for a while.
//!
//! Four rules say when: failures in a row ([`penalty`]), and by what a window of traffic shows
//! ([`outliers`]) the share of failures, the success rate and the latency beside the others.
//! [`gate`] stands before each backend on the request path, and [`observed`] counts there.
//!
//! INVARIANT: ejection knows nothing of probes and drains; `backend.rs` derives one answer from
//! all three. What decides is pure: state, event and time in, state out.

pub mod config;
pub mod gate;
pub mod histogram;
pub mod observed;
pub mod outliers;
pub mod penalty;

pub use gate::{Entry, Gate};
pub use penalty::{EJECT_FOR_MAX, Past, Rules};
