//! What can be typed after `usage`, `budgets` and `prices`.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use byzerllm_runtime::{BudgetLimit, Micros, Period, UsageBy};
use clap::{Args, Subcommand, ValueEnum};

use super::ServerArguments;

/// Whose ledger.
#[derive(Debug, Clone, Args)]
pub(crate) struct LedgerPlaceArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// The state directory; its server, when one runs on it.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

/// Options of `usage`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm usage
  byzerllm usage --by key --since 7d
  byzerllm usage --by day --since 2026-11-01 --json

Tokens that a vendor reported are its bill. Estimated ones are an upper bound: nobody told them, and their attempts \
count as all that they had reserved. Without --url and --state your running server is asked; without one the default \
state directory is read.")]
pub(crate) struct UsageArguments {
    /// What has a row of its own.
    #[arg(long, value_enum, default_value_t = By::Deployment)]
    pub(crate) by: By,
    /// Count attempts that began from then on: a date in UTC as 2026-11-01, or so long ago as 7d, 12h or 30m.
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(crate) since: Option<u64>,
    #[command(flatten)]
    pub(crate) place: LedgerPlaceArguments,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What has a row of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// Each deployment.
    Deployment,
    /// Each API key.
    Key,
    /// Each model, as its vendor calls it.
    Model,
    /// Each vendor.
    Vendor,
    /// Each day in UTC.
    Day,
}

impl From<By> for UsageBy {
    fn from(by: By) -> Self {
        match by {
            By::Deployment => Self::Deployment,
            By::Key => Self::Key,
            By::Model => Self::Model,
            By::Vendor => Self::Vendor,
            By::Day => Self::Day,
        }
    }
}

/// Options of `budgets`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm budgets set --key app --limit '10 USD' --period month
  byzerllm budgets set --deployment chat --limit '2000000 tokens' --period day
  byzerllm budgets list
  byzerllm budgets remove 1

A model whose price is not known is refused under a budget of money, unless the budget allows it: `byzerllm prices` \
sets prices.")]
pub(crate) struct BudgetsArguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: BudgetsAction,
}

/// What to do with budgets.
#[derive(Debug, Subcommand)]
pub(crate) enum BudgetsAction {
    /// Limit what a key or a deployment may spend.
    Set(SetBudgetArguments),
    /// Show all budgets and where they stand.
    List(ListLedgerArguments),
    /// Remove a budget.
    Remove(RemoveLedgerArguments),
}

/// Options of `budgets set`.
#[derive(Debug, Args)]
pub(crate) struct SetBudgetArguments {
    /// The API key whose spending is limited.
    #[arg(long, value_name = "NAME", required_unless_present = "deployment", conflicts_with = "deployment")]
    pub(crate) key: Option<String>,
    /// The deployment whose spending is limited.
    #[arg(long, value_name = "NAME")]
    pub(crate) deployment: Option<String>,
    /// How much: an amount of money as '10 USD', or a number of tokens as '100000 tokens'.
    #[arg(long, value_name = "LIMIT", value_parser = limit)]
    pub(crate) limit: BudgetLimit,
    /// When it begins anew, in UTC.
    #[arg(long, value_enum)]
    pub(crate) period: BudgetPeriod,
    /// Let models through whose price in this currency is not known; the budget does not hold for them.
    #[arg(long)]
    pub(crate) allow_unknown_price: bool,
    #[command(flatten)]
    pub(crate) place: LedgerPlaceArguments,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// When a budget begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BudgetPeriod {
    /// Never.
    Total,
    /// At midnight.
    Day,
    /// On the first of the month.
    Month,
}

impl From<BudgetPeriod> for Period {
    fn from(period: BudgetPeriod) -> Self {
        match period {
            BudgetPeriod::Total => Self::Total,
            BudgetPeriod::Day => Self::Day,
            BudgetPeriod::Month => Self::Month,
        }
    }
}

/// Options of `budgets list` and `prices list`.
#[derive(Debug, Args)]
pub(crate) struct ListLedgerArguments {
    #[command(flatten)]
    pub(crate) place: LedgerPlaceArguments,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `budgets remove` and `prices remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveLedgerArguments {
    /// Its number, as `list` shows it.
    pub(crate) id: u64,
    #[command(flatten)]
    pub(crate) place: LedgerPlaceArguments,
}

/// Options of `prices`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm prices set --vendor openai --model 'gpt-4o*' --currency USD --input 2.5 --cached-input 1.25 --output 10
  byzerllm prices list --json > prices.json
  byzerllm prices import prices.json
  byzerllm prices remove 3

Prices are units of the currency per million tokens. A model has the price of the row that matches it best: the \
vendor's own, then an exact name, then the longest pattern.")]
pub(crate) struct PricesArguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: PricesAction,
}

/// What to do with prices.
#[derive(Debug, Subcommand)]
pub(crate) enum PricesAction {
    /// Show the prices in force.
    List(ListLedgerArguments),
    /// Set the price of a model, or of all whose names fit a pattern.
    Set(SetPriceArguments),
    /// Set the prices of a JSON file, all or none.
    Import(ImportPricesArguments),
    /// Take a price out of force.
    Remove(RemoveLedgerArguments),
}

/// Options of `prices set`.
#[derive(Debug, Args)]
pub(crate) struct SetPriceArguments {
    /// The vendor, with or without saas/; * for all, local for models of this machine.
    #[arg(long, value_name = "NAME")]
    pub(crate) vendor: String,
    /// The model's name at the vendor; * in it stands for any characters.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,
    /// Three capital letters, as USD.
    #[arg(long, value_name = "CODE")]
    pub(crate) currency: String,
    /// A million prompt tokens.
    #[arg(long, value_name = "AMOUNT", value_parser = amount)]
    pub(crate) input: Micros,
    /// A million prompt tokens from the vendor's cache [default: as --input].
    #[arg(long, value_name = "AMOUNT", value_parser = amount)]
    pub(crate) cached_input: Option<Micros>,
    /// A million prompt tokens written into the vendor's cache [default: as --input].
    #[arg(long, value_name = "AMOUNT", value_parser = amount)]
    pub(crate) cache_write: Option<Micros>,
    /// A million generated tokens.
    #[arg(long, value_name = "AMOUNT", value_parser = amount)]
    pub(crate) output: Micros,
    /// A million reasoning tokens [default: as --output].
    #[arg(long, value_name = "AMOUNT", value_parser = amount)]
    pub(crate) reasoning: Option<Micros>,
    #[command(flatten)]
    pub(crate) place: LedgerPlaceArguments,
}

/// Options of `prices import`.
#[derive(Debug, Args)]
pub(crate) struct ImportPricesArguments {
    /// A JSON file in the form that `prices list --json` prints, or a list of prices; - for standard input.
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) place: LedgerPlaceArguments,
}

fn limit(text: &str) -> Result<BudgetLimit, String> {
    text.parse().map_err(|error: byzerllm_core::Error| error.message().to_owned())
}

fn amount(text: &str) -> Result<Micros, String> {
    text.parse().map_err(|error: byzerllm_core::Error| error.message().to_owned())
}

/// A date, or a time ago, as seconds since 1970.
fn since(text: &str) -> Result<u64, String> {
    if let Some(day) = day(text) {
        return Ok(day * 86_400);
    }
    let ago = super::keys::time(text).map_err(|_| {
        format!("write a date as 2026-11-01, or a time ago as 7d, 12h or 30m, instead of `{text}`")
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).as_ref().map_or(0, Duration::as_secs);
    Ok(now.saturating_sub(ago.as_secs()))
}

/// Days from 1970 to a date of the form 2026-11-01.
fn day(text: &str) -> Option<u64> {
    let digits = |place: usize, byte: u8| {
        matches!(place, 4 | 7) == (byte == b'-') && (byte == b'-' || byte.is_ascii_digit())
    };
    if text.len() != 10 || !text.bytes().enumerate().all(|(place, byte)| digits(place, byte)) {
        return None;
    }
    let (year, month, day): (u64, u64, u64) =
        (text[..4].parse().ok()?, text[5..7].parse().ok()?, text[8..].parse().ok()?);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = |month: u64| match month {
        2 => 28 + u64::from(leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if year < 1970 || !(1..=12).contains(&month) || day == 0 || day > length(month) {
        return None;
    }
    let years: u64 = (1970..year).map(|year| 365 + u64::from(leap(year))).sum();
    Some(years + (1..month).map(length).sum::<u64>() + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (text, seconds) in [
            ("1970-01-01", Some(0)),
            ("2024-02-29", Some(1_709_164_800)),
            ("2026-11-01", Some(1_793_491_200)),
            ("2023-02-29", None),
            ("2026-13-01", None),
            ("2026-00-01", None),
            ("2026-11-00", None),
            ("1969-12-31", None),
            ("26-11-01", None),
            ("2026/11/01", None),
        ] {
            assert_eq!(day(text).map(|day| day * 86_400), seconds, "{text}");
        }
        assert!(since("7d").unwrap() > 1_700_000_000);
        assert!(since("yesterday").is_err());
    }
}
