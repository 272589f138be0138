//! What a policy may do to a request, and what it is given to be built.
//!
//! A policy is two types in one file: its `Config`, as the operator wrote it, and its `Policy`,
//! which runs and cannot fail for reasons that were known when the file was read.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use http::StatusCode;
use pingora::Result;
use pingora_http::RequestHeader;

use crate::{
    diagnostic::{Problem, Problems, Span},
    policy::{
        errand::Errand,
        meter::Metering,
        state::{Heir, States},
        variable::{Variable, When},
        withheld::Withheld,
    },
};
pub use crate::{
    policy::exchange::{Facts, Notes, Request, Response},
    reply::{Page, Reply},
};

/// Files that policies read may have this many bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Whether a request goes on.
#[derive(Debug)]
pub enum Flow {
    /// To the next policy, and then to the origin.
    Continue,
    /// No further: this is the answer.
    Respond(Reply),
}

/// What a policy does at each step. Every step has a default: nothing.
///
/// Requests pass the policies of a route in the order written, answers in the reverse order. An
/// answer of our own passes those that its request had come to.
pub trait Hooks {
    /// Looks at a request before a backend is chosen.
    ///
    /// Its future is part of every request's: what needs much room belongs into a box, made only
    /// where it is needed.
    fn on_request(&self, _request: &mut Request<'_>) -> impl Future<Output = Flow> + Send {
        std::future::ready(Flow::Continue)
    }

    /// Changes what the origin is sent. Runs for each attempt, on a fresh copy.
    fn on_upstream_request(&self, _header: &mut RequestHeader, _facts: &Facts<'_>) -> Result<()> {
        Ok(())
    }

    /// Changes what the client is sent.
    fn on_response(&self, _response: &mut Response<'_>) -> Result<()> {
        Ok(())
    }

    /// The body of an answer of our own, if this policy has one for it; `None` leaves it to those
    /// before it.
    fn page(&self, _status: StatusCode, _facts: &Facts<'_>) -> Option<Page> {
        None
    }

    /// The largest request body in bytes, if this policy sets one.
    fn body_bytes_max(&self) -> Option<u64> {
        None
    }

    /// What it counts, if it is a limit.
    fn meter(&self) -> Option<Metering<'_>> {
        None
    }

    /// What is to be done beside requests, if anything is.
    fn errand(&self) -> Option<Arc<dyn Errand>> {
        None
    }
}

/// What the operator wrote of a policy.
pub trait Written {
    /// The files that it is read with, as they are written: where files are watched, these are.
    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    /// Whether it tells what a variable stands for that no request has by itself.
    fn tells(&self, _variable: &Variable) -> bool {
        false
    }
}

/// A file that was read, and what stands for what it held.
pub(super) type Seen = (PathBuf, u64);

/// What the file says of all policies.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// The folder of the main file.
    pub folder: &'a Path,
    /// Whether there may be faults on purpose.
    pub allow_faults: bool,
    /// The name of the route.
    pub route: &'a str,
    /// Cookies that no origin is sent.
    pub withheld: &'a Withheld,
}

/// What a policy is given when it is built.
pub struct Build<'a> {
    /// What is wrong with it; a policy with a problem need not be built.
    pub problems: &'a mut Problems,
    /// The folder of the main file: paths in it are seen from there.
    pub folder: &'a Path,
    /// Whether there may be faults on purpose.
    pub allow_faults: bool,
    /// The name of its route.
    pub route: &'a str,
    /// Cookies that nobody is sent, whoever is asked.
    pub withheld: &'a Withheld,
    /// Where the policy stands in the file.
    pub span: Span,
    /// Whether a policy of the route tells what a variable stands for.
    pub(super) tells: &'a dyn Fn(&Variable, When) -> bool,
    /// What it may inherit of its predecessor.
    pub(super) heir: Heir<'a>,
    /// What the files of the route held that were read.
    pub(super) seen: &'a mut Vec<Seen>,
    /// What it leaves to its successor.
    pub(super) states: &'a mut States,
}

impl Build<'_> {
    /// Tells a problem of this policy.
    pub fn problem(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.problem_at(self.span, message, help);
    }

    /// Tells a problem of a part of this policy.
    pub fn problem_at(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::error(message.into()).at(span).help(help.into()));
    }

    /// Checks that somebody tells what these variables stand for, by the time they are filled in;
    /// one that nobody tells would never stand for anything.
    pub(super) fn check<'v>(
        &mut self,
        variables: impl IntoIterator<Item = &'v Variable>,
        when: When,
        span: Span,
    ) {
        for variable in variables {
            let Some((name, tellers)) = variable.told() else { continue };
            if (self.tells)(variable, when) {
                continue;
            }
            let (message, place) = match when {
                When::Asked => (format!("no policy before this one tells `{name}`"), "before it"),
                When::Answered => {
                    (format!("no policy of the route tells `{name}`"), "on the route")
                }
            };
            self.problem_at(span, message, format!("put {tellers} {place}"));
        }
    }

    /// Reads a file whose name stands at `span`; what is wrong with it is told.
    pub fn read(&mut self, path: &Path, span: Span) -> Option<Vec<u8>> {
        let read = self.read_large(path, span, FILE_BYTES_MAX)?;
        self.see(self.path(path), &read);
        Some(read)
    }

    /// The same with another bound; what the file holds is for the caller to note.
    pub fn read_large(&mut self, path: &Path, span: Span, bytes_max: u64) -> Option<Vec<u8>> {
        let path = self.path(path);
        let content = fs::metadata(&path).and_then(|facts| {
            if !facts.is_file() {
                return Err(io::Error::other("it is no plain file"));
            }
            if bytes_max < facts.len() {
                let most = bytes_max >> 20;
                return Err(io::Error::other(format!("it is larger than {most} MiB")));
            }
            fs::read(&path)
        });
        content
            .map_err(|why| {
                let message = format!("cannot read `{}`: {why}", path.display());
                let help = "paths are seen from the folder of the main file";
                self.problem_at(span, message, help);
            })
            .ok()
    }

    /// Notes what a file holds, be it by another sign than its content: a reload that finds another
    /// one has changed something.
    pub(super) fn see(&mut self, path: PathBuf, held: impl Hash) {
        let mut hasher = DefaultHasher::new();
        held.hash(&mut hasher);
        self.seen.push((path, hasher.finish()));
    }

    /// A path of the file, seen from the folder of the main file.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// How many policies of its kind stand before it on the route.
    pub fn turn(&self) -> usize {
        self.heir.key.1
    }

    /// What lives longer than a configuration: that of the policy's predecessor (the one of the
    /// same kind, at the same turn among its kind, on the route of the same name), if it was of
    /// this type and `fits`; else a new one.
    pub fn state<T: Send + Sync + 'static>(
        &mut self,
        fits: impl FnOnce(&T) -> bool,
        new: impl FnOnce() -> T,
    ) -> Arc<T> {
        let inherited = self.heir.inherit::<T>().filter(|state| fits(state));
        let state = inherited.unwrap_or_else(|| Arc::new(new()));
        self.states.keep(self.heir.key, state.clone());
        state
    }
}
