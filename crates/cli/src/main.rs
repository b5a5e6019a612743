//! The binary `byzerllm`: everything is in the library, which the Python wheel's console script shares.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A gateway makes and drops many small things for every request.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(byzerllm_cli::run(std::env::args_os()))
}
