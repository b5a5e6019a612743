//! Parameters of one vendor only, which stand at the top level of a body beside the fields that we know.
//!
//! Which names there are depends on the model: what it declares is taken out of the body before the body's own type
//! sees it, so that a vendor's `reasoning_effort` reaches the vendor although other models have none. Everything else
//! means what it always means, unknown names included.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use byzerllm_core::Result;
use serde::de::value::CowStrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};
use serde_json::{Map, Value};

use super::fields::{Object, explain};
use super::schema::Schema;
use crate::limits;

/// Parses a body and takes out the top-level fields that `declared` names; `null` is the same as leaving one out.
pub(crate) fn parse_with<T: DeserializeOwned>(
    bytes: &[u8],
    declared: &[&str],
) -> Result<(Box<T>, Map<String, Value>)> {
    let mut extra = Map::new();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut wrong = None;
    let aside = Aside { extra: &mut extra, wrong: &mut wrong };
    let quick = Object::<T>::deserialize(Splitting { inner: &mut json, declared, aside });
    if let (Ok(Object(value)), Ok(())) = (quick, json.end()) {
        extra.retain(|_, value| !value.is_null());
        return Ok((Box::new(value), extra));
    }
    // Once more, only to say what is wrong: to follow paths costs a string per field.
    extra.clear();
    wrong = None;
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let splitting =
        Splitting { inner: &mut json, declared, aside: Aside { extra: &mut extra, wrong: &mut wrong } };
    let outcome: Result<Object<T>, _> = serde_path_to_error::deserialize(splitting);
    let Object(value) = outcome.map_err(|error| {
        let path = wrong.unwrap_or_else(|| error.path().to_string());
        explain(&path, error.inner(), declared)
    })?;
    json.end().map_err(|error| explain(".", &error, declared))?;
    extra.retain(|_, value| !value.is_null());
    Ok((Box::new(value), extra))
}

/// What is taken out.
struct Aside<'a> {
    extra: &'a mut Map<String, Value>,
    /// The field among it that is wrong: nobody else sees its name.
    wrong: &'a mut Option<String>,
}

/// The top level of a body.
struct Splitting<'a, D> {
    inner: D,
    declared: &'a [&'a str],
    aside: Aside<'a>,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Splitting<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let (declared, aside) = (self.declared, self.aside);
        self.inner.deserialize_map(Split { visitor, declared, aside, life: PhantomData })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Split<'a, 'de, V> {
    visitor: V,
    declared: &'a [&'a str],
    aside: Aside<'a>,
    life: PhantomData<&'de ()>,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Split<'_, 'de, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Fields { inner: fields, declared: self.declared, aside: self.aside })
    }
}

/// A text that is borrowed from the body, but for one with escapes.
#[derive(Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// The fields that are not declared; those that are go aside.
struct Fields<'a, A> {
    inner: A,
    declared: &'a [&'a str],
    aside: Aside<'a>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fields<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(Text(name)) = self.inner.next_key::<Text<'de>>()? {
            if !self.declared.contains(&&*name) {
                let name: CowStrDeserializer<'_, A::Error> = name.into_deserializer();
                return seed.deserialize(name).map(Some);
            }
            let name = name.into_owned();
            *self.aside.wrong = Some(name.clone());
            let Schema(value) = self.inner.next_value::<Schema<{ limits::EXTRA_BYTES }>>()?;
            if self.aside.extra.contains_key(&name) {
                return Err(A::Error::custom("it is there twice"));
            }
            *self.aside.wrong = None;
            self.aside.extra.insert(name, value);
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        model: String,
        #[serde(default)]
        effort: Option<u32>,
        #[serde(default)]
        inner: Option<Object<Inner>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(default)]
        size: u32,
    }

    const DECLARED: &[&str] = &["enable_search", "effort"];

    #[test]
    fn declared_fields_go_aside_and_the_others_stay() {
        let body = json!({
            "enable_search": true, "model": "m", "effort": {"level": "high"}, "inner": {"size": 3}
        });
        let (parsed, extra) = parse_with::<Body>(body.to_string().as_bytes(), DECLARED).unwrap();
        assert_eq!((parsed.model.as_str(), parsed.effort, parsed.inner.unwrap().0.size), ("m", None, 3));
        assert_eq!(Value::Object(extra), json!({"enable_search": true, "effort": {"level": "high"}}));

        let (parsed, extra) = parse_with::<Body>(br#"{"model": "m", "effort": 2}"#, &[]).unwrap();
        assert_eq!((parsed.effort, extra.len()), (Some(2), 0));
        let (_, extra) = parse_with::<Body>(br#"{"model": "m", "effort": null}"#, DECLARED).unwrap();
        assert!(extra.is_empty());
    }

    #[test]
    fn what_is_not_declared_is_unknown_and_the_nearest_name_may_be_a_declared_one() {
        for (body, param, message) in [
            (
                r#"{"model": "m", "enable_serch": true}"#,
                Some("enable_serch"),
                "did you mean `enable_search`?",
            ),
            (r#"{"model": "m", "inner": {"effort": 1}}"#, Some("inner.effort"), "known here: size"),
            (r#"{"model": "m", "inner": {"size": "x"}}"#, Some("inner.size"), "invalid type"),
            (r#"{"effort": 1}"#, Some("model"), "is missing"),
            (r#"{"model": "m", "effort": 1, "effort": 2}"#, Some("effort"), "there twice"),
            (r#"["m"]"#, None, "expected an object"),
            (r#"{"model": "m"} x"#, None, "trailing"),
        ] {
            let error = parse_with::<Body>(body.as_bytes(), DECLARED).unwrap_err();
            assert_eq!(error.param(), param, "{body}: {error}");
            assert!(error.message().contains(message), "{body}: {error}");
        }
        let large = format!(r#"{{"model": "m", "effort": "{}"}}"#, "x".repeat(limits::EXTRA_BYTES));
        let error = parse_with::<Body>(large.as_bytes(), DECLARED).unwrap_err();
        assert_eq!(error.param(), Some("effort"));
        assert!(error.message().contains("larger"), "{error}");
    }
}
