//! A base that tells where addresses are: a file in the format of MaxMind, which GeoLite2, DB-IP
//! and others come in.
//!
//! It is read into memory, since a file that somebody shortens while it is mapped would end the
//! process. One file is read once, for all routes that name it, and at a reload only if it has
//! changed.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use maxminddb::{PathElement::Key, Reader};

use crate::{
    policy::{
        contract::Build,
        shared::Shared,
        whereabouts::{Code, Whereabouts},
    },
    yaml::Spanned,
};

/// The largest base.
const BYTES_MAX: u64 = 1 << 30;

/// Those that were read, by their path and what can be seen of the file without reading it.
static ALL: Shared<(PathBuf, Look), Base> = Shared::new();

/// What can be seen of a file without reading it.
type Look = (u64, u64, u64, i64, i64);

/// What a base tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Countries and continents.
    Countries,
    /// Numbers of autonomous systems.
    Systems,
}

/// A base that was read.
pub(super) struct Base {
    path: PathBuf,
    reader: Reader<Vec<u8>>,
    is_damaged: AtomicBool,
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Base({})", self.path.display())
    }
}

/// Reads a base, which must be of this kind; what is wrong with it is told.
pub(super) fn read(file: &Spanned<PathBuf>, kind: Kind, cx: &mut Build<'_>) -> Option<Arc<Base>> {
    let path = cx.path(&file.value);
    let look: Look = fs::metadata(&path).map_or_else(
        |_| Default::default(),
        |seen| (seen.dev(), seen.ino(), seen.size(), seen.ctime(), seen.ctime_nsec()),
    );
    cx.see(path.clone(), look);
    let base = ALL.try_of((path.clone(), look), |_| {
        let bytes = cx.read_large(&file.value, file.span, BYTES_MAX)?;
        match Reader::from_source(bytes) {
            Ok(reader) => Some(Base { path, reader, is_damaged: AtomicBool::new(false) }),
            Err(why) => {
                let message = format!("`{}` is no base of MaxMind's format", file.value.display());
                let help = format!("name a file `….mmdb` that was unpacked ({why})");
                cx.problem_at(file.span, message, help);
                None
            }
        }
    })?;
    let name = &base.reader.metadata().database_type;
    if kind.is_told_by(name) {
        return Some(base);
    }
    let (path, what) = (file.value.display(), kind.what());
    let message = format!("`{path}` is a base of the type `{name}`, which does not tell {what}");
    cx.problem_at(file.span, message, kind.example());
    None
}

impl Kind {
    /// By the name of its type: `GeoLite2-Country`, `DBIP-City-Lite`, `GeoIP2-ISP`.
    fn is_told_by(self, name: &str) -> bool {
        let names: &[&str] = match self {
            Self::Countries => &["Country", "City", "Enterprise"],
            Self::Systems => &["ASN", "ISP", "Enterprise"],
        };
        names.iter().any(|part| name.contains(part))
    }

    fn what(self) -> &'static str {
        match self {
            Self::Countries => "countries",
            Self::Systems => "AS numbers",
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Countries => "name one of countries or cities, such as `GeoLite2-Country.mmdb`",
            Self::Systems => "name one of AS numbers, such as `GeoLite2-ASN.mmdb`",
        }
    }
}

/// A base cannot be read where it was looked into.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damaged;

impl Base {
    /// Adds what the base tells of an address.
    pub(super) fn look_up(
        &self,
        kind: Kind,
        address: IpAddr,
        found: &mut Whereabouts,
    ) -> Result<(), Damaged> {
        if address.is_ipv6() && self.reader.metadata().ip_version == 4 {
            return Ok(()); // it knows none
        }
        self.try_look_up(kind, address, found).map_err(|why| {
            if !self.is_damaged.swap(true, Relaxed) {
                log::error!(
                    "`{}` is damaged: {why}; clients of whom it cannot tell are not let in",
                    self.path.display()
                );
            }
            Damaged
        })
    }

    fn try_look_up(
        &self,
        kind: Kind,
        address: IpAddr,
        found: &mut Whereabouts,
    ) -> Result<(), maxminddb::MaxMindDbError> {
        let entry = self.reader.lookup(address)?;
        match kind {
            Kind::Countries => {
                let code = |path: &[maxminddb::PathElement<'_>]| {
                    let text = entry.decode_path::<&str>(path);
                    text.map(|text| text.and_then(|text| text.parse::<Code>().ok()))
                };
                found.country = code(&[Key("country"), Key("iso_code")])?;
                found.continent = code(&[Key("continent"), Key("code")])?;
            }
            Kind::Systems => {
                found.asn = entry.decode_path(&[Key("autonomous_system_number")])?;
            }
        }
        Ok(())
    }
}
