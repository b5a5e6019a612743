//! What can be typed after `serve`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{BYZER, ByzerArguments};

/// Options of `serve`.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
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
    /// The key that seals secrets which were given literally [default: master.key in the state directory].
    #[arg(long, value_name = "FILE", env = "BYZERLLM_MASTER_KEY_FILE", hide_env_values = true)]
    pub(crate) master_key: Option<PathBuf>,
    /// Compute threads [default: the cores this process may use].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    #[command(flatten)]
    pub(crate) tls: TlsArguments,
    /// A further name in the Host header to answer to, besides the server's own address; may be repeated.
    #[arg(long = "allow-host", value_name = "HOST")]
    pub(crate) allow_host: Vec<String>,
    /// A web origin that may call the server; may be repeated.
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    pub(crate) allow_origin: Vec<String>,
    /// How long requests in flight may go on after the first Ctrl-C, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) drain_seconds: u64,
    #[command(flatten)]
    pub(crate) byzer: ByzerServeArguments,
}

/// The certificate that a server shows.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TlsArguments {
    /// Serve https with this certificate (PEM, with the chain below it).
    #[arg(long, value_name = "FILE", requires = "ssl_keyfile")]
    pub(crate) ssl_certfile: Option<PathBuf>,
    /// The certificate's private key (PEM, not encrypted).
    #[arg(long, value_name = "FILE", requires = "ssl_certfile")]
    pub(crate) ssl_keyfile: Option<PathBuf>,
}

/// Options of `serve` that only Byzer-LLM's server had. What cannot be honoured is refused with the reason.
#[derive(Debug, Args)]
pub(crate) struct ByzerServeArguments {
    /// How much to log: critical, error, warning, info, debug or trace [default: info].
    #[arg(long, value_enum, hide_possible_values = true, value_name = "LEVEL", help_heading = BYZER)]
    pub(crate) uvicorn_log_level: Option<LogLevel>,
    /// Web origins that may call the server, as a JSON list; ["*"] is refused.
    #[arg(long, value_name = "JSON", value_parser = Texts::parse, help_heading = BYZER)]
    pub(crate) allowed_origins: Option<Texts>,
    /// Only ["*"].
    #[arg(long, value_name = "JSON", value_parser = Texts::parse, help_heading = BYZER)]
    pub(crate) allowed_methods: Option<Texts>,
    /// Only ["*"].
    #[arg(long, value_name = "JSON", value_parser = Texts::parse, help_heading = BYZER)]
    pub(crate) allowed_headers: Option<Texts>,
    /// Refused: the server knows no cookies.
    #[arg(long, help_heading = BYZER)]
    pub(crate) allow_credentials: bool,
    /// Refused: `byzerllm keys create` makes keys.
    #[arg(long, value_name = "KEY", help_heading = BYZER)]
    pub(crate) api_key: Option<String>,
    /// Refused: requests name the deployment.
    #[arg(long, value_name = "NAME", help_heading = BYZER)]
    pub(crate) served_model_name: Option<String>,
    /// Only auto: the checkpoint's own template.
    #[arg(long, visible_alias = "template", value_name = "TEMPLATE", help_heading = BYZER)]
    pub(crate) prompt_template: Option<String>,
    /// Only assistant.
    #[arg(long, value_name = "ROLE", help_heading = BYZER)]
    pub(crate) response_role: Option<String>,
    #[command(flatten)]
    pub(crate) common: ByzerArguments,
}

/// Uvicorn's words for how much to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// As error.
    Critical,
    /// Errors.
    Error,
    /// Warnings, too.
    Warning,
    /// What happens, too.
    Info,
    /// What helps to debug, too.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// Our word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Critical | Self::Error => "error",
            Self::Warning => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// A JSON list of strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Texts(pub(crate) Vec<String>);

impl Texts {
    fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map(Self).map_err(|_| format!("`{text}` is no JSON list of strings"))
    }
}

/// An address, or the one name that always means this machine.
pub(super) fn host(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(IpAddr::from([127, 0, 0, 1]));
    }
    text.parse().map_err(|_| format!("`{text}` is no IP address; write 127.0.0.1, ::1 or localhost"))
}
