//! The binary `byzerllm`: everything is in the library, which the Python wheel's console script shares.

use std::process::ExitCode;

/// A request is some hundred small allocations, most of them freed on the same thread soon after.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    ExitCode::from(byzerllm_cli::run(std::env::args_os()))
}
