//! What the OpenAPI document says of our field types. The types that parse a request and write an answer are the ones
//! that are described, so that document and server cannot know different fields.
//!
//! Two extensions say what JSON Schema cannot: [`NO_EFFECT`] marks fields that are accepted and change nothing,
//! [`NEUTRAL`] those that are accepted only with a value that asks for nothing.

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::common::{GuidedJson, LogitBias};
use super::fields::{Capped, Given, Object, Seed, TextOrList, Word};
use super::schema::Schema as Tree;
use crate::limits;

/// Marks a field without effect.
pub(crate) const NO_EFFECT: &str = "x-byzerllm-no-effect";
/// Marks a field of which only the listed values are accepted.
pub(crate) const NEUTRAL: &str = "x-byzerllm-neutral-only";

/// A field that is accepted and has no effect, because nothing observable depends on it here.
#[derive(Debug)]
pub(crate) struct NoEffect<T>(std::marker::PhantomData<T>);

impl<T> Default for NoEffect<T> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for NoEffect<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::<T>::deserialize(deserializer).map(|_| Self(std::marker::PhantomData))
    }
}

/// Only these values, and `null`, are accepted.
pub(crate) fn only(values: impl Serialize) -> impl Transform {
    let mut allowed = vec![Value::Null];
    if let Ok(Value::Array(values)) = serde_json::to_value(values) {
        allowed.extend(values);
    }
    move |schema: &mut Schema| {
        schema.remove("type");
        schema.remove("format");
        schema.remove("minimum");
        schema.insert("enum".to_owned(), Value::Array(allowed.clone()));
        schema.insert(NEUTRAL.to_owned(), Value::Bool(true));
    }
}

/// One of these words, `null` where the type has it.
pub(crate) fn words(words: &'static [&'static str]) -> impl Transform {
    move |schema: &mut Schema| {
        let null = schema.get("type").is_some_and(Value::is_array).then_some(Value::Null);
        let words = words.iter().map(|word| Value::from(*word)).chain(null).collect();
        schema.insert("enum".to_owned(), words);
    }
}

/// Described in place of where it is used.
macro_rules! described {
    ($(@[$($parameters:tt)*])? $type:ty, $name:literal, |$generator:ident| $schema:expr) => {
        impl$(<$($parameters)*>)? schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema($generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $schema
            }
        }
    };
}

pub(crate) use described;

described!(@[T: JsonSchema] Object<T>, "Object", |generator| generator.subschema_for::<T>());
described!(@[T: JsonSchema, const MAX: usize] Capped<T, MAX>, "List", |generator| json_schema!({
    "type": "array", "items": generator.subschema_for::<T>(), "maxItems": MAX
}));
described!(@[T: JsonSchema] NoEffect<T>, "NoEffect", |generator| {
    let mut schema = generator.subschema_for::<Option<T>>();
    schema.insert(NO_EFFECT.to_owned(), Value::Bool(true));
    schema
});
described!(Given, "Nothing", |_generator| json_schema!({
    "enum": [null, false, 0, "", [], {}], NEUTRAL: true
}));
described!(Word, "Word", |_generator| json_schema!({ "type": ["string", "null"] }));
described!(Seed, "Seed", |_generator| json_schema!({
    "type": "integer", "minimum": i64::MIN, "maximum": u64::MAX
}));
described!(TextOrList, "TextOrList", |_generator| {
    let text =
        json!({ "type": "string", "minLength": 1, "maxLength": byzerllm_core::Sampling::MAX_STOP_BYTES });
    json_schema!({ "anyOf": [text, { "type": "array", "items": text, "maxItems": limits::STOP }] })
});
described!(LogitBias, "LogitBias", |_generator| json_schema!({
    "type": "object",
    "maxProperties": limits::LOGIT_BIAS,
    "propertyNames": { "pattern": "^[0-9]{1,10}$" },
    "additionalProperties": { "type": "number", "minimum": -100, "maximum": 100 }
}));
described!(@[const BYTES: usize] Tree<BYTES>, "Schema", |_generator| json_schema!({
    "description":
        format!("A JSON Schema, at most about {BYTES} bytes and {} levels.", limits::SCHEMA_DEPTH)
}));
described!(GuidedJson, "GuidedJson", |_generator| json_schema!({ "type": ["object", "boolean", "string"] }));

/// A value that is not looked at.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline, with = "Value")]
pub(crate) struct Anything(serde::de::IgnoredAny);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use schemars::schema_for;
    use serde::de::value::Error;
    use serde::de::{DeserializeOwned, Visitor};
    use serde::forward_to_deserialize_any;

    use super::*;

    /// Asks a type for the names of its fields, and gives it nothing.
    struct Ask<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Ask<'_> {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(serde::de::Error::custom("no structure"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            *self.0 = fields;
            Err(serde::de::Error::custom("that is all"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn compare<T: DeserializeOwned + JsonSchema>() {
        compare_with::<T, T>();
    }

    /// Compares the parser of a type with the description of another.
    fn compare_with<P: DeserializeOwned, T: JsonSchema>() {
        let mut known: &'static [&'static str] = &[];
        assert!(P::deserialize(Ask(&mut known)).is_err());
        let schema = schema_for!(T);
        let described: BTreeSet<&str> =
            schema.get("properties").unwrap().as_object().unwrap().keys().map(String::as_str).collect();
        assert!(known.len() > 1 || described.len() == 1, "{}", T::schema_name());
        assert_eq!(known.iter().copied().collect::<BTreeSet<_>>(), described, "{}", T::schema_name());
    }

    #[test]
    fn the_parser_knows_exactly_the_described_fields() {
        compare::<crate::wire::chat::ChatBody>();
        compare::<crate::wire::chat::StreamOptions>();
        compare::<crate::wire::completions::CompletionBody>();
        compare::<crate::wire::message::WireMessage>();
        compare::<crate::wire::embeddings::EmbeddingBody>();
        compare::<crate::wire::rerank::RerankBody>();
        compare::<crate::wire::score::ScoreBody>();
        compare::<crate::wire::anthropic::request::MessagesBody>();
        compare::<crate::wire::anthropic::request::CountBody>();
        compare::<crate::wire::anthropic::content::WireTurn>();
        compare::<crate::wire::anthropic::content::Block>();
        compare::<crate::wire::responses::request::ResponseBody>();
        compare::<crate::wire::responses::items::WireItem>();
        compare::<crate::wire::responses::items::WireContent>();
        compare::<crate::wire::tools::WireTool>();
        compare::<crate::wire::common::WireFormat>();
        compare::<crate::wire::tokens::TokenizeBody>();
        compare::<crate::wire::tokens::DetokenizeBody>();
        compare::<crate::wire::native::TemplateBody>();
        compare::<crate::wire::native::TokenizeBody>();
        compare::<crate::wire::native::InspectBody>();
        compare::<crate::wire::keys::CreateKeyBody>();
        compare::<crate::wire::keys::RotateKeyBody>();
        compare::<byzerllm_runtime::DeploymentSpec>();
        compare_with::<crate::wire::native::NativeChat, byzerllm_core::ChatRequest>();
        compare::<byzerllm_core::Sampling>();
    }
}
