//! What there may be of answers that are kept, as the operator writes it.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error};

use crate::{
    cache::disk::{MAX_LEAST, Place},
    diagnostic::{Problem, Problems},
    folder,
    units::ByteSize,
    yaml::Spanned,
};

/// How much is kept of answers, by all routes that have a `cache` policy together.
///
/// What the operator writes under `cache:` at the top.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "CacheStore")]
pub struct Config {
    /// The memory for answers, their fields included; where it is full, what is asked for less
    /// gives way, and what is asked for once does not get in. Nothing of it is taken before there
    /// are answers to keep. Default: `256MiB`.
    #[serde(deserialize_with = "some")]
    #[schemars(extend("pattern" = crate::units::POSITIVE))]
    pub memory: ByteSize,
    /// A folder on a disk in which answers are kept, too, so that there is room for more of them and a
    /// start or an upgrade finds them again. Default: none, they are kept in memory alone.
    pub disk: Option<Disk>,
}

/// Where answers are kept on a disk.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CacheDisk")]
pub struct Disk {
    /// The folder, seen from that of the main file, for this alone; one process at a time has it.
    /// It is made when it is missing, readable by nobody else: `/var/cache/crestline`.
    pub path: Spanned<String>,
    /// What the answers in it may take, `128MiB` at least; where they do, the oldest give way. With
    /// another size it begins anew.
    #[schemars(extend("pattern" = crate::units::POSITIVE))]
    pub max: Spanned<ByteSize>,
}

impl Disk {
    pub(super) fn place(&self, folder: &Path) -> Place {
        Place { path: folder.join(&self.path.value), max: self.max.value.0 }
    }
}

impl Config {
    /// Tells what cannot be kept.
    pub fn check(&self, folder: &Path, problems: &mut Problems) {
        let Some(disk) = &self.disk else { return };
        if disk.max.value.0 < MAX_LEAST {
            let least = ByteSize(MAX_LEAST);
            let problem = Problem::error(format!("a disk of `{}` is too small", disk.max.value));
            problems.push(problem.at(disk.max.span).help(format!("write `{least}` or more")));
        }
        let path = folder.join(&disk.path.value);
        if let Err(why) = folder::check(&path, &path) {
            let problem = Problem::error(format!("`{}` cannot keep answers: {why}", disk.path));
            let help = "name a folder that the user who runs Crestline may write to, as `path`";
            problems.push(problem.at(disk.path.span).help(help));
        }
    }
}

impl Default for Config {
    /// Room for some ten thousand pages with what belongs to them, and a small part of the
    /// smallest machine that serves so many.
    fn default() -> Self {
        Self { memory: ByteSize::from_mib(256), disk: None }
    }
}

fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(deserializer)?;
    if size.0 == 0 {
        let why = "`0B` keeps nothing\nhelp: remove the `cache` policies instead";
        return Err(D::Error::custom(why));
    }
    Ok(size)
}
