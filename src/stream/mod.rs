//! The TCP data path: a connection to a backend for each that came, and bytes both ways.
//!
//! INVARIANT: every count that a connection takes is a guard held here, so that it is given back
//! however the connection ends; its target stays the one that it began with.

mod connect;
mod copy;
mod flow;
mod log_line;
mod origin;

use std::sync::Arc;

use pingora_core::{
    connectors::{ConnectorOptions, TransportConnector},
    protocols::Stream,
};
use tokio::time::Instant;

use crate::{
    downstream::{connection::Exchange, refused, relayed::Relayed},
    overload::{self, Level},
    reason::Reason,
    snapshot::{Live, RelayTarget},
    stream::{
        connect::Connected,
        copy::{End, Passed},
    },
    upstream::attempts::Attempts,
};

/// Relays connections.
pub struct Relay {
    live: Live,
    connector: TransportConnector,
}

/// A connection on its way.
struct Passage {
    client: Exchange,
    listener: String,
    sni: Option<Box<str>>,
    started: Instant,
    target: RelayTarget,
    attempts: Attempts,
}

/// How a connection ended.
struct Ended {
    /// 200 if it was relayed, else why not, in a status of HTTP.
    status: u16,
    /// Why it ended.
    reason: Reason,
    passed: Passed,
}

impl Relay {
    /// Connections to origins are made by the options of the server; the log is that of the
    /// snapshot in force.
    pub fn new(live: Live, options: ConnectorOptions) -> Self {
        Self { live, connector: TransportConnector::new(Some(options)) }
    }

    /// Relays a connection until it is over, and logs it.
    pub async fn relay(&self, relayed: Relayed, target: RelayTarget) {
        let Relayed { stream, connection, listener, sni, started } = relayed;
        let client = Exchange::begin(Arc::new(connection));
        let attempts = Attempts::default();
        let mut passage = Passage { client, listener, sni, started, target, attempts };
        let connected = if overload::level() == Level::Calm {
            // In a box, so that an open connection does not hold the room that its beginning takes.
            Box::pin(passage.connect(&self.connector, &stream)).await
        } else {
            refused::count(Reason::Overloaded);
            Err((503, Reason::Overloaded))
        };
        let ended = match connected {
            Ok(connected) => passage.pass(stream, connected).await,
            Err((status, reason)) => Ended { status, reason, passed: Passed::default() },
        };
        passage.target.tally.count(ended.status);
        log_line::tell(&self.live.load(), &passage, &ended);
    }
}

impl Passage {
    /// Passes bytes both ways until the end.
    async fn pass(&self, mut client: Stream, connected: Connected) -> Ended {
        let Connected { mut origin, in_flight } = connected;
        let tunnel = self.client.drain().tunnel();
        let idle = self.target.upstream.timeouts().tunnel;
        let (end, passed) = copy::both_ways(&mut client, &mut origin, idle, &tunnel).await;
        match end {
            End::ClientReset => origin.abort(),
            End::OriginReset => origin::abort(client.id()),
            End::Closed | End::Idle | End::Leaving => {}
        }
        drop(in_flight);
        Ended { status: 200, reason: end.reason(), passed }
    }
}
