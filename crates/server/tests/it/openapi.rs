//! The OpenAPI document and the server say the same. That answers are as described, [`crate::contract`] checks in
//! every test.

use std::collections::BTreeSet;

use axum::http::Method;
use byzerllm_server::routes;
use serde_json::{Map, Value, json};

use crate::contract::DOCUMENT;
use crate::support::{Answer, App};

/// A request of the document, sent to a server of its own.
struct Asked {
    method: Method,
    path: String,
    id: &'static str,
    schema: &'static Value,
    example: Map<String, Value>,
}

/// Every operation with a body.
fn asked() -> Vec<Asked> {
    let mut all = Vec::new();
    for (path, item) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(content) = operation.pointer("/requestBody/content/application~1json") else { continue };
            let mut example = content["example"].as_object().unwrap().clone();
            let id = operation["operationId"].as_str().unwrap();
            // What exists where the examples are tried.
            if let "deploy" | "inspect" = id {
                let field = if id == "deploy" { "model" } else { "path" };
                example.insert(field.to_owned(), "/".into());
            }
            all.push(Asked {
                method: method.to_ascii_uppercase().parse().unwrap(),
                path: path.replace("{name}", "chat"),
                id,
                schema: resolved(&content["schema"]),
                example,
            });
        }
    }
    assert!(all.len() >= 10, "{}", all.len());
    all
}

impl Asked {
    fn properties(&self) -> impl Iterator<Item = (&'static str, &'static Value)> + use<> {
        let properties: &'static Map<String, Value> = self.schema["properties"].as_object().unwrap();
        properties.iter().map(|(name, schema)| (name.as_str(), schema))
    }

    /// The example with a field, and with what the field needs beside it.
    fn with(&self, field: &str, value: Value) -> Value {
        let mut body = self.example.clone();
        match (self.id, field) {
            ("createChatCompletion", "top_logprobs") => drop(body.insert("logprobs".to_owned(), true.into())),
            (_, "stream_options") => drop(body.insert("stream".to_owned(), true.into())),
            ("tokenize", "messages" | "add_generation_prompt") => {
                body.remove("prompt");
                body.insert("messages".to_owned(), json!([{"role": "user", "content": "Hi"}]));
            }
            _ => {}
        }
        // The one field that names what must exist.
        let value = if field == "base_model_name" { "chat".into() } else { value };
        body.insert(field.to_owned(), value);
        body.into()
    }

    async fn send(&self, body: &Value) -> Answer {
        let app = App::answering("hello").await;
        if self.id == "rotateKey" {
            app.admin(Method::POST, "/byzerllm/v1/keys", json!({ "name": "chat" })).await.ok();
        }
        if self.id == "unloadLoraAdapter" {
            let adapter = json!({ "lora_name": "french", "lora_path": "/adapters/french" });
            app.admin(Method::POST, "/v1/load_lora_adapter", adapter).await;
        }
        app.admin(self.method.clone(), &self.path, body).await
    }
}

fn resolved(schema: &'static Value) -> &'static Value {
    match schema["$ref"].as_str() {
        Some(reference) => DOCUMENT.pointer(&reference[1..]).unwrap(),
        None => schema,
    }
}

/// A value that a schema allows, not `null`.
fn sample(schema: &'static Value) -> Value {
    let schema = resolved(schema);
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().find(|value| !value.is_null()).cloned().unwrap_or(Value::Null);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(schemas) = schema[key].as_array() {
            return schemas.iter().map(sample).find(|value| !value.is_null()).unwrap();
        }
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match kind {
        Some("boolean") => true.into(),
        Some("integer") => schema["minimum"].as_i64().unwrap_or(0).max(1).into(),
        Some("number") => 1.into(),
        Some("string") => "text".into(),
        Some("array") => match schema["maxItems"].as_u64() {
            Some(0) => json!([]),
            _ => json!([sample(&schema["items"])]),
        },
        Some("object") => {
            let fields = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            // A message needs a content, too, unless it has calls.
            let content = schema["properties"].get("role").map(|_| "content");
            fields.chain(content).map(|name| (name.to_owned(), sample(&schema["properties"][name]))).collect()
        }
        _ => Value::Null,
    }
}

fn is_neutral(schema: &Value) -> bool {
    schema["x-byzerllm-neutral-only"] == true
}

#[test]
fn paths_and_methods_are_those_of_the_router() {
    let real: BTreeSet<(String, String)> =
        routes().into_iter().map(|route| (route.path.to_owned(), route.method.to_string())).collect();
    let mut described = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for (path, item) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            described.insert((path.clone(), method.to_ascii_uppercase()));
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{operation}");
            assert!(operation["summary"].as_str().unwrap().ends_with('.'));
        }
    }
    assert_eq!(real, described, "describe a new route in src/openapi/operations.rs");
}

#[tokio::test]
async fn everyone_can_read_the_document() {
    let app = App::answering("x").await;
    app.admin(Method::POST, "/byzerllm/v1/keys", json!({ "name": "app" })).await.ok();
    assert_eq!(app.get("/v1/models").await.status, 401);
    assert_eq!(app.get("/openapi.json").await.ok(), *DOCUMENT);
}

#[test]
fn references_lead_somewhere_and_everything_is_used() {
    fn collect(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(key, value)| match value.as_str() {
                Some(reference) if key == "$ref" => drop(found.insert(reference.to_owned())),
                _ => collect(value, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    collect(&DOCUMENT, &mut found);
    for reference in &found {
        assert!(DOCUMENT.pointer(&reference[1..]).is_some(), "{reference}");
    }
    for name in DOCUMENT["components"]["schemas"].as_object().unwrap().keys() {
        assert!(found.contains(&format!("#/components/schemas/{name}")), "{name} is used nowhere");
    }
}

#[tokio::test]
async fn every_field_of_every_request_is_accepted() {
    for asked in asked() {
        let answer = asked.send(&asked.example.clone().into()).await;
        assert_eq!(answer.status, 200, "{}: {}", asked.id, answer.text);
        let required: Vec<&str> =
            asked.schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (field, schema) in asked.properties() {
            // Each stands in place of `model`, and needs what only a real vendor or another deployment has.
            if matches!((asked.id, field), ("deploy", "provider" | "route")) {
                continue;
            }
            if !asked.example.contains_key(field) {
                let body = asked.with(field, sample(schema));
                let answer = asked.send(&body).await;
                assert_eq!(answer.status, 200, "{}: {body}: {}", asked.id, answer.text);
            }
            if required.contains(&field) {
                let mut body = asked.example.clone();
                body.remove(field);
                let (status, param, ..) = asked.send(&body.into()).await.error();
                assert_eq!((status, param.as_deref()), (400, Some(field)), "{}", asked.id);
            } else if !matches!((asked.id, field), ("tokenize", "messages" | "prompt"))
                && schema["type"].as_array().is_some_and(|kinds| kinds.contains(&"null".into()))
            {
                let answer = asked.send(&asked.with(field, Value::Null)).await;
                assert_eq!(answer.status, 200, "{}: {field}: {}", asked.id, answer.text);
            }
        }
    }
}

#[tokio::test]
async fn a_field_that_is_not_described_is_refused() {
    for asked in asked() {
        assert_eq!(asked.schema["additionalProperties"], false, "{}", asked.id);
        let body = asked.with("not_a_field", 1.into());
        let (status, param, _, message) = asked.send(&body).await.error();
        assert_eq!((status, param.as_deref()), (400, Some("not_a_field")), "{}: {message}", asked.id);
        assert!(message.contains("unknown field"), "{message}");
    }
}

#[tokio::test]
async fn of_neutral_fields_exactly_the_described_values_are_accepted() {
    let mut count = 0;
    for asked in asked() {
        for (field, schema) in asked.properties().filter(|(_, schema)| is_neutral(schema)) {
            count += 1;
            for value in schema["enum"].as_array().into_iter().flatten() {
                let answer = asked.send(&asked.with(field, value.clone())).await;
                assert_eq!(answer.status, 200, "{}: {field} = {value}: {}", asked.id, answer.text);
            }
            for value in
                [json!("something"), json!(true), json!(false), json!(0.5), json!(["a"]), json!({"a": 1})]
            {
                if schema["enum"].as_array().is_some_and(|values| values.contains(&value)) {
                    continue;
                }
                let (status, param, ..) = asked.send(&asked.with(field, value.clone())).await.error();
                let param = param.unwrap_or_default();
                assert!(
                    status == 400 && param.starts_with(field),
                    "{}: {field} = {value}: {param}",
                    asked.id
                );
            }
        }
    }
    assert!(count > 40, "{count}");
}

#[tokio::test]
async fn what_is_beyond_a_described_bound_is_refused_by_name() {
    let mut count = 0;
    for asked in asked() {
        for (field, schema) in asked.properties().filter(|(_, schema)| !is_neutral(schema)) {
            let mut beyond = Vec::new();
            let bound = |name: &str| schema[name].as_f64();
            beyond.extend(bound("minimum").map(|least| json!(least - 1.0)));
            beyond.extend(bound("exclusiveMinimum").map(|least| json!(least)));
            beyond.extend(bound("maximum").map(|most| json!(most + 1.0)));
            if schema["type"].as_str().or_else(|| schema["type"][0].as_str()) == Some("integer") {
                // Whole numbers are written without a fraction.
                for value in &mut beyond {
                    let number = value.as_f64().unwrap();
                    if number.abs() < 1e15 {
                        #[expect(clippy::cast_possible_truncation, reason = "it is whole and small")]
                        {
                            *value = (number as i64).into();
                        }
                    }
                }
            }
            if let Some(most) = schema["maxItems"].as_u64() {
                let item = sample(&schema["items"]);
                beyond.push(vec![item; usize::try_from(most).unwrap() + 1].into());
            }
            if let Some(most) = schema["maxLength"].as_u64() {
                beyond.push("a".repeat(usize::try_from(most).unwrap() + 1).into());
            }
            for value in beyond {
                count += 1;
                let (status, param, ..) = asked.send(&asked.with(field, value.clone())).await.error();
                let param = param.unwrap_or_default();
                assert!(status == 400 && param.starts_with(field), "{}: {field}: {param}", asked.id);
            }
        }
    }
    assert!(count > 40, "{count}");
}
