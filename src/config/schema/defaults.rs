//! The defaults of keys, which stand at the end of their comments.
//!
//! "Default: `5s`." is a value, and becomes the `default` of the schema; "Default: the number of
//! cores." says in words what holds without the key.

use serde_json::{Map, Value};

use crate::yaml;

/// How the last sentence of a comment begins.
const DEFAULT: &str = "Default: ";

/// Takes the defaults of a mapping's keys out of their descriptions.
pub(super) fn read(schema: &mut Map<String, Value>) {
    // What serde would fill in is not looked at: one source is enough, and a test proves it.
    schema.remove("default");
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    for property in properties.values_mut().filter_map(Value::as_object_mut) {
        let description = property.get("description").and_then(Value::as_str).unwrap_or_default();
        let (_, default) = split(description);
        if let Some(value) = default.and_then(value) {
            property.insert("default".to_owned(), value);
        }
    }
}

/// Parts the meaning of a key from its default.
pub(super) fn split(description: &str) -> (&str, Option<&str>) {
    match description.rsplit_once(DEFAULT) {
        Some((meaning, default)) => (meaning.trim_end(), Some(default.trim_end_matches('.'))),
        None => (description, None),
    }
}

/// The value that stands in backticks at the beginning.
fn value(default: &str) -> Option<Value> {
    let (text, _) = default.strip_prefix('`')?.split_once('`')?;
    yaml::parse(text).ok().map(|node| node.to_json())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn default_of(description: &str) -> Option<Value> {
        let mut schema = json!({ "properties": { "key": { "description": description } } });
        read(schema.as_object_mut()?);
        schema["properties"]["key"].get("default").cloned()
    }

    #[test]
    fn a_default_in_backticks_is_a_value() {
        assert_eq!(default_of("How long. Default: `5s`."), Some(json!("5s")));
        assert_eq!(default_of("How many. Default: `3`."), Some(json!(3)));
        assert_eq!(default_of("Which. Default: `[200-299]`."), Some(json!(["200-299"])));
        assert_eq!(default_of("Which. Default: `{}`, all of them."), Some(json!({})));
    }

    #[test]
    fn a_default_in_words_is_none() {
        assert_eq!(default_of("Threads. Default: the number of cores."), None);
        assert_eq!(default_of("Where. Default: one listener, at `0.0.0.0:8080`."), None);
        assert_eq!(default_of("The name."), None);
    }

    #[test]
    fn the_meaning_comes_before_the_default() {
        assert_eq!(split("How long. Default: `5s`."), ("How long.", Some("`5s`")));
        assert_eq!(split("The name."), ("The name.", None));
    }
}
