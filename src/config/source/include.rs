//! `include:`, and the files that it leads to.

use std::{
    fmt::Display,
    fs, io,
    path::{Component, Path, PathBuf},
};

use glob::{MatchOptions, Pattern as Glob};

use super::{FILES_MAX, Problem, Problems, Span, Spanned};
use crate::yaml::{self, Node, Value};

/// The key of the main file.
pub(super) const KEY: &str = "include";

/// As a shell does it: `*` stays in its folder, and leaves out what begins with a dot.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// So many names are looked at for one pattern: a folder that holds half of a disk is a slip.
const NAMES_MAX: usize = 100_000;

/// The signs of which a pattern is made.
const WILDCARDS: [char; 3] = ['*', '?', '['];

/// The part of a pattern that stands for folders at any depth.
const ANY_DEPTH: &str = "**";

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    written: String,
    span: Span,
    folder: PathBuf,
}

/// Takes the list out of the tree of the main file; answers also whether all of it was read.
pub(super) fn take(main: &mut Node, problems: &mut Problems) -> (Vec<Spanned<String>>, bool) {
    let Value::Mapping(entries) = &mut main.value else { return (Vec::new(), true) };
    let Some(index) = entries.iter().position(|entry| entry.key == KEY) else {
        return (Vec::new(), true);
    };
    let list = entries.remove(index).value;
    let Value::Sequence(items) = &list.value else {
        let read: Option<Vec<Spanned<String>>> = yaml::read(&list, KEY, problems);
        return (Vec::new(), read.is_some());
    };
    let items_read = items.iter().enumerate();
    let read = |(index, item)| yaml::read(item, &format!("{KEY}[{index}]"), problems);
    let patterns: Vec<_> = items_read.filter_map(read).collect();
    let is_whole = patterns.len() == items.len();
    (patterns, is_whole)
}

impl Pattern {
    /// A pattern as written, relative to a folder.
    pub(super) fn new(folder: &Path, written: Spanned<String>) -> Self {
        Self { written: written.value, span: written.span, folder: folder.to_owned() }
    }

    /// The pattern as it was written.
    pub(super) fn as_written(&self) -> &str {
        &self.written
    }

    /// Where it was written.
    pub(super) fn span(&self) -> Span {
        self.span
    }

    /// Lists the files that it stands for, in order of their names.
    ///
    /// Without wildcards, that is the file that it names, there or not. With wildcards, folders
    /// are left out, and what is beyond the bound for files: whoever reads them counts.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>, Problem> {
        if !self.written.contains(WILDCARDS) {
            return Ok(vec![self.folder.join(&self.written)]);
        }
        let wrong = |why: &dyn Display| {
            Problem::error(format!("`{}` cannot be included: {why}", self.written)).at(self.span)
        };
        let no_pattern = |why: glob::PatternError| {
            wrong(&why.msg)
                .help("`*`, `?`, `**/` and `[a-z]` are wildcards; a bracket itself is `[[]`")
        };
        Glob::new(&self.written).map_err(no_pattern)?;
        let parts = Path::new(&self.written).components().map(Part::of).collect::<Result<_, _>>();
        let parts: Vec<Part> = parts.map_err(no_pattern)?;
        let mut search = Search { files: Vec::new(), names: 0 };
        search.below(&self.folder, &parts).map_err(|why| match why.kind() {
            io::ErrorKind::QuotaExceeded => {
                wrong(&format!("more than {NAMES_MAX} names would have to be looked at"))
                    .help("name the folder more closely")
            }
            _ => wrong(&why).help("check the permissions of the folders on the way"),
        })?;
        search.files.sort();
        search.files.dedup();
        Ok(search.files)
    }
}

/// What stands between two slashes of a pattern.
enum Part {
    /// This name, or the root.
    Name(PathBuf),
    /// Every name that fits.
    Any(Glob),
    /// This folder, and all below it.
    AnyDepth,
}

impl Part {
    fn of(component: Component<'_>) -> Result<Self, glob::PatternError> {
        match component.as_os_str().to_str() {
            Some(ANY_DEPTH) => Ok(Self::AnyDepth),
            Some(text) if text.contains(WILDCARDS) => Glob::new(text).map(Self::Any),
            _ => Ok(Self::Name(PathBuf::from(component.as_os_str()))),
        }
    }
}

/// A walk through folders.
///
/// It is ours, because that of `glob` follows links round and round below `**`, and panics at a
/// name that is not UTF-8.
struct Search {
    files: Vec<PathBuf>,
    /// Counts the names that were looked at, up to [`NAMES_MAX`].
    names: usize,
}

impl Search {
    /// Finds what the parts of a pattern stand for, seen from a path.
    fn below(&mut self, path: &Path, parts: &[Part]) -> io::Result<()> {
        let Some((part, rest)) = parts.split_first() else {
            if path.symlink_metadata().is_ok() && !path.is_dir() {
                self.files.push(path.to_owned());
            }
            return Ok(());
        };
        match part {
            Part::Name(name) => self.below(&path.join(name), rest),
            Part::Any(glob) => self.each(path, |search, entry| {
                let name = entry.file_name();
                if glob.matches_with(&name.to_string_lossy(), OPTIONS) {
                    search.below(&entry.path(), rest)?;
                }
                Ok(())
            }),
            Part::AnyDepth => {
                self.below(path, rest)?;
                self.each(path, |search, entry| {
                    // A link to a folder is not followed: it may lead back.
                    let is_folder = entry.file_type()?.is_dir();
                    let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
                    if is_folder && !is_hidden {
                        search.below(&entry.path(), parts)?;
                    }
                    Ok(())
                })
            }
        }
    }

    /// Looks at the names in a folder; there are none in what is no folder. Once there are more
    /// files than may be read, no more are looked for.
    fn each(
        &mut self,
        folder: &Path,
        mut look: impl FnMut(&mut Self, &fs::DirEntry) -> io::Result<()>,
    ) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            Err(why) if is_absent(&why) => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            self.names += 1;
            if NAMES_MAX < self.names {
                return Err(io::ErrorKind::QuotaExceeded.into());
            }
            if FILES_MAX < self.files.len() {
                break;
            }
            look(self, &entry?)?;
        }
        Ok(())
    }
}

fn is_absent(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
