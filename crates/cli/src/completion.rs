//! `byzerllm completion`: the script that completes commands and options in a shell.

use clap::CommandFactory;

use crate::arguments::{Arguments, CompletionArguments};
use crate::output::{Outcome, Output};

/// Prints the script.
pub(crate) fn completion(arguments: &CompletionArguments, output: Output) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "byzerllm", &mut script);
    output.piece(&String::from_utf8_lossy(&script))
}
