//! `include:`, and the files that it leads to.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
};

use glob::{MatchOptions, Pattern as Glob, glob_with};

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
        if !self.written.contains(['*', '?', '[']) {
            return Ok(vec![self.folder.join(&self.written)]);
        }
        let wrong = |why: &dyn Display| {
            Problem::error(format!("`{}` cannot be included: {why}", self.written)).at(self.span)
        };
        let folder = self.folder.to_str().ok_or_else(|| {
            wrong(&"the path of this folder is not UTF-8").help("write its files without wildcards")
        })?;
        let pattern = Path::new(&Glob::escape(folder)).join(&self.written);
        let found = glob_with(&pattern.to_string_lossy(), OPTIONS).map_err(|why| {
            wrong(&why.msg)
                .help("`*`, `?`, `**/` and `[a-z]` are wildcards; a bracket itself is `[[]`")
        })?;
        let mut files = Vec::new();
        for path in found {
            let path = path.map_err(|why| {
                wrong(why.error()).help("check the permissions of the folders on the way")
            })?;
            if !path.is_dir() {
                files.push(path);
            }
            if FILES_MAX < files.len() {
                break;
            }
        }
        files.sort();
        Ok(files)
    }
}
