//! How other services are asked by HTTP: whom to believe, and one question on a connection, or one
//! after another.
//!
//! INVARIANT: every question has a bound in time up to the head of its answer, and every answer a
//! bound in size. The files of certificates are read for each connection, so that those that were
//! replaced count without a reload.

pub mod answer;
pub mod channel;
pub mod endpoint;
pub mod retry_after;
pub mod roots;
pub mod words;
