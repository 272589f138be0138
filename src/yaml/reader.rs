//! Reading a tree into a type, again and again until nothing new is wrong.
//!
//! serde stops at the first error, and no type can be made of a broken value. So the value
//! that failed is marked and the whole is read anew, as if it were not there: each pass
//! comes one value further. What fails only because a part was left out is not told.
//!
//! INVARIANT: each pass that fails marks at least one value more, so the passes end.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ptr;

use serde::de::DeserializeOwned;

use super::de::NodeDeserializer;
use super::error::{Error, Kind};
use super::node::{Entry, Node, Value};
use crate::diagnostic::{Problem, Problems, Span, nearest, suggest_among};

/// A file with more broken values than this is read no further.
const PASSES_MAX: usize = 100;

/// Reads a type from a node and adds all problems that it finds.
///
/// `path` names the node in messages, such as `upstreams.app`; the root's is empty. The
/// answer is `None` if a value could not be read. Unknown keys are errors, too, but what
/// remains without them is answered, so that later checks can go on.
pub fn read<T: DeserializeOwned>(node: &Node, path: &str, problems: &mut Problems) -> Option<T> {
    if node.value == Value::Unfilled {
        return None;
    }
    let reader =
        Reader { problems: RefCell::default(), left_out: RefCell::default(), losses: Cell::new(0) };
    let root = Place { node, entry: None, parent: "", path: path.to_owned() };
    let mut value = None;
    for _ in 0..PASSES_MAX {
        match reader.within(&root, |deserializer| T::deserialize(deserializer)) {
            Ok(whole) => {
                value = reader.is_whole().then_some(whole);
                break;
            }
            Err(_) if reader.reason(node).is_some() => break,
            Err(_) => {}
        }
    }
    for problem in reader.problems.into_inner() {
        problems.push(problem);
    }
    value
}

/// What all passes over one tree share.
pub(super) struct Reader {
    problems: RefCell<Vec<Problem>>,
    /// Why a value is passed over; known by its address, for the tree stays where it is.
    left_out: RefCell<HashMap<*const Node, Reason>>,
    /// Counts the broken values that were passed over.
    losses: Cell<usize>,
}

/// Why a value is passed over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Nobody knows its key.
    Unknown,
    /// It could not be read.
    Broken,
}

/// A value and where it hangs in the tree.
pub(super) struct Place<'a> {
    pub(super) node: &'a Node,
    /// The entry of which it is the value.
    pub(super) entry: Option<&'a Entry>,
    /// The path of the mapping or list that holds it.
    pub(super) parent: &'a str,
    pub(super) path: String,
}

impl Reader {
    /// Reads one value; if that fails, tells why and marks the value.
    pub(super) fn within<T>(
        &self,
        place: &Place<'_>,
        read: impl FnOnce(NodeDeserializer<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let losses = self.losses.get();
        read(NodeDeserializer { reader: self, place }).map_err(|error| {
            self.tell(error, place, self.losses.get() != losses);
            Error::TOLD
        })
    }

    /// Should this value be passed over?
    pub(super) fn passes_over(&self, node: &Node) -> bool {
        let reason = self.reason(node);
        if reason == Some(Reason::Broken) {
            self.mark(node, Reason::Broken);
            self.losses.set(self.losses.get() + 1);
        }
        reason.is_some()
    }

    /// Tells of a key that the type of its mapping does not know.
    pub(super) fn tell_unknown(&self, entry: &Entry, parent: &str, known: &[&str]) {
        if self.reason(&entry.value).is_some() {
            return;
        }
        self.mark(&entry.value, Reason::Unknown);
        let problem = unknown_key(&entry.key, parent, known).at(entry.key_span);
        self.problems.borrow_mut().push(problem);
    }

    /// Tells what is wrong with a key itself.
    pub(super) fn tell_key(&self, error: Error, entry: &Entry, parent: &str) {
        match error.0 {
            Kind::Told => {}
            Kind::UnknownKey { known, .. } => self.tell_unknown(entry, parent, known),
            _ => {
                let place = Place {
                    node: &entry.value,
                    entry: Some(entry),
                    parent,
                    path: parent.to_owned(),
                };
                self.tell(error.at(entry.key_span), &place, false);
            }
        }
    }

    /// Tells why a value could not be read, unless that is known already, and marks it.
    fn tell(&self, error: Error, place: &Place<'_>, lost_a_part: bool) {
        let problem = match error.0 {
            Kind::Told => return,
            Kind::Lost => None,
            Kind::Fault { .. } if lost_a_part => None,
            Kind::MissingKey(key) if self.explains(place.node, key) => None,
            Kind::MissingKey(key) => Some(Problem {
                span: place.heading(),
                ..Problem::error(format!("missing key `{key}`{}", inside(&place.path)))
            }),
            Kind::UnknownKey { key, known } => {
                Some(unknown_key(&key, &place.path, known).at(place.node.span))
            }
            Kind::Fault { message, help, span } => Some(Problem {
                span: span.or(Some(place.node.span)),
                label: place.label(),
                help,
                ..Problem::error(message)
            }),
        };
        self.mark(place.node, Reason::Broken);
        self.problems.borrow_mut().extend(problem);
    }

    /// Is the absence of a key explained by an entry that was left out?
    fn explains(&self, node: &Node, missing: &str) -> bool {
        let mut left_out = node.entries().iter().filter(|e| self.reason(&e.value).is_some());
        left_out.any(|entry| entry.key == missing || nearest(&entry.key, [missing]).is_some())
    }

    fn is_whole(&self) -> bool {
        self.left_out.borrow().values().all(|reason| *reason == Reason::Unknown)
    }

    fn reason(&self, node: &Node) -> Option<Reason> {
        if node.value == Value::Unfilled {
            return Some(Reason::Broken);
        }
        self.left_out.borrow().get(&ptr::from_ref(node)).copied()
    }

    fn mark(&self, node: &Node, reason: Reason) {
        self.left_out.borrow_mut().insert(ptr::from_ref(node), reason);
    }
}

impl Place<'_> {
    fn label(&self) -> Option<String> {
        (!self.path.is_empty()).then(|| format!("in `{}`", self.path))
    }

    /// Where a lack of the whole value is shown: at its key; for the whole file, nowhere.
    fn heading(&self) -> Option<Span> {
        match self.entry {
            Some(entry) => Some(entry.key_span),
            None if self.path.is_empty() => None,
            None => Some(self.node.span),
        }
    }
}

fn unknown_key(key: &str, parent: &str, known: &[&str]) -> Problem {
    let problem = Problem::error(format!("unknown key `{key}`{}", inside(parent)));
    match known {
        [] => problem,
        _ => problem.help(suggest_among("Known here", key, known.iter().copied())),
    }
}

/// Ends a message with the path of a value; the whole file needs none.
fn inside(path: &str) -> String {
    match path {
        "" => String::new(),
        path => format!(" in `{path}`"),
    }
}
