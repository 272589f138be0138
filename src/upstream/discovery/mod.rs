//! Where the backends of an upstream come from, behind Pingora's `ServiceDiscovery`.
//!
//! Each source is one file; a [`Feed`](feed::Feed) follows it, and the names that it gives.

pub mod api;
pub mod consul;
pub mod dns;
pub mod docker;
pub mod etcd;
pub mod feed;
pub mod file;
pub mod kubernetes;
mod names;
pub mod source;
pub mod srv;
pub mod stream;
pub mod token;

use std::{path::PathBuf, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    diagnostic::{Problem, Problems},
    units::{self, Duration},
    upstream::discovery::{dns::Resolver, feed::Origin, file::File, source::Named, srv::Srv},
    yaml::Spanned,
};

/// Sources of backends that are followed while Crestline runs; several give all that each does.
///
/// What the operator writes under `discovery:`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Discovery", extend("minProperties" = 1))]
pub struct Config {
    /// A name of DNS SRV records, such as `_http._tcp.app.internal`: its targets with their ports
    /// and weights, those of the lowest priority. Default: none.
    #[schemars(with = "srv::Config")]
    pub srv: Option<srv::Config>,
    /// A file with a list of backends in YAML or JSON, in the form of `backends`. It is seen from
    /// the folder of the main file, and read again when it changes. Default: none.
    #[schemars(with = "String")]
    pub file: Option<String>,
    /// The running containers with a label. Default: none.
    #[schemars(with = "docker::Config")]
    pub docker: Option<docker::Config>,
    /// The ready endpoints of a service in Kubernetes. Default: none.
    #[schemars(with = "kubernetes::Config")]
    pub kubernetes: Option<kubernetes::Config>,
    /// The healthy instances of a service in Consul. Default: none.
    #[schemars(with = "consul::Config")]
    pub consul: Option<consul::Config>,
    /// The keys under a prefix in etcd. Default: none.
    #[schemars(with = "etcd::Config")]
    pub etcd: Option<etcd::Config>,
    /// For how long the last good answer of a source is kept while it fails.
    /// Default: for ever.
    #[serde(deserialize_with = "max_stale")]
    #[schemars(with = "Duration", extend("pattern" = units::POSITIVE))]
    pub max_stale: Option<Duration>,
}

/// Reads a time that is longer than zero.
fn max_stale<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Option<Duration>, D::Error> {
    units::positive(reader).map(Some)
}

/// What sources need of the configuration around them.
#[derive(Default)]
pub struct Around {
    /// Who resolves names.
    pub resolver: Arc<Resolver>,
    /// The folder of the main file.
    pub folder: PathBuf,
}

impl Config {
    /// Whether a source may give backends without a host name.
    pub fn gives_addresses(&self) -> bool {
        let Self { srv: _, file, docker, kubernetes, consul, etcd, max_stale: _ } = self;
        let apis = [docker.is_some(), kubernetes.is_some(), consul.is_some(), etcd.is_some()];
        file.is_some() || apis.contains(&true)
    }

    /// Prepares the sources; none is asked yet.
    pub fn build(
        written: &Spanned<Self>,
        upstream: &str,
        around: &Around,
        problems: &mut Problems,
    ) -> Vec<Origin> {
        let Self { srv, file, docker, kubernetes, consul, etcd, max_stale } = &written.value;
        let folder = &around.folder;
        let srv = srv.as_ref().map(|name| -> Option<Named> {
            Some((format!("srv {name}"), Box::new(Srv::new(name, &around.resolver))))
        });
        let file = file.as_ref().map(|path| -> Option<Named> {
            let path = folder.join(path);
            Some((format!("file {}", path.display()), Box::new(File::new(path))))
        });
        let sources = [
            srv,
            file,
            docker.as_ref().map(|docker| docker.build(upstream, folder, problems)),
            kubernetes.as_ref().map(|kubernetes| kubernetes.build(folder, problems)),
            consul.as_ref().map(|consul| consul.build(folder, problems)),
            etcd.as_ref().map(|etcd| etcd.build(folder, problems)),
        ];
        if sources.iter().all(Option::is_none) {
            let help = "name one, as in `discovery: { file: app.yaml }`";
            let problem = Problem::error("`discovery` names no source").at(written.span);
            problems.push(problem.help(help));
        }
        let max_stale = max_stale.map(|time| time.0);
        let origins = sources.into_iter().flatten().flatten().map(|(label, source)| Origin {
            label,
            given: None,
            source: Some(source),
            max_stale,
        });
        origins.collect()
    }
}
