//! Configuration values by name, from `config.json` or from GGUF metadata, checked as they are read.

use std::path::Path;

use serde_json::{Map, Value as Json};

use crate::load_error::{LoadError, LoadResult};
use crate::weights::gguf::{GgufFile, Value as GgufValue};

/// The largest whole number that any field may hold.
const MAX_NUMBER: usize = 1 << 30;
/// Layers for which a field may give one value each.
const MAX_PER_LAYER: usize = 4096;

/// A set of named values. A failed read names the file and the field.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    path: &'a Path,
    /// Before every name in messages, and in keys of a GGUF file.
    prefix: String,
    values: Values<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Values<'a> {
    Json(&'a Map<String, Json>),
    Gguf(&'a GgufFile),
}

/// A value of either format.
enum Scalar<'a> {
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(&'a str),
    Other,
}

impl<'a> Fields<'a> {
    pub(crate) fn json(path: &'a Path, values: &'a Map<String, Json>) -> Self {
        Self { path, prefix: String::new(), values: Values::Json(values) }
    }

    /// The keys that begin with the architecture's name.
    pub(crate) fn gguf(file: &'a GgufFile, architecture: &str) -> Self {
        Self { path: file.path(), prefix: format!("{architecture}."), values: Values::Gguf(file) }
    }

    /// An error about a field.
    pub(crate) fn malformed(&self, name: &str, problem: impl Into<String>) -> LoadError {
        LoadError::malformed(self.path, format!("{}{name}", self.prefix), problem)
    }

    /// A field asks for what we cannot compute.
    pub(crate) fn unsupported(&self, name: &str, problem: impl Into<String>) -> LoadError {
        LoadError::unsupported(self.path, format!("{}{name}", self.prefix), problem)
    }

    fn get(&self, name: &str) -> LoadResult<Option<Scalar<'a>>> {
        Ok(match self.values {
            Values::Json(map) => match map.get(name) {
                None | Some(Json::Null) => None,
                Some(Json::Bool(value)) => Some(Scalar::Bool(*value)),
                Some(Json::String(value)) => Some(Scalar::Text(value)),
                Some(Json::Number(number)) => Some(match number.as_i128() {
                    Some(value) => Scalar::Integer(value),
                    None => Scalar::Float(number.as_f64().unwrap_or(f64::NAN)),
                }),
                Some(Json::Array(_) | Json::Object(_)) => Some(Scalar::Other),
            },
            Values::Gguf(file) => match file.get(&format!("{}{name}", self.prefix)) {
                None => None,
                Some(GgufValue::Array(array)) => {
                    // Per-layer values are fine as long as they say the same for every layer.
                    let values = file.numbers(array, MAX_PER_LAYER).unwrap_or_default();
                    let Some((first, rest)) = values.split_first() else { return Ok(Some(Scalar::Other)) };
                    let first = scalar(file, first);
                    if rest.iter().any(|value| !first.same(&scalar(file, value))) {
                        return Err(self.unsupported(name, "differs between layers"));
                    }
                    Some(first)
                }
                Some(value) => Some(scalar(file, value)),
            },
        })
    }

    /// Whether the field is there and not null.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self.values {
            Values::Json(map) => map.get(name).is_some_and(|value| !value.is_null()),
            Values::Gguf(file) => file.get(&format!("{}{name}", self.prefix)).is_some(),
        }
    }

    /// Whether the field is there and says null.
    pub(crate) fn is_null(&self, name: &str) -> bool {
        match self.values {
            Values::Json(map) => map.get(name).is_some_and(Json::is_null),
            Values::Gguf(_) => false,
        }
    }

    /// Whether there are no fields at all.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.values, Values::Json(map) if map.is_empty())
    }

    /// The first field that is an object.
    pub(crate) fn first_object(&self) -> Option<&'a str> {
        let Values::Json(map) = self.values else { return None };
        map.iter().find(|(_, value)| value.is_object()).map(|(name, _)| name.as_str())
    }

    /// A whole number, 0 to about a billion.
    pub(crate) fn number(&self, name: &str) -> LoadResult<Option<usize>> {
        let value = match self.get(name)? {
            None => return Ok(None),
            Some(Scalar::Integer(value)) => Some(value),
            // Some tools write 1024.0.
            Some(Scalar::Float(value)) if value.fract() == 0.0 && value.abs() < 1e15 => Some(value as i128),
            Some(_) => None,
        };
        let Some(value) = value else { return Err(self.malformed(name, "must be a whole number")) };
        match usize::try_from(value) {
            Ok(value) if value <= MAX_NUMBER => Ok(Some(value)),
            _ => Err(self.malformed(name, format!("must be between 0 and {MAX_NUMBER}, is {value}"))),
        }
    }

    /// A whole number above 0, which must be there.
    pub(crate) fn positive(&self, name: &str) -> LoadResult<usize> {
        self.positive_or_absent(name)?.ok_or_else(|| self.malformed(name, "is missing"))
    }

    /// A whole number above 0.
    pub(crate) fn positive_or(&self, name: &str, default: usize) -> LoadResult<usize> {
        Ok(self.positive_or_absent(name)?.unwrap_or(default))
    }

    /// A whole number above 0, when it is there.
    pub(crate) fn positive_or_absent(&self, name: &str) -> LoadResult<Option<usize>> {
        match self.number(name)? {
            Some(0) => Err(self.malformed(name, "must be above 0, is 0")),
            other => Ok(other),
        }
    }

    /// A finite number.
    pub(crate) fn float(&self, name: &str) -> LoadResult<Option<f32>> {
        let value = match self.get(name)? {
            None => return Ok(None),
            Some(Scalar::Integer(value)) => value as f32,
            Some(Scalar::Float(value)) => value as f32,
            Some(_) => return Err(self.malformed(name, "must be a number")),
        };
        if value.is_finite() { Ok(Some(value)) } else { Err(self.malformed(name, "must be a finite number")) }
    }

    /// A finite number above 0.
    pub(crate) fn positive_float(&self, name: &str) -> LoadResult<Option<f32>> {
        match self.float(name)? {
            Some(value) if value <= 0.0 => Err(self.malformed(name, format!("must be above 0, is {value}"))),
            other => Ok(other),
        }
    }

    /// True or false.
    pub(crate) fn flag(&self, name: &str, default: bool) -> LoadResult<bool> {
        match self.get(name)? {
            None => Ok(default),
            Some(Scalar::Bool(value)) => Ok(value),
            Some(_) => Err(self.malformed(name, "must be true or false")),
        }
    }

    /// A text.
    pub(crate) fn text(&self, name: &str) -> LoadResult<Option<&'a str>> {
        match self.get(name)? {
            None => Ok(None),
            Some(Scalar::Text(value)) => Ok(Some(value)),
            Some(_) => Err(self.malformed(name, "must be a text")),
        }
    }

    /// A list of texts.
    pub(crate) fn texts(&self, name: &str) -> LoadResult<Option<Vec<&'a str>>> {
        let wrong = || self.malformed(name, "must be a list of texts");
        match self.values {
            Values::Gguf(_) => Ok(None),
            Values::Json(map) => match map.get(name) {
                None | Some(Json::Null) => Ok(None),
                Some(Json::Array(values)) => values
                    .iter()
                    .map(|value| value.as_str().ok_or_else(wrong))
                    .collect::<LoadResult<_>>()
                    .map(Some),
                Some(_) => Err(wrong()),
            },
        }
    }

    /// A list of whole numbers.
    pub(crate) fn numbers(&self, name: &str) -> LoadResult<Option<Vec<usize>>> {
        let Values::Json(map) = self.values else { return Ok(None) };
        let wrong = || self.malformed(name, "must be a list of whole numbers");
        let number = |value: &Json| value.as_u64().and_then(|value| usize::try_from(value).ok());
        match map.get(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Array(values)) => values
                .iter()
                .map(|value| number(value).ok_or_else(wrong))
                .collect::<LoadResult<_>>()
                .map(Some),
            Some(_) => Err(wrong()),
        }
    }

    /// A list of finite numbers above 0.
    pub(crate) fn positive_floats(&self, name: &str) -> LoadResult<Option<Vec<f32>>> {
        let Values::Json(map) = self.values else { return Ok(None) };
        let wrong = || self.malformed(name, "must be a list of finite numbers above 0");
        let float = |value: &Json| value.as_f64().map(|value| value as f32);
        match map.get(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Array(values)) => values
                .iter()
                .map(|value| float(value).filter(|value| value.is_finite() && *value > 0.0).ok_or_else(wrong))
                .collect::<LoadResult<_>>()
                .map(Some),
            Some(_) => Err(wrong()),
        }
    }

    /// An object inside of this one.
    pub(crate) fn object(&self, name: &str) -> LoadResult<Option<Fields<'a>>> {
        match self.values {
            Values::Gguf(_) => Ok(None),
            Values::Json(map) => match map.get(name) {
                None | Some(Json::Null) => Ok(None),
                Some(Json::Object(inner)) => {
                    let prefix = format!("{}{name}.", self.prefix);
                    Ok(Some(Fields { path: self.path, prefix, values: Values::Json(inner) }))
                }
                Some(_) => Err(self.malformed(name, "must be an object")),
            },
        }
    }

    /// Token ids, one or a list; negative ones mean none.
    pub(crate) fn token_ids(&self, name: &str) -> LoadResult<Vec<u32>> {
        let Values::Json(map) = self.values else { return Ok(Vec::new()) };
        let id = |value: &Json| match value.as_i64() {
            Some(id) if id < 0 => Ok(None),
            Some(id) if u32::try_from(id).is_ok() => Ok(u32::try_from(id).ok()),
            _ => Err(self.malformed(name, "must be a token id or a list of them")),
        };
        match map.get(name) {
            None | Some(Json::Null) => Ok(Vec::new()),
            Some(Json::Array(values)) => values.iter().filter_map(|value| id(value).transpose()).collect(),
            Some(value) => Ok(id(value)?.into_iter().collect()),
        }
    }
}

impl Scalar<'_> {
    fn same(&self, other: &Scalar<'_>) -> bool {
        match (self, other) {
            (Scalar::Bool(a), Scalar::Bool(b)) => a == b,
            (Scalar::Integer(a), Scalar::Integer(b)) => a == b,
            (Scalar::Float(a), Scalar::Float(b)) => a == b,
            _ => false,
        }
    }
}

fn scalar<'a>(file: &'a GgufFile, value: &GgufValue) -> Scalar<'a> {
    match value {
        GgufValue::Unsigned(value) => Scalar::Integer((*value).into()),
        GgufValue::Signed(value) => Scalar::Integer((*value).into()),
        GgufValue::Float(value) => Scalar::Float(*value),
        GgufValue::Bool(value) => Scalar::Bool(*value),
        GgufValue::Text(range) => Scalar::Text(file.text_at(range)),
        GgufValue::Array(_) => Scalar::Other,
    }
}
