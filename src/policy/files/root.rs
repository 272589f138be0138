//! The folder that files are looked for in, and what is found there.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use http::HeaderValue;
use percent_encoding::percent_decode_str;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::policy::coding::Coding;

/// An open folder.
#[derive(Clone, Debug)]
pub(super) struct Root(Arc<OwnedFd>);

/// What lies at a path.
pub(super) enum Found {
    File(Box<Entry>),
    /// A folder that was asked for without its slash.
    Folder,
    Nothing,
}

/// A file that is sent.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) file: Arc<File>,
    /// Its name without the ending of a coding.
    pub(super) name: PathBuf,
    pub(super) coding: Option<Coding>,
    pub(super) length: u64,
    /// When it was changed, to the second, as HTTP tells it.
    pub(super) changed: SystemTime,
    pub(super) modified: HeaderValue,
    pub(super) tag: HeaderValue,
}

/// A path, decoded; `None` for what names no file that anybody may see.
pub(super) fn decoded(path: &str) -> Option<PathBuf> {
    let is_folder = path.is_empty() || path.ends_with('/');
    let mut decoded = PathBuf::new();
    for segment in path.split('/') {
        if segment.is_empty() {
            continue;
        }
        let name = percent_decode_str(segment).decode_utf8().ok()?;
        let is_hidden = name.starts_with('.') && name != ".well-known";
        // A slash or a backslash that was encoded is part of no name.
        if is_hidden || name.contains(['/', '\\', '\0']) {
            return None;
        }
        decoded.push(&*name);
    }
    if is_folder {
        decoded.push("");
    }
    Some(decoded)
}

impl Root {
    /// Opens a folder.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let root = Self(Arc::new(rustix::fs::open(path, flags, Mode::empty())?));
        root.look(Path::new("."), OFlags::PATH)?; // whether the kernel knows `openat2`
        Ok(root)
    }

    /// Opens what lies below, and nowhere else.
    fn look(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        // The kernel asks for another try if a folder was renamed meanwhile.
        for _ in 0..8 {
            match openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Err(rustix::io::Errno::AGAIN) => {}
                opened => return Ok(opened?),
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Finds a file, or the index of a folder; in a coding, where the file lies there in it.
    pub(super) fn find(&self, path: &Path, index: &[String], coding: Option<Coding>) -> Found {
        let is_folder =
            path.as_os_str().is_empty() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
        if !is_folder {
            return self.find_file(path, coding).unwrap_or_else(|| {
                let folder = self.look(path, OFlags::PATH | OFlags::DIRECTORY);
                if folder.is_ok() { Found::Folder } else { Found::Nothing }
            });
        }
        let mut found = index.iter().filter_map(|name| self.find_file(&path.join(name), coding));
        found.next().unwrap_or(Found::Nothing)
    }

    fn find_file(&self, path: &Path, coding: Option<Coding>) -> Option<Found> {
        let coded = coding.and_then(|coding| {
            let mut name = path.as_os_str().to_owned();
            name.push(ending(coding));
            self.entry(Path::new(&name), path, Some(coding))
        });
        let entry = coded.or_else(|| self.entry(path, path, None))?;
        Some(Found::File(Box::new(entry)))
    }

    /// Opens one file. One that is no plain file, such as a pipe, is none, and is not waited for.
    fn entry(&self, path: &Path, name: &Path, coding: Option<Coding>) -> Option<Entry> {
        let opened = self.look(path, OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
        let file = File::from(opened);
        let facts = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let changed = facts.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let since = changed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let tag = format!("\"{:x}-{:x}\"", since.as_nanos(), facts.len());
        Some(Entry {
            file: Arc::new(file),
            name: name.to_owned(),
            coding,
            length: facts.len(),
            changed: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(since.as_secs()),
            modified: HeaderValue::try_from(httpdate::fmt_http_date(changed)).ok()?,
            tag: HeaderValue::try_from(tag).ok()?,
        })
    }
}

fn ending(coding: Coding) -> &'static str {
    match coding {
        Coding::Br => ".br",
        Coding::Zstd => ".zst",
        Coding::Gzip => ".gz",
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn no_spelling_names_what_nobody_may_see() {
        for path in [".env", "a/.git/config", "%2eenv", "a%2fb", "a%5cb", "a%00", "..", "%ff"] {
            assert_eq!(decoded(path), None, "{path}");
        }
        assert_eq!(decoded("a%20b/c.html"), Some("a b/c.html".into()));
        assert_eq!(decoded("a//b"), Some("a/b".into()));
        assert_eq!(decoded(".well-known/x"), Some(".well-known/x".into()));
        assert_eq!(decoded("a/").unwrap().as_os_str(), "a/");
        assert_eq!(decoded("").unwrap().as_os_str(), "");
    }

    #[test]
    fn no_link_leads_out() {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("secret"), "s").unwrap();
        let folder = outer.path().join("www");
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(folder.join("a.txt"), "a").unwrap();
        fs::write(folder.join("a.txt.gz"), "coded").unwrap();
        fs::write(folder.join("sub/index.html"), "i").unwrap();
        symlink("a.txt", folder.join("inside")).unwrap();
        symlink("../secret", folder.join("outside")).unwrap();
        symlink(outer.path().join("secret"), folder.join("absolute")).unwrap();
        symlink("/proc/self/cwd", folder.join("magic")).unwrap();
        let root = Root::open(&folder).unwrap();
        let index = ["index.html".to_owned()];
        let found = |path: &str, coding| match root.find(Path::new(path), &index, coding) {
            Found::File(entry) => format!("{} of {}", entry.length, entry.name.display()),
            Found::Folder => "folder".to_owned(),
            Found::Nothing => "nothing".to_owned(),
        };
        assert_eq!(found("a.txt", None), "1 of a.txt");
        assert_eq!(found("a.txt", Some(Coding::Gzip)), "5 of a.txt");
        assert_eq!(found("a.txt", Some(Coding::Br)), "1 of a.txt");
        assert_eq!(found("inside", None), "1 of inside");
        assert_eq!(found("sub", None), "folder");
        assert_eq!(found("sub/", None), "1 of sub/index.html");
        for path in ["outside", "absolute", "magic/secret", "../secret", "none", ""] {
            assert_eq!(found(path, None), "nothing", "{path}");
        }
    }
}
