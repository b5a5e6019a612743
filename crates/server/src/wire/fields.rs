//! Parsing with exact paths, and field types that the routes share.
//!
//! Types here never build a JSON tree: a body of n bytes costs a small multiple of n, whatever is in it.

use std::fmt;
use std::marker::PhantomData;

use byzerllm_core::{Error, ErrorKind, Result};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::limits;

/// Parses a body; an error names the path of the field at fault and, for an unknown field, the nearest valid one.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    if let Ok(Object(value)) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    // Once more, only to say what is wrong: to follow paths costs a string per field.
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let Object(value) = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| explain(&error.path().to_string(), error.inner(), &[]))?;
    deserializer.end().map_err(|error| explain(".", &error, &[]))?;
    Ok(value)
}

/// The mistake in a body, in our words. `more` are names that the body's top level knows beside its own.
pub(crate) fn explain(path: &str, error: &serde_json::Error, more: &[&str]) -> Error {
    let text = error.to_string();
    if !error.is_data() {
        return Error::new(ErrorKind::InvalidRequest, cut(format!("the body is not valid JSON: {text}")));
    }
    // serde_json adds a position that means nothing once the path is known.
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    let path = if path == "." { "" } else { path };
    if text.starts_with("unknown field `") {
        return unknown_field(path, text, more);
    }
    if let Some(field) = text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        let path = if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
        return Error::invalid(path.clone(), format!("the field `{path}` is missing"));
    }
    if path.is_empty() {
        return Error::new(ErrorKind::InvalidRequest, cut(format!("the body is wrong: {text}")));
    }
    let shown = cut(path.to_owned());
    Error::invalid(shown.clone(), cut(format!("`{shown}` is wrong: {text}")))
}

/// serde hands over the valid names only in the text that it composes from our own field lists.
fn unknown_field(path: &str, text: &str, more: &[&str]) -> Error {
    let mut valid: Vec<&str> = match text.rfind("`, expected ") {
        Some(at) => text[at + 1..].split('`').skip(1).step_by(2).collect(),
        None => Vec::new(),
    };
    let name = path.rsplit('.').next().unwrap_or(path);
    if name.len() == path.len() {
        valid.extend(more);
    }
    let shown = cut(path.to_owned());
    let advice = match nearest(name, &valid) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None if valid.len() <= 12 => format!("known here: {}", valid.join(", ")),
        None => "remove it".to_owned(),
    };
    Error::invalid(shown.clone(), format!("unknown field `{shown}`; {advice}"))
}

/// Cuts a text that may quote the request.
fn cut(mut text: String) -> String {
    if text.len() > limits::MESSAGE_BYTES {
        let end = (0..=limits::MESSAGE_BYTES).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The valid name that a typing mistake could have meant.
fn nearest<'a>(name: &str, valid: &[&'a str]) -> Option<&'a str> {
    if name.len() > 64 {
        return None;
    }
    let (distance, best) = valid.iter().map(|valid| (distance(name, valid), *valid)).min()?;
    (distance <= 1 + best.len().min(name.len()) / 4).then_some(best)
}

/// How many insertions, deletions and replacements turn one name into the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

/// A structure from a JSON object. serde alone would take a list of its fields' values as well.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields))
            }
        }
        deserializer.deserialize_map(Fields(PhantomData)).map(Object)
    }
}

/// A list of at most `MAX` items; a longer one is refused before it takes memory.
#[derive(Debug)]
pub(crate) struct Capped<T, const MAX: usize>(pub(crate) Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Capped<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX} items")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    if list.len() == MAX {
                        return Err(serde::de::Error::custom(format_args!("more than {MAX} items")));
                    }
                    list.push(item);
                }
                Ok(list)
            }
        }
        deserializer.deserialize_seq(Items::<T, MAX>(PhantomData)).map(Capped)
    }
}

/// `"a"` or `["a", "b"]`.
#[derive(Debug)]
pub(crate) struct TextOrList(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for TextOrList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Vec<String>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<String>, E> {
                Ok(vec![text.to_owned()])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Vec<String>, A::Error> {
                let deserializer = SeqAccessDeserializer::new(items);
                Capped::<String, { limits::STOP }>::deserialize(deserializer).map(|list| list.0)
            }
        }
        deserializer.deserialize_any(Texts).map(TextOrList)
    }
}

/// A seed: any 64-bit integer, signed or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed(pub(crate) u64);

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Integer;
        impl Visitor<'_> for Integer {
            type Value = Seed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a 64-bit integer")
            }

            fn visit_u64<E>(self, seed: u64) -> Result<Seed, E> {
                Ok(Seed(seed))
            }

            fn visit_i64<E>(self, seed: i64) -> Result<Seed, E> {
                Ok(Seed(seed.cast_unsigned()))
            }
        }
        deserializer.deserialize_any(Integer)
    }
}

/// A field whose content does not matter, only whether it asks for something: `null`, `false`, `0`, `""`, `[]`
/// and `{}` do not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Given(pub(crate) bool);

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Anything;
        impl<'de> Visitor<'de> for Anything {
            type Value = bool;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON value")
            }

            fn visit_unit<E>(self) -> Result<bool, E> {
                Ok(false)
            }

            fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
                Ok(value)
            }

            fn visit_i64<E>(self, value: i64) -> Result<bool, E> {
                Ok(value != 0)
            }

            fn visit_u64<E>(self, value: u64) -> Result<bool, E> {
                Ok(value != 0)
            }

            fn visit_f64<E>(self, value: f64) -> Result<bool, E> {
                Ok(value != 0.0)
            }

            fn visit_str<E>(self, value: &str) -> Result<bool, E> {
                Ok(!value.is_empty())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
                let mut given = false;
                while items.next_element::<IgnoredAny>()?.is_some() {
                    given = true;
                }
                Ok(given)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
                let mut given = false;
                while items.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    given = true;
                }
                Ok(given)
            }
        }
        deserializer.deserialize_any(Anything).map(Given)
    }
}

/// A field that is a word, or a structure that names a feature which is not there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Word {
    /// `null`.
    #[default]
    Absent,
    /// A string.
    Text(String),
    /// Anything else.
    Other,
}

impl Word {
    /// Whether the word is absent or one of these.
    pub(crate) fn is_one_of(&self, words: &[&str]) -> bool {
        match self {
            Self::Absent => true,
            Self::Text(text) => words.contains(&text.as_str()),
            Self::Other => false,
        }
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Anything;
        impl<'de> Visitor<'de> for Anything {
            type Value = Word;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_unit<E>(self) -> Result<Word, E> {
                Ok(Word::Absent)
            }

            fn visit_str<E>(self, text: &str) -> Result<Word, E> {
                Ok(Word::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Word, A::Error> {
                while items.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Word::Other)
            }
        }
        deserializer.deserialize_any(Anything)
    }
}

/// An error for a feature that is not there yet.
pub(crate) fn unsupported(field: impl Into<String>, what: &str) -> Error {
    let field = field.into();
    let message = format!("`{field}`: {what} not supported by this version; remove the field");
    Error::new(ErrorKind::Unsupported, message).with_param(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(default)]
        temperature: Option<f32>,
        #[serde(default)]
        inner: Vec<Object<Inner>>,
        #[serde(default)]
        stop: Option<TextOrList>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        name: String,
    }

    #[test]
    fn mistakes_are_named_by_path() {
        for (body, param, message) in [
            (r#"{"temprature": 1}"#, "temprature", "did you mean `temperature`?"),
            (r#"{"x`, expected `y": 1}"#, "x`, expected `y", "known here: temperature, inner, stop"),
            (r#"{"inner": [{"name": "a"}, {"nam": "b"}]}"#, "inner[1].nam", "did you mean `name`?"),
            (r#"{"inner": [{}]}"#, "inner[0].name", "is missing"),
            (r#"{"temperature": "hot"}"#, "temperature", "invalid type: string"),
            (r#"{"stop": ["a", 1]}"#, "stop[1]", "invalid type: integer"),
            (r#"{"inner": [["a"]]}"#, "inner[0]", "expected an object"),
            (r#"{"stop": 1}"#, "stop", "a string or a list of strings"),
        ] {
            let error = parse::<Outer>(body.as_bytes()).unwrap_err();
            assert_eq!(error.param(), Some(param), "{body}: {error}");
            assert!(error.message().contains(message), "{body}: {error}");
            assert!(!error.message().contains("at line"), "{body}: {error}");
        }
        let outer: Outer = parse(br#"{"temperature": null, "inner": [{"name": "x"}], "stop": "a"}"#).unwrap();
        assert_eq!((outer.temperature, outer.inner[0].0.name.as_str()), (None, "x"));
        assert_eq!(outer.stop.unwrap().0, ["a"]);
    }

    #[test]
    fn what_is_not_json_is_refused_and_quotes_stay_short() {
        let deep = "[".repeat(100_000);
        let nested = format!(r#"{{"inner": {}"#, "[".repeat(100_000));
        for body in ["", "{", "{}x", "\u{feff}{}", deep.as_str(), nested.as_str(), "[]", "null", "\0"] {
            assert_eq!(parse::<Outer>(body.as_bytes()).unwrap_err().kind(), ErrorKind::InvalidRequest);
        }
        let long = format!(r#"{{"temperature": "{}"}}"#, "é".repeat(100_000));
        assert!(parse::<Outer>(long.as_bytes()).unwrap_err().message().len() < limits::MESSAGE_BYTES + 64);
        let long = format!(r#"{{"{}": 1}}"#, "k".repeat(100_000));
        let error = parse::<Outer>(long.as_bytes()).unwrap_err();
        assert!(error.message().len() < 2 * limits::MESSAGE_BYTES);
    }

    #[test]
    fn what_asks_for_nothing_is_not_given() {
        for (body, given) in [
            ("null", false),
            ("[]", false),
            ("{}", false),
            ("0", false),
            ("0.0", false),
            ("false", false),
            ("\"\"", false),
            ("[null]", true),
            (r#"{"a":1}"#, true),
            ("-0.5", true),
            ("true", true),
        ] {
            assert_eq!(serde_json::from_str::<Given>(body).unwrap(), Given(given), "{body}");
        }
    }
}
