//! The memory that the process has, and how much it may have.
//!
//! What others in the same control group have is not counted: shedding requests would not give
//! any of it back.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::overload::config::Bound;

/// What `memory.limit_in_bytes` says for none is close to this.
const UNLIMITED: u64 = 1 << 60;

/// Where it is read.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The limit of the control group.
    limit: Option<PathBuf>,
}

impl Memory {
    /// Finds out what bounds this process.
    pub(super) fn of_this_process() -> Self {
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self { limit: limit_of(Path::new("/sys/fs/cgroup"), &membership) }
    }

    /// What the process has, as a share of the bound; `None` without one.
    pub(super) fn share(&self, bound: Bound) -> Option<f64> {
        let max = match bound {
            Bound::Off => return None,
            Bound::Size(size) => size.0 as f64,
            Bound::Share(share) => self.limit()? as f64 * share.as_fraction(),
        };
        Some(kibibytes("/proc/self/status", "VmRSS:")? as f64 / max.max(1.0))
    }

    /// What there may be: of the group, or else of the machine.
    fn limit(&self) -> Option<u64> {
        let of_group = self.limit.as_deref().and_then(limited);
        of_group.or_else(|| kibibytes("/proc/meminfo", "MemTotal:"))
    }
}

/// The limit of the nearest group that has one, by what `/proc/self/cgroup` says.
fn limit_of(root: &Path, membership: &str) -> Option<PathBuf> {
    let of_line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (mount, name) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|it| it == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        // In a container, the path may be one that is seen from outside only.
        let folders = Path::new(path.trim_start_matches('/')).ancestors();
        let mut files = folders.map(|folder| mount.join(folder).join(name));
        files.find(|file| limited(file).is_some())
    };
    membership.lines().find_map(of_line)
}

/// The limit in a file, if it is any.
fn limited(file: &Path) -> Option<u64> {
    let limit = fs::read_to_string(file).ok()?.trim().parse().ok();
    limit.filter(|limit| *limit < UNLIMITED)
}

fn kibibytes(file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{ByteSize, Percent};

    fn limit(files: &[(&str, &str)], membership: &str) -> Option<u64> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        limited(&limit_of(folder.path(), membership)?)
    }

    #[test]
    fn the_nearest_limit_of_the_groups_counts() {
        let files = [("a/memory.max", "1000\n"), ("a/b/memory.max", "max\n")];
        assert_eq!(limit(&files, "0::/a/b\n"), Some(1000));
        assert_eq!(limit(&files, "0::/other\n"), None);
    }

    #[test]
    fn groups_of_the_first_kind_count_as_well() {
        let files = [
            ("memory/memory.limit_in_bytes", "1000\n"),
            ("memory/x/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(limit(&files, "5:cpu:/x\n4:memory:/x\n0::/\n"), Some(1000));
        assert_eq!(limit(&files, "4:hugetlb,memory:/elsewhere\n"), Some(1000));
        assert_eq!(limit(&files, "5:cpu:/x\n"), None);
    }

    #[test]
    fn what_the_process_has_is_a_share_of_the_bound() {
        let memory = Memory::default();
        let of = |bytes| memory.share(Bound::Size(ByteSize(bytes))).unwrap();
        assert!(1.0 < of(1024) && of(1 << 50) < 0.01);
        assert_eq!(memory.share(Bound::Off), None);
        let [all, half] = [100, 50].map(|it| memory.share(Bound::Share(Percent::new(it))).unwrap());
        assert!(0.0 < all && all < half, "{all} {half}");
    }
}
