//! The command line as a library: the binary and the Python wheel's console script both call [`run`].
//!
//! Every command is one file with one function; failures come back as `output::Failure` and are printed here,
//! once. Standard output carries results only, everything else goes to standard error.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::arguments::{Arguments, Command};
use crate::output::{FAILED, Failure, MISUSED, Outcome, Output};
use crate::traces::Traces;

mod adapters;
mod arguments;
mod bench;
mod budgets;
mod chat;
mod completion;
mod connection;
mod convert;
mod deploy;
mod doctor;
mod encode;
mod generate;
mod inspect;
mod keys;
mod ledger;
pub mod legacy;
mod log_fields;
mod machine;
mod models;
mod output;
mod prices;
mod program;
mod progress;
mod quantize;
mod query;
#[cfg(test)]
mod reference;
mod secrets;
mod serve;
mod signals;
mod simulate;
mod spelling;
mod stat;
mod talker;
mod traces;
mod usage;
mod vendors;
mod version;

/// Runs one command line, the program's name included, and returns the exit code: 0 done, 1 failed, 2 misused.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let mut args = spelling::with_dashes(args);
    let mut arguments = match Arguments::try_parse_from(&args) {
        Ok(arguments) => arguments,
        Err(error) => return misused(&error),
    };
    let output = Output::new(arguments.color);
    if let Some(file) = arguments.command.byzer().and_then(|byzer| byzer.file.clone()) {
        let definition = Arguments::command();
        let merged = match definition.find_subcommand(arguments.command.name()) {
            Some(command) => spelling::with_file(&args, command, &file),
            None => Ok(args),
        };
        args = match merged {
            Ok(args) => args,
            Err(failure) => {
                output.failure(&failure);
                return failure.code();
            }
        };
        arguments = match Arguments::try_parse_from(&args) {
            Ok(arguments) => arguments,
            Err(error) => return misused(&error),
        };
    }
    let serving = matches!(arguments.command, Command::Serve(_));
    let done = (if serving { Traces::from_environment(output) } else { Ok(None) }).and_then(|traces| {
        start_logging(&arguments, output, traces.as_ref());
        say_what_is_done(&arguments, &args, output);
        dispatch(arguments.command, output)
    });
    match done {
        Ok(()) => 0,
        Err(failure) => {
            output.failure(&failure);
            failure.code()
        }
    }
}

/// Says how Byzer-LLM's options were understood.
fn say_what_is_done(arguments: &Arguments, args: &[OsString], output: Output) {
    let Some(byzer) = arguments.command.byzer() else { return };
    if byzer.file.is_some() || arguments.verbose > 0 {
        output.note(spelling::echo(args));
    }
    if byzer.ray_address.is_some() {
        output.note("--ray-address has no effect: there is no Ray cluster, a server is named with --url");
    }
}

/// Prints help that was asked for, or what is wrong with a command line.
fn misused(error: &clap::Error) -> u8 {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    match error.print() {
        Err(_) => FAILED,
        Ok(()) if asked => 0,
        Ok(()) => MISUSED,
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
        Command::Adapters(arguments) => tokio.block_on(adapters::adapters(arguments, output)),
        Command::Undeploy(arguments) => tokio.block_on(deploy::undeploy(arguments, output)),
        Command::List(arguments) => tokio.block_on(deploy::list(arguments, output)),
        Command::Stat(arguments) => tokio.block_on(stat::stat(arguments, output)),
        Command::Vendors(arguments) => vendors::vendors(&arguments, output),
        Command::Keys(arguments) => tokio.block_on(keys::keys(arguments, output)),
        Command::Usage(arguments) => tokio.block_on(usage::usage(arguments, output)),
        Command::Budgets(arguments) => tokio.block_on(budgets::budgets(arguments, output)),
        Command::Prices(arguments) => tokio.block_on(prices::prices(arguments, output)),
        Command::Pull(arguments) => tokio.block_on(models::pull(arguments, output)),
        Command::Models(arguments) => models::models(arguments, output),
        Command::Convert(arguments) => convert::convert(arguments, output),
        Command::Quantize(arguments) => tokio.block_on(quantize::quantize(arguments, output)),
        Command::Inspect(arguments) => tokio.block_on(inspect::inspect(arguments, output)),
        Command::Chat(arguments) => chat::chat(arguments, output, tokio.handle()),
        Command::Generate(arguments) => tokio.block_on(generate::generate(arguments, output)),
        Command::Embed(arguments) => tokio.block_on(encode::embed(arguments, output)),
        Command::Rerank(arguments) => tokio.block_on(encode::rerank(arguments, output)),
        Command::Run(arguments) => program::run(&arguments),
        Command::Simulate(arguments) => tokio.block_on(simulate::simulate(arguments, output)),
        Command::Query(arguments) => tokio.block_on(query::query(arguments, output)),
        Command::Bench(arguments) => tokio.block_on(bench::bench(arguments, output)),
        Command::Doctor(arguments) => tokio.block_on(doctor::doctor(arguments, output)),
        Command::Completion(arguments) => completion::completion(&arguments, output),
        Command::Version(arguments) => version::version(&arguments, output),
    };
    // A blocking read (standard input, a file system) must not hold the exit back.
    tokio.shutdown_background();
    outcome
}

/// Sends log records to standard error, and spans to who traces. A second call in one process (an embedding program)
/// changes nothing.
fn start_logging(arguments: &Arguments, output: Output, traces: Option<&Traces>) {
    let uvicorn = match &arguments.command {
        Command::Serve(serve) => serve.byzer.uvicorn_log_level,
        _ => None,
    };
    let level = match (arguments.verbose, uvicorn) {
        (0, Some(level)) => level.word(),
        (0, None) if !matches!(arguments.command, Command::Serve(_)) => "warn",
        (0 | 1, _) => "info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("BYZERLLM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let spans = tracing_subscriber::registry();
    // A filter for one of two layers is asked whenever a span is entered; one for all only when it begins.
    let _already_started = match traces {
        None => spans.with(filter).with(log(output)).try_init(),
        Some(traces) => spans.with(log(output).with_filter(filter)).with(traces.layer()).try_init(),
    };
}

/// What writes log records.
fn log<S>(output: Output) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(output.colours_errors())
        .fmt_fields(log_fields::Fields::default())
}
