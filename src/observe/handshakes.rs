//! How the TLS handshakes of a listener ended.

use crate::counter::Counter;

/// Counts handshakes for as long as the process has the listener.
#[derive(Debug, Default)]
pub struct Handshakes {
    /// Those that led to a connection.
    pub done: Counter,
    /// Those that did not; clients that left without a byte are not counted.
    pub failed: Counter,
}
