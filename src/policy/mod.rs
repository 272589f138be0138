//! What may happen to a request on its route: one file per policy.
//!
//! The registry below is the only place that names them all. It makes one enum of what the
//! operator writes and one of what runs, so that a hook is a `match` and no other file knows
//! which policies there are.

mod allowance;
mod api_key;
mod bandwidth;
mod basic_auth;
pub mod body;
mod body_limit;
mod body_rewrite;
pub mod cache;
mod canonical_host;
mod claims;
mod client_cert;
mod coding;
mod compression;
mod concurrency_limit;
mod content_type;
pub mod contract;
mod cors;
mod csrf;
mod decompression;
mod encoder;
pub mod errand;
mod error_pages;
pub mod exchange;
mod fault;
mod fetched;
mod fields;
mod files;
mod forward_auth;
mod geo;
pub mod identity;
mod ip;
mod jwks;
mod jwt;
mod key;
mod location;
mod maintenance;
pub mod meter;
mod method;
mod oidc;
mod origin;
mod page;
mod pattern;
mod places;
mod rate_limit;
mod redirect;
mod request_headers;
mod respond;
mod response_headers;
mod rewrite;
mod secret;
mod security_headers;
mod shared;
mod state;
pub mod template;
#[cfg(test)]
mod tests;
mod token;
mod twice;
mod url;
pub mod variable;
mod verdict;
mod whereabouts;
mod withheld;

use std::{collections::HashMap, path::Path, sync::Arc};

use http::{StatusCode, header::SET_COOKIE};
use pingora::Result;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

pub use contract::Around;
pub use withheld::Withheld;

use crate::{
    diagnostic::{Problems, Span},
    policy::{
        cache::Rules,
        contract::{Build, Facts, Flow, Hooks, Notes, Request, Response, Seen, Written},
        errand::Errand,
        meter::Metering,
        state::{Heir, States},
        variable::{Variable, When},
    },
    reply::Page,
};

macro_rules! policies {
    ($($(#[$doc:meta])* $Name:ident = $module:ident,)*) => {
        /// What may happen to a request: one key, the name of the policy.
        #[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[schemars(rename = "Policy")]
        pub enum PolicyConfig { $($(#[$doc])* $Name(Box<$module::Config>),)* }

        /// A policy that runs.
        #[derive(Debug)]
        enum Policy { $($Name($module::Policy),)* }

        impl PolicyConfig {
            /// The name of the policy, as the operator writes it.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$Name(_) => stringify!($module),)* }
            }

            /// Whether it tells what a variable stands for.
            fn tells(&self, variable: &Variable) -> bool {
                match self { $(Self::$Name(config) => config.tells(variable),)* }
            }

            /// With what the names of its cookies begin on a route, which no origin is sent.
            pub fn withheld(&self, route: &str) -> Option<String> {
                match self {
                    Self::Oidc(config) => Some(config.withheld(route)),
                    _ => None,
                }
            }

            /// The files that it is read with, as they are written.
            pub fn files(&self) -> Vec<&Path> {
                match self { $(Self::$Name(config) => config.files(),)* }
            }

            fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
                match self { $(Self::$Name(config) => Option::from(config.build(cx)).map(Policy::$Name),)* }
            }
        }

        impl Hooks for Policy {
            async fn on_request(&self, request: &mut Request<'_>) -> Flow {
                match self { $(Self::$Name(policy) => policy.on_request(request).await,)* }
            }

            fn on_upstream_request(
                &self,
                header: &mut RequestHeader,
                facts: &Facts<'_>,
            ) -> Result<()> {
                match self { $(Self::$Name(policy) => policy.on_upstream_request(header, facts),)* }
            }

            fn on_response(&self, response: &mut Response<'_>) -> Result<()> {
                match self { $(Self::$Name(policy) => policy.on_response(response),)* }
            }

            fn page(&self, status: StatusCode, facts: &Facts<'_>) -> Option<Page> {
                match self { $(Self::$Name(policy) => policy.page(status, facts),)* }
            }

            fn body_bytes_max(&self) -> Option<u64> {
                match self { $(Self::$Name(policy) => policy.body_bytes_max(),)* }
            }

            fn meter(&self) -> Option<Metering<'_>> {
                match self { $(Self::$Name(policy) => policy.meter(),)* }
            }

            fn errand(&self) -> Option<Arc<dyn Errand>> {
                match self { $(Self::$Name(policy) => policy.errand(),)* }
            }
        }
    };
}

policies! {
    /// Header fields that the origin is sent.
    RequestHeaders = request_headers,
    /// Header fields that the client is sent.
    ResponseHeaders = response_headers,
    /// Who may ask, by a key.
    ApiKey = api_key,
    /// So many bytes in a second toward the client.
    Bandwidth = bandwidth,
    /// Who may ask, by name and password.
    BasicAuth = basic_auth,
    /// The largest request body.
    BodyLimit = body_limit,
    /// Other words in the bodies of answers.
    BodyRewrite = body_rewrite,
    /// Answers that are kept and given again.
    Cache = cache,
    /// One host for a site.
    CanonicalHost = canonical_host,
    /// Who may ask, by the client's certificate.
    ClientCert = client_cert,
    /// Smaller bodies for clients that can read them.
    Compression = compression,
    /// So many requests at the same time.
    ConcurrencyLimit = concurrency_limit,
    /// Media types of bodies that are taken.
    ContentType = content_type,
    /// Which pages of other sites may read answers.
    Cors = cors,
    /// Requests that change something must come from the site's own pages.
    Csrf = csrf,
    /// Bodies in plain for clients that cannot read how they are coded.
    Decompression = decompression,
    /// Bodies for errors.
    ErrorPages = error_pages,
    /// Faults on purpose.
    Fault = fault,
    /// Static files.
    Files = files,
    /// Who may ask, by the word of another service.
    ForwardAuth = forward_auth,
    /// Who may ask, by country or network.
    Geo = geo,
    /// Who may ask, by a signed token.
    Jwt = jwt,
    /// Who may ask, by address.
    Ip = ip,
    /// `503` while something is mended.
    Maintenance = maintenance,
    /// Methods that are taken.
    Method = method,
    /// Who may ask, by signing in.
    Oidc = oidc,
    /// So many requests in a time.
    RateLimit = rate_limit,
    /// Sends the client elsewhere.
    Redirect = redirect,
    /// An answer without asking an origin.
    Respond = respond,
    /// Another path or query for the origin.
    Rewrite = rewrite,
    /// Fields by which a browser is told to be careful.
    SecurityHeaders = security_headers,
}

/// The policies of a route, in the order written.
#[derive(Debug, Default)]
pub struct Policies {
    list: Box<[Policy]>,
    /// What each is called in metrics.
    names: Box<[String]>,
    body_bytes_max: Option<u64>,
    /// The one that says what is kept of answers, by its place.
    cache: Option<usize>,
    /// Whether one of them tells who asks.
    knows_clients: bool,
    withheld: Withheld,
    states: States,
    /// The files that were read with them.
    seen: Vec<Seen>,
}

/// Those that tell who asks, so that what they let pass may be answered for that one alone.
const WHO: [&str; 6] = ["api_key", "basic_auth", "client_cert", "forward_auth", "jwt", "oidc"];

impl Policies {
    /// Builds what was written, each with its place in the file. What must not be forgotten is
    /// handed on by the policies of the same route in the predecessor.
    pub fn build<'a>(
        configs: impl IntoIterator<Item = (&'a PolicyConfig, Span)>,
        around: Around<'_>,
        predecessor: Option<&Self>,
        problems: &mut Problems,
    ) -> Self {
        let Around { folder, allow_faults, route, withheld } = around;
        let (mut list, mut names, mut states) = (Vec::new(), Vec::new(), States::default());
        let mut seen = Vec::new();
        let mut turns: HashMap<&'static str, usize> = HashMap::new();
        let configs: Vec<_> = configs.into_iter().collect();
        for (at, (config, span)) in configs.iter().enumerate() {
            let turn = turns.entry(config.name()).or_default();
            let key = (config.name(), *turn);
            *turn += 1;
            let heir = Heir { key, of: predecessor.map(|old| &old.states) };
            let tells = |variable: &Variable, when: When| {
                let end = if when == When::Asked { at } else { configs.len() };
                configs[..end].iter().any(|(config, _)| config.tells(variable))
            };
            let (states, seen) = (&mut states, &mut seen);
            let (span, tells) = (*span, &tells);
            let mut cx = Build {
                problems,
                folder,
                allow_faults,
                route,
                withheld,
                span,
                tells,
                heir,
                seen,
                states,
            };
            if let Some(policy) = config.build(&mut cx) {
                list.push(policy);
                names.push(state::called(key));
            }
        }
        let body_bytes_max = list.iter().filter_map(Hooks::body_bytes_max).min();
        let cache = list.iter().position(|policy| matches!(policy, Policy::Cache(_)));
        let knows_clients = turns.keys().any(|kind| WHO.contains(kind));
        let (list, names, withheld) = (list.into(), names.into(), withheld.clone());
        Self { list, names, body_bytes_max, cache, knows_clients, withheld, states, seen }
    }

    /// What may be kept of answers; `None` if nothing.
    pub fn cache(&self) -> Option<&Rules> {
        match &self.list[self.cache?] {
            Policy::Cache(policy) => Some(policy.rules()),
            _ => None,
        }
    }

    /// Whether one of them tells who asks.
    pub fn knows_clients(&self) -> bool {
        self.knows_clients
    }

    /// Asks every policy about a request, until one answers it.
    pub async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        for policy in &self.list {
            request.notes.entered += 1;
            if let Flow::Respond(reply) = policy.on_request(request).await {
                return Flow::Respond(reply);
            }
        }
        Flow::Continue
    }

    /// Lets every policy change what the origin is sent.
    pub fn on_upstream_request(
        &self,
        header: &mut RequestHeader,
        facts: &Facts<'_>,
        notes: &Notes,
    ) -> Result<()> {
        self.withheld.take_off(header)?;
        self.list.iter().try_for_each(|policy| policy.on_upstream_request(header, facts))?;
        for (name, value) in &notes.to_origin {
            header.insert_header(name, value)?;
        }
        Ok(())
    }

    /// Lets every policy that the request came to change what the client is sent, the last one
    /// first.
    pub fn on_response(&self, response: &mut Response<'_>) -> Result<()> {
        for (name, value) in &response.notes.to_client {
            // What an answer of our own says itself is of the policy that gave it.
            if response.is_own && response.header.headers.contains_key(name) {
                continue;
            }
            response.header.insert_header(name, value)?;
        }
        for cookie in &response.notes.cookies {
            response.header.append_header(SET_COOKIE, cookie)?;
        }
        let entered = self.entered(response.notes).iter();
        entered.rev().try_for_each(|policy| policy.on_response(response))?;
        let header = &mut *response.header;
        let is_own_cookie = response.is_own && header.headers.contains_key(SET_COOKIE);
        if is_own_cookie || !response.notes.cookies.is_empty() {
            withheld::keep_for_one(header)?;
        }
        Ok(())
    }

    /// The body of an answer of our own: that of the last policy which has one.
    pub fn page(&self, status: StatusCode, facts: &Facts<'_>) -> Option<Page> {
        self.list.iter().rev().find_map(|policy| policy.page(status, facts))
    }

    /// The largest request body that all policies allow, in bytes.
    pub fn body_bytes_max(&self) -> Option<u64> {
        self.body_bytes_max
    }

    /// Those that are limits, with their names, and what they count.
    pub fn limits(&self) -> impl Iterator<Item = (&str, Metering<'_>)> {
        let named = self.names.iter().map(String::as_str).zip(&self.list);
        named.filter_map(|(name, policy)| policy.meter().map(|shown| (name, shown)))
    }

    /// Whether the files that were read with them held the same.
    pub fn read_the_same(&self, other: &Self) -> bool {
        self.seen == other.seen
    }

    /// Begins what is to be done beside requests. Call it within a runtime.
    pub fn start(&self) {
        self.list.iter().filter_map(Hooks::errand).for_each(Errand::start);
    }

    fn entered(&self, notes: &Notes) -> &[Policy] {
        &self.list[..notes.entered.min(self.list.len())]
    }
}
