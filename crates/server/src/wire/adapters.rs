//! Bodies of the routes for adapters.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::describe::only;

/// An adapter to load.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "LoadAdapterRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadAdapterBody {
    /// The name that requests use: `deployment:name`.
    pub(crate) name: String,
    /// Its directory in PEFT's format, an absolute path on the server's machine.
    pub(crate) path: PathBuf,
}

/// The adapter that is gone.
#[derive(Serialize, JsonSchema)]
pub(crate) struct UnloadAdapterAnswer {
    pub(crate) deployment: String,
    pub(crate) name: String,
    pub(crate) deleted: bool,
}

/// An adapter to load, in vLLM's words.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "LoadLoraAdapterRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadLoraBody {
    /// Its name, or `deployment:name` where there is more than one deployment.
    pub(crate) lora_name: String,
    /// Its directory in PEFT's format, an absolute path on the server's machine.
    pub(crate) lora_path: PathBuf,
    /// The deployment.
    #[serde(default)]
    pub(crate) base_model_name: Option<String>,
    /// An adapter is not replaced while requests use it: unload it first.
    #[serde(default)]
    #[schemars(transform = only([false]))]
    pub(crate) load_inplace: Option<bool>,
}

/// An adapter to unload, in vLLM's words.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "UnloadLoraAdapterRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct UnloadLoraBody {
    /// Its name, or `deployment:name`.
    pub(crate) lora_name: String,
    /// The number that vLLM gave it; not needed here.
    #[serde(default, rename = "lora_int_id")]
    pub(crate) _lora_int_id: Option<u64>,
    /// The deployment.
    #[serde(default)]
    pub(crate) base_model_name: Option<String>,
}
