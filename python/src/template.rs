//! Renders the templates of prompt functions, in the dialect of Jinja2.
//!
//! Values print as Python prints them, methods of strings and numbers are Python's, and filters that Jinja2 defines
//! by Python's rules come from Python. A program's templates are its own, so that there are no limits here on steps
//! and memory as there are for checkpoints' templates; names with an underscore in front are out of reach.

use minijinja::machinery::{CodeGenerator, eval, make_string_output, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::error::invalid;
use crate::template_operators::{register, rewrite};
use crate::template_values::{Failure, arguments, forbidden, text, to_python, to_value};

/// Methods that change a list or a dictionary. One that a template made is a value: the change would be lost.
const CHANGING: [&str; 12] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "add",
];

/// Renders `source` with the variables `context`; `filters` are functions by name, beside the built-in ones.
#[pyfunction]
pub(crate) fn render_template(
    py: Python<'_>,
    source: &str,
    context: &Bound<'_, PyDict>,
    filters: &Bound<'_, PyDict>,
) -> PyResult<String> {
    let failure = Failure::default();
    let environment = environment(py, filters, &failure)?;
    let mut variables = Vec::with_capacity(context.len());
    for (name, object) in context {
        variables.push((name.extract::<String>()?, to_value(&object, &failure)));
    }
    let rendered = run(&environment, source, Value::from_pairs(variables));
    if let Some(raised) = failure.take() {
        return Err(raised);
    }
    rendered.map_err(|error| {
        let line = error.line().map_or_else(String::new, |line| format!(" at line {line}"));
        let reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        invalid(py, format!("the template cannot be rendered{line}: {reason}"))
    })
}

fn run(environment: &Environment<'_>, source: &str, variables: Value) -> Result<String, Error> {
    let tree = parse(source, "prompt", SyntaxConfig::default())?;
    let mut generator = CodeGenerator::new("prompt", source);
    generator.compile_stmt(&tree);
    let (mut root, mut blocks) = generator.finish();
    rewrite(&mut root);
    for block in blocks.values_mut() {
        rewrite(block);
    }
    let mut text = String::new();
    eval(environment, &root, variables, &blocks, &mut make_string_output(&mut text), AutoEscape::None)?;
    Ok(text)
}

fn environment(
    py: Python<'_>,
    filters: &Bound<'_, PyDict>,
    failure: &Failure,
) -> PyResult<Environment<'static>> {
    let mut environment = Environment::new();
    environment.set_debug(false);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    let slot = failure.clone();
    environment.set_formatter(move |out, _, value| match value.as_str() {
        Some(text) => out.write_str(text).map_err(Error::from),
        None => {
            let text = Python::attach(|py| text(py, value));
            out.write_str(&slot.check(text)?).map_err(Error::from)
        }
    });
    let slot = failure.clone();
    environment
        .set_unknown_method_callback(move |_, value, method, args| python_method(value, method, args, &slot));
    for (name, filter) in filters {
        let (slot, filter) = (failure.clone(), filter.unbind());
        environment.add_filter(name.extract::<String>()?, move |args: Rest<ValueOrKwargs>| {
            Python::attach(|py| {
                let mut args = args.into_values();
                if let Some(first) = args.first_mut().filter(|first| first.is_undefined()) {
                    *first = Value::from("");
                }
                let (positional, named) = slot.check(arguments(py, &args))?;
                let made = slot.check(filter.bind(py).call(positional, Some(&named)))?;
                Ok::<_, Error>(to_value(&made, &slot))
            })
        });
    }
    register(py, &mut environment, failure)?;
    Ok(environment)
}

/// A method of a plain value, as Python has it.
fn python_method(value: &Value, method: &str, args: &[Value], failure: &Failure) -> Result<Value, Error> {
    if !matches!(
        value.kind(),
        ValueKind::String
            | ValueKind::Number
            | ValueKind::Bool
            | ValueKind::Seq
            | ValueKind::Map
            | ValueKind::Bytes
    ) || forbidden(method)
    {
        return Err(Error::from(ErrorKind::UnknownMethod));
    }
    if matches!(value.kind(), ValueKind::Seq | ValueKind::Map) && CHANGING.contains(&method) {
        let reason =
            format!("{method} cannot change what the template itself made; pass it in, or use namespace()");
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    if method.starts_with("format") && value.as_str().is_some_and(|text| text.contains("._")) {
        let reason = "a format cannot reach names with an underscore in front";
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    Python::attach(|py| {
        let object = failure.check(to_python(py, value))?;
        let Ok(function) = object.getattr(PyString::new(py, method)) else {
            return Err(Error::from(ErrorKind::UnknownMethod));
        };
        let (positional, named) = failure.check(arguments(py, args))?;
        let made = failure.check(function.call(positional, Some(&named)))?;
        Ok(to_value(&made, failure))
    })
}
