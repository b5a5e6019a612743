//! What every test checks beside its own subject: an answer is what the OpenAPI document says, and the document does
//! not refuse what the server accepts.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use axum::http::Method;
use byzerllm_server::openapi;
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::support::Answer;

pub(crate) static DOCUMENT: LazyLock<Value> = LazyLock::new(openapi);

/// The document with components that allow no further fields, for answers: they hold nothing undescribed.
static CLOSED: LazyLock<Value> = LazyLock::new(|| {
    let mut components = DOCUMENT["components"].clone();
    for schema in components["schemas"].as_object_mut().unwrap().values_mut() {
        if schema.get("properties").is_some() && schema.get("additionalProperties").is_none() {
            schema["unevaluatedProperties"] = false.into();
        }
    }
    components
});

static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// Checks a value against a schema of the document.
#[track_caller]
fn check(schema: &Value, components: &Value, value: &Value, what: &str) {
    let key = format!("{schema} {}", components["schemas"]["ErrorAnswer"]);
    let validator = {
        let mut validators = VALIDATORS.lock().unwrap();
        let made = validators.entry(key).or_insert_with(|| {
            let mut root = schema.clone();
            root["components"] = components.clone();
            Arc::new(jsonschema::draft202012::new(&root).unwrap())
        });
        made.clone()
    };
    let errors: Vec<String> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{what} is not what the document says: {errors:#?}\n{value:#}\n{schema:#}");
}

/// The operation that answers a concrete path.
pub(crate) fn operation(method: &Method, path: &str) -> Option<&'static Value> {
    let matches = |template: &str| {
        let (mut parts, mut wanted) = (path.split('/'), template.split('/'));
        loop {
            match (parts.next(), wanted.next()) {
                (None, None) => return true,
                (Some(part), Some(wanted))
                    if part == wanted || (wanted.starts_with('{') && !part.is_empty()) => {}
                _ => return false,
            }
        }
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let exact =
        paths.get(path).or_else(|| paths.iter().find(|(path, _)| matches(path)).map(|(_, item)| item));
    exact?.get(method.as_str().to_ascii_lowercase())
}

/// Checks an answer.
#[track_caller]
pub(crate) fn check_answer(method: &Method, path: &str, answer: &Answer) {
    let Some(operation) = operation(method, path) else { return };
    let (what, status) = (format!("{method} {path}: {}", answer.status), answer.status.as_str());
    let documented = &operation["responses"][status];
    assert!(documented.is_object(), "{what} is not documented: {}", answer.text);
    if !answer.status.is_success() {
        let schema = if path.starts_with("/v1/messages") { "MessagesErrorAnswer" } else { "ErrorAnswer" };
        let error = json!({ "$ref": format!("#/components/schemas/{schema}") });
        return check(&error, &CLOSED, &serde_json::from_str(&answer.text).unwrap(), &what);
    }
    let Some(content) = documented.get("content") else {
        return assert_eq!(answer.text, "", "{what}");
    };
    let kind = answer.header("content-type").unwrap().split(';').next().unwrap();
    let schema = &content[kind]["schema"];
    assert!(schema.is_object(), "{what}: {kind} is not documented");
    match kind {
        "application/json" => check(schema, &CLOSED, &serde_json::from_str(&answer.text).unwrap(), &what),
        "text/event-stream" => {
            for frame in answer.text.split("\n\n") {
                let line = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name));
                let Some(data) = line("data: ").filter(|data| *data != "[DONE]") else { continue };
                let value: Value = serde_json::from_str(data).unwrap();
                let error = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
                if line("event: ") == Some("error") && value["type"] == "error" {
                    check(&error("MessagesErrorAnswer"), &CLOSED, &value, &what);
                } else if line("event: ") == Some("error") {
                    check(&error("Error"), &CLOSED, &value, &what);
                } else if value.get("error").is_some() {
                    check(&error("ErrorAnswer"), &CLOSED, &value, &what);
                } else {
                    check(schema, &CLOSED, &value, &what);
                }
            }
        }
        _ => {}
    }
}

/// Checks a body that was accepted.
#[track_caller]
pub(crate) fn check_request(method: &Method, path: &str, body: &str) {
    let Some(operation) = operation(method, path) else { return };
    let Some(schema) = operation.pointer("/requestBody/content/application~1json/schema") else { return };
    let components = &DOCUMENT["components"];
    check(
        schema,
        components,
        &serde_json::from_str(body).unwrap(),
        &format!("{method} {path}, a body that was accepted,"),
    );
}
