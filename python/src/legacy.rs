//! Byzer-LLM's words about deployments; the command line has the table.

use byzerllm_cli::legacy::{Family, LegacyDeployment};
use pyo3::prelude::*;
use serde_json::json;

use crate::convert::{deserialized, serialized};
use crate::error::exception;

/// What `words` mean: `spec`, and `notice`, what is told about words without effect.
#[pyfunction]
pub(crate) fn translate<'py>(words: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = words.py();
    let words: LegacyDeployment = deserialized(words, "deployment")?;
    let translated = words.translate().map_err(|error| exception(py, &error))?;
    // With its secrets: it goes on to the runtime or a server.
    let spec = translated.spec.exposed().map_err(|error| exception(py, &error))?;
    serialized(py, &json!({ "spec": spec, "notice": translated.notice() }))
}

/// What is odd when a file is of another family than `pretrained_model_type` says.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "a list from Python is only given by value")]
pub(crate) fn mismatch(
    py: Python<'_>,
    pretrained_model_type: &str,
    architectures: Vec<String>,
) -> PyResult<Option<String>> {
    let family = Family::of(pretrained_model_type).map_err(|error| exception(py, &error))?;
    Ok(family.mismatch(&architectures))
}
