//! What an operator sees: request ids, ids of traces, tallies, counts, the recorder, the access
//! log and the process log.

pub mod access_log;
pub mod handshakes;
pub mod process;
pub mod process_log;
pub mod recorder;
pub mod request_id;
pub mod requests;
pub mod tally;
pub mod traced;
