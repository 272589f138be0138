//! What the operator orders of one backend: `POST /v1/backends/UPSTREAM/ADDRESS/drain`, `…/ready`,
//! and `POST /v1/backends/UPSTREAM/ADDRESS` with `{"weight": 5}`.
//!
//! An upstream's name ends at the first slash; an address may have some. Both may be encoded, as
//! browsers do.

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::{
    admin::{answer::refused, order::read, status::BackendStatus},
    snapshot::Snapshot,
    upstream::orders::Unknown,
};

/// What all paths of this file begin with.
pub(super) const PREFIX: &str = "/v1/backends/";
/// The largest share of a backend, as in the file.
const WEIGHT_MAX: u16 = 256;

/// What `POST /v1/backends/UPSTREAM/ADDRESS` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Order {
    /// Its share, 1 to 256; `null` for that of the file again.
    pub weight: Weight,
}

/// A share by order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weight {
    /// Nothing is said of it.
    #[default]
    Unsaid,
    /// That of the file again.
    Written,
    /// This one.
    Ordered(u16),
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Written, Self::Ordered))
    }
}

/// A backend as it is after an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ordered {
    /// The upstream that it belongs to.
    pub upstream: String,
    /// The backend.
    pub backend: BackendStatus,
}

/// Carries out an order; `path` is what follows [`PREFIX`].
pub(super) fn order(snapshot: &Snapshot, path: &str, body: &[u8]) -> (StatusCode, Value) {
    let not_found = |why: String| (StatusCode::NOT_FOUND, refused(&why));
    let Some((name, rest)) = path.split_once('/') else {
        return not_found(format!("a path here is {PREFIX}UPSTREAM/ADDRESS"));
    };
    let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let name = &*decoded(name);
    let Some(upstream) = snapshot.upstreams.get(name) else {
        let names: Vec<_> = snapshot.upstreams.keys().map(String::as_str).collect();
        let names = names.join(", ");
        return not_found(format!("there is no upstream `{name}`\nhelp: there are {names}"));
    };
    let done = if let Some(address) = rest.strip_suffix("/drain") {
        upstream.drain(&decoded(address), true)
    } else if let Some(address) = rest.strip_suffix("/ready") {
        upstream.drain(&decoded(address), false)
    } else {
        match weight(body) {
            Ok(weight) => upstream.set_weight(&decoded(rest), weight),
            Err(why) => return (StatusCode::BAD_REQUEST, refused(&why)),
        }
    };
    match done {
        Ok(member) => {
            let backend = BackendStatus::of(&member);
            (StatusCode::OK, json!(Ordered { upstream: name.to_owned(), backend }))
        }
        Err(Unknown { address, known }) => not_found(format!(
            "upstream `{name}` has no backend `{address}`\nhelp: it has {}",
            known.join(", ")
        )),
    }
}

fn weight(body: &[u8]) -> Result<Option<u16>, String> {
    let Order { weight } = read(body).map_err(|why| why.to_string())?;
    match weight {
        Weight::Unsaid => Err("say what to change, such as {\"weight\": 2}".to_owned()),
        Weight::Ordered(weight) if !(1..=WEIGHT_MAX).contains(&weight) => {
            Err(format!("`{weight}` is out of range: 1 to {WEIGHT_MAX}"))
        }
        Weight::Ordered(weight) => Ok(Some(weight)),
        Weight::Written => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_one_of_the_file_s_or_null() {
        assert_eq!(weight(b"{\"weight\": 7}"), Ok(Some(7)));
        assert_eq!(weight(b"{\"weight\": null}"), Ok(None));
        for bad in ["", "{}", "{\"weight\": 0}", "{\"weight\": 257}", "{\"wait\": 1}", "[1]"] {
            assert!(weight(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
