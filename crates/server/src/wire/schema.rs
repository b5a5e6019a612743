//! JSON that is kept as a tree: schemas. Its size and depth are bounded while it is read.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

use crate::limits;

/// What a node costs beside its text.
const NODE: usize = 16;

/// A JSON value of at most about `BYTES` bytes.
#[derive(Debug)]
pub(crate) struct Schema<const BYTES: usize>(pub(crate) Value);

impl<'de, const BYTES: usize> Deserialize<'de> for Schema<BYTES> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let left = Cell::new(BYTES);
        Tree { left: &left, depth: 0, bytes: BYTES }.deserialize(deserializer).map(Self)
    }
}

#[derive(Clone, Copy)]
struct Tree<'a> {
    left: &'a Cell<usize>,
    depth: usize,
    bytes: usize,
}

impl<'a> Tree<'a> {
    fn pay<E: Error>(&self, text: usize) -> Result<(), E> {
        let left = self.left.get().checked_sub(NODE + text);
        self.left.set(left.ok_or_else(|| E::custom(format_args!("larger than {} bytes", self.bytes)))?);
        Ok(())
    }

    fn child<E: Error>(self) -> Result<Tree<'a>, E> {
        if self.depth == limits::SCHEMA_DEPTH {
            return Err(E::custom(format_args!("deeper than {} levels", limits::SCHEMA_DEPTH)));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.pay(0).map(|()| Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.pay(0).map(|()| Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.pay(0).map(|()| value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.pay(0).map(|()| value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.pay(0).map(|()| Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.pay(value.len()).map(|()| value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.pay(0)?;
        let child = self.child()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(child)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.pay(0)?;
        let child = self.child()?;
        let mut fields = Map::new();
        while let Some(name) = items.next_key::<String>()? {
            self.pay(name.len())?;
            fields.insert(name, items.next_value_seed(child)?);
        }
        Ok(Value::Object(fields))
    }
}
