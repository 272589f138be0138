//! The handover: a running process passes its sockets and what it knows on to a successor, and
//! leaves only when the successor has said that it serves.
//!
//! ```text
//! successor                                   process in force
//! checks its configuration, binds
//! `upgrade_sock`, waits                  <──  connects (SIGQUIT, or `crestline upgrade`)
//!                              both look at each other's credentials
//! hello                                  ──>
//!                                        <──  offer, ticket keys, sockets, backends
//! received                               ──>
//! first round of checks, listeners open
//! serving                                ──>
//!                                        <──  over to you: the word that cannot be taken back
//! takes the pid file and the admin socket
//! alone                                  ──>  drains, leaves
//! ```
//!
//! INVARIANT: until "over to you", the process in force serves as if nothing had happened, and
//! whatever goes wrong leaves it that way. A successor that is refused must leave; one whose
//! predecessor died must serve. So a refusal is always said in words, and a conversation that
//! ends without any means death, which the successor sees for itself.

mod channel;
mod door;
pub mod launch;
pub mod message;
pub mod pid_file;
pub mod predecessor;
pub mod refusal;
pub mod step;
pub mod succession;
pub mod successor;
mod word;

use std::path::Path;

use rustix::process::getuid;

/// Whose word counts: that of the same user, and of root.
fn is_trusted(user: u32) -> bool {
    user == getuid().as_raw() || user == 0
}

/// How a path is told.
fn told(path: &Path) -> std::path::Display<'_> {
    path.display()
}
