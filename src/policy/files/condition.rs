//! Whether a file is sent, by what the client has of it already (RFC 9110 §13).

use http::{
    HeaderMap, HeaderName,
    header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE},
};

use crate::policy::files::root::Entry;

/// What the conditions of a request come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    /// The client has it: `304`.
    NotModified,
    /// It is not what the client wanted: `412`.
    Failed,
}

/// Weighs the conditions in the order of §13.2.2.
pub(super) fn verdict(headers: &HeaderMap, entry: &Entry) -> Verdict {
    if headers.contains_key(IF_MATCH) {
        if !names(headers, &IF_MATCH, entry, false) {
            return Verdict::Failed;
        }
    } else if is_after(headers, &IF_UNMODIFIED_SINCE, entry) == Some(true) {
        return Verdict::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if names(headers, &IF_NONE_MATCH, entry, true) {
            return Verdict::NotModified;
        }
    } else if is_after(headers, &IF_MODIFIED_SINCE, entry) == Some(false) {
        return Verdict::NotModified;
    }
    Verdict::Send
}

/// Whether a list of tags names the file; `*` names any. Weak tags count where that is allowed.
fn names(headers: &HeaderMap, field: &HeaderName, entry: &Entry, is_weak: bool) -> bool {
    let fields = headers.get_all(field).iter().filter_map(|value| value.to_str().ok());
    let mut tags = fields.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| {
        let tag = if is_weak { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
        tag == "*" || tag.as_bytes() == entry.tag.as_bytes()
    })
}

/// Whether the file was changed after the date of a field; `None` if that is no date.
fn is_after(headers: &HeaderMap, field: &HeaderName, entry: &Entry) -> Option<bool> {
    let date = httpdate::parse_http_date(headers.get(field)?.to_str().ok()?).ok()?;
    Some(date < entry.changed)
}
