//! Components of the document. Requests are described as they are parsed and answers as they are written; a type that
//! occurs in both and differs has `Answer` behind its name among the answers.

use std::collections::BTreeSet;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value};

use crate::wire::error::{AnthropicErrorBody, ErrorBody};

const PLACE: &str = "#/components/schemas/";

/// Collects the schemas of the whole document.
pub(super) struct Schemas {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
}

/// Writes the schema of a type, or a reference to it.
pub(super) type Describe = fn(&mut SchemaGenerator) -> Schema;

/// The one of `T`.
pub(super) fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Schemas {
    pub(super) fn new() -> Self {
        let settings = || {
            let place = |settings: &mut SchemaSettings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            };
            SchemaSettings::draft2020_12().with(place).with_transform(RecursiveTransform(tidy))
        };
        Self { requests: settings().into_generator(), answers: settings().for_serialize().into_generator() }
    }

    pub(super) fn requests(&mut self) -> &mut SchemaGenerator {
        &mut self.requests
    }

    pub(super) fn answers(&mut self) -> &mut SchemaGenerator {
        &mut self.answers
    }

    /// The schema of every error.
    pub(super) fn error(&mut self) -> Schema {
        self.answers.subschema_for::<ErrorBody<'static>>()
    }

    /// The schema of every error on Anthropic's routes.
    pub(super) fn messages_error(&mut self) -> Schema {
        self.answers.subschema_for::<AnthropicErrorBody<'static>>()
    }

    /// All components by name. Answers that differ from a request of the same name are renamed, here and in what
    /// `answers` refers to.
    pub(super) fn finish(mut self, answers: &mut Value) -> Map<String, Value> {
        let mut all = self.requests.take_definitions(true);
        let written = self.answers.take_definitions(true);
        let mut renamed: BTreeSet<String> = BTreeSet::new();
        loop {
            let differing: BTreeSet<String> = written
                .iter()
                .filter(|(name, schema)| {
                    all.get(*name).is_some_and(|other| *other != rename(schema, &renamed))
                })
                .map(|(name, _)| name.clone())
                .collect();
            if differing == renamed {
                break;
            }
            renamed = differing;
        }
        *answers = rename(answers, &renamed);
        for (name, schema) in &written {
            all.insert(new_name(name, &renamed), rename(schema, &renamed));
        }
        let mut all: Vec<(String, Value)> = all.into_iter().collect();
        all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        all.into_iter().collect()
    }
}

fn new_name(name: &str, renamed: &BTreeSet<String>) -> String {
    if renamed.contains(name) { format!("{name}Answer") } else { name.to_owned() }
}

/// The same value with references to the renamed components.
fn rename(value: &Value, renamed: &BTreeSet<String>) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| {
                let reference =
                    value.as_str().filter(|_| key == "$ref").and_then(|text| text.strip_prefix(PLACE));
                let value = match reference {
                    Some(name) => format!("{PLACE}{}", new_name(name, renamed)).into(),
                    None => rename(value, renamed),
                };
                (key.clone(), value)
            })
            .collect(),
        Value::Array(items) => items.iter().map(|item| rename(item, renamed)).collect(),
        other => other.clone(),
    }
}

/// One line per description, and no defaults that only say "absent".
fn tidy(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
}
