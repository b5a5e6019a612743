//! What can be typed after `run`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;

/// Options of `run`.
#[derive(Debug, Args)]
#[command(
    override_usage = "byzerllm run [OPTIONS] <PROGRAM> [ARGUMENTS]...",
    after_help = "Examples:
  byzerllm run program.py
  byzerllm run program.py --its-own option
  byzerllm run --strict --python ./venv/bin/python program.py
  byzerllm run -m package.module

The program sees what it sees under plain python: its arguments, its directory, its exit code. `import ray` gives Ray \
where it is installed and a cluster answers, and a stand-in with init, is_initialized and shutdown elsewhere."
)]
pub(crate) struct RunArguments {
    /// The Python that has the package byzerllm [default: that of the virtual environment, else python3].
    #[arg(long, env = "BYZERLLM_PYTHON", hide_env = true, value_name = "PYTHON")]
    pub(crate) python: Option<PathBuf>,
    /// Deployments refuse what has no effect here, such as GPUs; BYZERLLM_STRICT=1 does the same.
    #[arg(long, env = "BYZERLLM_STRICT", hide_env = true, value_parser = FalseyValueParser::new())]
    pub(crate) strict: bool,
    /// The program is a module, searched as `python -m` does.
    #[arg(long, short)]
    pub(crate) module: bool,
    /// A Python file and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<OsString>,
}
