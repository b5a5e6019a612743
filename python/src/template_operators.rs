//! Operators of templates with Python's meaning: on dates, decimals, enumerations, lists that a program passed in.
//!
//! The engine's own operators know its own values only and have no hook, so that their instructions become calls of
//! filters whose names no template can write.

use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::types::{PySlice, PyString};

use crate::template_values::{Failure, text, to_python, to_value};

/// No slot of the engine's filter cache.
const UNCACHED: u8 = u8::MAX;

/// Signs, and the functions of Python's module `operator` that they stand for.
const BINARY: [(&str, &str); 14] = [
    ("+", "add"),
    ("-", "sub"),
    ("*", "mul"),
    ("/", "truediv"),
    ("//", "floordiv"),
    ("%", "mod"),
    ("**", "pow"),
    ("==", "eq"),
    ("!=", "ne"),
    ("<", "lt"),
    ("<=", "le"),
    (">", "gt"),
    (">=", "ge"),
    ("in", "contains"),
];

fn sign(instruction: &Instruction<'_>) -> Option<(&'static str, u16)> {
    Some(match instruction {
        Instruction::Add => ("+", 2),
        Instruction::Sub => ("-", 2),
        Instruction::Mul => ("*", 2),
        Instruction::Div => ("/", 2),
        Instruction::IntDiv => ("//", 2),
        Instruction::Rem => ("%", 2),
        Instruction::Pow => ("**", 2),
        Instruction::Eq => ("==", 2),
        Instruction::Ne => ("!=", 2),
        Instruction::Lt => ("<", 2),
        Instruction::Lte => ("<=", 2),
        Instruction::Gt => (">", 2),
        Instruction::Gte => (">=", 2),
        Instruction::In => ("in", 2),
        Instruction::StringConcat => ("~", 2),
        Instruction::Slice => ("[:]", 4),
        _ => return None,
    })
}

/// Turns operators into calls.
pub(crate) fn rewrite(instructions: &mut Instructions<'_>) {
    let mut index = 0;
    while let Some(instruction) = instructions.get_mut(index) {
        if let Some((name, count)) = sign(instruction) {
            *instruction = Instruction::ApplyFilter(name, Some(count), UNCACHED);
        }
        index += 1;
    }
}

/// Registers what [`rewrite`] calls.
pub(crate) fn register(py: Python<'_>, environment: &mut Environment<'_>, failure: &Failure) -> PyResult<()> {
    let operators = py.import("operator")?;
    for (sign, name) in BINARY {
        let (slot, function) = (failure.clone(), operators.getattr(name)?.unbind());
        environment
            .add_filter(sign, move |left: &Value, right: &Value| binary(sign, &function, left, right, &slot));
    }
    let slot = failure.clone();
    environment.add_filter("~", move |left: &Value, right: &Value| {
        Python::attach(|py| {
            let (left, right) = (slot.check(text(py, left))?, slot.check(text(py, right))?);
            Ok::<_, Error>([left, right].concat())
        })
    });
    let slot = failure.clone();
    environment.add_filter("[:]", move |value: &Value, start: &Value, stop: &Value, step: &Value| {
        slice(value, [start, stop, step], &slot)
    });
    Ok(())
}

fn binary(
    sign: &str,
    function: &Py<PyAny>,
    left: &Value,
    right: &Value,
    failure: &Failure,
) -> Result<Value, Error> {
    if left.is_undefined() || right.is_undefined() {
        return match sign {
            "==" => Ok(Value::from(left == right)),
            "!=" => Ok(Value::from(left != right)),
            "in" if right.is_undefined() => Ok(Value::from(false)),
            _ => Err(Error::new(ErrorKind::UndefinedError, format!("a value beside {sign} is undefined"))),
        };
    }
    Python::attach(|py| {
        let (left, right) = (failure.check(to_python(py, left))?, failure.check(to_python(py, right))?);
        let (first, second) = if sign == "in" { (right, left) } else { (left, right) };
        let made = failure.check(function.bind(py).call1((first, second)))?;
        Ok(to_value(&made, failure))
    })
}

fn slice(value: &Value, bounds: [&Value; 3], failure: &Failure) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "a value that is cut is undefined"));
    }
    Python::attach(|py| {
        let cut = || {
            let [start, stop, step] = bounds.map(|bound| to_python(py, bound));
            let slice = py.get_type::<PySlice>().call1((start?, stop?, step?))?;
            to_python(py, value)?.call_method1(PyString::new(py, "__getitem__"), (slice,))
        };
        Ok(to_value(&failure.check(cut())?, failure))
    })
}
