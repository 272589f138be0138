//! What the two processes say to each other.
//!
//! The two may be of different versions, either the newer one: keys that one does not know are
//! ignored, and so are whole messages. [`PROTOCOL`] changes only with what cannot be ignored.

use serde::{Deserialize, Serialize};

use crate::{
    downstream::config::Address,
    tls::tickets::TicketKey,
    upstream::{balance::sticky::Told as StickyKey, memory::Memory},
};

/// The version of the conversation.
pub const PROTOCOL: u32 = 1;

/// So many backends are told of in one message.
pub(super) const BACKENDS_MAX: usize = 256;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Message {
    /// The successor's first word.
    Hello {
        /// The version of the conversation that it speaks.
        protocol: u32,
        /// The version of its program.
        program: String,
        /// Its process id.
        pid: u32,
    },
    /// What the process in force has to hand over; its first word.
    Offer {
        /// The version of the conversation that it speaks.
        protocol: u32,
        /// The version of its program.
        program: String,
        /// Its process id.
        pid: u32,
        /// The configuration in force.
        configuration: Known,
        /// How many sockets follow.
        sockets: usize,
        /// How many messages about backends follow.
        backends: usize,
    },
    /// Sockets; their descriptors come with the message, in the same order.
    Sockets {
        /// What each of them is.
        list: Vec<Name>,
    },
    /// What is known of backends.
    Backends {
        /// The upstream that they belong to.
        upstream: String,
        /// Those of which something is known.
        list: Vec<Memory>,
    },
    /// What session tickets are sealed with.
    TicketKeys {
        /// The one that makes them first.
        list: Vec<TicketKey>,
    },
    /// What cookies of sticky upstreams are signed with.
    StickyKey {
        /// The key.
        key: StickyKey,
    },
    /// The successor has all that was offered.
    Received,
    /// The successor's first round of checks is over, and its listeners accept.
    Serving {
        /// Its process id: a daemon has another one by now.
        pid: u32,
        /// Where the sockets are bound that it goes on with; nothing is known of it if it does
        /// not say so.
        #[serde(default)]
        goes_on_with: Option<Vec<String>>,
    },
    /// The process in force leaves. It does not take that back.
    OverToYou,
    /// The successor has taken the place of the process, which can leave.
    Alone,
    /// The successor cannot go on.
    Refused {
        /// In words.
        why: String,
    },
    /// The process in force stays: the successor must leave.
    TakenBack {
        /// In words.
        why: String,
    },
    /// A message that this version does not know.
    #[serde(other)]
    Unknown,
}

/// A configuration, as far as a successor must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its version.
    pub version: u64,
    /// Made of its texts.
    pub fingerprint: u64,
}

impl Known {
    /// The version of what a successor has read: the same for the same texts, else the next.
    pub fn version_of(self, fingerprint: u64) -> u64 {
        if fingerprint == self.fingerprint { self.version } else { self.version + 1 }
    }
}

/// Which socket a descriptor is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// The address in the configuration.
    pub written: String,
    /// The address that it is bound to; a port that the system chose is known here.
    pub bound: String,
    /// Whether it ends with the last process that was handed it: systemd has no copy. Not so if
    /// nothing is said.
    #[serde(default)]
    pub is_ours: bool,
}

impl Name {
    /// Whether a listener that is written like this would be this socket.
    pub(super) fn is(&self, written: &Address) -> bool {
        let written = written.to_string();
        self.written == written || self.bound == written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_version_says_besides_is_ignored() {
        let read = |text: &str| serde_json::from_str::<Message>(text).unwrap();
        assert_eq!(read("{\"say\":\"alone\",\"since\":3}"), Message::Alone);
        assert_eq!(read("{\"say\":\"sing\",\"song\":[1]}"), Message::Unknown);
        let told = "{\"say\":\"backends\",\"upstream\":\"app\",\"list\":\
                    [{\"address\":\"127.0.0.1:1\",\"passes\":true,\"mood\":\"good\"}]}";
        let Message::Backends { list, .. } = read(told) else { panic!("{told}") };
        assert_eq!(list[0].address, "127.0.0.1:1");
    }

    #[test]
    fn a_version_goes_on_and_counts_what_differs() {
        let known = Known { version: 7, fingerprint: 1 };
        assert_eq!((known.version_of(1), known.version_of(2)), (7, 8));
    }
}
