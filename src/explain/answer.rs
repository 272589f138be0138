//! An explanation: every part of it with the place that it is from, for people and programs alike.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::upstream::backend::Availability;

/// What becomes of a request, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// The method, as it was asked.
    pub method: String,
    /// The host that routes are matched against; empty if there is none.
    pub host: String,
    /// The path as it was asked.
    pub path: String,
    /// The path that is matched and forwarded, if it is another.
    pub canonical_path: Option<String>,
    /// The version of the configuration, if a running process was asked.
    pub version: Option<u64>,
    /// Where the connection arrives.
    pub listener: Listener,
    /// How it is decided.
    pub outcome: Outcome,
    /// What the route is, if one takes the request.
    pub route: Option<RouteTaken>,
    /// The routes that nearly took it, and why they did not.
    pub nearest: Vec<Near>,
}

/// Where the connection arrives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ExplainedListener")]
pub struct Listener {
    /// Its address; `None` if none listens on the port that was asked for.
    pub address: Option<String>,
    /// The port that was asked for.
    pub port: u16,
    /// Whether one listens there, but not with TLS.
    pub lacks_tls: bool,
    /// What a client is given that can verify any; `None` in plaintext.
    pub certificate: Option<Certificate>,
    /// Those that there are instead.
    pub others: Vec<String>,
    /// Where it is written.
    pub place: Option<String>,
    /// What is in force on it.
    pub settings: Vec<Setting>,
}

impl Listener {
    /// No listener on a port.
    pub(super) fn none(port: u16, others: Vec<String>, lacks_tls: bool) -> Self {
        let settings = Vec::new();
        Self { address: None, port, lacks_tls, certificate: None, others, place: None, settings }
    }
}

/// A certificate that a client is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ExplainedCertificate")]
pub struct Certificate {
    /// Its names.
    pub names: Vec<String>,
    /// The kind of its key: `ECDSA`, `Ed25519` or `RSA`.
    pub key: String,
    /// The day on which it expires: `2027-01-31`.
    pub expires: String,
    /// Where its file is named.
    pub place: Option<String>,
}

/// How it is decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "is")]
#[schemars(rename = "ExplainedOutcome")]
pub enum Outcome {
    /// A route takes the request.
    Taken,
    /// No route does: `404`.
    NoRoute,
    /// None does with this method: `405`.
    OtherMethods {
        /// The value of `Allow`.
        allow: String,
    },
    /// The connection is relayed as it comes, or what is said within its TLS.
    Relayed {
        /// To this upstream.
        upstream: String,
        /// For the name that its client asks for; `None` if no name matters.
        sni: Option<String>,
    },
    /// The client is given no certificate, and there is no connection.
    NoHandshake {
        /// The alert that it gets.
        alert: String,
    },
    /// It is refused before routes are asked.
    Refused {
        /// With this status.
        status: u16,
        /// For this reason.
        reason: String,
    },
}

/// The route that takes the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ExplainedRouteTaken")]
pub struct RouteTaken {
    /// Its name.
    pub name: String,
    /// Where it is written.
    pub place: Option<String>,
    /// The rule by which it takes the request.
    pub rule: String,
    /// Its policies, in order; answers pass them in reverse.
    pub policies: Vec<Named>,
    /// The upstream that answers.
    pub upstream: Named,
    /// How requests are split between upstreams, if they are.
    #[serde(default)]
    pub split: Option<SplitTaken>,
    /// Who gets copies, such as `10% to next`.
    #[serde(default)]
    pub mirror: Option<String>,
    /// What is in force for it.
    pub settings: Vec<Setting>,
    /// Its backends, in the order of their next turns.
    pub backends: Vec<Backend>,
}

/// How requests of a route are split between upstreams.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ExplainedSplitTaken")]
pub struct SplitTaken {
    /// What decides: `chance`, `the client's address`, `cookie NAME` or `header NAME`.
    pub by: String,
    /// Whether this request shows it, so that its upstream is known.
    pub is_known: bool,
    /// The upstreams, each with its share of the requests, in percent.
    pub shares: Vec<Share>,
}

/// The share of an upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ExplainedShare")]
pub struct Share {
    /// Its name.
    pub upstream: String,
    /// In percent.
    pub percent: f64,
}

/// A name and where it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ExplainedNamed")]
pub struct Named {
    /// The name.
    pub name: String,
    /// `file:line`; `None` if it is written nowhere.
    pub place: Option<String>,
}

/// A setting in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ExplainedSetting")]
pub struct Setting {
    /// Its key, from the upstream or listener on.
    pub key: String,
    /// Its value.
    pub value: String,
    /// `file:line`; `None` for a default.
    pub place: Option<String>,
}

/// A backend that may answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ExplainedBackend")]
pub struct Backend {
    /// Its address.
    pub address: String,
    /// Its share, relative to the others.
    pub weight: u16,
    /// Whether it may take a request; known of a running process only.
    pub availability: Option<Availability>,
    /// Whether it is the one that would take the next request.
    pub is_next: bool,
}

/// A route that nearly took the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ExplainedNear")]
pub struct Near {
    /// Its name.
    pub route: String,
    /// Where it is written.
    pub place: Option<String>,
    /// Why it did not.
    pub why: String,
}
