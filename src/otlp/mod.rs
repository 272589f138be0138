//! OpenTelemetry's protocol (OTLP): records of logs, and spans, to a receiver, over HTTP or gRPC.
//!
//! [`config`] is what the operator writes, [`proto`] the messages, [`courier`] brings one parcel of
//! records at a time to the receiver, by `exchange`, again and again until it is taken, refused
//! for good, or too old.
//!
//! INVARIANT: what waits has a bound that its owner keeps, and nothing here is on the path of a
//! request: couriers belong to threads of their own.

pub mod attributes;
pub mod config;
pub mod courier;
mod exchange;
mod grpc;
pub mod proto;
pub mod resource;
