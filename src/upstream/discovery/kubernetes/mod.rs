//! Backends from Kubernetes: the endpoints of a service, by its `EndpointSlice`s.
//!
//! All slices are listed, and watched from the version of the list. The watch ends now and then
//! and goes on from the last version that it told, bookmarks included; when that is too old (`410
//! Gone`), all are listed again.

mod names;
mod slices;

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use http::{Method, StatusCode, header::AUTHORIZATION};
use schemars::JsonSchema;
use serde::Deserialize;

pub use self::names::{Name, NoName, NoPort, Port};
use self::slices::{Event, List, Slices};
use crate::{
    client::{self, endpoint::Files},
    diagnostic::{Problem, Problems},
    upstream::discovery::{
        api::{self, Api, TlsConfig, Url, WITHIN, escaped},
        source::{Answer, Failure, Named, Source},
        stream::{Heard, Reopening, Stream},
        token::{self, Token},
    },
    yaml::Spanned,
};

/// What a pod finds of the account that it runs as.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long the API keeps a watch open.
const WATCH_SECONDS: u64 = 300;
/// A watch that is silent for longer is not there any more; bookmarks come each minute or so.
const QUIET_MAX: Duration = Duration::from_secs(WATCH_SECONDS + 30);
/// So many slices are listed at a time.
const PAGE: usize = 500;
/// So many pages make a list, at most.
const PAGES_MAX: usize = 100;

/// The ready endpoints of a service in Kubernetes.
///
/// What the operator writes under `kubernetes:`. The account needs the verbs `list` and `watch` on
/// `endpointslices` of `discovery.k8s.io`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Kubernetes")]
pub struct Config {
    /// The name of the service.
    pub service: Name,
    /// Its namespace. Default: that of the pod that Crestline runs in.
    #[serde(default)]
    #[schemars(with = "Name")]
    pub namespace: Option<Name>,
    /// Which port of the endpoints, by its name or its number. Default: the only one.
    #[serde(default)]
    #[schemars(with = "Port")]
    pub port: Option<Port>,
    /// The URL of the API server. Default: the one that pods are told of by their environment.
    #[serde(default)]
    #[schemars(with = "Url")]
    pub url: Option<Spanned<Url>>,
    /// A file with the token of an account, read for each question.
    /// Default: that of the pod's account, where `url` is not set.
    #[serde(default)]
    #[schemars(with = "String")]
    pub token_file: Option<Spanned<String>>,
    /// TLS toward the API server. Default: the pod's `ca.crt`, where `url` is not set.
    #[serde(default)]
    #[schemars(with = "TlsConfig")]
    pub tls: Option<Spanned<TlsConfig>>,
}

/// Lists and watches.
pub struct Kubernetes {
    /// `None` until it is known, in a pod.
    api: Option<Api>,
    token: Token,
    namespace: Option<Name>,
    service: Name,
    slices: Slices,
    /// What a watch goes on from; `None` lists anew.
    version: Option<String>,
    watch: Option<Stream>,
    reopening: Reopening,
}

impl Config {
    /// Prepares the questions; `None` if something is wrong.
    pub fn build(&self, folder: &Path, problems: &mut Problems) -> Option<Named> {
        let endpoints: Vec<_> = self.url.iter().map(|url| url.value.0.clone()).collect();
        if let (true, Some(tls)) = (endpoints.is_empty(), &self.tls) {
            let problem = Problem::error("`tls` does nothing without `url`").at(tls.span);
            let help =
                "the pod's account says who vouches for the API; name its `url`, or remove `tls`";
            problems.push(problem.help(help));
            return None;
        }
        if let (Some(url), None) = (&self.url, &self.namespace) {
            let problem = Problem::error("`url` needs a `namespace` beside it").at(url.span);
            problems.push(problem.help("write that of the service, as in `namespace: default`"));
        }
        let files = TlsConfig::build(self.tls.as_ref(), &endpoints, folder, problems)?;
        let token = match &self.token_file {
            Some(file) => Token::of(None, Some(file), folder, problems),
            None if endpoints.is_empty() => Token::File(in_account("token")),
            None => Token::None,
        };
        let kubernetes = Kubernetes {
            api: (!endpoints.is_empty()).then(|| Api::new(endpoints, files)),
            token,
            namespace: self.namespace.clone(),
            service: self.service.clone(),
            slices: Slices::new(self.port.clone()),
            version: None,
            watch: None,
            reopening: Reopening::default(),
        };
        Some((self.label(), Box::new(kubernetes)))
    }

    /// What logs and `status` call it.
    fn label(&self) -> String {
        let of = self.namespace.as_ref().map_or(String::new(), |namespace| format!("{namespace}/"));
        let port = self.port.as_ref().map_or(String::new(), |port| format!(" port {port}"));
        let at = self.url.as_ref().map_or(String::new(), |url| format!(" at {}", url.value.0));
        format!("kubernetes {of}{}{port}{at}", self.service)
    }
}

#[async_trait]
impl Source for Kubernetes {
    async fn next(&mut self) -> Answer {
        loop {
            let Some(version) = self.version.clone() else {
                self.watch = None;
                self.version = Some(self.list().await?);
                return self.slices.found();
            };
            // The watch stays only if all goes well; the version, unless it cannot be believed.
            let Some(mut watch) = self.watch.take() else {
                if self.begin(&version).await? {
                    return self.slices.found();
                }
                self.version = None;
                continue;
            };
            match watch.hear(QUIET_MAX).await {
                Heard::Silence => return Err(Failure::new("the watch fell silent")),
                // The server ends a watch after its time; a connection may break. It goes on.
                Heard::End(_) => self.reopening.pause().await,
                Heard::Events(events) => {
                    self.version = None;
                    match self.apply(&events, version)? {
                        Some(version) => {
                            (self.version, self.watch) = (Some(version), Some(watch));
                            return self.slices.found();
                        }
                        None => self.reopening.pause().await,
                    }
                }
            }
        }
    }
}

impl Kubernetes {
    /// Takes events; the version to go on from, which is none if that is too old by now.
    fn apply(
        &mut self,
        events: &[bytes::Bytes],
        mut version: String,
    ) -> Result<Option<String>, Failure> {
        for event in events {
            match self.slices.apply(event)? {
                Event::Applied(now) => version = now.unwrap_or(version),
                Event::Gone => return Ok(None),
            }
        }
        Ok(Some(version))
    }

    /// Lists all slices, page by page; the version of the list.
    async fn list(&mut self) -> Result<String, Failure> {
        let (mut pages, mut more) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let next = match &*more {
                "" => String::new(),
                more => format!("&continue={}", escaped(more)),
            };
            let answer = self.ask(&format!("&limit={PAGE}{next}")).await?;
            let List { metadata, items } = api::json(answer).await?;
            pages.extend(items);
            more = metadata.more.unwrap_or_default();
            if more.is_empty() {
                self.slices.replace(pages);
                return Ok(metadata.resource_version);
            }
        }
        Err(Failure(format!("a list of more than {} slices", PAGE * PAGES_MAX)))
    }

    /// Begins a watch; `false` if the version is too old.
    async fn begin(&mut self, version: &str) -> Result<bool, Failure> {
        let more = format!(
            "&watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}",
            escaped(version)
        );
        let answer = self.ask(&more).await?;
        if answer.status == StatusCode::GONE {
            return Ok(false);
        }
        self.watch = Some(Stream::of(answer).await?);
        self.reopening.opened();
        Ok(true)
    }

    async fn ask(&mut self, more: &str) -> Result<client::answer::Answer, Failure> {
        let namespace = match &self.namespace {
            Some(namespace) => namespace.to_string(),
            None => token::read_line(&in_account("namespace")).await?,
        };
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices?labelSelector={}{more}",
            escaped(&namespace),
            escaped(&format!("kubernetes.io/service-name={}", self.service)),
        );
        let token = self.token.read().await?;
        let token = token.map(|token| (AUTHORIZATION.as_str(), format!("Bearer {token}")));
        let question = api::question(Method::GET, &path, token, "")?;
        if self.api.is_none() {
            self.api = Some(in_pod()?);
        }
        let Some(api) = &self.api else { return Err(Failure::new("no API is known")) };
        api.ask(question, WITHIN).await
    }
}

/// The API as a pod is told of it.
fn in_pod() -> Result<Api, Failure> {
    let told = |name: &str| {
        env::var(name).map_err(|_| Failure(format!("`{name}` is not set: this is no pod")))
    };
    let (host, port) = (told("KUBERNETES_SERVICE_HOST")?, told("KUBERNETES_SERVICE_PORT")?);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let url = format!("https://{host}:{port}");
    let endpoint = url.parse().map_err(|_| Failure(format!("`{url}` is no URL")))?;
    Ok(Api::new(vec![endpoint], Files { ca: Some(in_account("ca.crt")), own: None }))
}

fn in_account(name: &str) -> PathBuf {
    Path::new(ACCOUNT).join(name)
}
