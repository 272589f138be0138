//! What a key takes, in words.

use serde_json::{Map, Value};

/// Says what schemas take; knows where their sections are.
pub(super) struct Words<'a> {
    pub(super) schema: &'a Value,
    /// The anchors of mappings, by the name of the definition.
    pub(super) anchors: Vec<(&'a str, String)>,
}

impl Words<'_> {
    /// Says what may stand there: "`off` or [mapping](#upstreamsname)".
    pub(super) fn takes(&self, schema: &Value) -> String {
        self.some(schema, 1)
    }

    /// Says what each word means that may stand there, as far as it is told.
    pub(super) fn meanings(&self, schema: &Value) -> String {
        let schema = match resolve(self.schema, schema) {
            Some((_, definition)) if !is_choice(definition) => definition,
            _ => schema,
        };
        let choices = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
        let meaning = |choice: &Value| {
            let word = match choice.get("const") {
                Some(word) => shown(word),
                None => format!("`{}`", choice.get("properties")?.as_object()?.keys().next()?),
            };
            Some(format!(" {word}: {}", choice.get("description")?.as_str()?))
        };
        choices.filter_map(meaning).collect()
    }

    fn some(&self, schema: &Value, count: usize) -> String {
        if let Some((name, definition)) = resolve(self.schema, schema) {
            return self.defined(name, definition, count);
        }
        if let Some(choices) = schema.get("anyOf").and_then(Value::as_array) {
            let choices: Vec<_> = choices.iter().map(|choice| self.some(choice, count)).collect();
            return match choices.split_last() {
                Some((last, [])) => last.clone(),
                Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
                None => String::new(),
            };
        }
        if let Some(value) = schema.get("const") {
            return shown(value);
        }
        if let Some(items) = schema.get("items") {
            return format!("list of {}", self.some(items, 2));
        }
        if let Some(values) = named(schema) {
            return format!("mapping from names to {}", self.some(values, 2));
        }
        match (field(schema, "type"), schema.get("properties").and_then(Value::as_object)) {
            (_, Some(properties)) => self.written_out(properties),
            ("object", None) => "`{}`".to_owned(),
            ("boolean", _) => "`true` or `false`".to_owned(),
            ("integer", _) => number(schema, count),
            _ => match field(schema, "format") {
                "ipv4" => counted("IPv4 address", count),
                "ipv6" => counted("IPv6 address", count),
                _ => counted("text", count),
            },
        }
    }

    fn defined(&self, name: &str, schema: &Value, count: usize) -> String {
        let section = self.anchors.iter().find(|(known, _)| *known == name);
        match section {
            Some((_, anchor)) if is_choice(schema) => {
                format!("[{}](#{anchor})", counted(&noun(name), count))
            }
            Some((_, anchor)) => format!("[{}](#{anchor})", counted("mapping", count)),
            None if is_one_value(schema) => {
                format!("[{}](#{})", counted(&noun(name), count), noun(name).replace(' ', "-"))
            }
            None => self.some(schema, count),
        }
    }

    /// A mapping too small for a section of its own: `{ replace: … }`.
    fn written_out(&self, properties: &Map<String, Value>) -> String {
        let keys = properties.iter();
        let keys: Vec<_> =
            keys.map(|(key, property)| format!("`{key}:` {}", self.takes(property))).collect();
        keys.join(", ")
    }
}

/// Finds the definition that a schema refers to.
pub(super) fn resolve<'a>(root: &'a Value, schema: &Value) -> Option<(&'a str, &'a Value)> {
    let name = schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")?;
    let definitions = root.get("$defs")?.as_object()?;
    definitions.iter().find(|(known, _)| *known == name).map(|(name, found)| (name.as_str(), found))
}

/// Does this have keys of its own?
pub(super) fn is_mapping(schema: &Value) -> bool {
    schema.get("properties").is_some()
}

/// Is this a mapping with one key out of several?
pub(super) fn is_choice(schema: &Value) -> bool {
    let choices = schema.get("anyOf").and_then(Value::as_array);
    choices.is_some_and(|choices| choices.iter().all(is_mapping))
}

/// Is this one value with a form of its own?
pub(super) fn is_one_value(schema: &Value) -> bool {
    schema.get("pattern").is_some()
}

/// The keys of a choice.
pub(super) fn choices(schema: &Value) -> Map<String, Value> {
    let choices = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    let keys = choices.filter_map(|choice| choice.get("properties")?.as_object());
    keys.flatten().map(|(key, property)| (key.clone(), property.clone())).collect()
}

/// What stands behind names of anybody's choice.
pub(super) fn named(schema: &Value) -> Option<&Value> {
    let patterns = schema.get("patternProperties").and_then(Value::as_object);
    let any = schema.get("additionalProperties").filter(|any| any.is_object());
    any.or_else(|| patterns?.values().next())
}

/// The keys that must be there.
pub(super) fn required(schema: &Value) -> Vec<&str> {
    let required = schema.get("required").and_then(Value::as_array);
    required.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// A text of a schema, or none.
pub(super) fn field<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A value as an operator writes it.
pub(super) fn shown(value: &Value) -> String {
    match value.as_str() {
        Some(text) => format!("`{text}`"),
        None => format!("`{value}`"),
    }
}

/// The name of a type as a noun: `ByteSize` → "byte size".
pub(super) fn noun(name: &str) -> String {
    let mut noun = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !noun.is_empty() {
            noun.push(' ');
        }
        noun.push(letter.to_ascii_lowercase());
    }
    noun
}

/// One of something, or several: "byte size", "byte sizes".
fn counted(noun: &str, count: usize) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => noun.to_owned(),
        (_, Some(stem)) => format!("{stem}ies"),
        _ if noun.ends_with('s') => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
}

fn number(schema: &Value, count: usize) -> String {
    let noun = counted("number", count);
    match (schema.get("minimum"), schema.get("maximum")) {
        (Some(min), Some(max)) => format!("{noun}, {min} to {max}"),
        (Some(min), None) if min != 0 => format!("{noun}, at least {min}"),
        (None, Some(max)) => format!("{noun}, at most {max}"),
        _ => noun,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nouns_are_made_of_names() {
        let both = |name: &str| (noun(name), counted(&noun(name), 2));
        assert_eq!(both("ByteSize"), ("byte size".to_owned(), "byte sizes".to_owned()));
        assert_eq!(both("Policy"), ("policy".to_owned(), "policies".to_owned()));
        assert_eq!(counted("backend address", 2), "backend addresses");
    }

    #[test]
    fn what_a_key_takes_is_said_in_words() {
        let schema = json!({ "$defs": { "Duration": { "pattern": "s$" } } });
        let words = Words { schema: &schema, anchors: Vec::new() };
        let number = json!({ "type": "integer", "minimum": 1, "maximum": 9 });
        assert_eq!(words.takes(&number), "number, 1 to 9");
        let duration = json!({ "$ref": "#/$defs/Duration" });
        assert_eq!(words.takes(&duration), "[duration](#duration)");
        let choice = json!({ "anyOf": [{ "const": "off" }, { "const": "on" }, duration] });
        assert_eq!(words.takes(&choice), "`off`, `on` or [duration](#duration)");
        let list = json!({ "type": "array", "items": { "type": "integer" } });
        assert_eq!(words.takes(&list), "list of numbers");
    }
}
