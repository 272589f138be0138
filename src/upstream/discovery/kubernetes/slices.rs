//! `EndpointSlice`s: what the API tells of them, and the backends that they come to.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::upstream::{
    config::Address,
    discovery::{
        kubernetes::names::Port,
        source::{Answer, Failure, Found, bounded},
    },
    target::Target,
};

/// All slices of a service, by name.
pub(super) struct Slices {
    port: Option<Port>,
    known: BTreeMap<String, Slice>,
}

/// What an event of a watch came to.
pub(super) enum Event {
    /// It was taken; with the version to go on from, if it told one.
    Applied(Option<String>),
    /// What the watch began at is too old.
    Gone,
}

/// A page of a list.
#[derive(Deserialize)]
pub(super) struct List {
    pub(super) metadata: ListMetadata,
    #[serde(default)]
    pub(super) items: Vec<Slice>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMetadata {
    pub(super) resource_version: String,
    #[serde(default, rename = "continue")]
    pub(super) more: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Slice {
    metadata: Metadata,
    #[serde(default)]
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<SlicePort>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    resource_version: Option<String>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
    #[serde(default)]
    zone: Option<String>,
}

/// Each may be unknown, which counts as the API says.
#[derive(Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize)]
struct SlicePort {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    protocol: Option<String>,
}

#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    object: serde_json::Value,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

impl Slices {
    pub(super) fn new(port: Option<Port>) -> Self {
        Self { port, known: BTreeMap::new() }
    }

    /// Takes a whole list.
    pub(super) fn replace(&mut self, slices: Vec<Slice>) {
        self.known = slices.into_iter().map(|slice| (slice.metadata.name.clone(), slice)).collect();
    }

    /// Takes an event of a watch.
    pub(super) fn apply(&mut self, line: &[u8]) -> Result<Event, Failure> {
        let unexpected = |why| Failure(format!("an event is not as expected: {why}"));
        let Told { kind, object } = serde_json::from_slice(line).map_err(unexpected)?;
        if kind == "ERROR" {
            let Status { code, message } = serde_json::from_value(object).map_err(unexpected)?;
            return match code {
                410 => Ok(Event::Gone),
                _ => Err(Failure(format!("the watch ended: {code} {message}"))),
            };
        }
        let slice: Slice = serde_json::from_value(object).map_err(unexpected)?;
        let version = slice.metadata.resource_version.clone();
        match &*kind {
            "ADDED" | "MODIFIED" => {
                self.known.insert(slice.metadata.name.clone(), slice);
            }
            "DELETED" => {
                self.known.remove(&slice.metadata.name);
            }
            // A bookmark tells a version alone; kinds that come later are not ours to judge.
            _ => {}
        }
        Ok(Event::Applied(version))
    }

    /// The endpoints that are ready; if none is, those that still serve while they end.
    pub(super) fn found(&self) -> Answer {
        let (mut ready, mut serving) = (BTreeMap::new(), BTreeMap::new());
        let (mut without_port, mut has_some) = (None, false);
        for slice in self.known.values().filter(|slice| slice.has_endpoints()) {
            // In a roll-out that adds a port there are slices that do not have it yet.
            let Some(port) = self.port(slice)? else {
                without_port = Some(&slice.metadata.name);
                continue;
            };
            has_some = true;
            for endpoint in slice.endpoints.iter().flatten() {
                // All addresses of an endpoint are the same one; the first stands for it.
                let Some(address) = endpoint.addresses.first() else { continue };
                let at = slice.at(address, port)?;
                let kept = match endpoint.conditions.condition() {
                    Condition::Ready => &mut ready,
                    Condition::Ending => &mut serving,
                    Condition::Unfit => continue,
                };
                kept.insert(at.to_string(), (at, endpoint.zone.as_deref()));
            }
        }
        if let (Some(slice), false) = (without_port, has_some) {
            let which = self.port.as_ref().map_or(String::new(), |port| format!(" `{port}`"));
            return Err(Failure(format!("the slice {slice} has no TCP port{which}")));
        }
        let endpoints = if ready.is_empty() { serving } else { ready };
        let found = endpoints.into_values().map(|(address, zone)| Found {
            address,
            target: Target { zone: zone.map(Into::into), ..Target::of(1) },
        });
        bounded(found.collect())
    }

    /// The port of the endpoints of a slice; `None` if it has none that is meant.
    fn port(&self, slice: &Slice) -> Result<Option<u16>, Failure> {
        let is_meant = |port: &&SlicePort| {
            let is_tcp = port.protocol.as_deref().is_none_or(|it| it == "TCP");
            is_tcp
                && match &self.port {
                    None => true,
                    Some(Port::Name(name)) => port.name.as_ref() == Some(name),
                    Some(Port::Number(number)) => port.port == Some(*number),
                }
        };
        let ports: Vec<_> = slice.ports.iter().flatten().filter(is_meant).collect();
        match ports.as_slice() {
            [] => Ok(None),
            [one] => Ok(one.port),
            many => {
                let names: Vec<_> = many.iter().filter_map(|port| port.name.as_deref()).collect();
                let (name, names) = (&slice.metadata.name, names.join(", "));
                Err(Failure(format!("the slice {name} has several ports; choose `port`: {names}")))
            }
        }
    }
}

impl Slice {
    fn has_endpoints(&self) -> bool {
        self.endpoints.iter().flatten().any(|endpoint| !endpoint.addresses.is_empty())
    }

    fn at(&self, host: &str, port: u16) -> Result<Address, Failure> {
        match &*self.address_type {
            "IPv4" | "IPv6" | "FQDN" => Address::of(host, port)
                .ok_or_else(|| Failure(format!("an endpoint is at `{host}`, port {port}"))),
            kind => Err(Failure(format!("an endpoint has an address of the kind `{kind}`"))),
        }
    }
}

/// Whether an endpoint is fit.
enum Condition {
    /// It is.
    Ready,
    /// It ends, and serves on meanwhile: better than none.
    Ending,
    /// It is not.
    Unfit,
}

impl Conditions {
    /// What is not told of readiness counts as ready, of the others as not.
    fn condition(&self) -> Condition {
        let Self { ready, serving, terminating } = self;
        match (ready.unwrap_or(true), serving.unwrap_or(false) && terminating.unwrap_or(false)) {
            (true, _) => Condition::Ready,
            (false, true) => Condition::Ending,
            (false, false) => Condition::Unfit,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, ports: &Value, endpoints: &Value) -> Value {
        json!({
            "metadata": { "name": name, "namespace": "shop", "resourceVersion": "7" },
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": endpoints,
        })
    }

    /// What slices with these ports and endpoints come to.
    fn told(port: Option<&str>, slices: &[(Value, Value)]) -> Result<Vec<String>, String> {
        let mut known = Slices::new(port.map(|port| port.parse().unwrap()));
        for (nth, (ports, endpoints)) in slices.iter().enumerate() {
            let object = slice(&format!("web-{nth}"), ports, endpoints);
            let event = json!({ "type": "ADDED", "object": object }).to_string();
            let Ok(Event::Applied(Some(version))) = known.apply(event.as_bytes()) else { panic!() };
            assert_eq!(version, "7");
        }
        let found = known.found().map_err(|why| why.to_string())?.into_iter();
        let zone = |found: &Found| {
            found.target.zone.as_ref().map_or(String::new(), |it| format!(" in {it}"))
        };
        Ok(found.map(|found| format!("{}{}", found.address, zone(&found))).collect())
    }

    fn http(port: u16) -> Value {
        json!([{ "name": "http", "port": port, "protocol": "TCP" }])
    }

    #[test]
    fn endpoints_serve_while_they_are_ready_and_while_they_end_if_no_other_is() {
        let ready =
            |address: &str| json!({ "addresses": [address], "conditions": { "ready": true } });
        let ends = json!({ "addresses": ["10.0.0.3"], "conditions":
            { "ready": false, "serving": true, "terminating": true } });
        let fails = json!({ "addresses": ["10.0.0.4"], "conditions": { "ready": false } });
        let untold = json!({ "addresses": ["10.0.0.5"], "zone": "eu-1a" });
        let many = json!([ready("10.0.0.1"), ends, fails, untold]);
        let first = (http(80), many);
        // The same endpoint stands in two slices while it moves from one to the other.
        let second = (http(80), json!([ready("10.0.0.1"), ready("10.0.0.2")]));
        let expected = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.5:80 in eu-1a"];
        assert_eq!(told(None, &[first, second]).unwrap(), expected);
        let left = (http(80), json!([ends, fails]));
        assert_eq!(told(None, &[left]).unwrap(), ["10.0.0.3:80"]);
        assert_eq!(told(None, &[(http(80), json!([fails]))]).unwrap(), [""; 0]);
        assert_eq!(told(None, &[(Value::Null, Value::Null)]).unwrap(), [""; 0]);
    }

    #[test]
    fn a_port_is_the_only_one_or_the_one_that_is_named() {
        let endpoints = json!([{ "addresses": ["10.0.0.1"] }]);
        let two = json!([{ "name": "http", "port": 80 }, { "name": "admin", "port": 9000 }]);
        let udp = json!([{ "name": "dns", "port": 53, "protocol": "UDP" }]);
        let of = |port, ports: &Value| told(port, &[(ports.clone(), endpoints.clone())]);
        assert_eq!(of(None, &http(81)).unwrap(), ["10.0.0.1:81"]);
        assert_eq!(of(Some("admin"), &two).unwrap(), ["10.0.0.1:9000"]);
        assert_eq!(of(Some("9000"), &two).unwrap(), ["10.0.0.1:9000"]);
        assert_eq!(
            of(None, &two).unwrap_err(),
            "the slice web-0 has several ports; choose `port`: http, admin"
        );
        assert_eq!(of(Some("grpc"), &two).unwrap_err(), "the slice web-0 has no TCP port `grpc`");
        assert_eq!(of(None, &udp).unwrap_err(), "the slice web-0 has no TCP port");
        // One slice has it already.
        let slices = [(two, endpoints.clone()), (http(80), endpoints)];
        assert_eq!(told(Some("admin"), &slices).unwrap(), ["10.0.0.1:9000"]);
    }

    #[test]
    fn an_event_adds_takes_away_or_says_that_all_is_to_be_listed_again() {
        let mut known = Slices::new(None);
        let endpoints = json!([{ "addresses": ["10.0.0.1"] }]);
        let mut apply = |kind: &str, object: Value| {
            let event = json!({ "type": kind, "object": object }).to_string();
            let event = known.apply(event.as_bytes());
            (event, known.found().unwrap().len())
        };
        let web = slice("web-0", &http(80), &endpoints);
        assert!(matches!(apply("ADDED", web.clone()), (Ok(Event::Applied(Some(_))), 1)));
        let bookmark = json!({ "kind": "EndpointSlice", "metadata": { "resourceVersion": "9" },
            "endpoints": null, "ports": null, "addressType": "" });
        let (event, count) = apply("BOOKMARK", bookmark);
        assert!(matches!(event, Ok(Event::Applied(Some(version))) if version == "9"));
        assert_eq!(count, 1, "a bookmark is no slice");
        assert!(matches!(apply("DELETED", web), (Ok(Event::Applied(Some(_))), 0)));
        let status = |code: u16| json!({ "kind": "Status", "code": code, "message": "too old" });
        assert!(matches!(apply("ERROR", status(410)), (Ok(Event::Gone), 0)));
        let (event, _) = apply("ERROR", status(500));
        assert_eq!(
            event.err().map(|why| why.to_string()).as_deref(),
            Some("the watch ended: 500 too old")
        );
    }
}
