//! `include:`, and the files that it leads to.

use std::path::{Path, PathBuf};

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

/// Takes the list out of the tree of the main file.
pub(super) fn take(main: &mut Node, problems: &mut Problems) -> Vec<Spanned<String>> {
    let Value::Mapping(entries) = &mut main.value else { return Vec::new() };
    let Some(index) = entries.iter().position(|entry| entry.key == KEY) else { return Vec::new() };
    let entry = entries.remove(index);
    yaml::read(&entry.value, KEY, problems).unwrap_or_default()
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
    /// are left out, and all beyond the bound for files: whoever reads them counts.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>, Problem> {
        if !self.written.contains(['*', '?', '[']) {
            return Ok(vec![self.folder.join(&self.written)]);
        }
        let wrong = |why: String| {
            Problem::error(format!("`{}` cannot be included: {why}", self.written)).at(self.span)
        };
        let folder = Glob::escape(&self.folder.display().to_string());
        let pattern = Path::new(&folder).join(&self.written);
        let found = glob_with(&pattern.display().to_string(), OPTIONS).map_err(|why| {
            wrong(why.msg.to_owned())
                .help("`*`, `?`, `**/` and `[a-z]` are wildcards; a bracket itself is `[[]`")
        })?;
        let mut files = Vec::new();
        for path in found.take(FILES_MAX * 2) {
            let path = path.map_err(|why| wrong(why.error().to_string()))?;
            if !path.is_dir() {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}
