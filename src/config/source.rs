//! The texts of a configuration: the main file, what it includes, and what is filled in.
//!
//! All files are read and become one tree, as if an operator had written one file. Each
//! file is read with its own bounds, and a problem in one does not hide those of another.

mod include;
mod merge;
mod values;

use std::{
    collections::BTreeSet,
    env, fmt,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use self::{include::Pattern, values::Outside};
use crate::{
    diagnostic::{Fills, Problem, Problems, Sources, Span},
    yaml::{self, Filling, Node, Spanned},
};

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// So many files are read, the main one included.
const FILES_MAX: usize = 1000;

/// So much text do they have together.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// A configuration as it was read from its files.
pub struct Loaded {
    /// The folder of the main file.
    pub folder: PathBuf,
    /// The texts, for showing problems.
    pub sources: Sources,
    /// All files as one tree, filled in; `None` if the main file could not be read.
    pub root: Option<Node>,
    /// What was read, or was to be read: the main file, included ones, and secrets.
    pub files: Vec<PathBuf>,
    /// What was filled in. `load` has hidden it from the problems that it was handed; any
    /// other [`Problems`] about this configuration must hide it, too.
    pub fills: Arc<Fills>,
    /// Where the configuration would be read from now.
    pub watched: Watched,
    /// Whether nothing is missing from the tree.
    pub(super) is_whole: bool,
}

/// Where a configuration comes from, to be looked up again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    main: PathBuf,
    patterns: Vec<Pattern>,
    secrets: Vec<PathBuf>,
    certificates: Vec<PathBuf>,
}

/// What stays of a configuration after it was read: enough to tell of it without giving away
/// what was filled in, and to see when it changes.
#[derive(Clone, Default)]
pub struct Texts {
    /// The texts.
    pub sources: Sources,
    /// What must not be shown.
    pub fills: Arc<Fills>,
    /// Where it would be read from now.
    pub watched: Watched,
}

/// Answers an environment variable by its name.
pub type Variables<'a> = dyn Fn(&str) -> Result<String, env::VarError> + 'a;

/// Reads the configuration at a path, with the environment of this process.
pub fn load(path: &Path, problems: &mut Problems) -> Loaded {
    load_with(path, &|name| env::var(name), problems)
}

/// Reads the configuration at a path, with an environment.
pub fn load_with(path: &Path, variables: &Variables<'_>, problems: &mut Problems) -> Loaded {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut outside = Outside::new(folder, variables);
    let mut filling = Filling::new(&mut outside);
    let (sources, bytes_left) = (Sources::default(), TEXT_BYTES_MAX);
    let mut loading = Loading { sources, bytes_left, is_whole: true, problems };
    let mut watched = Watched { main: path.to_owned(), ..Watched::default() };
    let mut files = vec![path.to_owned()];

    let mut root = loading.part(path, None, &mut filling);
    if let Some(main) = &mut root {
        let (includes, is_whole) = include::take(main, loading.problems);
        loading.is_whole = is_whole;
        watched.patterns =
            includes.into_iter().map(|written| Pattern::new(folder, written)).collect();
        let included = loading.included(path, &watched.patterns);
        let mut parts = Vec::new();
        for (file, place) in &included {
            parts.extend(loading.part(file, Some(*place), &mut filling));
        }
        files.extend(included.into_iter().map(|(file, _)| file));
        loading.is_whole &= merge::join(main, parts, &loading.sources, loading.problems);
    }

    for problem in filling.take_problems() {
        loading.problems.push(problem);
    }
    let Loading { sources, is_whole, problems, .. } = loading;
    let fills = Arc::new(Fills::new(filling.into_fills(), sources.clone()));
    problems.hide(fills.clone());
    watched.secrets = outside.into_files();
    files.extend(watched.secrets.iter().cloned());
    // A daemon may change its folder.
    let folder = std::path::absolute(folder).unwrap_or(folder.to_owned());
    Loaded { folder, sources, root, files, fills, watched, is_whole }
}

impl Loaded {
    /// A configuration that is one text: it includes no other, and nothing is filled in.
    pub fn of(text: &str, problems: &mut Problems) -> Self {
        let root = yaml::parse(text).map_err(|problem| problems.push(problem)).ok();
        let root = root.map(|mut root| {
            include::take(&mut root, problems);
            root
        });
        Self {
            folder: PathBuf::new(),
            sources: Sources::of("", text),
            root,
            files: Vec::new(),
            fills: Arc::default(),
            watched: Watched::default(),
            is_whole: true,
        }
    }
}

impl Loaded {
    /// What stays when the tree has been read.
    pub fn texts(&self) -> Texts {
        let Self { sources, fills, watched, .. } = self;
        Texts { sources: sources.clone(), fills: fills.clone(), watched: watched.clone() }
    }
}

impl Texts {
    /// A number by which two processes, perhaps of different versions, see whether they read the
    /// same (FNV-1a). It guards nothing: two texts that share it would share a version number.
    pub fn fingerprint(&self) -> u64 {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let parts = self.sources.texts().chain(self.fills.values());
        let bytes = parts.flat_map(|part| part.bytes().chain([0xff])); // no byte of UTF-8
        bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Texts").field("watched", &self.watched).finish_non_exhaustive()
    }
}

/// Without the values, of which some may be secrets.
impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Watched {
    /// The list under `include:`, as it was written.
    pub fn includes(&self) -> Vec<String> {
        self.patterns.iter().map(|pattern| pattern.as_written().to_owned()).collect()
    }

    /// Adds files of certificates, which are known once the tree has been read.
    pub fn add(&mut self, certificates: impl IntoIterator<Item = PathBuf>) {
        self.certificates.extend(certificates);
    }

    /// Lists the files that the configuration would be read from now: the main file, what
    /// its patterns match by now, and the secrets and certificates that it names.
    ///
    /// A file that is not there is listed if it is named: it may come.
    pub fn files(&self) -> Vec<PathBuf> {
        let included = self.patterns.iter().flat_map(|pattern| pattern.files().unwrap_or_default());
        let mut files = vec![self.main.clone()];
        files.extend(included.chain(self.secrets.iter().chain(&self.certificates).cloned()));
        let mut seen = BTreeSet::new();
        files.retain(|file| seen.insert(file.clone()));
        files
    }
}

/// What reading the files has in common.
struct Loading<'p> {
    sources: Sources,
    /// How much text may still be read.
    bytes_left: u64,
    is_whole: bool,
    problems: &'p mut Problems,
}

impl Loading<'_> {
    /// Reads and parses one file; `place` is where it was included.
    fn part(
        &mut self,
        path: &Path,
        place: Option<Span>,
        filling: &mut Filling<'_>,
    ) -> Option<Node> {
        // The main file alone may be a pipe, for `check` and a start.
        let is_main = place.is_none();
        let place = place.unwrap_or_default();
        let name = filling.as_written(place, &path.display().to_string());
        let is_file = if is_main { Ok(()) } else { check_is_file(path, &name) };
        let parsed = is_file
            .and_then(|()| self.text(path, &name))
            .map_err(|problem| problem.at(place))
            .and_then(|text| {
                let start = self.sources.add(name, text);
                yaml::parse_file(self.sources.text(start), start, Some(filling))
            });
        parsed
            .map_err(|problem| {
                self.is_whole = false;
                self.problems.push(problem);
            })
            .ok()
    }

    /// Reads the text of one file, if there is still room for it.
    fn text(&mut self, path: &Path, name: &str) -> Result<String, Problem> {
        let text = read_text(path, name, FILE_BYTES_MAX)?;
        let left = self.bytes_left.checked_sub(text.len() as u64);
        self.bytes_left = left.ok_or_else(|| {
            let most = TEXT_BYTES_MAX >> 20;
            let help = "the main file and those that it includes are counted together";
            Problem::error(format!("with `{name}`, more than {most} MiB would be read")).help(help)
        })?;
        Ok(text)
    }

    /// Finds the files that patterns name, each once, with the place of its pattern.
    fn included(&mut self, main: &Path, patterns: &[Pattern]) -> Vec<(PathBuf, Span)> {
        let identity = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut seen = BTreeSet::from([identity(main)]);
        let mut included = Vec::new();
        for pattern in patterns {
            let files = pattern.files().unwrap_or_else(|problem| {
                self.is_whole = false;
                self.problems.push(problem);
                Vec::new()
            });
            for file in files {
                if !seen.insert(identity(&file)) {
                    continue;
                }
                if FILES_MAX < seen.len() {
                    self.is_whole = false;
                    let problem = Problem::error(format!("more than {FILES_MAX} files are read"));
                    let help = "the main file and those that it includes are counted together";
                    self.problems.push(problem.at(pattern.span()).help(help));
                    return included;
                }
                included.push((file, pattern.span()));
            }
        }
        included
    }
}

/// Refuses a main file that cannot be read again: a start may read it from a pipe, a reload not.
pub fn check_is_lasting(path: &Path) -> Result<(), Problem> {
    check_is_file(path, &path.display().to_string())
}

/// Refuses a pipe or a device: one that nobody writes to would keep a reload, and all that come
/// after it, waiting for ever. A folder is told of where it is read.
fn check_is_file(path: &Path, name: &str) -> Result<(), Problem> {
    match fs::metadata(path) {
        Ok(seen) if !seen.is_file() && !seen.is_dir() => {
            let help = "what can be read once only is gone at a reload: write it to a file";
            Err(Problem::error(format!("`{name}` is no file")).help(help))
        }
        _ => Ok(()),
    }
}

/// Reads a text of at most so many bytes; `name` is what messages call it.
fn read_text(path: &Path, name: &str, bytes_max: u64) -> Result<String, Problem> {
    let unreadable = |why: io::Error| {
        let help = "check the path and its permissions";
        Problem::error(format!("cannot read `{name}`: {why}")).help(help)
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes_max < bytes.len() as u64 {
        let most = match bytes_max >> 20 {
            0 => format!("{} KiB", bytes_max >> 10),
            mebibytes => format!("{mebibytes} MiB"),
        };
        return Err(Problem::error(format!("`{name}` is larger than {most}")));
    }
    String::from_utf8(bytes).map_err(|why| {
        let at = why.utf8_error().valid_up_to();
        let line = 1 + memchr::memchr_iter(b'\n', &why.as_bytes()[..at]).count();
        let message = format!("`{name}` is not UTF-8: byte {at}, in line {line}, breaks it");
        Problem::error(message).help("save the file as UTF-8")
    })
}

#[cfg(test)]
mod tests;
