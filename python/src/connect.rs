//! Where models live: an explicit URL, the environment's, a running server of this user, or this process.

use byzerllm_client::{Client, runtime_file};
use byzerllm_core::ErrorKind;
use pyo3::prelude::*;

use crate::endpoint::Endpoint;
use crate::error::exception;
use crate::process::Process;

/// Names a server, like the argument `url`.
const URL_VARIABLE: &str = "BYZERLLM_URL";

/// Finds the place where models live, in the order of the module's description.
#[pyfunction]
#[pyo3(signature = (url=None, token=None))]
pub(crate) fn connect(py: Python<'_>, url: Option<String>, token: Option<String>) -> PyResult<Endpoint> {
    let named = url.or_else(|| std::env::var(URL_VARIABLE).ok().filter(|url| !url.is_empty()));
    if let Some(url) = named {
        let client = Client::new(&url, token.clone()).map_err(|error| exception(py, &error))?;
        return Ok(Endpoint::remote(client, token));
    }
    if let Some(endpoint) = running_server(py)? {
        return Ok(endpoint);
    }
    let process = Process::current(py)?;
    let runtime = process.run(py, process.embedded())?;
    Ok(Endpoint::embedded(process, runtime))
}

/// A server of this user that answers. One that does not answer is no server.
fn running_server(py: Python<'_>) -> PyResult<Option<Endpoint>> {
    let record = match runtime_file::find(None) {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(None),
        Err(error) => {
            notice(py, &format!("looked for no running server: {error}"))?;
            return Ok(None);
        }
    };
    let token = Some(record.token);
    let client = Client::new(&record.url, token.clone()).map_err(|error| exception(py, &error))?;
    let process = Process::current(py)?;
    match process.wait(py, client.healthy())? {
        Ok(()) => Ok(Some(Endpoint::remote(client, token))),
        Err(error) if error.kind() == ErrorKind::Unavailable => {
            let (url, pid) = (&record.url, record.pid);
            notice(
                py,
                &format!(
                    "the server at {url} (process {pid}) does not answer; the model runs in this process"
                ),
            )?;
            Ok(None)
        }
        Err(error) => Err(exception(py, &error)),
    }
}

fn notice(py: Python<'_>, message: &str) -> PyResult<()> {
    py.import("byzerllm.notices")?.getattr("say_once")?.call1((message,))?;
    Ok(())
}
