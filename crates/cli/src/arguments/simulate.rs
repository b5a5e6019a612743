//! What can be typed after `simulate`.

use byzerllm_simulator::Fault;
use clap::Args;

/// Options of `simulate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm simulate zhipu
  byzerllm simulate openai --port 9000 --fault 429:2
  byzerllm simulate sparkdesk --api-key KEY --secret SECRET --app-id APP --pace-ms 200

The vendor answers on this machine as it documents its API: it checks credentials and signatures, refuses what the \
vendor refuses, and echoes the question. Ctrl-C ends it and prints the bill. While it runs, GET /simulator/bill and \
/simulator/requests show what came, and POST /simulator/fault with {\"fault\": NAME, \"times\": N} lets the next \
requests fail.

Faults: slow-first-byte[:SECONDS], stall-before, stall, truncated, early-end, merged, split, split-characters, \
duplicated, no-usage, zero-usage, 429[:SECONDS|:date], 500, 502, 503[:SECONDS|:date], 529, stream-error, invalid-utf8, \
oversized[:BYTES], reset-before, reset, error-with-status-200, wrong-content-type, web-page, redirect.")]
pub(crate) struct SimulateArguments {
    /// The vendor, like `zhipu` or `saas/zhipu`; `byzerllm vendors` lists them.
    #[arg(value_name = "VENDOR")]
    pub(crate) vendor: String,
    /// The port on 127.0.0.1; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) port: u16,
    /// The fault that every request meets.
    #[arg(long, value_name = "FAULT", value_parser = fault)]
    pub(crate) fault: Option<Fault>,
    /// The key that opens [default: one made up, which is shown].
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
    /// The secret beside the key, for vendors that have one.
    #[arg(long, value_name = "SECRET")]
    pub(crate) secret: Option<String>,
    /// The application or group, for vendors that have one.
    #[arg(long, value_name = "ID")]
    pub(crate) app_id: Option<String>,
    /// A further model that the vendor knows; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Vec<String>,
    /// Milliseconds between two events of an answer.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub(crate) pace_ms: u64,
}

fn fault(text: &str) -> Result<Fault, String> {
    text.parse().map_err(|error: byzerllm_core::Error| error.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_fault() {
        use clap::CommandFactory;

        let command = crate::arguments::Arguments::command();
        let help = command.find_subcommand("simulate").unwrap().get_after_help().unwrap().to_string();
        for name in Fault::NAMES {
            assert!(help.contains(name), "{name}");
        }
    }
}
