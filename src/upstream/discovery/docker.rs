//! Backends from Docker: the running containers with a label.
//!
//! Events only say that something changed; the containers are then listed anew. The stream of
//! events is opened before the list is read, so that nothing falls between the two.

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU16, path::Path, time::Duration};

use async_trait::async_trait;
use http::Method;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::{
    client,
    diagnostic::{Problem, Problems},
    upstream::{
        config::{Address, Weight},
        discovery::{
            api::{self, Api, TlsConfig, Url, WITHIN, escaped},
            source::{Answer, Failure, Found, Named, Source, bounded},
            stream::{Heard, Reopening, Stream},
        },
        target::Target,
    },
    yaml::Spanned,
};

/// Containers are listed at least so often: no event tells that one was connected to a network.
const LIST_EVERY: Duration = Duration::from_secs(20);
/// What can change the answer.
const EVENTS: [&str; 10] =
    ["start", "die", "stop", "kill", "destroy", "pause", "unpause", "restart", "rename", "update"];

/// The running containers with a label, at their addresses in a network of Docker's.
///
/// What the operator writes under `docker:`. The labels `crestline.port`, `crestline.network` and
/// `crestline.weight` of a container say more of it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Docker")]
pub struct Config {
    /// Where Docker is asked. Default: `unix:/var/run/docker.sock`.
    #[serde(default = "socket")]
    pub url: Url,
    /// The label of the containers, with its value.
    /// Default: that of the upstream's name, such as `crestline.upstream=app`.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    pub label: Option<Spanned<String>>,
    /// The port of containers without a label `crestline.port`.
    /// Default: the only TCP port that each has.
    #[serde(default)]
    #[schemars(with = "u16", range(min = 1))]
    pub port: Option<NonZeroU16>,
    /// The network of containers without a label `crestline.network`.
    /// Default: the only one that each is in.
    #[serde(default)]
    #[schemars(with = "String")]
    pub network: Option<String>,
    /// TLS toward Docker at an `https://` URL. Default: none, and `https://` is as with `{}`.
    #[serde(default)]
    #[schemars(with = "TlsConfig")]
    pub tls: Option<Spanned<TlsConfig>>,
}

fn socket() -> Url {
    "unix:/var/run/docker.sock".parse().expect("it is a path")
}

/// Lists, and listens for events.
pub struct Docker {
    api: Api,
    label: String,
    port: Option<u16>,
    network: Option<String>,
    events: Option<Stream>,
    reopening: Reopening,
}

impl Config {
    /// Prepares the questions; `None` if something is wrong.
    pub fn build(&self, upstream: &str, folder: &Path, problems: &mut Problems) -> Option<Named> {
        let endpoints = vec![self.url.0.clone()];
        let files = TlsConfig::build(self.tls.as_ref(), &endpoints, folder, problems)?;
        let written = self.label.as_ref();
        if let Some(label) = written.filter(|it| it.starts_with('=') || it.is_empty()) {
            let problem = Problem::error(format!("`{label}` is no label")).at(label.span);
            problems.push(problem.help("write its name and its value, as in `label: app=web`"));
        }
        let default = || format!("crestline.upstream={upstream}");
        let docker = Docker {
            api: Api::new(endpoints, files),
            label: written.map_or_else(default, |label| label.value.clone()),
            port: self.port.map(NonZeroU16::get),
            network: self.network.clone(),
            events: None,
            reopening: Reopening::default(),
        };
        Some((format!("docker {} at {}", docker.label, docker.api.place()), Box::new(docker)))
    }
}

#[async_trait]
impl Source for Docker {
    async fn next(&mut self) -> Answer {
        loop {
            // The stream stays only if all goes well.
            let Some(mut events) = self.events.take() else {
                let events = self.listen().await?;
                return self.list_beside(events).await;
            };
            match events.hear(LIST_EVERY).await {
                Heard::Events(_) | Heard::Silence => return self.list_beside(events).await,
                // Docker was started anew, or the stream broke.
                Heard::End(_) => self.reopening.pause().await,
            }
        }
    }
}

impl Docker {
    async fn listen(&mut self) -> Result<Stream, Failure> {
        let filters = json!({ "type": ["container"], "event": EVENTS, "label": [self.label] });
        let path = format!("/events?filters={}", escaped(&filters.to_string()));
        let events = Stream::of(self.ask(&path).await?).await?;
        self.reopening.opened();
        Ok(events)
    }

    async fn list_beside(&mut self, events: Stream) -> Answer {
        let found = self.list().await?;
        self.events = Some(events);
        Ok(found)
    }

    async fn list(&self) -> Answer {
        let filters = json!({ "label": [self.label], "status": ["running"] });
        let path = format!("/containers/json?filters={}", escaped(&filters.to_string()));
        let containers: Vec<Container> = api::json(self.ask(&path).await?).await?;
        let found: Result<Vec<_>, _> =
            containers.iter().map(|container| self.found(container)).collect();
        bounded(found?)
    }

    async fn ask(&self, path: &str) -> Result<client::answer::Answer, Failure> {
        self.api.ask(api::question(Method::GET, path, None, "")?, WITHIN).await
    }

    fn found(&self, container: &Container) -> Result<Found, Failure> {
        let name = container.name();
        let wrong = |why: String| Failure(format!("the container {name} {why}"));
        let label = |key: &str| container.labels.iter().flatten().find(|(known, _)| *known == key);
        let port = match label("crestline.port") {
            Some((_, text)) => {
                let port = text.parse().ok().filter(|port| *port != 0);
                port.ok_or_else(|| wrong(format!("has the port `{text}`")))?
            }
            None => self.port.map_or_else(|| container.only_port().map_err(wrong), Ok)?,
        };
        let network = label("crestline.network").map(|(_, name)| name).or(self.network.as_ref());
        let ip = container.address(network.map(String::as_str)).map_err(wrong)?;
        let weight = match label("crestline.weight") {
            Some((_, text)) => {
                let weight = text.parse().ok().and_then(Weight::new);
                weight.ok_or_else(|| wrong(format!("has the weight `{text}`")))?.get()
            }
            None => 1,
        };
        let address = Address::Socket((ip, port).into());
        Ok(Found { address, target: Target::of(weight) })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
    #[serde(default)]
    network_settings: Option<NetworkSettings>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    private_port: u16,
    #[serde(rename = "Type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    networks: Option<BTreeMap<String, Network>>,
}

#[derive(Deserialize)]
struct Network {
    #[serde(default, rename = "IPAddress")]
    ip_address: String,
    #[serde(default, rename = "GlobalIPv6Address")]
    ipv6_address: String,
}

impl Container {
    fn name(&self) -> &str {
        let first = self.names.iter().flatten().next();
        first.map_or(&*self.id, |name| name.trim_start_matches('/'))
    }

    /// One that is published at several addresses stands there several times.
    fn only_port(&self) -> Result<u16, String> {
        let tcp = self.ports.iter().flatten().filter(|port| port.kind == "tcp");
        let mut ports: Vec<_> = tcp.map(|port| port.private_port).collect();
        ports.sort_unstable();
        ports.dedup();
        match ports[..] {
            [port] => Ok(port),
            [] => Err("has no TCP port; give it a label `crestline.port`".to_owned()),
            _ => Err(format!("has the ports {ports:?}; give it a label `crestline.port`")),
        }
    }

    fn address(&self, wanted: Option<&str>) -> Result<IpAddr, String> {
        let networks = self.network_settings.iter().filter_map(|all| all.networks.as_ref());
        let networks: Vec<_> = networks.flatten().collect();
        let (name, network) = match wanted {
            Some(wanted) => networks.iter().find(|(name, _)| *name == wanted).copied(),
            None if networks.len() == 1 => networks.first().copied(),
            None if networks.is_empty() => None,
            None => {
                let names: Vec<_> = networks.iter().map(|(name, _)| name.as_str()).collect();
                let names = names.join(", ");
                return Err(format!("is in several networks, name one of them: {names}"));
            }
        }
        .ok_or_else(|| match wanted {
            Some(wanted) => format!("is not in the network `{wanted}`"),
            None => "is in no network".to_owned(),
        })?;
        let addresses = [&network.ip_address, &network.ipv6_address];
        let address = addresses.iter().find_map(|text| text.parse().ok());
        address.ok_or_else(|| format!("has no address in the network `{name}`"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::client::endpoint::Files;

    /// A container as Docker lists it, with labels, ports and the addresses in its networks.
    fn container(labels: &Value, ports: &[u16], networks: &[(&str, &str)]) -> Container {
        let port = |port: &u16| json!({ "IP": "0.0.0.0", "PrivatePort": port, "PublicPort": 1, "Type": "tcp" });
        let mut ports: Vec<_> = ports.iter().flat_map(|it| [port(it), port(it)]).collect();
        ports.push(json!({ "PrivatePort": 53, "Type": "udp" }));
        let network = |(name, ip): &(&str, &str)| {
            ((*name).to_owned(), json!({ "IPAddress": ip, "GlobalIPv6Address": "" }))
        };
        let networks: serde_json::Map<_, _> = networks.iter().map(network).collect();
        let told = json!({
            "Id": "8dfafdbc3a40", "Names": ["/web-1"], "Labels": labels, "Ports": ports,
            "State": "running", "NetworkSettings": { "Networks": networks },
        });
        serde_json::from_value(told).unwrap()
    }

    fn told(network: Option<&str>, container: &Container) -> Result<(String, u16), String> {
        let docker = Docker {
            api: Api::new(vec!["unix:/run/docker.sock".parse().unwrap()], Files::default()),
            label: "app=web".to_owned(),
            port: None,
            network: network.map(str::to_owned),
            events: None,
            reopening: Reopening::default(),
        };
        let found = docker.found(container).map_err(|why| why.to_string())?;
        Ok((found.address.to_string(), found.target.weight))
    }

    #[test]
    fn a_container_is_at_its_only_port_in_its_only_network_or_where_labels_say() {
        let one = [("bridge", "172.17.0.2")];
        let two = [("bridge", "172.17.0.2"), ("shop", "10.5.0.2")];
        let at = |address: &str, weight| Ok((address.to_owned(), weight));
        assert_eq!(told(None, &container(&json!({}), &[80], &one)), at("172.17.0.2:80", 1));
        assert_eq!(told(Some("shop"), &container(&json!({}), &[80], &two)), at("10.5.0.2:80", 1));
        let labels = json!({ "crestline.port": "9000", "crestline.network": "bridge", "crestline.weight": "3" });
        assert_eq!(
            told(Some("shop"), &container(&labels, &[80, 81], &two)),
            at("172.17.0.2:9000", 3)
        );
    }

    #[test]
    fn a_container_of_which_that_is_not_clear_is_told_by_its_name() {
        let one = [("bridge", "172.17.0.2")];
        let two = [("bridge", "172.17.0.2"), ("shop", "10.5.0.2")];
        let why = |network, container: Container| told(network, &container).unwrap_err();
        for (told, expected) in [
            (
                why(None, container(&json!({}), &[], &one)),
                "has no TCP port; give it a label `crestline.port`",
            ),
            (
                why(None, container(&json!({}), &[80, 81], &one)),
                "has the ports [80, 81]; give it a label `crestline.port`",
            ),
            (
                why(None, container(&json!({}), &[80], &two)),
                "is in several networks, name one of them: bridge, shop",
            ),
            (why(Some("shop"), container(&json!({}), &[80], &one)), "is not in the network `shop`"),
            (why(None, container(&json!({}), &[80], &[])), "is in no network"),
            (
                why(None, container(&json!({}), &[80], &[("host", "")])),
                "has no address in the network `host`",
            ),
            (
                why(None, container(&json!({ "crestline.port": "0" }), &[80], &one)),
                "has the port `0`",
            ),
            (
                why(None, container(&json!({ "crestline.weight": "0" }), &[80], &one)),
                "has the weight `0`",
            ),
        ] {
            assert_eq!(told, format!("the container web-1 {expected}"));
        }
    }
}
