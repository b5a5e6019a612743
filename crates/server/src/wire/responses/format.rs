//! What an answer of the Responses API must look like.

use byzerllm_core::{Error, ResponseFormat, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::limits;
use crate::wire::describe::{NoEffect, words};
use crate::wire::fields::{Object, unsupported};
use crate::wire::schema::Schema;

/// What the answer must look like.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ResponseText")]
#[serde(deny_unknown_fields)]
pub(super) struct WireText {
    #[serde(default)]
    format: Option<Object<WireFormat>>,
    /// How long the answer should be. Something only for models that have `verbosity`.
    #[serde(default)]
    verbosity: Option<String>,
}

/// Text, a JSON object, or JSON that a schema accepts.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ResponseTextFormat")]
#[serde(deny_unknown_fields)]
struct WireFormat {
    #[schemars(transform = words(&["text", "json_object", "json_schema"]))]
    r#type: String,
    /// With the type `json_schema`: what to call it.
    #[serde(default)]
    name: Option<String>,
    /// With the type `json_schema`: what it is for.
    #[serde(default, rename = "description")]
    _description: NoEffect<String>,
    /// With the type `json_schema`.
    #[serde(default)]
    schema: Option<Schema<{ limits::SCHEMA_BYTES }>>,
    /// Always enforced.
    #[serde(default, rename = "strict")]
    _strict: NoEffect<bool>,
}

/// What the answer must look like, how long it should be, and the format as the answer shows it.
pub(super) fn text(text: Option<Object<WireText>>) -> Result<(ResponseFormat, Option<String>, Value)> {
    let plain = || json!({"type": "text"});
    let Some(Object(text)) = text else { return Ok((ResponseFormat::Text, None, plain())) };
    let Some(Object(format)) = text.format else {
        return Ok((ResponseFormat::Text, text.verbosity, plain()));
    };
    if format.r#type != "json_schema" && format.schema.is_some() {
        let field = "text.format.schema";
        return Err(Error::invalid(field, format!("`{field}` needs the type 'json_schema'")));
    }
    let (wanted, shown) = match (format.r#type.as_str(), format.schema) {
        ("text", _) => (ResponseFormat::Text, plain()),
        ("json_object", _) => (ResponseFormat::JsonObject, json!({"type": "json_object"})),
        ("json_schema", Some(Schema(schema))) => {
            let name = format.name.unwrap_or_default();
            let shown = json!({"type": "json_schema", "name": name, "schema": schema, "strict": true});
            (ResponseFormat::JsonSchema(schema), shown)
        }
        ("json_schema", None) => {
            let field = "text.format.schema";
            return Err(Error::invalid(field, format!("the field `{field}` is missing")));
        }
        _ => {
            let what = "a type other than text, json_object and json_schema is";
            return Err(unsupported("text.format.type", what));
        }
    };
    Ok((wanted, text.verbosity, shown))
}

/// Both as an answer shows them.
pub(super) fn shown_text(format: &Value, verbosity: Option<String>) -> Value {
    match verbosity {
        Some(word) => json!({"format": format, "verbosity": word}),
        None => json!({"format": format}),
    }
}
