//! Whose trace a request belongs to, who decides on it, and what its origin is told.

use std::{collections::BTreeMap, path::Path};

use http::{HeaderName, HeaderValue, Method};

use super::*;
use crate::{
    diagnostic::Problems,
    otlp::config::{Config, Protocol},
    units::{self, Percent},
    yaml::Spanned,
};

const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn tracing(kinds: &[Propagator], percent: u8) -> Tracing {
    let sampling = Sampling::new(Vec::new(), Percent::new(percent).into());
    Tracing::new(kinds.into(), sampling, outlet())
}

/// Nobody is asked before an exporter is started.
fn outlet() -> Arc<Outlet> {
    let config = Config {
        endpoint: Spanned::new("http://127.0.0.1:1".parse().unwrap()),
        protocol: Protocol::Http,
        headers: BTreeMap::new(),
        ca: None,
        service_name: "crestline".to_owned(),
        resource: BTreeMap::new(),
        timeout: units::Duration::from_secs(1),
        every: units::Duration::from_secs(1),
    };
    Outlet::new(config.build(Path::new(""), &mut Problems::default()).unwrap())
}

fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    pairs.iter().map(field).collect()
}

fn begin(tracing: &Tracing, headers: &HeaderMap, is_trusted: bool) -> Trace {
    let parts =
        RequestParts { host: "a.test", path: "/", method: &Method::GET, headers, query: "" };
    tracing.begin(&parts, is_trusted)
}

#[test]
fn a_trace_goes_on_whoever_sent_it_and_who_is_trusted_decides_on_it() {
    let w3c = |flags: &str| fields(&[("traceparent", &format!("00-{ID}-{SPAN}-{flags}"))]);
    for (percent, flags, is_trusted, is_sampled) in [
        (0, "01", false, false),
        (0, "01", true, true),
        (100, "00", false, true),
        (100, "00", true, false),
    ] {
        let trace = begin(&tracing(&[Propagator::W3c], percent), &w3c(flags), is_trusted);
        assert_eq!(trace.ids.trace.to_string(), ID);
        assert_eq!(trace.parent.unwrap().to_string(), SPAN);
        assert_ne!(trace.ids.span.to_string(), SPAN);
        assert_eq!(trace.is_sampled, is_sampled, "{percent} {flags} {is_trusted}");
    }
    let (one, other) = (begin(&tracing(&[Propagator::W3c], 0), &HeaderMap::new(), true), |kind| {
        begin(&tracing(&[kind], 0), &fields(&[("b3", &format!("{ID}-{SPAN}-1"))]), true)
    });
    assert_eq!((one.parent, one.is_sampled), (None, false));
    assert_eq!(other(Propagator::W3c).parent, None, "not asked for");
    assert_eq!(other(Propagator::B3Multi).parent.unwrap().to_string(), SPAN, "in either form");
    let alone = fields(&[("b3", "1")]);
    assert!(begin(&tracing(&[Propagator::B3], 0), &alone, true).is_sampled, "without a trace");
    assert!(!begin(&tracing(&[Propagator::B3], 0), &alone, false).is_sampled, "by a stranger");
}

#[test]
fn the_first_kind_that_names_a_trace_counts() {
    let other = "0af7651916cd43dd8448eb211c80319c";
    let both = fields(&[
        ("traceparent", &format!("00-{ID}-{SPAN}-01")),
        ("b3", &format!("{other}-{SPAN}-1")),
    ]);
    let first =
        |kinds: &[Propagator]| begin(&tracing(kinds, 0), &both, false).ids.trace.to_string();
    assert_eq!(first(&[Propagator::W3c, Propagator::B3]), ID);
    assert_eq!(first(&[Propagator::B3, Propagator::W3c]), other);
}

#[test]
fn an_origin_is_told_the_span_of_its_attempt_in_every_way_that_was_asked_for() {
    let given = [
        ("traceparent", &*format!("00-{ID}-{SPAN}-03")),
        ("tracestate", "a=1"),
        ("x-b3-flags", "1"),
    ];
    let tracing = tracing(&[Propagator::W3c, Propagator::B3, Propagator::B3Multi], 0);
    let mut headers = fields(&given);
    let trace = begin(&tracing, &headers, false);
    for attempt in 0..2 {
        tracing.tell(&trace, attempt, &mut headers);
        let told = |name: &str| headers[name].to_str().unwrap();
        let (span, above) = (trace.ids.span.below(attempt), trace.ids.span);
        assert_eq!(told("traceparent"), format!("00-{ID}-{span}-02"), "by chance, not sampled");
        assert_eq!(told("tracestate"), "a=1");
        assert_eq!(told("b3"), format!("{ID}-{span}-0-{above}"));
        assert_eq!((told("x-b3-traceid"), told("x-b3-spanid")), (ID, &*span.to_string()));
        assert_eq!((told("x-b3-parentspanid"), told("x-b3-sampled")), (&*above.to_string(), "0"));
        assert!(!headers.contains_key("x-b3-flags"));
    }
}

#[test]
fn a_state_that_belongs_to_another_trace_does_not_go_on() {
    let tracing = tracing(&[Propagator::B3, Propagator::W3c], 100);
    let mut headers = fields(&[
        ("b3", &format!("{ID}-{SPAN}-1")),
        ("traceparent", &format!("00-{SPAN}{SPAN}-{SPAN}-01")),
        ("tracestate", "a=1"),
    ]);
    let trace = begin(&tracing, &headers, false);
    tracing.tell(&trace, 0, &mut headers);
    assert!(headers["traceparent"].to_str().unwrap().starts_with(&format!("00-{ID}-")));
    assert!(!headers.contains_key("tracestate"));
}
