//! Variables: where one value may stand, `${NAME}` may stand as well.
//!
//! An editor sees the file before they are filled in. So every schema of a single value takes a
//! text with a variable in it, too, whatever its type; the program checks what was filled in.

use serde_json::{Map, Value, json};

use crate::config::schema::{NOTES, each};

/// The name of the definition.
const NAME: &str = "Variable";

/// Lets variables stand wherever one value stands.
pub(super) fn accept(schema: &mut Value) {
    each(schema, &mut accept_here);
    let definition = json!({
        "description": "A value that is filled in: `${NAME}`, `${NAME:-default}` or `${file:/path}`.",
        "type": "string",
        "pattern": r"\$\{",
    });
    if let Some(Value::Object(definitions)) = schema.get_mut("$defs") {
        definitions.insert(NAME.to_owned(), definition);
    }
}

/// The choices in a union were changed before it: those of one value are unions by now.
fn accept_here(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        let mut flat = Vec::new();
        for choice in choices.drain(..) {
            flat.extend(narrow(choice));
        }
        if let Some(at) = flat.iter().position(is_variable) {
            let variable = flat[at].clone();
            flat.retain(|choice| !is_variable(choice));
            flat.push(variable);
        }
        *choices = flat;
    } else if is_one_value(schema) {
        let (notes, value): (Map<_, _>, Map<_, _>) =
            std::mem::take(schema).into_iter().partition(|(key, _)| NOTES.contains(&key.as_str()));
        *schema = notes;
        schema.insert("anyOf".to_owned(), json!([value, variable()]));
    }
}

/// Takes the union apart that a choice of one value has become; its notes go to the value.
fn narrow(choice: Value) -> Vec<Value> {
    match choice {
        Value::Object(mut union) if union.get("anyOf").is_some_and(ends_in_variable) => {
            let Some(Value::Array(mut inner)) = union.remove("anyOf") else { return Vec::new() };
            if let Some(Value::Object(value)) = inner.first_mut() {
                value.extend(union);
            }
            inner
        }
        choice => vec![choice],
    }
}

fn ends_in_variable(choices: &Value) -> bool {
    choices.as_array().and_then(|choices| choices.last()).is_some_and(is_variable)
}

fn is_variable(choice: &Value) -> bool {
    *choice == variable()
}

fn variable() -> Value {
    json!({ "$ref": format!("#/$defs/{NAME}") })
}

/// Does this ask for one value, and would it refuse a text with a variable in it?
fn is_one_value(schema: &Map<String, Value>) -> bool {
    const BOUNDS: [&str; 6] = ["const", "enum", "pattern", "format", "minimum", "maximum"];
    const ONES: [&str; 4] = ["string", "number", "integer", "boolean"];
    let is_bound = BOUNDS.iter().any(|key| schema.contains_key(*key));
    match schema.get("type") {
        Some(Value::String(name)) => ONES.contains(&name.as_str()),
        // Of several types one is text, and without bounds any text is taken.
        _ => is_bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(mut schema: Value) -> Value {
        accept(&mut schema);
        schema
    }

    #[test]
    fn one_value_may_be_a_variable_and_keeps_its_notes_outside() {
        let schema = json!({ "description": "d", "type": "integer", "minimum": 1 });
        let bounds = json!({ "type": "integer", "minimum": 1 });
        let wanted = json!({ "description": "d", "anyOf": [bounds, variable()] });
        assert_eq!(accepted(schema), wanted);
    }

    #[test]
    fn a_choice_has_one_variable_at_its_end() {
        let off = json!({ "const": "off", "description": "d" });
        let full = json!({ "$ref": "#/$defs/Full" });
        let wanted = json!({ "anyOf": [off.clone(), full.clone(), variable()] });
        assert_eq!(accepted(json!({ "anyOf": [off, full] })), wanted);
    }

    #[test]
    fn what_is_no_value_or_takes_any_text_stays() {
        let mapping = json!({ "type": "object", "properties": {} });
        let text = json!({ "type": ["string", "number", "boolean"] });
        let reference = json!({ "$ref": "#/$defs/Full", "description": "d" });
        for schema in [mapping, text, reference] {
            assert_eq!(accepted(schema.clone()), schema);
        }
    }
}
