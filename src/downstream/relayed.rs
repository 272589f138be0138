//! A connection whose bytes pass as they come, on its way from `listener` to `stream`.

use pingora_core::protocols::Stream;
use tokio::time::Instant;

use crate::downstream::connection::Connection;

/// A connection that is to be relayed.
pub struct Relayed {
    /// What the client says, from its first byte.
    pub stream: Stream,
    /// What is known of it.
    pub connection: Connection,
    /// Where it came in, as logs show it.
    pub listener: String,
    /// The name that it asks for in a handshake that is passed through.
    pub sni: Option<Box<str>>,
    /// When it came.
    pub started: Instant,
}
