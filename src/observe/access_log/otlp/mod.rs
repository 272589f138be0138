//! OpenTelemetry as a target of the access log: one log record a line, with its fields as
//! attributes.
//!
//! A request packs its fields ([`packed`]); the writer's thread makes records of them
//! ([`record`]), and a courier brings them to the receiver ([`sender`]).

pub(super) mod packed;
mod record;
pub(super) mod sender;
