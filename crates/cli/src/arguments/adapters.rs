//! What can be typed after `adapters`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ServerArguments;

/// Options of `adapters`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm adapters add chat french ./adapters/french
  byzerllm adapters list chat
  byzerllm adapters remove chat french

Requests for the model chat:french use the adapter. Adapters are LoRA adapters in PEFT's format, on the server's machine; \
they are loaded and unloaded while requests run.")]
pub(crate) struct AdaptersArguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: AdaptersAction,
}

/// What to do with adapters.
#[derive(Debug, Subcommand)]
pub(crate) enum AdaptersAction {
    /// Load an adapter beside a running model.
    Add(AddAdapterArguments),
    /// Refuse new requests for an adapter, let running ones finish, and free its memory.
    Remove(RemoveAdapterArguments),
    /// Show the adapters of a deployment.
    List(ListAdaptersArguments),
}

/// Options of `adapters add`.
#[derive(Debug, Args)]
pub(crate) struct AddAdapterArguments {
    /// The deployment.
    pub(crate) deployment: String,
    /// What to call the adapter: letters, digits, dots, dashes and underscores.
    pub(crate) name: String,
    /// Its directory.
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `adapters remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveAdapterArguments {
    /// The deployment.
    pub(crate) deployment: String,
    /// The adapter.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

/// Options of `adapters list`.
#[derive(Debug, Args)]
pub(crate) struct ListAdaptersArguments {
    /// The deployment.
    pub(crate) deployment: String,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
