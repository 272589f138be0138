//! The PROXY protocol on a listener, as the operator writes it.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    diagnostic::{Problem, Problems, Span},
    downstream::config::{Address, Network},
    yaml::Spanned,
};

/// Who introduces its clients with the PROXY protocol, version 1 or 2, before anything else is
/// said, TLS included.
///
/// What the operator writes under a listener's `proxy_protocol:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ProxyProtocol")]
pub struct Config {
    /// The networks of the load balancers that do; a header of anybody else is refused. A Unix
    /// socket has no networks: there everybody may. Default: `[]`.
    #[serde(default)]
    pub trusted: Spanned<Vec<Network>>,
    /// Whether those that are trusted must; otherwise one that sends no header is the client
    /// itself. Default: `true`.
    #[serde(default = "required")]
    pub required: bool,
}

fn required() -> bool {
    true
}

/// What runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Who introduces its clients; those without an address do as well.
    pub trusted: Box<[IpNet]>,
    /// Whether they must.
    pub is_required: bool,
}

impl Config {
    pub(super) fn build(&self, address: &Spanned<Address>, problems: &mut Problems) -> Rules {
        let trusted = &self.trusted;
        let is_written = trusted.span != Span::default();
        let span = if is_written { trusted.span } else { address.span };
        let problem = |message| Problem::error(message).at(span);
        match &address.value {
            Address::Unix(_) if !trusted.value.is_empty() => {
                let problem = problem("`trusted` does nothing on a Unix socket");
                problems.push(problem.help("remove it: the folder of the socket says who may"));
            }
            Address::Socket(_) if trusted.value.is_empty() => {
                let problem = problem("`proxy_protocol` trusts nobody: every header is refused");
                problems.push(problem.help("name who sends it, as in `trusted: [10.0.0.0/8]`"));
            }
            _ => {}
        }
        Rules {
            trusted: trusted.value.iter().map(|network| network.0).collect(),
            is_required: self.required,
        }
    }
}
