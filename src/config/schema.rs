//! The schema of the file, made of the types that read it and of their comments.
//!
//! [`types`] is what the types tell, put into the words of an operator; [`manual`] prints it for
//! people. [`editors`] is the same for an editor, which sees the file before its variables are
//! filled in.

mod defaults;
mod manual;
mod variables;

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

pub use manual::{manual, policies};

use crate::config::File;

/// The keys of a schema that describe, and refuse nothing, in the order in which they are read.
const NOTES: [&str; 5] = ["$schema", "title", "description", "default", "examples"];

/// The schema of the file with all its variables filled in.
pub fn types() -> Value {
    let generator = SchemaGenerator::from(SchemaSettings::draft2020_12());
    let mut schema = generator.into_root_schema_for::<File>().to_value();
    each(&mut schema, &mut as_operators_write);
    each(&mut schema, &mut defaults::read);
    each(&mut schema, &mut notes_first);
    schema
}

/// The schema of the file as an editor sees it, printed.
pub fn editors() -> String {
    let mut schema = types();
    variables::accept(&mut schema);
    format!("{schema:#}\n")
}

/// Changes a schema and all within, the innermost first.
///
/// What stands under `not` is left as it is: what is refused is changed by none of these passes.
fn each(schema: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    let Value::Object(map) = schema else { return };
    for (key, value) in map.iter_mut() {
        match (key.as_str(), value) {
            ("properties" | "patternProperties" | "$defs", Value::Object(schemas)) => {
                for schema in schemas.values_mut() {
                    each(schema, change);
                }
            }
            ("anyOf" | "oneOf", Value::Array(schemas)) => {
                for schema in schemas {
                    each(schema, change);
                }
            }
            ("items" | "additionalProperties", schema) => each(schema, change),
            _ => {}
        }
    }
    change(map);
}

/// Turns what serde's types tell into what an operator writes.
fn as_operators_write(schema: &mut Map<String, Value>) {
    // The sizes of Rust's integers: their bounds are there as well.
    if schema.get("format").and_then(Value::as_str).is_some_and(|format| format.contains("int")) {
        schema.remove("format");
    }
    // The first paragraph is for operators, wrapped at the width of the code; the rest is for those
    // who read the code.
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    }
    // A key that may be left out is left out, and not written with nothing behind it.
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    one_choice(schema);
    name_only_key(schema);
    // Numbers and booleans are texts, too, where any text may stand.
    let is_text = schema.get("type").is_some_and(|name| name == "string");
    if is_text
        && !["const", "enum", "pattern", "format"].iter().any(|key| schema.contains_key(*key))
    {
        schema.insert("type".to_owned(), json!(["string", "number", "boolean"]));
    }
}

/// Gives the meaning of a mapping with one key to that key, which is what is looked up.
fn name_only_key(schema: &mut Map<String, Value>) {
    let meaning = schema.get("description").cloned();
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    let (Some(meaning), 1) = (meaning, properties.len()) else { return };
    for property in properties.values_mut().filter_map(Value::as_object_mut) {
        property.entry("description").or_insert_with(|| meaning.clone());
    }
}

/// Tells what a schema is about before it tells what is allowed.
fn notes_first(schema: &mut Map<String, Value>) {
    let mut rest = std::mem::take(schema);
    for note in NOTES {
        schema.extend(rest.remove_entry(note));
    }
    schema.append(&mut rest);
}

/// Writes every choice as one `anyOf`, without choices in choices and without nothing.
fn one_choice(schema: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = schema.remove("oneOf").or_else(|| schema.remove("anyOf"))
    else {
        return;
    };
    let mut flat = Vec::new();
    for choice in choices {
        match choice {
            Value::Object(mut inner) if inner.len() == 1 && inner.contains_key("anyOf") => {
                if let Some(Value::Array(inner)) = inner.remove("anyOf") {
                    flat.extend(inner);
                }
            }
            nothing if nothing == json!({ "type": "null" }) => {}
            choice => flat.push(choice),
        }
    }
    match flat.as_mut_slice() {
        [Value::Object(only)] if !only.contains_key("description") => {
            for (key, value) in std::mem::take(only) {
                schema.entry(key).or_insert(value);
            }
        }
        _ => {
            schema.insert("anyOf".to_owned(), Value::Array(flat));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{parts::KEYS, server::keys};

    /// The top level alone is read by hand, so it alone could be told wrongly.
    #[test]
    fn the_top_level_is_told_as_it_is_read() {
        let schema = types();
        let told = schema["properties"].as_object().unwrap().keys().map(String::as_str);
        let read = KEYS.into_iter().chain(keys::KEYS.iter().map(|key| key.name));
        assert_eq!(
            told.collect::<BTreeSet<_>>(),
            read.collect::<BTreeSet<_>>(),
            "left: the fields of `config::File`; right: the keys that `File::read` takes"
        );
    }

    #[test]
    fn a_choice_has_no_choices_within_and_is_none_if_one_is_left() {
        let mut schema = json!({ "oneOf": [
            { "anyOf": [{ "const": "a" }, { "const": "b" }] }, { "type": "null" }, { "$ref": "#/c" },
        ] });
        each(&mut schema, &mut one_choice);
        let flat = json!({ "anyOf": [{ "const": "a" }, { "const": "b" }, { "$ref": "#/c" }] });
        assert_eq!(schema, flat);
        let mut optional =
            json!({ "anyOf": [{ "$ref": "#/c" }, { "type": "null" }], "title": "t" });
        each(&mut optional, &mut one_choice);
        assert_eq!(optional, json!({ "$ref": "#/c", "title": "t" }));
    }
}
