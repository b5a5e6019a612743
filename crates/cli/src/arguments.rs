//! What can be typed: commands, options, help. No behaviour.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use byzerllm_runtime::{Compute, Scope};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::model_arguments::{HubArguments, ModelsArguments, PullArguments};

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
    /// Make, list, rotate and revoke API keys.
    Keys(KeysArguments),
    /// Get a model from a hub, a package index or a URL.
    Pull(PullArguments),
    /// Show, check and remove the models that were pulled.
    Models(ModelsArguments),
    /// Show what a model file or deployment is, without loading it.
    Inspect(InspectArguments),
    /// Talk to a model in the terminal.
    Chat(ChatArguments),
    /// Answer one prompt on standard output.
    Generate(GenerateArguments),
    /// Measure prefill, decode, time to first token and memory.
    Bench(BenchArguments),
    /// Check this machine and say how to mend what is wrong.
    Doctor(DoctorArguments),
    /// Print the version.
    Version(VersionArguments),
}

/// Which server.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArguments {
    /// The server's address [default: your running server, else http://127.0.0.1:8000].
    #[arg(long, env = "BYZERLLM_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) url: Option<String>,
}

/// Options of `serve`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm serve
  byzerllm serve --port 0 --state ./state
  byzerllm serve --port 8001 --allow-host my-laptop.local
  byzerllm serve --host 0.0.0.0 --allow-host llm.example --ssl-certfile cert.pem --ssl-keyfile key.pem

Deployments are kept in the state directory and come back after a restart. The first Ctrl-C finishes the \
requests in flight; the second one leaves at once.")]
pub(crate) struct ServeArguments {
    /// The address to listen on; away from loopback there must be a key (`byzerllm keys create`).
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS", value_parser = host)]
    pub(crate) host: IpAddr,
    /// The port; 0 takes any free one.
    #[arg(long, default_value_t = 8000)]
    pub(crate) port: u16,
    /// Where deployments are kept [default: $XDG_STATE_HOME/byzerllm, else ~/.local/state/byzerllm].
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Compute threads [default: the cores this process may use].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Serve https with this certificate (PEM, with the chain below it).
    #[arg(long, value_name = "FILE", requires = "ssl_keyfile")]
    pub(crate) ssl_certfile: Option<PathBuf>,
    /// The certificate's private key (PEM, not encrypted).
    #[arg(long, value_name = "FILE", requires = "ssl_certfile")]
    pub(crate) ssl_keyfile: Option<PathBuf>,
    /// A further name in the Host header to answer to, besides the server's own address; may be repeated.
    #[arg(long = "allow-host", value_name = "HOST")]
    pub(crate) allow_host: Vec<String>,
    /// A web origin that may call the server; may be repeated.
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    pub(crate) allow_origin: Vec<String>,
    /// How long requests in flight may go on after the first Ctrl-C, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) drain_seconds: u64,
}

/// Options of `deploy`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm deploy --name chat --model ./model.gguf --url http://127.0.0.1:8000
  byzerllm deploy --name chat --model ./model-directory --compute exact
  byzerllm deploy --name chat --model Qwen/Qwen2.5-0.5B-Instruct
  byzerllm deploy --name chat --model ./model.gguf --set temperature=0.2 --set context_length=4096

A deployment of the same name is replaced; when the new model does not load, the old one stays.")]
pub(crate) struct DeployArguments {
    /// The name that requests use as `model`.
    #[arg(long)]
    pub(crate) name: String,
    /// A GGUF file or a Hugging Face directory, on the server's machine, or ORG/NAME: pulled when missing.
    #[arg(long, value_name = "PATH|ORG/NAME")]
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) hub: HubArguments,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// How products are computed: exact, standard or fast [default: standard].
    #[arg(long, value_name = "MODE")]
    pub(crate) compute: Option<Compute>,
    /// A default or limit of the deployment; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Print the deployment as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `undeploy`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  byzerllm undeploy chat --url http://127.0.0.1:8000")]
pub(crate) struct UndeployArguments {
    /// The deployment.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// How long requests in flight may go on, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) drain_seconds: u64,
}

/// Options of `list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm list
  byzerllm list --url http://127.0.0.1:8000 --json")]
pub(crate) struct ListArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `keys`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm keys create --name app
  byzerllm keys create --name shop --scope inference:chat --expires 30d
  byzerllm keys rotate shop --grace 1h
  byzerllm keys revoke shop

Without --url and --state your running server is asked; without one the default state directory is changed. \
From the first key on, a server asks for keys, on loopback too.")]
pub(crate) struct KeysArguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: KeysAction,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysAction {
    /// Make a key and print it, this once.
    Create(CreateKeyArguments),
    /// Show all keys; never their secrets.
    List(ListKeysArguments),
    /// Replace a key's secret and print the new one.
    Rotate(RotateKeyArguments),
    /// End a key at once.
    Revoke(RevokeKeyArguments),
}

/// Whose keys.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeysPlaceArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// The state directory; its server, when one runs on it.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

/// Options of `keys create`.
#[derive(Debug, Args)]
pub(crate) struct CreateKeyArguments {
    /// What to call it: letters, digits, dots, dashes and underscores.
    #[arg(long)]
    pub(crate) name: String,
    /// What it may do: inference:*, inference:DEPLOYMENT or admin; may be repeated [default: inference:*].
    #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
    pub(crate) scope: Vec<Scope>,
    /// How long it lives, as 30d, 12h, 15m or 90s [default: until it is revoked].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) expires: Option<Duration>,
    #[command(flatten)]
    pub(crate) place: KeysPlaceArguments,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `keys list`.
#[derive(Debug, Args)]
pub(crate) struct ListKeysArguments {
    #[command(flatten)]
    pub(crate) place: KeysPlaceArguments,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `keys rotate`.
#[derive(Debug, Args)]
pub(crate) struct RotateKeyArguments {
    /// The key's name.
    pub(crate) name: String,
    /// How long the old secret is accepted too, as 1h or 7d.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    pub(crate) grace: Duration,
    #[command(flatten)]
    pub(crate) place: KeysPlaceArguments,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `keys revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeKeyArguments {
    /// The key's name.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) place: KeysPlaceArguments,
}

/// Options of `inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm inspect ./model.gguf
  byzerllm inspect ./model-directory --tensors
  byzerllm inspect chat --json")]
pub(crate) struct InspectArguments {
    /// A GGUF file, a Hugging Face directory, or the name of a deployment when no such path exists.
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// List every tensor instead of counts per type.
    #[arg(long)]
    pub(crate) tensors: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Sampling options shared by `chat` and `generate`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SamplingArguments {
    /// 0 always takes the most likely token.
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f32>,
    /// Keep the smallest set of tokens that reaches this probability.
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f32>,
    /// Keep the K most likely tokens.
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<u32>,
    /// Same seed, same text.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// New tokens at most.
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<u32>,
}

/// Where the model of `chat` and `generate` lives and how it is loaded.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArguments {
    /// For a model in this process: how products are computed: exact, standard or fast [default: standard].
    #[arg(long, value_name = "MODE")]
    pub(crate) compute: Option<Compute>,
    /// For a model in this process: compute threads [default: the cores this process may use].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    #[command(flatten)]
    pub(crate) hub: HubArguments,
}

/// Options of `chat`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm chat
  byzerllm chat --model chat --url http://127.0.0.1:8000
  byzerllm chat --model ./model.gguf --system 'Answer in one sentence.'

A path runs in this process, a name on the server. Type /help inside. Without a terminal each input line \
is one message.")]
pub(crate) struct ChatArguments {
    /// A deployment, a path, or ORG/NAME [default: the server's only deployment].
    #[arg(long, value_name = "NAME|PATH|ORG/NAME")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// Instructions that stand above the conversation.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArguments,
    #[command(flatten)]
    pub(crate) load: LoadArguments,
}

/// Options of `generate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm generate --model ./model.gguf --prompt 'What is the capital of France?' --temperature 0
  byzerllm generate --model chat --prompt 'Once upon a time' --raw --max-tokens 64
  byzerllm generate --model chat --prompt - --json < question.txt")]
pub(crate) struct GenerateArguments {
    /// A deployment, a path, or ORG/NAME: pulled when missing.
    #[arg(long, value_name = "NAME|PATH|ORG/NAME")]
    pub(crate) model: String,
    /// The question; `-` reads standard input.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: String,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// Instructions that stand above the question.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub(crate) system: Option<String>,
    /// Continue the text as it is, without the model's chat template.
    #[arg(long)]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) sampling: SamplingArguments,
    #[command(flatten)]
    pub(crate) load: LoadArguments,
    /// Print the whole answer as JSON at the end instead of streaming text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `bench`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm bench --model ./model.gguf --prompt-tokens 512 --decode-tokens 64 --streams 1,16 --json
  byzerllm bench --model ./model.gguf --compute exact --threads 2
  byzerllm bench --url http://127.0.0.1:8000 --model chat
  byzerllm bench --model ./model.gguf --perplexity english.txt --perplexity code.txt

A path is measured in this process. With --url any OpenAI-compatible server is measured; its key is read \
from OPENAI_API_KEY. Every number is the median of the repeats; prompts are synthetic and the same in \
every run. With --perplexity the compute modes are compared on texts instead: each window's second half is scored, and \
--compute leaves only that mode and the exact one.")]
pub(crate) struct BenchArguments {
    /// A path or ORG/NAME, or the model's name when --url is given.
    #[arg(long, value_name = "PATH|ORG/NAME|NAME")]
    pub(crate) model: String,
    /// Measure this server instead of an engine in this process.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Prompt length of the prefill measurement.
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) prompt_tokens: u32,
    /// Tokens that each stream generates.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub(crate) decode_tokens: u32,
    /// Prompt length of each decoding stream.
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) decode_prompt_tokens: u32,
    /// How many streams decode at once, as a list.
    #[arg(long, default_value = "1,16", value_delimiter = ',', value_name = "LIST", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) streams: Vec<u32>,
    /// Measurements of each kind.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Measure quality instead of speed, on this text; may be repeated.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "url", "prompt_tokens", "decode_tokens", "decode_prompt_tokens", "streams", "repeat",
    ])]
    pub(crate) perplexity: Vec<PathBuf>,
    /// Tokens per window of a text.
    #[arg(long, default_value_t = 1024, value_name = "N", requires = "perplexity", value_parser = clap::value_parser!(u32).range(4..=1_000_000))]
    pub(crate) context: u32,
    #[command(flatten)]
    pub(crate) load: LoadArguments,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm doctor
  byzerllm doctor --port 8001 --json")]
pub(crate) struct DoctorArguments {
    /// The port that a server would use.
    #[arg(long, default_value_t = 8000)]
    pub(crate) port: u16,
    /// The state directory that a server would use [default: as for serve].
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `version`.
#[derive(Debug, Args)]
pub(crate) struct VersionArguments {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// An address, or the one name that always means this machine.
fn host(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(IpAddr::from([127, 0, 0, 1]));
    }
    text.parse().map_err(|_| format!("`{text}` is no IP address; write 127.0.0.1, ::1 or localhost"))
}

/// A key's scope.
fn scope(text: &str) -> Result<Scope, String> {
    text.parse().map_err(|error: byzerllm_core::Error| error.message().to_owned())
}

/// A length of time: a whole number and a unit.
fn time(text: &str) -> Result<Duration, String> {
    let seconds = |unit: &str| match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(24 * 3600),
        _ => None,
    };
    let parsed = text.find(|c: char| !c.is_ascii_digit()).and_then(|end| {
        let (number, unit) = text.split_at(end);
        number.parse::<u64>().ok()?.checked_mul(seconds(unit)?)
    });
    parsed
        .map(Duration::from_secs)
        .ok_or_else(|| format!("write a number with s, m, h or d, for example 30d, instead of `{text}`"))
}

/// Splits `key=value`.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err(format!("write key=value, for example temperature=0.2, instead of `{text}`")),
    }
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

    #[test]
    fn times_have_a_unit() {
        let seconds = |text: &str| time(text).map(|time| time.as_secs()).ok();
        assert_eq!(["90s", "15m", "2h", "30d"].map(seconds), [90, 900, 7200, 2_592_000].map(Some));
        for text in
            ["", "30", "d", "-1d", "1.5h", "1 h", "1w", "99999999999999999999s", "999999999999999999d"]
        {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_setting_needs_a_key_and_a_value() {
        assert_eq!(key_value("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(key_value("=x").is_err());
        assert!(key_value("temperature").is_err());
    }
}
