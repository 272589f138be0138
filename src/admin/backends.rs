//! What the operator orders of one backend: `POST /v1/backends/UPSTREAM/ADDRESS/drain`, `…/ready`,
//! and `POST /v1/backends/UPSTREAM/ADDRESS` with `{"weight": 5}`.
//!
//! An upstream's name ends at the first slash; an address may have some. Both may be encoded, as
//! browsers do.

use http::StatusCode;
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::{
    admin::{answer::refused, order::read, status::BackendStatus, table::Named},
    snapshot::Snapshot,
    upstream::orders::Unknown,
};

/// The largest share of a backend, as in the file.
const WEIGHT_MAX: u16 = 256;

/// What `POST /v1/backends/UPSTREAM/ADDRESS` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "BackendOrder")]
#[schemars(extend("required" = ["weight"]))]
pub struct Order {
    /// Its share, 1 to 256; `null` for that of the file again.
    #[schemars(with = "Option<u16>", extend("minimum" = 1, "maximum" = WEIGHT_MAX))]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "OrderedBackend")]
pub struct Ordered {
    /// The upstream that it belongs to.
    pub upstream: String,
    /// The backend.
    pub backend: BackendStatus,
}

/// What is to become of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is drained, or no more.
    Drained(bool),
    /// It has this share, or that of the file.
    Weight(Option<u16>),
}

impl Change {
    /// Reads a share.
    pub(super) fn weight(body: &[u8]) -> Result<Self, String> {
        let Order { weight } = read(body).map_err(|why| why.to_string())?;
        match weight {
            Weight::Unsaid => Err("say what to change, such as {\"weight\": 2}".to_owned()),
            Weight::Ordered(weight) if !(1..=WEIGHT_MAX).contains(&weight) => {
                Err(format!("`{weight}` is out of range: 1 to {WEIGHT_MAX}"))
            }
            Weight::Ordered(weight) => Ok(Self::Weight(Some(weight))),
            Weight::Written => Ok(Self::Weight(None)),
        }
    }
}

/// Carries out an order for a backend, by the name of its upstream and its address.
pub(super) fn order(snapshot: &Snapshot, named: Named<'_>, change: Change) -> (StatusCode, Value) {
    let not_found = |why: String| (StatusCode::NOT_FOUND, refused(&why));
    let [name, address] = [named.first, named.second]
        .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned());
    let Some(upstream) = snapshot.upstreams.get(&name) else {
        let names: Vec<_> = snapshot.upstreams.keys().map(String::as_str).collect();
        let names = names.join(", ");
        return not_found(format!("there is no upstream `{name}`\nhelp: there are {names}"));
    };
    let done = match change {
        Change::Drained(is_drained) => upstream.drain(&address, is_drained),
        Change::Weight(weight) => upstream.set_weight(&address, weight),
    };
    match done {
        Ok(member) => {
            let backend = BackendStatus::of(&member);
            (StatusCode::OK, json!(Ordered { upstream: name, backend }))
        }
        Err(Unknown { address, known }) => not_found(format!(
            "upstream `{name}` has no backend `{address}`\nhelp: it has {}",
            known.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_one_of_the_file_s_or_null() {
        assert_eq!(Change::weight(b"{\"weight\": 7}"), Ok(Change::Weight(Some(7))));
        assert_eq!(Change::weight(b"{\"weight\": null}"), Ok(Change::Weight(None)));
        for bad in ["", "{}", "{\"weight\": 0}", "{\"weight\": 257}", "{\"wait\": 1}", "[1]"] {
            assert!(Change::weight(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
