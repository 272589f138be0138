//! A request without a server, for the tests of policies.

use std::{net::IpAddr, path::Path, sync::Arc};

use futures::FutureExt;
use http::HeaderValue;
use pingora_http::{RequestHeader, ResponseHeader};
use serde::de::DeserializeOwned;

use crate::{
    diagnostic::{Problems, Span},
    downstream::connection::Connection,
    policy::{
        body::BodyFilters,
        contract::{Build, Facts, Flow, Hooks, Notes, Request, Response},
        identity::Identity,
        state::{Heir, States},
        withheld::Withheld,
    },
    yaml,
};

/// The id of every request here.
pub(crate) const ID: &str = "0190a0b0-0000-7000-8000-000000000000";

/// A request, and what is known of it.
pub(crate) struct Given {
    header: RequestHeader,
    connection: Connection,
    id: HeaderValue,
    who: Identity,
}

impl Given {
    /// A request of 192.0.2.7 in plaintext.
    pub(crate) fn request(method: &str, target: &str) -> Self {
        let header = RequestHeader::build(method, target.as_bytes(), None).unwrap();
        Self {
            header,
            connection: connection("192.0.2.7"),
            id: HeaderValue::from_static(ID),
            who: Identity::default(),
        }
    }

    /// With one more header field.
    pub(crate) fn field(mut self, name: &'static str, value: &str) -> Self {
        self.header.append_header(name, value).unwrap();
        self
    }

    /// Of another client.
    pub(crate) fn from(mut self, client: &str) -> Self {
        self.connection = connection(client);
        self
    }

    /// What is known of it.
    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            header: &self.header,
            canonical: None,
            connection: &self.connection,
            client: self.connection.client,
            id: &self.id,
            who: &self.who,
            route: "shop",
            upstream: "app",
            backend: Some("127.0.0.1:3031"),
        }
    }

    /// Asks a policy that decides at once.
    pub(crate) fn ask(&self, policy: &impl Hooks) -> (Flow, Notes) {
        let mut notes = Notes::default();
        let mut request = Request { facts: self.facts(), notes: &mut notes };
        let flow = policy.on_request(&mut request).now_or_never().expect("it does not wait");
        (flow, notes)
    }

    /// The status that a policy answers with; `None` if the request goes on.
    pub(crate) fn refused(&self, policy: &impl Hooks) -> Option<u16> {
        match self.ask(policy).0 {
            Flow::Continue => None,
            Flow::Respond(reply) => Some(reply.status.as_u16()),
        }
    }

    /// Shows an answer of the origin to a policy.
    pub(crate) fn answered(&self, policy: &impl Hooks, header: &mut ResponseHeader) {
        let (facts, notes) = (self.facts(), Notes::default());
        let body = &mut BodyFilters::default();
        let mut response = Response { header, facts, notes: &notes, is_own: false, body };
        policy.on_response(&mut response).unwrap();
    }
}

fn connection(client: &str) -> Connection {
    let client: IpAddr = client.parse().unwrap();
    Connection::new(Some(client), Arc::new([]), Arc::default(), Arc::default())
}

/// Reads and builds a policy; there must be no problem.
pub(crate) fn build<C: DeserializeOwned, P>(
    yaml: &str,
    build: impl FnOnce(&C, &mut Build<'_>) -> Option<P>,
) -> P {
    let (policy, problems) = built(yaml, build);
    assert!(problems.is_empty(), "{problems:?}");
    policy.unwrap()
}

/// What is told of a policy that cannot be built.
pub(crate) fn problems<C: DeserializeOwned, P>(
    yaml: &str,
    build: impl FnOnce(&C, &mut Build<'_>) -> Option<P>,
) -> Vec<String> {
    built(yaml, build).1
}

fn built<C: DeserializeOwned, P>(
    yaml: &str,
    build: impl FnOnce(&C, &mut Build<'_>) -> Option<P>,
) -> (Option<P>, Vec<String>) {
    let (mut problems, mut states) = (Problems::default(), States::default());
    let config: C = yaml::read(&yaml::parse(yaml).unwrap(), "", &mut problems).unwrap();
    let mut cx = Build {
        problems: &mut problems,
        folder: Path::new("."),
        allow_faults: true,
        route: "shop",
        withheld: &Withheld::default(),
        span: Span::default(),
        tells: &|_, _| true,
        seen: &mut Vec::new(),
        heir: Heir { key: ("policy", 0), of: None },
        states: &mut states,
    };
    let policy = build(&config, &mut cx);
    (policy, problems.iter().map(|problem| problem.message.clone()).collect())
}
