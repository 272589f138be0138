//! Keys of etcd: what a watch tells of them, and the backends that they hold.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    diagnostic::Problems,
    upstream::{
        config::BackendConfig,
        discovery::source::{Answer, BACKENDS_MAX, Failure, Found, bounded},
    },
    yaml::{self, Short},
};

/// All keys under a prefix.
#[derive(Default)]
pub(super) struct Keys {
    /// What each holds, by the key as etcd writes it.
    known: BTreeMap<String, Result<Found, Failure>>,
}

impl Keys {
    /// Takes all that there are.
    pub(super) fn replace(&mut self, pairs: Vec<Pair>) -> Result<(), Failure> {
        self.known = pairs.into_iter().map(Pair::read).collect();
        self.are_bounded()
    }

    /// Takes what a watch told; whether it goes on, which it does not if its revision is gone.
    pub(super) fn apply(&mut self, lines: &[Bytes]) -> Result<bool, Failure> {
        for line in lines {
            let told: Told = serde_json::from_slice(line)
                .map_err(|why| Failure(format!("an event is not as expected: {why}")))?;
            if let Some(error) = told.error {
                return Err(Failure(format!("the watch ended: {}", error.message)));
            }
            let Some(Watched { canceled, cancel_reason, compact_revision, events }) = told.result
            else {
                return Err(Failure::new("an event that says nothing"));
            };
            if compact_revision.is_some_and(|revision| number(&revision).unwrap_or(0) != 0) {
                return Ok(false);
            }
            if canceled {
                return Err(Failure(format!("the watch was cancelled: {cancel_reason}")));
            }
            for Event { kind, kv } in events {
                if kind == "DELETE" {
                    self.known.remove(&kv.key);
                } else {
                    self.known.extend([kv.read()]);
                }
            }
        }
        self.are_bounded().map(|()| true)
    }

    /// The backends that they hold.
    pub(super) fn found(&self) -> Answer {
        bounded(self.known.values().cloned().collect::<Result<_, _>>()?)
    }

    fn are_bounded(&self) -> Result<(), Failure> {
        match self.known.len() {
            0..=BACKENDS_MAX => Ok(()),
            _ => Err(Failure(format!("more than {BACKENDS_MAX} keys"))),
        }
    }
}

impl Pair {
    /// Its key as it is, and the backend that its value tells of.
    fn read(self) -> (String, Result<Found, Failure>) {
        let found = decoded(&self.key).and_then(|key| found(&key, &decoded(&self.value)?));
        (self.key, found)
    }
}

/// The backend that a value tells of.
fn found(key: &str, value: &str) -> Result<Found, Failure> {
    let mut problems = Problems::default();
    let node = yaml::parse(value);
    let node =
        node.map_err(|problem| Failure(format!("the value of `{key}`: {}", problem.message)))?;
    let read: Option<Short<BackendConfig>> = yaml::read(&node, "", &mut problems);
    match (read, problems.iter().next()) {
        (Some(Short(backend)), None) => {
            Ok(Found { target: backend.target(), address: backend.address })
        }
        (_, problem) => {
            let why = problem.map_or("it is no backend", |problem| &problem.message);
            Err(Failure(format!("the value of `{key}`: {why}")))
        }
    }
}

fn decoded(text: &str) -> Result<String, Failure> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|why| Failure(why.to_string()))?;
    String::from_utf8(bytes).map_err(|_| Failure::new("a key or a value is not UTF-8"))
}

/// A number of 64 bits, which JSON of protocol buffers writes as a text.
pub(super) fn number(value: &Value) -> Result<i64, Failure> {
    let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
    number.ok_or_else(|| Failure(format!("`{value}` is no revision")))
}

/// A key and its value, as etcd writes both.
#[derive(Deserialize)]
pub(super) struct Pair {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct Told {
    result: Option<Watched>,
    error: Option<Refused>,
}

#[derive(Deserialize)]
struct Refused {
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Watched {
    #[serde(default)]
    canceled: bool,
    #[serde(default)]
    cancel_reason: String,
    compact_revision: Option<Value>,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    /// Left out for `PUT`.
    #[serde(default, rename = "type")]
    kind: String,
    kv: Pair,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, key: &str, value: &str) -> Bytes {
        let kv = json!({ "key": BASE64_STANDARD.encode(key), "mod_revision": "7",
            "value": BASE64_STANDARD.encode(value) });
        let event =
            if kind.is_empty() { json!({ "kv": kv }) } else { json!({ "type": kind, "kv": kv }) };
        json!({ "result": { "header": { "revision": "7" }, "events": [event] } }).to_string().into()
    }

    fn told(keys: &Keys) -> Result<Vec<(String, u16)>, String> {
        let found = keys.found().map_err(|why| why.to_string())?.into_iter();
        Ok(found.map(|found| (found.address.to_string(), found.target.weight)).collect())
    }

    #[test]
    fn a_key_holds_a_backend_until_it_is_deleted() {
        let mut keys = Keys::default();
        let created = br#"{"result":{"header":{"revision":"6"},"created":true}}"#;
        let weighted = r#"{"address": "127.0.0.1:2", "weight": 3}"#;
        let lines = [
            created.as_slice().into(),
            event("", "/app/a", "127.0.0.1:1"),
            event("PUT", "/app/b", weighted),
        ];
        assert_eq!(keys.apply(&lines), Ok(true));
        let both = vec![("127.0.0.1:1".to_owned(), 1), ("127.0.0.1:2".to_owned(), 3)];
        assert_eq!(told(&keys), Ok(both));
        assert_eq!(keys.apply(&[event("DELETE", "/app/a", "")]), Ok(true));
        assert_eq!(told(&keys), Ok(vec![("127.0.0.1:2".to_owned(), 3)]));

        assert_eq!(keys.apply(&[event("", "/app/c", "a.test")]), Ok(true));
        assert_eq!(told(&keys), Err("the value of `/app/c`: `a.test` has no port".to_owned()));
        assert_eq!(keys.apply(&[event("DELETE", "/app/c", "")]), Ok(true));
        assert!(told(&keys).is_ok(), "what is mended is forgotten");
    }

    #[test]
    fn a_watch_that_does_not_go_on_says_why() {
        let apply = |line: &str| Keys::default().apply(&[Bytes::copy_from_slice(line.as_bytes())]);
        let compacted =
            r#"{"result":{"header":{"revision":"9"},"canceled":true,"compact_revision":"8"}}"#;
        assert_eq!(apply(compacted), Ok(false), "all is read again");
        let told = |line: &str| apply(line).unwrap_err().to_string();
        let refused = r#"{"result":{"canceled":true,"cancel_reason":"permission denied"}}"#;
        assert_eq!(told(refused), "the watch was cancelled: permission denied");
        let error = r#"{"error":{"grpc_code":14,"message":"no leader","http_status":"x"}}"#;
        assert_eq!(told(error), "the watch ended: no leader");
        assert!(told(r#"{"result":{"#).starts_with("an event is not as expected: "));
        assert_eq!(told("{}"), "an event that says nothing");
    }

    #[test]
    fn so_many_keys_have_a_bound() {
        let mut keys = Keys::default();
        let one = |nth: usize| event("", &format!("/app/{nth}"), "127.0.0.1:1");
        let lines: Vec<_> = (0..=BACKENDS_MAX).map(one).collect();
        let why = keys.apply(&lines).unwrap_err().to_string();
        assert_eq!(why, "more than 10000 keys");
    }
}
