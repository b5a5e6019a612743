//! `byzerllm._native`: the Rust side of the Python package.
//!
//! A thin layer: Python objects become the vocabulary of `byzerllm-core` and back. Every blocking call releases the
//! GIL and looks for signals often, so that Ctrl-C ends the call and the work behind it.

mod call;
mod connect;
mod convert;
mod endpoint;
mod error;
mod legacy;
mod mailbox;
mod process;
mod sandbox;
mod template;
mod template_operators;
mod template_values;

use std::ffi::OsString;
use std::io::Write;

use pyo3::prelude::*;

/// The Rust side of byzerllm.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::call::Call;
    #[pymodule_export]
    use super::connect::connect;
    #[pymodule_export]
    use super::endpoint::Endpoint;
    #[pymodule_export]
    use super::legacy::{mismatch, translate};
    #[pymodule_export]
    use super::mailbox::Mailbox;
    #[pymodule_export]
    use super::main;
    #[pymodule_export]
    use super::template::render_template;

    #[pymodule_export]
    use super::sandbox::{enter_sandbox, parse_toml};

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}

/// Runs the command line, the program's name included, and returns the exit status.
#[pyfunction]
fn main(py: Python<'_>, argv: Vec<OsString>) -> u8 {
    py.detach(|| {
        let status = byzerllm_cli::run(argv);
        // The interpreter ends the process without Rust's own clean-up, which would write the last partial line.
        match std::io::stdout().flush() {
            Ok(()) => status,
            Err(_) => status.max(1),
        }
    })
}
