//! Which requests are traced: a share of them, decided when they come.

use std::hash::{BuildHasher, RandomState};

use http::HeaderName;

use crate::{
    observe::traced::TraceId,
    routing::{pattern::PathPattern, request::RequestParts, wanted::Wanted},
    units::Percent,
};

/// So many bits of an id are by chance, those at its end (W3C Trace Context, level 2).
const BITS: u32 = 56;

/// A share of all traces.
///
/// The lots at the top of their range are taken, as OpenTelemetry's consistent sampling has it, so
/// that programs which sample the same traces by their ids agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The first lot that is taken.
    from: u64,
}

impl From<Percent> for Share {
    fn from(percent: Percent) -> Self {
        let left = u128::from(100 - percent.get());
        let from = (left << BITS) / 100;
        Self { from: u64::try_from(from).unwrap_or(u64::MAX) }
    }
}

impl Share {
    fn takes(self, lot: u64) -> bool {
        self.from <= lot
    }
}

/// A share for some requests.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Their paths, in canonical form; `None` is any.
    pub path: Option<PathPattern>,
    /// What is wanted of their fields.
    pub headers: Vec<(HeaderName, Wanted)>,
    /// The share of them.
    pub share: Share,
}

impl Rule {
    fn matches(&self, request: &RequestParts<'_>) -> bool {
        let is_wanted =
            |(name, wanted): &(HeaderName, Wanted)| wanted.is_met_by(request.header(name));
        self.path.as_ref().is_none_or(|path| path.matches(request.path))
            && self.headers.iter().all(is_wanted)
    }
}

/// Decides on requests that nobody has decided on who is trusted.
#[derive(Debug)]
pub struct Sampling {
    /// The first that fits decides.
    pub rules: Vec<Rule>,
    /// The share of all others.
    pub otherwise: Share,
    lots: RandomState,
}

impl Sampling {
    /// Takes shares for some requests, and one for all others.
    pub fn new(rules: Vec<Rule>, otherwise: Share) -> Self {
        Self { rules, otherwise, lots: RandomState::new() }
    }

    /// Whether a request of a trace is traced. The id of a stranger draws its lot behind a key of
    /// this process, so that nobody can choose one that is always taken.
    pub(super) fn takes(
        &self,
        request: &RequestParts<'_>,
        trace: TraceId,
        is_strange: bool,
    ) -> bool {
        let rule = self.rules.iter().find(|rule| rule.matches(request));
        let share = rule.map_or(self.otherwise, |rule| rule.share);
        let lot =
            if is_strange { self.lots.hash_one(trace) >> (u64::BITS - BITS) } else { lot(trace) };
        share.takes(lot)
    }
}

fn lot(trace: TraceId) -> u64 {
    let lot = trace.get() & ((1 << BITS) - 1);
    u64::try_from(lot).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;

    fn share(percent: u8) -> Share {
        Percent::new(percent).into()
    }

    fn parts<'a>(path: &'a str, headers: &'a HeaderMap) -> RequestParts<'a> {
        RequestParts { host: "a.test", path, method: &Method::GET, headers, query: "" }
    }

    #[test]
    fn a_share_is_taken_by_the_id_of_the_trace() {
        let (one, two) = (Sampling::new(vec![], share(30)), Sampling::new(vec![], share(60)));
        let headers = HeaderMap::new();
        let (mut taken, mut strange) = (0, 0);
        for _ in 0..10_000 {
            let (trace, request) = (TraceId::random(), parts("/", &headers));
            let is_taken = one.takes(&request, trace, false);
            assert_eq!(is_taken, one.takes(&request, trace, false));
            assert!(!is_taken || two.takes(&request, trace, false), "a larger share has them all");
            taken += u32::from(is_taken);
            strange += u32::from(one.takes(&request, trace, true));
        }
        assert!((2_500..3_500).contains(&taken) && (2_500..3_500).contains(&strange), "{taken}");
        let top = TraceId::read(b"ffffffffffffffff").unwrap();
        let bottom = TraceId::read(b"01000000000000000000000000000000").unwrap();
        for (percent, trace, is_taken) in
            [(0, top, false), (1, top, true), (99, bottom, false), (100, bottom, true)]
        {
            let sampling = Sampling::new(vec![], share(percent));
            assert_eq!(sampling.takes(&parts("/", &headers), trace, false), is_taken, "{percent}");
        }
    }

    #[test]
    fn a_stranger_cannot_choose_an_id_that_is_always_taken() {
        let (headers, sampling) = (HeaderMap::new(), Sampling::new(vec![], share(1)));
        let chosen = |number: u128| {
            TraceId::read(format!("{:032x}", (number << 56) | 0xff_ffff_ffff_ffff).as_bytes())
        };
        let chosen = (1..1_000).filter_map(chosen);
        let taken = chosen.filter(|id| sampling.takes(&parts("/", &headers), *id, true)).count();
        assert!(taken < 100, "{taken}");
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rule = |path: Option<&str>, header: Option<(&'static str, &str)>, percent| Rule {
            path: path.map(|path| path.parse().unwrap()),
            headers: header
                .map(|(name, wanted)| (HeaderName::from_static(name), wanted.parse().unwrap()))
                .into_iter()
                .collect(),
            share: share(percent),
        };
        let rules = vec![
            rule(Some("/health"), None, 0),
            rule(None, Some(("x-debug", "1")), 100),
            rule(Some("/a"), Some(("x-debug", "*")), 100),
        ];
        let sampling = Sampling::new(rules, share(0));
        let debug = HeaderMap::from_iter([(
            HeaderName::from_static("x-debug"),
            http::HeaderValue::from_static("1"),
        )]);
        let mut other = debug.clone();
        other.insert("x-debug", http::HeaderValue::from_static("2"));
        let none = HeaderMap::new();
        for (path, headers, is_taken) in [
            ("/health", &debug, false),
            ("/b", &debug, true),
            ("/b", &other, false),
            ("/a/b", &other, true),
            ("/a/b", &none, false),
        ] {
            let takes = sampling.takes(&parts(path, headers), TraceId::random(), false);
            assert_eq!(takes, is_taken, "{path} {headers:?}");
        }
    }
}
