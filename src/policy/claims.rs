//! What a token says of somebody (RFC 7519 §4): looked at, and put into words.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderName, HeaderValue};
use pingora_http::RequestHeader;
use serde_json::{Map, Value};

use crate::{field::Name, policy::contract::Request};

/// Claims by their names.
pub(super) type Claims = Map<String, Value>;

/// Whether a claim has a value: as it is, or among others. Only of scopes is it one of several
/// words (RFC 8693 §4.2): users may have others written.
pub(super) fn has(claims: &Claims, name: &str, wanted: &str) -> bool {
    match claims.get(name) {
        Some(Value::String(text)) if matches!(name, "scope" | "scp") => {
            text.split(' ').any(|word| word == wanted)
        }
        Some(Value::String(text)) => text == wanted,
        Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(wanted)),
        Some(Value::Bool(is)) => is.to_string() == wanted,
        Some(Value::Number(number)) => number.to_string() == wanted,
        _ => false,
    }
}

/// A claim as a field: texts as they are, lists of texts with commas, if there are none in them.
pub(super) fn value(claim: &Value) -> Option<HeaderValue> {
    let text = match claim {
        Value::String(text) => text.clone(),
        Value::Bool(is) => is.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Array(all) => {
            let texts: Vec<_> = all.iter().filter_map(Value::as_str).collect();
            // One of them would be taken for two.
            if texts.iter().any(|text| text.contains(',')) {
                return None;
            }
            texts.join(",")
        }
        Value::Null | Value::Object(_) => return None,
    };
    HeaderValue::try_from(text).ok()
}

/// What an operator wants of claims, and which of them origins are told.
#[derive(Debug)]
pub(super) struct Wanted {
    require: Box<[(String, String)]>,
    tell: Box<[(HeaderName, String)]>,
}

impl Wanted {
    pub(super) fn new(require: &BTreeMap<String, String>, tell: &BTreeMap<Name, String>) -> Self {
        let tell = tell.iter().map(|(name, claim)| (name.to_header(), claim.clone()));
        Self { require: require.clone().into_iter().collect(), tell: tell.collect() }
    }

    /// Whether all that is required is there.
    pub(super) fn is_in(&self, claims: &Claims) -> bool {
        self.require.iter().all(|(name, wanted)| has(claims, name, wanted))
    }

    /// Tells of claims that were proved: origins in fields, and what comes after this policy.
    pub(super) fn tell(&self, claims: Claims, request: &mut Request<'_>) {
        for (field, name) in &self.tell {
            if let Some(value) = claims.get(name).and_then(value) {
                request.notes.to_origin.push((field.clone(), value));
            }
        }
        request.facts.who.tell_claims(Arc::new(claims));
    }

    /// Takes off what a client says itself in those fields. What was proved is put in after all
    /// policies.
    pub(super) fn cleanse(&self, header: &mut RequestHeader) {
        for (name, _) in &self.tell {
            header.remove_header(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_has_a_value_as_it_is_or_among_others() {
        let claims = json!({
            "scope": "read write", "role": "not admin", "groups": ["a", "b"], "is": true, "n": 7,
        });
        let claims = claims.as_object().unwrap();
        for (name, wanted) in [("scope", "read"), ("groups", "b"), ("is", "true"), ("n", "7")] {
            assert!(has(claims, name, wanted), "{name}");
        }
        for (name, wanted) in [("scope", "rea"), ("role", "admin"), ("groups", "c"), ("none", "")] {
            assert!(!has(claims, name, wanted), "{name}");
        }
    }

    #[test]
    fn no_text_of_a_list_is_told_as_two() {
        assert_eq!(value(&json!(["a", "b"])).unwrap(), "a,b");
        assert_eq!(value(&json!(["a", "x,admin"])), None);
        assert_eq!(value(&json!("x,y")).unwrap(), "x,y");
    }
}
