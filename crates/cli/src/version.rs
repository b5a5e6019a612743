//! `byzerllm version`.

use serde_json::json;

use crate::arguments::VersionArguments;
use crate::output::{Outcome, Output};

/// The version of this build.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints the version.
pub(crate) fn version(arguments: &VersionArguments, output: Output) -> Outcome {
    if arguments.json {
        return output.json(&json!({ "name": "byzerllm", "version": VERSION }));
    }
    output.line(format_args!("byzerllm {VERSION}"))
}
