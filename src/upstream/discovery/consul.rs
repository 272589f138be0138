//! Backends from Consul: the instances of a service whose checks pass, by blocking queries.
//!
//! Each answer has an index; the next question waits at Consul until there is a later one. An
//! index that goes back means that Consul began anew, and so does the question.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error};
use tokio::time::{self, Instant};

use crate::{
    diagnostic::{Problem, Problems},
    units,
    upstream::{
        config::{Address, WEIGHT_MAX},
        discovery::{
            api::{self, Api, TlsConfig, Url, escaped},
            source::{Answer, Failure, Found, Named, Source, bounded},
            token::Token,
        },
        target::Target,
    },
    yaml::Spanned,
};

/// The shortest time from one question to the next, so that a service that flaps, or an agent that
/// does not wait, keeps nobody busy.
const ASK_EVERY_MIN: Duration = Duration::from_millis(200);
/// What an answer may take longer than it was asked to wait: Consul adds a sixteenth by itself.
const SLACK: Duration = Duration::from_secs(10);
/// The waits that make sense; a longer one is not granted by Consul.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(600);

/// The healthy instances of a service that Consul knows, with their weights.
///
/// What the operator writes under `consul:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Consul")]
pub struct Config {
    /// The URL of an agent. Default: `http://127.0.0.1:8500`.
    #[serde(default = "agent")]
    pub url: Url,
    /// The name of the service.
    #[schemars(length(min = 1))]
    pub service: Spanned<String>,
    /// Only instances with this tag. Default: all.
    #[serde(default)]
    #[schemars(with = "String")]
    pub tag: Option<String>,
    /// The datacenter that is asked. Default: that of the agent.
    #[serde(default)]
    #[schemars(with = "String")]
    pub datacenter: Option<String>,
    /// The token of an ACL; better kept in a file: `${file:/run/secrets/consul}`. Default: none.
    #[serde(default)]
    #[schemars(with = "String")]
    pub token: Option<Spanned<String>>,
    /// A file with that token, read for each question. Default: none.
    #[serde(default)]
    #[schemars(with = "String")]
    pub token_file: Option<Spanned<String>>,
    /// How long a question waits for a change, `1s` to `10m`. Default: `5m`.
    #[serde(default = "five_minutes", deserialize_with = "wait")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub wait: units::Duration,
    /// TLS toward an agent at an `https://` URL. Default: none, and `https://` is as with `{}`.
    #[serde(default)]
    #[schemars(with = "TlsConfig")]
    pub tls: Option<Spanned<TlsConfig>>,
}

fn agent() -> Url {
    "http://127.0.0.1:8500".parse().expect("it is a URL")
}

fn five_minutes() -> units::Duration {
    units::Duration(Duration::from_secs(300))
}

fn wait<'de, D: Deserializer<'de>>(reader: D) -> Result<units::Duration, D::Error> {
    let wait = units::positive(reader)?;
    if (WAIT_MIN..=WAIT_MAX).contains(&wait.0) {
        return Ok(wait);
    }
    Err(D::Error::custom(format!("`{wait}` is no time to wait for\nhelp: write `1s` to `10m`")))
}

/// Asks an agent.
pub struct Consul {
    api: Api,
    path: String,
    token: Token,
    wait: Duration,
    /// Of the last answer; 0 asks for one at once.
    index: u64,
    asked: Option<Instant>,
}

impl Config {
    /// Prepares the questions; `None` if something is wrong.
    pub fn build(&self, folder: &Path, problems: &mut Problems) -> Option<Named> {
        if self.service.value.is_empty() {
            let problem = Problem::error("the name of the service is empty").at(self.service.span);
            problems.push(problem.help("name it as Consul does, as in `service: web`"));
        }
        let token = Token::of(self.token.as_ref(), self.token_file.as_ref(), folder, problems);
        let endpoints = vec![self.url.0.clone()];
        let files = TlsConfig::build(self.tls.as_ref(), &endpoints, folder, problems)?;
        let api = Api::new(endpoints, files);
        let label = self.label(&api);
        let (path, wait) = (self.path(), self.wait.0);
        Some((label, Box::new(Consul { api, path, token, wait, index: 0, asked: None })))
    }

    /// What logs and `status` call it.
    fn label(&self, api: &Api) -> String {
        let more = [("tag", &self.tag), ("datacenter", &self.datacenter)];
        let more =
            more.iter().filter_map(|(key, value)| Some(format!(" {key} {}", value.as_ref()?)));
        format!("consul {}{} at {}", self.service, more.collect::<String>(), api.place())
    }

    fn path(&self) -> String {
        let mut path = format!("/v1/health/service/{}?passing=true", escaped(&self.service));
        for (key, value) in [("tag", &self.tag), ("dc", &self.datacenter)] {
            path.extend(value.iter().map(|value| format!("&{key}={}", escaped(value))));
        }
        path
    }
}

#[async_trait]
impl Source for Consul {
    async fn next(&mut self) -> Answer {
        if let Some(asked) = self.asked {
            time::sleep_until(asked + ASK_EVERY_MIN).await;
        }
        self.asked = Some(Instant::now());
        // Should this end badly, the next question begins anew.
        let index = std::mem::take(&mut self.index);
        let path = match index {
            0 => self.path.clone(),
            index => format!("{}&index={index}&wait={}ms", self.path, self.wait.as_millis()),
        };
        let token = self.token.read().await?.map(|token| ("x-consul-token", token));
        let question = api::question(Method::GET, &path, token, "")?;
        let within = if index == 0 { api::WITHIN } else { self.wait + self.wait / 16 + SLACK };
        let answer = self.api.ask(question, within).await?;
        let told = answer.headers.get("x-consul-index").cloned();
        let instances: Vec<Instance> = api::json(answer).await?;
        let told = told.and_then(|told| told.to_str().ok()?.parse().ok());
        let told = told.ok_or_else(|| Failure::new("an answer without `X-Consul-Index`"))?;
        self.index = following(index, told);
        let found: Result<_, _> = instances.iter().map(Instance::found).collect();
        bounded(found?)
    }
}

/// The index to ask with after an answer: its own, at least 1, since 0 would not wait; none if it
/// went back.
fn following(asked: u64, told: u64) -> u64 {
    if told < asked { 0 } else { told.max(1) }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    node: Node,
    service: Service,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(default)]
    address: String,
    port: u16,
    #[serde(default)]
    weights: Option<Weights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u32,
}

impl Instance {
    /// A service without an address is at that of its node.
    fn found(&self) -> Result<Found, Failure> {
        let Service { address, port, weights } = &self.service;
        let host = if address.is_empty() { &self.node.address } else { address };
        let address = Address::of(host, *port)
            .ok_or_else(|| Failure(format!("an instance is at `{host}`, port {port}")))?;
        let weight = weights.as_ref().map_or(1, |weights| weights.passing);
        let weight = u16::try_from(weight).unwrap_or(WEIGHT_MAX).clamp(1, WEIGHT_MAX);
        Ok(Found { address, target: Target::of(weight) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_goes_on_and_begins_anew_when_it_goes_back() {
        assert_eq!(following(0, 41), 41);
        assert_eq!(following(41, 41), 41, "nothing changed while it waited");
        assert_eq!(following(41, 44), 44);
        assert_eq!(following(44, 7), 0, "as after a snapshot was restored");
        assert_eq!(following(0, 0), 1, "0 would not wait");
    }

    fn told(json: &str) -> Result<(String, u16), String> {
        let instance: Instance = serde_json::from_str(json).unwrap();
        let found = instance.found().map_err(|why| why.to_string())?;
        Ok((found.address.to_string(), found.target.weight))
    }

    #[test]
    fn an_instance_is_at_its_own_address_or_at_that_of_its_node() {
        let of = |address: &str, port: u16, weights: &str| {
            told(&format!(
                r#"{{"Node":{{"Node":"n1","Address":"10.0.0.1"}},
                    "Service":{{"ID":"web-1","Address":"{address}","Port":{port}{weights}}}}}"#
            ))
        };
        let weights = |passing: u32| format!(r#","Weights":{{"Passing":{passing},"Warning":1}}"#);
        assert_eq!(of("", 80, ""), Ok(("10.0.0.1:80".to_owned(), 1)));
        assert_eq!(of("10.1.0.1", 80, &weights(3)), Ok(("10.1.0.1:80".to_owned(), 3)));
        assert_eq!(of("fd00::1", 80, &weights(0)), Ok(("[fd00::1]:80".to_owned(), 1)));
        assert_eq!(of("web.test", 80, &weights(1_000)), Ok(("web.test:80".to_owned(), 256)));
        assert_eq!(of("", 0, ""), Err("an instance is at `10.0.0.1`, port 0".to_owned()));
    }
}
