//! What the process that runs generated code takes from Rust, and the lock file's format.

use byzerllm_core::{Error, ErrorKind};
use byzerllm_sandbox::Policy;
use pyo3::prelude::*;
use serde_json::Value;

use crate::convert::{deserialized, serialized, to_python};
use crate::error::{exception, invalid};

/// Locks this process up for good and tells what is in place. After an error the process must end.
#[pyfunction]
pub(crate) fn enter_sandbox<'py>(policy: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = policy.py();
    let policy: Policy = deserialized(policy, "policy")?;
    let report = byzerllm_sandbox::enter(&policy)
        .map_err(|error| exception(py, &Error::new(ErrorKind::Unsupported, error.to_string())))?;
    serialized(py, &report)
}

/// The content of a TOML document. Python has a reader of its own only from 3.11 on.
#[pyfunction]
pub(crate) fn parse_toml<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    let value: Value = toml::from_str(text).map_err(|error| invalid(py, error.to_string()))?;
    to_python(py, &value)
}
