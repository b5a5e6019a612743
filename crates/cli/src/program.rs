//! `byzerllm run`: hands a program over to Python, whose package `byzerllm` has the stand-in for Ray.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::arguments::RunArguments;
use crate::output::{Failure, Outcome};

/// Asks a Python whether it has the package, without importing it.
const HAS_PACKAGE: &str =
    "import sys; from importlib.util import find_spec; sys.exit(find_spec('byzerllm') is None)";

/// Replaces this process by Python running the program; returns only when that fails.
pub(crate) fn run(arguments: &RunArguments) -> Outcome {
    let shown = arguments.program[0].to_string_lossy();
    if shown.starts_with('-') {
        return Err(Failure::misuse(
            format!("'{shown}' is no option of run, nor a program"),
            "Options of the program stand after its name; `byzerllm run --help` shows those of run.",
        ));
    }
    let python = match &arguments.python {
        Some(python) => usable(python)?,
        None => found()?,
    };
    let mut command = Command::new(python);
    command.args(["-m", "byzerllm", "run"]);
    if arguments.strict {
        command.arg("--strict");
    }
    if arguments.module {
        command.arg("-m");
    }
    let error = command.args(&arguments.program).exec();
    Err(Failure::new(format!("Python could not be started: {error}"), "Name another one with --python."))
}

/// A Python that was asked for by name.
fn usable(python: &PathBuf) -> Outcome<PathBuf> {
    match has_package(python) {
        Ok(true) => Ok(python.clone()),
        Ok(false) => Err(Failure::new(
            format!("{} has no package byzerllm", python.display()),
            "Install byzerllm's wheel there, or name another Python with --python.",
        )),
        Err(error) => Err(Failure::misuse(
            format!("{} cannot be run: {error}", python.display()),
            "Name a Python interpreter with --python.",
        )),
    }
}

/// The first Python with the package: of the virtual environment, beside this program, on the path.
fn found() -> Outcome<PathBuf> {
    let environment = std::env::var_os("VIRTUAL_ENV").map(|root| PathBuf::from(root).join("bin/python"));
    let neighbour = std::env::current_exe().ok().map(|own| own.with_file_name("python"));
    let names = ["python3", "python"].map(PathBuf::from);
    let mut candidates = environment.into_iter().chain(neighbour.filter(|path| path.exists())).chain(names);
    candidates.find(|python| has_package(python).unwrap_or(false)).ok_or_else(|| {
        Failure::new(
            "no Python with the package byzerllm was found",
            "Install byzerllm's wheel (`pip install byzerllm`), or name a Python that has it with --python.",
        )
    })
}

fn has_package(python: &PathBuf) -> std::io::Result<bool> {
    let mut command = Command::new(python);
    command.args(["-c", HAS_PACKAGE]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command.status()?.success())
}
