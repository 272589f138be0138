//! HTTP/2 as bytes: what passes on a connection, and how much of it asks for nothing.
//!
//! Pingora's server speaks the protocol. This looks on, because a client may keep it busy with
//! frames that are all allowed and ask for nothing.

mod frames;
pub mod guard;

/// The first bytes of a connection (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
