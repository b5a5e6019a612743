//! Values of a template that are Python objects, and values of the template engine as Python objects.

use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};
use pyo3::exceptions::{PyAttributeError, PyLookupError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMapping, PySequence, PyString, PyTuple,
};

use crate::error::invalid;

/// How deep lists and dictionaries that a template makes may be nested: the conversion recurses.
const MAX_DEPTH: usize = 150;

/// What of functions, generators and tracebacks leads to the interpreter.
const INTERNAL: [&str; 8] =
    ["ag_code", "ag_frame", "cr_code", "cr_frame", "gi_code", "gi_frame", "mro", "tb_frame"];

/// Whether templates cannot reach an attribute of this name.
pub(crate) fn forbidden(name: &str) -> bool {
    name.starts_with('_') || INTERNAL.contains(&name)
}

/// The first exception that Python code raised while a template was rendered.
#[derive(Clone, Default)]
pub(crate) struct Failure(Arc<Mutex<Option<PyErr>>>);

impl Failure {
    fn keep(&self, raised: PyErr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(raised);
    }

    /// Takes the exception out.
    pub(crate) fn take(&self) -> Option<PyErr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps an exception and ends the rendering.
    pub(crate) fn check<T>(&self, outcome: PyResult<T>) -> Result<T, Error> {
        outcome.map_err(|raised| {
            self.keep(raised);
            Error::new(ErrorKind::InvalidOperation, "a Python function raised")
        })
    }
}

/// A Python object in a template: looked into and called as it is, never copied.
struct Held {
    object: Py<PyAny>,
    kind: ObjectRepr,
    failure: Failure,
}

impl fmt::Debug for Held {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Python::attach(|py| self.object.bind(py).str().and_then(|text| text.extract::<String>()));
        match text {
            Ok(text) => formatter.write_str(&text),
            Err(raised) => {
                self.failure.keep(raised);
                Err(fmt::Error)
            }
        }
    }
}

impl Held {
    /// What a lookup found. A missing name or item is nothing; anything else that was raised ends the rendering.
    fn found(&self, py: Python<'_>, outcome: PyResult<Bound<'_, PyAny>>) -> Option<Value> {
        match outcome {
            Ok(object) => Some(to_value(&object, &self.failure)),
            Err(raised) => {
                let missing = raised.is_instance_of::<PyAttributeError>(py)
                    || raised.is_instance_of::<PyLookupError>(py)
                    || raised.is_instance_of::<PyTypeError>(py);
                if !missing {
                    self.failure.keep(raised);
                }
                None
            }
        }
    }

    fn attribute(&self, py: Python<'_>, name: &str) -> Option<Value> {
        if forbidden(name) {
            self.failure.keep(invalid(py, format!("a template cannot reach the attribute {name}")));
            return None;
        }
        self.found(py, self.object.bind(py).getattr(name))
    }

    fn item(&self, py: Python<'_>, key: &Value) -> Option<Value> {
        let outcome = to_python(py, key).and_then(|key| self.object.bind(py).get_item(key));
        self.found(py, outcome)
    }

    fn run(&self, function: &Bound<'_, PyAny>, args: &[Value]) -> Result<Value, Error> {
        let (positional, named) = self.failure.check(arguments(function.py(), args))?;
        let made = self.failure.check(function.call(positional, Some(&named)))?;
        Ok(to_value(&made, &self.failure))
    }
}

impl Object for Held {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        self.kind
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        Python::attach(|py| match (key.as_str(), self.kind) {
            // An item that is there is meant; a dictionary's methods are called, see `call_method`.
            (Some(name), ObjectRepr::Map) => {
                self.item(py, key).or_else(|| if forbidden(name) { None } else { self.attribute(py, name) })
            }
            (Some(name), _) => self.attribute(py, name).or_else(|| self.item(py, key)),
            (None, _) => self.item(py, key),
        })
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        if matches!(self.kind, ObjectRepr::Plain) {
            return Enumerator::NonEnumerable;
        }
        let items = Python::attach(|py| {
            let mut items = Vec::new();
            for item in self.object.bind(py).try_iter()? {
                items.push(to_value(&item?, &self.failure));
            }
            Ok(items)
        });
        Enumerator::Values(items.unwrap_or_else(|raised| {
            self.failure.keep(raised);
            Vec::new()
        }))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        if matches!(self.kind, ObjectRepr::Plain) {
            return None;
        }
        Python::attach(|py| self.object.bind(py).len().ok())
    }

    fn is_true(self: &Arc<Self>) -> bool {
        let outcome = Python::attach(|py| self.object.bind(py).is_truthy());
        outcome.unwrap_or_else(|raised| {
            self.failure.keep(raised);
            false
        })
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        Python::attach(|py| self.run(self.object.bind(py), args))
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        Python::attach(|py| {
            if forbidden(method) {
                let refusal = invalid(py, format!("a template cannot reach the attribute {method}"));
                return self.failure.check(Err(refusal));
            }
            match self.object.bind(py).getattr(method) {
                Ok(function) => self.run(&function, args),
                Err(raised) if raised.is_instance_of::<PyAttributeError>(py) => {
                    Err(Error::from(ErrorKind::UnknownMethod))
                }
                Err(raised) => self.failure.check(Err(raised)),
            }
        })
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        let other = other.downcast_ref::<Self>()?;
        Python::attach(|py| self.object.bind(py).compare(other.object.bind(py)).ok())
    }

    fn render(self: &Arc<Self>, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// A Python object as a value: plain ones become the engine's own, all others stay what they are.
pub(crate) fn to_value(object: &Bound<'_, PyAny>, failure: &Failure) -> Value {
    if object.is_none() {
        return Value::from(());
    }
    if let Ok(value) = object.cast_exact::<PyBool>() {
        return Value::from(value.is_true());
    }
    if let Ok(text) = object.cast_exact::<PyString>()
        && let Ok(text) = text.to_str()
    {
        return Value::from(text);
    }
    if object.is_exact_instance_of::<PyInt>()
        && let Ok(number) = object.extract::<i64>()
    {
        return Value::from(number);
    }
    if let Ok(number) = object.cast_exact::<PyFloat>() {
        return Value::from(number.value());
    }
    let held = Held { object: object.clone().unbind(), kind: kind(object), failure: failure.clone() };
    Value::from_object(held)
}

fn kind(object: &Bound<'_, PyAny>) -> ObjectRepr {
    let textual = object.is_instance_of::<PyString>()
        || object.is_instance_of::<PyBytes>()
        || object.is_instance_of::<PyByteArray>();
    if textual {
        ObjectRepr::Plain
    } else if object.cast::<PyMapping>().is_ok() {
        ObjectRepr::Map
    } else if object.cast::<PySequence>().is_ok() {
        ObjectRepr::Seq
    } else if object.get_type().hasattr("__iter__").unwrap_or(false) {
        ObjectRepr::Iterable
    } else {
        ObjectRepr::Plain
    }
}

/// What a value prints.
pub(crate) fn text(py: Python<'_>, value: &Value) -> PyResult<String> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None if value.is_undefined() => Ok(String::new()),
        None => to_python(py, value)?.str()?.extract(),
    }
}

/// A value as a Python object.
pub(crate) fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    converted(py, value, MAX_DEPTH)
}

fn converted<'py>(py: Python<'py>, value: &Value, depth: usize) -> PyResult<Bound<'py, PyAny>> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(invalid(py, format!("what a template makes may be nested at most {MAX_DEPTH} deep")));
    };
    if let Some(held) = value.downcast_object_ref::<Held>() {
        return Ok(held.object.bind(py).clone());
    }
    if let Some(text) = value.as_str() {
        return Ok(PyString::new(py, text).into_any());
    }
    Ok(match value.kind() {
        ValueKind::Undefined | ValueKind::None => py.None().into_bound(py),
        ValueKind::Bool => PyBool::new(py, value.is_true()).to_owned().into_any(),
        ValueKind::Number => number(py, value)?,
        ValueKind::Bytes => PyBytes::new(py, value.as_bytes().unwrap_or_default()).into_any(),
        ValueKind::Seq | ValueKind::Iterable => {
            let items =
                iterate(py, value)?.map(|item| converted(py, &item, depth)).collect::<PyResult<Vec<_>>>()?;
            if value.is_tuple() {
                PyTuple::new(py, items)?.into_any()
            } else {
                PyList::new(py, items)?.into_any()
            }
        }
        ValueKind::Map => dictionary(py, value, depth)?.into_any(),
        _ => PyString::new(py, &value.to_string()).into_any(),
    })
}

fn number<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    if value.is_integer()
        && let Ok(number) = i128::try_from(value.clone())
    {
        return Ok(number.into_pyobject(py)?.into_any());
    }
    let number = f64::try_from(value.clone()).unwrap_or(f64::NAN);
    Ok(PyFloat::new(py, number).into_any())
}

fn dictionary<'py>(py: Python<'py>, value: &Value, depth: usize) -> PyResult<Bound<'py, PyDict>> {
    let dictionary = PyDict::new(py);
    for key in iterate(py, value)? {
        let item = value.get_item(&key).map_err(|error| invalid(py, error.to_string()))?;
        dictionary.set_item(converted(py, &key, depth)?, converted(py, &item, depth)?)?;
    }
    Ok(dictionary)
}

fn iterate(py: Python<'_>, value: &Value) -> PyResult<impl Iterator<Item = Value> + use<>> {
    value.try_iter().map_err(|error| invalid(py, error.to_string()))
}

/// The arguments of a call, positional and named.
pub(crate) fn arguments<'py>(
    py: Python<'py>,
    args: &[Value],
) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
    let (positional, named) = match args.split_last() {
        Some((last, rest)) if last.is_kwargs() => (rest, dictionary(py, last, MAX_DEPTH)?),
        _ => (args, PyDict::new(py)),
    };
    let positional = positional.iter().map(|value| to_python(py, value)).collect::<PyResult<Vec<_>>>()?;
    Ok((PyTuple::new(py, positional)?, named))
}
