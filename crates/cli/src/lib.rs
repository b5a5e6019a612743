//! The command line as a library: the binary and the Python wheel's console script both call [`run`].
//!
//! Every command is one file with one function; failures come back as `output::Failure` and are printed here,
//! once. Standard output carries results only, everything else goes to standard error.

use std::ffi::OsString;

use clap::Parser;
use clap::error::ErrorKind;

use crate::arguments::{Arguments, Command};
use crate::output::{FAILED, Failure, MISUSED, Outcome, Output};

mod arguments;
mod bench;
mod chat;
mod connection;
mod deploy;
mod doctor;
mod generate;
mod inspect;
mod keys;
mod machine;
mod model_arguments;
mod models;
mod output;
mod serve;
mod talker;
mod version;

/// Runs one command line, the program's name included, and returns the exit code: 0 done, 1 failed, 2 misused.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if error.print().is_err() {
                FAILED
            } else if asked {
                0
            } else {
                MISUSED
            };
        }
    };
    let output = Output::new(arguments.color);
    start_logging(arguments.verbose, matches!(arguments.command, Command::Serve(_)), output);
    match dispatch(arguments.command, output) {
        Ok(()) => 0,
        Err(failure) => {
            output.failure(&failure);
            failure.code()
        }
    }
}

fn dispatch(command: Command, output: Output) -> Outcome {
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Failure::new(
            format!("could not start threads: {error}"),
            "Raise the limit on processes (`ulimit -u`) or close other programs.",
        )
    })?;
    let outcome = match command {
        Command::Serve(arguments) => tokio.block_on(serve::serve(arguments, output)),
        Command::Deploy(arguments) => tokio.block_on(deploy::deploy(arguments, output)),
        Command::Undeploy(arguments) => tokio.block_on(deploy::undeploy(arguments, output)),
        Command::List(arguments) => tokio.block_on(deploy::list(arguments, output)),
        Command::Keys(arguments) => tokio.block_on(keys::keys(arguments, output)),
        Command::Pull(arguments) => tokio.block_on(models::pull(arguments, output)),
        Command::Models(arguments) => models::models(arguments, output),
        Command::Inspect(arguments) => tokio.block_on(inspect::inspect(arguments, output)),
        Command::Chat(arguments) => chat::chat(arguments, output, tokio.handle()),
        Command::Generate(arguments) => tokio.block_on(generate::generate(arguments, output)),
        Command::Bench(arguments) => tokio.block_on(bench::bench(arguments, output)),
        Command::Doctor(arguments) => tokio.block_on(doctor::doctor(arguments, output)),
        Command::Version(arguments) => version::version(&arguments, output),
    };
    // A blocking read (standard input, a file system) must not hold the exit back.
    tokio.shutdown_background();
    outcome
}

/// Sends log records to standard error. A second call in one process (an embedding program) changes nothing.
fn start_logging(verbose: u8, serving: bool, output: Output) {
    let level = match (verbose, serving) {
        (0, false) => "warn",
        (0, true) | (1, _) => "info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("BYZERLLM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let _already_started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(output.colours_errors())
        .try_init();
}
