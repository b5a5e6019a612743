//! The binary `byzerllm`: everything is in the library, which the Python wheel's console script shares.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(byzerllm_cli::run(std::env::args_os()))
}
