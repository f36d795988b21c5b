//! What GitHub's own description says of the calls the bridge makes: requests
//! and answers are checked against it, and answers are made from it.

use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

pub static GITHUB: LazyLock<Value> = LazyLock::new(|| {
    let text = unzipped("openapi.json.gz");
    serde_json::from_slice(&text).unwrap()
});

/// Reads a file of `tests/data/github`.
pub fn unzipped(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/github");
    let file = format!("{folder}/{name}");
    let output = Command::new("gzip").args(["-dc", &file]).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn named(name: &str) -> &'static Value {
    let schema = &GITHUB["schemas"][name];
    assert!(!schema.is_null(), "no schema {name}");
    schema
}

fn resolved(schema: &Value) -> &Value {
    match schema["$ref"].as_str() {
        Some(name) => resolved(named(name)),
        None => schema,
    }
}

/// A call as it is described.
pub struct Operation {
    pub path: &'static str,
    pub of: &'static Value,
}

/// Returns the description of a call, whose path begins with `/`.
pub fn operation(method: &str, path: &str) -> Option<Operation> {
    let steps: Vec<&str> = path.split('/').collect();
    let paths = GITHUB["paths"].as_object().unwrap();
    paths.iter().find_map(|(template, methods)| {
        let known: Vec<&str> = template.split('/').collect();
        let deep = template.ends_with("/{ref}") && steps.len() > known.len();
        let fits = known
            .iter()
            .zip(&steps)
            .all(|(known, step)| known == step || (known.starts_with('{') && !step.is_empty()));
        let of = &methods[method.to_ascii_lowercase()];
        let right = fits && (known.len() == steps.len() || deep) && !of.is_null();
        right.then_some(Operation { path: template, of })
    })
}

/// Says what is wrong with a request.
pub fn request(operation: &Operation, query: &[(String, String)], body: &[u8]) -> Vec<String> {
    let mut wrong = Vec::new();
    let parameters = operation.of["parameters"].as_array().unwrap();
    for (name, _) in query {
        let known = |one: &&Value| one["in"] == "query" && one["name"] == **name;
        // GitHub gives it with the pages it names.
        if !parameters.iter().any(|one| known(&one)) && name != "page" {
            wrong.push(format!("{}: there is no ?{name}", operation.path));
        }
    }
    let described = &operation.of["body"];
    match (described.is_null(), body.is_empty()) {
        (true, false) => wrong.push(format!("{}: takes no body", operation.path)),
        (false, true) if described["required"] == true => {
            wrong.push(format!("{}: needs a body", operation.path));
        }
        (false, false) => {
            let body: Value = serde_json::from_slice(body).unwrap();
            check(&described["schema"], &body, operation.path, &mut wrong);
        }
        _ => (),
    }
    wrong
}

/// Returns the schema of an answer.
pub fn answer(operation: &Operation, status: u16) -> Option<&'static Value> {
    let schema = &operation.of["responses"][status.to_string()];
    (!schema.is_null()).then_some(schema)
}

/// Says where a value is not as described.
pub fn check(schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let schema = resolved(schema);
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        check(part, value, at, wrong);
    }
    for kind in ["anyOf", "oneOf"] {
        let Some(choices) = schema[kind].as_array() else {
            continue;
        };
        let fits = choices.iter().any(|choice| {
            let mut faults = Vec::new();
            check(choice, value, at, &mut faults);
            faults.is_empty()
        });
        if !fits {
            wrong.push(format!("{at}: fits none of the choices: {value}"));
        }
    }
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    if !fits {
        wrong.push(format!("{at}: is no {}: {value}", schema["type"]));
        return;
    }
    if let Some(known) = schema["enum"].as_array()
        && !known.contains(value)
    {
        wrong.push(format!("{at}: {value} is none of {known:?}"));
    }
    if let (Some(longest), Some(text)) = (schema["maxLength"].as_u64(), value.as_str())
        && text.chars().count() as u64 > longest
    {
        wrong.push(format!("{at}: is longer than {longest}"));
    }
    if let Some(object) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !object.contains_key(name.as_str().unwrap()) {
                wrong.push(format!("{at}: has no {name}"));
            }
        }
        for (name, value) in object {
            let described = &schema["properties"][name];
            if !described.is_null() {
                check(described, value, &format!("{at}.{name}"), wrong);
            }
        }
    }
    for (number, value) in value.as_array().into_iter().flatten().enumerate() {
        if !schema["items"].is_null() {
            check(&schema["items"], value, &format!("{at}[{number}]"), wrong);
        }
    }
}

/// Makes a value as described, with all it must have and no more.
pub fn sample(schema: &Value) -> Value {
    let schema = resolved(schema);
    if schema["nullable"] == true {
        return Value::Null;
    }
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    for kind in ["anyOf", "oneOf"] {
        if let Some(first) = schema[kind].get(0) {
            return sample(first);
        }
    }
    let mut all = Map::new();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        match sample(part) {
            Value::Object(part) => all.extend(part),
            other => return other,
        }
    }
    match schema["type"].as_str() {
        Some("array") => json!([]),
        Some("string") => match schema["format"].as_str() {
            Some("date-time") => json!("2026-01-01T00:00:00Z"),
            Some("uri") => json!("https://example.org/"),
            _ => json!("text"),
        },
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(false),
        _ => {
            for name in schema["required"].as_array().into_iter().flatten() {
                let name = name.as_str().unwrap();
                all.insert(name.into(), sample(&schema["properties"][name]));
            }
            Value::Object(all)
        }
    }
}

/// Puts parts into a value, objects into objects.
pub fn overlay(value: &mut Value, with: Value) {
    match (value, with) {
        (Value::Object(value), Value::Object(with)) => {
            for (name, part) in with {
                overlay(value.entry(name).or_insert(Value::Null), part);
            }
        }
        (value, with) => *value = with,
    }
}
