//! Syslog (RFC 5424) as a target of the access log: one message a line.
//!
//! Over UDP each message is a datagram (RFC 5426), over TCP it comes behind its length (RFC 6587),
//! and on a Unix socket it is a datagram again.

pub mod config;
mod link;
mod message;
pub(super) mod sender;

#[cfg(test)]
mod tests;
