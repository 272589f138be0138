//! What becomes of a request, and why: the answer to `crestline explain`.
//!
//! A [`Question`] is put to a snapshot, whether it is in force or was only compiled to be asked.
//! The same table and the same rules decide as for a real request; nothing is guessed.
//! What was filled into the configuration is shown as it is written there.

mod answer;
mod arrival;
mod question;
mod split;
mod words;

use std::sync::Arc;

use http::HeaderMap;
use tokio::time::Instant;

pub use answer::{
    Backend, Certificate, Explanation, Listener, Named, Near, Outcome, RouteTaken, Setting, Share,
    SplitTaken,
};
pub use question::{Question, QuestionError};

use crate::{
    config::{File, route::RouteConfig, source::Texts},
    diagnostic::Span,
    routing::{
        host::RequestHost, judged::Judged, path, request::RequestParts, table::Found,
        verdict::Verdict,
    },
    snapshot::{Route, Snapshot},
    upstream::{
        Upstream,
        backend::{Availability, Member},
        config::Config as UpstreamConfig,
    },
};

/// So many routes are told that nearly took the request.
const NEAREST_MAX: usize = 3;

/// Whether the snapshot serves requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was compiled to be asked.
    OnFile,
    /// It is in force.
    Live,
}

/// A configuration that can be asked.
#[derive(Clone, Copy)]
pub struct Oracle<'a> {
    /// What was compiled.
    pub snapshot: &'a Snapshot,
    /// What it was read from.
    pub texts: &'a Texts,
    /// Whether it is in force.
    pub standing: Standing,
}

impl Oracle<'_> {
    /// Tells what becomes of a request.
    ///
    /// # Errors
    /// If it is no request.
    pub fn explain(&self, question: &Question) -> Result<Explanation, QuestionError> {
        let asked = question.read()?;
        let (listener, arrives) = self.arrive(&asked);
        let mut explanation = Explanation {
            method: asked.method.to_string(),
            host: RequestHost::new(&asked.authority).as_str().to_owned(),
            path: asked.path.clone(),
            canonical_path: None,
            version: (self.standing == Standing::Live).then_some(self.snapshot.version),
            listener,
            outcome: Outcome::NoRoute,
            route: None,
            nearest: Vec::new(),
        };
        if let Err(outcome) = arrives {
            explanation.outcome = outcome;
            return Ok(explanation);
        }
        let Ok(canonical) = path::canonicalize(&asked.path) else {
            return Ok(explanation); // refused above
        };
        if canonical.as_str() != asked.path {
            explanation.canonical_path = Some(canonical.as_str().to_owned());
        }
        let host = explanation.host.clone();
        let parts = RequestParts {
            host: &host,
            path: canonical.as_str(),
            method: &asked.method,
            headers: &asked.headers,
            query: &asked.query,
        };
        self.decide(&parts, &mut explanation);
        Ok(explanation)
    }

    fn decide(&self, request: &RequestParts<'_>, explanation: &mut Explanation) {
        let routes = &self.snapshot.routes;
        let judged = routes.explain(request);
        explanation.outcome = match routes.find(request) {
            Found::Route(_) => Outcome::Taken,
            Found::Nothing => Outcome::NoRoute,
            Found::OtherMethods => {
                let allow = routes.allowed(request);
                Outcome::OtherMethods { allow: allow.to_str().unwrap_or_default().to_owned() }
            }
        };
        let taken = judged.first().filter(|first| first.verdict.is_match());
        explanation.route = taken.map(|taken| self.taken(taken, request.headers));
        let others = judged.iter().filter(|other| match taken {
            Some(taken) => !std::ptr::eq(other.route.as_ref(), taken.route.as_ref()),
            None => true,
        });
        let mut told: Vec<&str> = Vec::new();
        for near in others {
            if told.len() < NEAREST_MAX && !told.contains(&near.route.name.as_str()) {
                told.push(&near.route.name);
                explanation.nearest.push(self.near(near, taken));
            }
        }
    }

    fn near(&self, near: &Judged<'_, Arc<Route>>, taken: Option<&Judged<'_, Arc<Route>>>) -> Near {
        let why = match (&near.verdict, taken) {
            (Verdict::Matches, Some(taken)) => {
                format!("it matches, too, but `{}` is more specific", taken.route.name)
            }
            (verdict, _) => verdict.to_string(),
        };
        let config = self.written(&near.route.name);
        let place = config.map(|config| config.name.span);
        let why = self.as_written(&why, config.map(|config| config.matches.span));
        Near { route: near.route.name.clone(), place: self.place(place), why }
    }

    fn taken(&self, judged: &Judged<'_, Arc<Route>>, headers: &HeaderMap) -> RouteTaken {
        let (route, split) = split::followed(judged.route, headers);
        let config = self.written(&route.name);
        let policies = config.map_or(&[][..], |config| &config.policies);
        let name = route.upstream.name().to_string();
        let named = self.file().upstreams.iter().find(|named| named.name.value == name);
        let written = named.and_then(|named| named.config.as_ref());
        let settings = written.map(UpstreamConfig::settings).unwrap_or_default();
        RouteTaken {
            name: route.name.clone(),
            place: self.place(config.map(|config| config.name.span)),
            rule: self
                .as_written(&judged.rule.to_string(), config.map(|config| config.matches.span)),
            policies: policies
                .iter()
                .map(|policy| Named {
                    name: policy.value.name().to_owned(),
                    place: self.place(Some(policy.span)),
                })
                .collect(),
            settings: self.settings(&format!("upstreams.{name}"), settings),
            split,
            mirror: route
                .mirror
                .as_ref()
                .map(|mirror| format!("{}% to {}", mirror.percent(), mirror.upstream.name())),
            upstream: Named { place: self.place(named.map(|named| named.name.span)), name },
            backends: match self.standing {
                Standing::OnFile => written.map(on_file).unwrap_or_default(),
                Standing::Live => in_turn(&route.upstream),
            },
        }
    }

    fn settings(&self, at: &str, settings: Vec<(&'static str, String)>) -> Vec<Setting> {
        let settings = settings.into_iter().map(|(key, value)| {
            let written = self.file().places.find(&format!("{at}.{key}"));
            let place = self.place(written.map(|written| written.key));
            let value = self.as_written(&value, written.map(|written| written.value));
            Setting { key: key.to_owned(), value, place }
        });
        settings.collect()
    }

    fn written(&self, route: &str) -> Option<&RouteConfig> {
        let routes = self.file().routes.iter().flatten().flatten();
        routes.into_iter().find(|config| config.name.value == route)
    }

    fn file(&self) -> &File {
        &self.snapshot.file
    }

    /// A text made of what stands at a place, without the values that were filled in there.
    fn as_written(&self, text: &str, place: Option<Span>) -> String {
        self.texts.fills.as_written(text, place)
    }

    fn place(&self, span: Option<Span>) -> Option<String> {
        let place = self.texts.sources.place(span?)?;
        Some(format!("{}:{}", place.name, place.line))
    }
}

/// The backends as they are written, names included.
fn on_file(upstream: &UpstreamConfig) -> Vec<Backend> {
    let written = upstream.backends.iter();
    let backends = written.map(|backend| Backend {
        address: backend.address.to_string(),
        weight: backend.weight.get(),
        availability: None,
        is_next: false,
    });
    backends.collect()
}

/// The backends in the order of their next turns.
fn in_turn(upstream: &Upstream) -> Vec<Backend> {
    let now = Instant::now();
    let upcoming = upstream.upcoming();
    let fit = |member: &Arc<Member>| {
        matches!(member.availability(now), Availability::Ready | Availability::Trial)
    };
    // Elsewhere chance decides, or what is asked for.
    let next = if upstream.is_in_turn() { upcoming.iter().position(fit) } else { None };
    let backends = upcoming.iter().enumerate().map(|(index, member)| Backend {
        address: member.state.name().to_owned(),
        weight: member.weight,
        availability: Some(member.availability(now)),
        is_next: next == Some(index),
    });
    backends.collect()
}
