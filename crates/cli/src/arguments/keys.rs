//! What can be typed after `keys`.

use std::path::PathBuf;
use std::time::Duration;

use byzerllm_runtime::Scope;
use clap::{Args, Subcommand};

use super::ServerArguments;

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
    /// What it may do: inference:*, inference:DEPLOYMENT, metrics or admin; may be repeated [default: inference:*].
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

/// A key's scope.
fn scope(text: &str) -> Result<Scope, String> {
    text.parse().map_err(|error: byzerllm_core::Error| error.message().to_owned())
}

/// A length of time: a whole number and a unit.
pub(super) fn time(text: &str) -> Result<Duration, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
