//! What records come from: this program, on this machine.

use std::{collections::BTreeMap, process};

use rustix::system;

use crate::otlp::proto::{KeyValue, Resource, Scope};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The resource, by OpenTelemetry's conventions; what the operator says comes last, and wins.
pub(crate) fn resource(service: &str, more: &BTreeMap<String, String>) -> Resource {
    let host = system::uname().nodename().to_string_lossy().into_owned();
    let known = [
        KeyValue::new("service.name", service),
        KeyValue::new("service.version", VERSION),
        KeyValue::new("host.name", host),
        KeyValue::new("process.pid", u64::from(process::id())),
    ];
    let known = known.into_iter().filter(|known| !more.contains_key(&known.key));
    let more = more.iter().map(|(key, value)| KeyValue::new(key.as_str(), value.as_str()));
    Resource { attributes: known.chain(more).collect() }
}

/// Which part of the program tells it.
pub(crate) fn scope() -> Scope {
    Scope { name: "crestline".to_owned(), version: VERSION.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_says_wins() {
        let more = [("host.name", "a"), ("deployment.environment.name", "test")];
        let more = more.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let resource = resource("edge", &more);
        let of = |key: &str| {
            let mut all = resource.attributes.iter().filter(|known| known.key == key);
            let (first, second) = (all.next().unwrap(), all.next());
            assert!(second.is_none(), "{key} is there twice");
            first.clone()
        };
        for (key, value) in
            [("service.name", "edge"), ("host.name", "a"), ("deployment.environment.name", "test")]
        {
            assert_eq!(of(key), KeyValue::new(key, value));
        }
    }
}
