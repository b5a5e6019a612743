//! Between Python's plain objects (dictionaries, lists, strings, numbers) and JSON values.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value};

use crate::error;

/// Deeper objects are refused: nothing that we take is nested like that.
const MAX_DEPTH: usize = 64;

/// The Python form of anything that serializes.
pub(crate) fn serialized<'py>(py: Python<'py>, value: &impl Serialize) -> PyResult<Bound<'py, PyAny>> {
    let value = serde_json::to_value(value)
        .map_err(|problem| error::invalid(py, format!("the value cannot be shown: {problem}")))?;
    to_python(py, &value)
}

/// Reads a typed value from a plain Python object. `what` names it in messages.
pub(crate) fn deserialized<T: DeserializeOwned>(object: &Bound<'_, PyAny>, what: &str) -> PyResult<T> {
    let value = from_python(object, MAX_DEPTH)?;
    serde_json::from_value(value)
        .map_err(|problem| error::invalid(object.py(), format!("bad {what}: {problem}")))
}

/// The JSON form of a plain Python object.
pub(crate) fn json(object: &Bound<'_, PyAny>) -> PyResult<Value> {
    from_python(object, MAX_DEPTH)
}

/// The Python form of a JSON value.
pub(crate) fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(value) => PyBool::new(py, *value).to_owned().into_any(),
        Value::Number(number) => {
            if let Some(value) = number.as_i64() {
                value.into_pyobject(py)?.into_any()
            } else if let Some(value) = number.as_u64() {
                value.into_pyobject(py)?.into_any()
            } else {
                PyFloat::new(py, number.as_f64().unwrap_or(f64::NAN)).into_any()
            }
        }
        Value::String(text) => PyString::new(py, text).into_any(),
        Value::Array(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(to_python(py, item)?)?;
            }
            list.into_any()
        }
        Value::Object(fields) => {
            let dict = PyDict::new(py);
            for (name, value) in fields {
                dict.set_item(name, to_python(py, value)?)?;
            }
            dict.into_any()
        }
    })
}

fn from_python(object: &Bound<'_, PyAny>, depth: usize) -> PyResult<Value> {
    let py = object.py();
    if depth == 0 {
        return Err(error::invalid(py, format!("objects may be nested at most {MAX_DEPTH} deep")));
    }
    if object.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(value) = object.cast::<PyBool>() {
        return Ok(Value::Bool(value.is_true()));
    }
    if object.is_instance_of::<PyInt>() {
        return number(object);
    }
    if let Ok(value) = object.cast::<PyFloat>() {
        return Number::from_f64(value.value())
            .map(Value::Number)
            .ok_or_else(|| error::invalid(py, format!("a number must be finite, got {}", value.value())));
    }
    if let Ok(text) = object.cast::<PyString>() {
        return match text.to_str() {
            Ok(text) => Ok(Value::String(text.to_owned())),
            Err(_) => {
                Err(error::invalid(py, "text holds a lone surrogate, which is no character".to_owned()))
            }
        };
    }
    if object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>() {
        let mut items = Vec::with_capacity(object.len()?);
        for item in object.try_iter()? {
            items.push(from_python(&item?, depth - 1)?);
        }
        return Ok(Value::Array(items));
    }
    if let Ok(mapping) = object.cast::<PyMapping>() {
        let mut fields = Map::new();
        for pair in mapping.items()?.try_iter()? {
            let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair?.extract()?;
            let name: String = name.extract().map_err(|_| {
                error::invalid(py, format!("a dictionary's keys must be strings, got {name}"))
            })?;
            fields.insert(name, from_python(&value, depth - 1)?);
        }
        return Ok(Value::Object(fields));
    }
    let kind = object.get_type().name()?;
    Err(error::invalid(
        py,
        format!("a {kind} cannot be sent; use dictionaries, lists, strings, numbers and None"),
    ))
}

fn number(object: &Bound<'_, PyAny>) -> PyResult<Value> {
    if let Ok(value) = object.extract::<i64>() {
        return Ok(value.into());
    }
    match object.extract::<u64>() {
        Ok(value) => Ok(value.into()),
        Err(_) => {
            Err(error::invalid(object.py(), format!("a whole number must fit into 64 bits, got {object}")))
        }
    }
}
