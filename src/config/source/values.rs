//! What `${…}` stands for: the environment, and files that hold secrets.

use std::{
    collections::BTreeMap,
    env::VarError,
    path::{Path, PathBuf},
};

use super::{Problem, Variables, check_is_file, read_text};
use crate::yaml::Values;

/// The largest file whose text is filled in.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// The outside of a configuration. Each file is read once.
pub(super) struct Outside<'a> {
    folder: &'a Path,
    variables: &'a Variables<'a>,
    files: BTreeMap<PathBuf, Result<String, Problem>>,
}

impl<'a> Outside<'a> {
    /// An environment, and a folder to which the paths of files are relative.
    pub(super) fn new(folder: &'a Path, variables: &'a Variables<'a>) -> Self {
        Self { folder, variables, files: BTreeMap::new() }
    }

    /// The files that were asked for.
    pub(super) fn into_files(self) -> Vec<PathBuf> {
        self.files.into_keys().collect()
    }
}

impl Values for Outside<'_> {
    fn variable(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match (self.variables)(name) {
            Ok(value) => Ok(Some(value)),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => {
                let message = format!("the environment variable `{name}` is not UTF-8");
                Err(Problem::error(message).help("set it to a text"))
            }
        }
    }

    fn file(&mut self, path: &str) -> Result<String, Problem> {
        let path = self.folder.join(path);
        let read = |path: &PathBuf| {
            let name = path.display().to_string();
            check_is_file(path, &name)?;
            read_text(path, &name, SECRET_BYTES_MAX).map(without_line_break)
        };
        self.files.entry(path).or_insert_with_key(read).clone()
    }
}

/// Editors and `echo` end a file with a line break that is no part of the secret.
fn without_line_break(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}
