//! The API as an OpenAPI document, made of its table and of the types that it answers with.

use schemars::{
    SchemaGenerator,
    generate::{Contract, SchemaSettings},
};
use serde_json::{Map, Value, json};

use crate::admin::{
    answer::Refused,
    guard,
    table::{self, Body, Operation, SchemaOf, TABLE, Takes, of},
};

const DESCRIPTION: &str = "\
The API of a running Crestline: over TCP where `admin` in the configuration says so, and on a Unix \
socket beside the pid file, for its owner alone. Where `admin` has a `token`, it is asked for over \
TCP (`Authorization: Bearer …`). What a page of another site asks for is refused. A body has 64 KiB \
at most. A page for people is at `/`.";

/// The document, printed.
pub fn printed() -> String {
    format!("{:#}\n", document())
}

/// The document.
pub fn document() -> Value {
    // What is sent has all its fields; what is taken may lack some.
    let mut sent = generator(Contract::Serialize);
    let mut taken = generator(Contract::Deserialize);
    let mut paths = Map::new();
    for operation in TABLE {
        let told = operation_object(operation, &mut sent, &mut taken);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.to_ascii_lowercase()] = told;
    }
    let mut schemas = sent.take_definitions(true);
    schemas.extend(taken.take_definitions(true));
    schemas.sort_keys();
    let mut schemas = Value::Object(schemas);
    tidy(&mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Crestline",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:9180" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn generator(contract: Contract) -> SchemaGenerator {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.contract = contract;
    SchemaGenerator::from(settings)
}

fn operation_object(
    operation: &Operation,
    sent: &mut SchemaGenerator,
    taken: &mut SchemaGenerator,
) -> Value {
    let Operation { method, path, act, says, more, takes, answers } = operation;
    let is_open = guard::PROBES.contains(path);
    let mut replies = Map::new();
    for reply in *answers {
        let told = json!({ "description": reply.says, "content": content(reply.body, sent) });
        replies.insert(reply.status.to_string(), told);
    }
    let mut refuse = |status: &str, says: &str| {
        let content = content(Body::Json(of::<Refused>()), sent);
        replies.insert(status.to_owned(), json!({ "description": says, "content": content }));
    };
    refuse("403", "A page of another site asks, or one for another name than an address.");
    if !is_open {
        refuse("401", "The token is missing, or another one.");
    }
    if *method != "GET" {
        refuse("413", "The body is larger than 64 KiB.");
    }
    replies.sort_keys();
    let mut told = json!({
        "operationId": format!("{act:?}"),
        "summary": says,
        "responses": replies,
        "security": if is_open { json!([]) } else { json!([{ "token": [] }]) },
    });
    if !more.is_empty() {
        told["description"] = (*more).into();
    }
    let mut parameters = named(path);
    match *takes {
        Takes::Nothing => {}
        Takes::Query(schema) => parameters.extend(behind(schema, taken)),
        Takes::MayBeBody(schema) => told["requestBody"] = request_body(schema, false, taken),
        Takes::Body(schema) => told["requestBody"] = request_body(schema, true, taken),
    }
    if !parameters.is_empty() {
        told["parameters"] = parameters.into();
    }
    told
}

fn request_body(schema: SchemaOf, is_required: bool, taken: &mut SchemaGenerator) -> Value {
    let schema = schema(taken);
    json!({ "required": is_required, "content": { "application/json": { "schema": schema } } })
}

fn content(body: Body, sent: &mut SchemaGenerator) -> Value {
    match body {
        Body::Json(schema) => json!({ "application/json": { "schema": schema(sent) } }),
        Body::Lines(schema) => {
            let line = schema(sent);
            json!({ "application/x-ndjson": { "schema": { "type": "string" }, "x-line": line } })
        }
        Body::Events(events) => {
            let events: Map<_, _> = events
                .iter()
                .map(|(name, schema)| ((*name).to_owned(), schema(sent).to_value()))
                .collect();
            json!({ "text/event-stream": { "schema": { "type": "string" }, "x-events": events } })
        }
        Body::Texts(types) => {
            let of = |name: &&str| ((*name).to_owned(), json!({ "schema": { "type": "string" } }));
            types.iter().map(of).collect::<Map<_, _>>().into()
        }
    }
}

/// The parameters that stand in a path.
fn named(path: &str) -> Vec<Value> {
    let (mut parameters, mut rest) = (Vec::new(), path);
    while let Some((_, name, after)) = table::cut(rest) {
        parameters.push(json!({
            "name": name, "in": "path", "required": true,
            "schema": { "type": "string", "minLength": 1 },
        }));
        rest = after;
    }
    parameters
}

/// The parameters that stand behind a path: the fields of a type.
fn behind(schema: SchemaOf, taken: &mut SchemaGenerator) -> Vec<Value> {
    let mut schema = schema(taken).to_value();
    tidy(&mut schema);
    let fields = schema.get_mut("properties").and_then(Value::as_object_mut).map(std::mem::take);
    let mut parameters = Vec::new();
    for (name, mut schema) in fields.unwrap_or_default() {
        let says = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        parameters.push(json!({
            "name": name, "in": "query", "required": false, "description": says, "schema": schema,
        }));
    }
    parameters
}

/// The first paragraph of a comment is for those who ask; sizes of integers are Rust's.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(text)) = map.get_mut("description") {
                *text = text.split("\n\n").next().unwrap_or_default().replace('\n', " ");
            }
            if map.get("format").and_then(Value::as_str).is_some_and(|name| name.contains("int")) {
                map.remove("format");
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second type of one name would be given a number.
    #[test]
    fn each_name_is_that_of_one_type() {
        let document = document();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        assert!(schemas.contains_key("Status") && schemas.contains_key("RequestRecord"));
        let numbered = schemas.keys().filter(|name| name.ends_with(|c: char| c.is_ascii_digit()));
        assert_eq!(numbered.collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn parameters_behind_a_path_are_those_that_are_read() {
        let document = document();
        let parameters = &document["paths"]["/v1/requests"]["get"]["parameters"];
        let names: Vec<_> = (0..3).map(|at| parameters[at]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["kind", "since", "limit"]);
        assert!(parameters[1]["description"].as_str().unwrap().contains("within"));
    }
}
