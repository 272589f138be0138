//! What a listener does with connections beside HTTP: it relays them, as the operator writes it.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    diagnostic::{Problem, Problems, Span},
    downstream::config::Config,
    routing::host::HostPattern,
    yaml::Spanned,
};

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP: requests are sent where `routes` say.
    #[default]
    Http,
    /// Anything: bytes pass as they come, to one upstream.
    Tcp,
}

/// Connections that are relayed as they come, TLS untouched, by the name that they ask for.
///
/// What the operator writes in the list under a listener's `passthrough:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Passthrough")]
pub struct PassthroughConfig {
    /// Which connections.
    #[serde(rename = "match")]
    pub matches: PassthroughMatchConfig,
    /// The upstream that they are relayed to.
    pub upstream: Spanned<String>,
}

/// Which connections are relayed as they come.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PassthroughMatch")]
pub struct PassthroughMatchConfig {
    /// The names that clients ask for in their TLS handshake (SNI): `shop.example.com`, or
    /// `*.example.com` for all below it. Exact names come first, then longer wildcards.
    #[schemars(with = "Vec<HostPattern>", length(min = 1), extend("uniqueItems" = true))]
    pub sni: Spanned<Vec<Spanned<HostPattern>>>,
}

impl Protocol {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
}

impl Config {
    /// Whether HTTP is spoken.
    pub fn speaks_http(&self) -> bool {
        self.protocol.value == Protocol::Http
    }

    /// The upstreams that connections are relayed to, each where it is named.
    pub fn relays_to(&self) -> impl Iterator<Item = &Spanned<String>> {
        let passed = self.passthrough.iter().flat_map(|passed| &passed.value);
        self.upstream.iter().chain(passed.map(|passed| &passed.value.upstream))
    }

    /// Checks what has its meaning for HTTP only, or for relays.
    pub(super) fn check_protocol(&self, problems: &mut Problems) {
        let mut refuse = |message: String, span: Span, help: &str| {
            problems.push(Problem::error(message).at(span).help(help));
        };
        if let Some(passed) = &self.passthrough
            && passed.value.is_empty()
        {
            let message = "this list of names to pass through is empty".to_owned();
            refuse(message, passed.span, "remove it, or name some under `match: { sni: […] }`");
        }
        if self.speaks_http() {
            if let Some(upstream) = &self.upstream {
                let message = "`upstream` does nothing on a listener of HTTP".to_owned();
                let help = "remove it: `routes` say where requests go; or write `protocol: tcp`";
                refuse(message, upstream.span, help);
            }
            if let (Some(passed), None) = (&self.passthrough, &self.tls) {
                let message = "`passthrough` does nothing on a listener of HTTP without `tls`";
                let help = "give the listener certificates for the other names, or write \
                            `protocol: tcp`";
                refuse(message.to_owned(), passed.span, help);
            }
        } else {
            self.check_relay(&mut refuse);
        }
        self.check_names(problems);
    }

    /// Refuses what does nothing where bytes pass as they come.
    fn check_relay(&self, refuse: &mut impl FnMut(String, Span, &str)) {
        if self.upstream.is_none() && self.passthrough.is_none() {
            let message = "this listener of `protocol: tcp` relays nothing".to_owned();
            refuse(message, self.protocol.span, "name an upstream, as in `upstream: app`");
        }
        if let (None, Some(tls)) = (&self.upstream, &self.tls) {
            let message = "`tls` does nothing here: there is nowhere to relay what it protects";
            let help = "name an upstream for the connections whose TLS ends here, or remove `tls`";
            refuse(message.to_owned(), tls.span, help);
        }
        let Self { timeouts, limits, h2c, .. } = self;
        let idle = "the idle time of a relay is `timeouts: { tunnel: … }` of its upstream";
        let unused = [
            ("h2c", h2c.value.then_some(h2c.span), "remove it: bytes pass as they come"),
            ("idle", Some(timeouts.idle.span), idle),
            ("body", Some(timeouts.body.span), idle),
            ("write", Some(timeouts.write.span), idle),
            ("header_size", Some(limits.header_size.span), "remove it: no request is read"),
            ("header_fields", Some(limits.header_fields.span), "remove it: no request is read"),
            ("target_size", Some(limits.target_size.span), "remove it: no request is read"),
            ("body_rate", Some(limits.body_rate.span), "remove it: no request is read"),
        ];
        let is_written = |span: &Span| *span != Span::default();
        for (key, span, help) in unused {
            if let Some(span) = span.filter(is_written) {
                let message = format!("`{key}` does nothing on a listener of `protocol: tcp`");
                refuse(message, span, help);
            }
        }
        if is_written(&timeouts.header.span) && self.proxy_protocol.is_none() {
            let message = "`header` does nothing on a listener of `protocol: tcp`".to_owned();
            let help = "remove it: it bounds a header of the PROXY protocol, and none is read here";
            refuse(message, timeouts.header.span, help);
        }
        let clients = self.tls.as_ref().and_then(|tls| tls.client_certificates.as_ref());
        for name in clients.into_iter().flat_map(|clients| clients.forward.names()) {
            let message = "`forward` does nothing on a listener of `protocol: tcp`".to_owned();
            refuse(message, name.span, "remove it: there are no fields to tell origins in");
        }
    }

    /// Refuses names that no client asks for, and those that stand twice.
    fn check_names(&self, problems: &mut Problems) {
        let mut seen = HashSet::new();
        for passed in self.passthrough.iter().flat_map(|passed| &passed.value) {
            let names = &passed.value.matches.sni;
            if names.value.is_empty() {
                let problem = Problem::error("this list of names is empty: nothing would match");
                problems.push(problem.at(names.span).help("write `sni: [shop.example.com]`"));
            }
            for name in &names.value {
                if matches!(&name.value, HostPattern::Exact(host) if host.starts_with('['))
                    || name.value.to_string().parse::<std::net::IpAddr>().is_ok()
                {
                    let message = format!("no client asks for `{}` in its handshake", name.value);
                    let problem = Problem::error(message).at(name.span);
                    problems.push(problem.help("clients ask for names, never for addresses"));
                }
                if !seen.insert(&name.value) {
                    let message = format!("`{}` is passed through twice", name.value);
                    problems.push(Problem::error(message).at(name.span).help("remove one of them"));
                }
            }
        }
    }
}
