//! Errors on their way to Python: one exception class per kind.

use byzerllm_core::{Error, ErrorKind};
use pyo3::prelude::*;

use crate::convert;

/// The exception for an error. The classes are Python's (`byzerllm.errors`).
pub(crate) fn exception(py: Python<'_>, error: &Error) -> PyErr {
    match build(py, error) {
        Ok(exception) => exception,
        Err(problem) => problem,
    }
}

fn build(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let usage = match error.usage() {
        Some(usage) => Some(convert::serialized(py, usage)?),
        None => None,
    };
    let exception = py.import("byzerllm.errors")?.getattr("make")?.call1((
        convert::serialized(py, &error.kind())?,
        error.message(),
        error.param(),
        error.retry_after().map(|after| after.as_secs_f64()),
        usage,
    ))?;
    Ok(PyErr::from_value(exception))
}

/// An [`ErrorKind::InvalidRequest`] exception.
pub(crate) fn invalid(py: Python<'_>, message: String) -> PyErr {
    exception(py, &Error::new(ErrorKind::InvalidRequest, message))
}
