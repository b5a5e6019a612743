//! Budgets as they are set and shown: limits on what a key or a deployment may spend.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use byzerllm_core::{Error, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::calendar::Period;
use super::money::{MOST, Micros, check_currency};

/// The longest name of a key or deployment.
const MAX_NAME: usize = 200;

/// Whose spending a budget limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// That of the API key of this name.
    Key,
    /// That of the deployment of this name.
    Deployment,
}

impl Subject {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Deployment => "deployment",
        }
    }

    pub(crate) fn read(word: &str) -> Option<Self> {
        [Self::Key, Self::Deployment].into_iter().find(|subject| subject.as_str() == word)
    }
}

/// How much may be spent: an amount of money, or a number of tokens, prompt and answer together. In text and JSON
/// `"10 USD"` and `"100000 tokens"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BudgetLimit {
    /// Units of a currency, which is three capital letters.
    Money(Micros, String),
    /// Tokens.
    Tokens(u64),
}

impl BudgetLimit {
    pub(crate) fn new(unit: &Unit, amount: u64) -> Self {
        match unit {
            Unit::Tokens => Self::Tokens(amount),
            Unit::Money(currency) => Self::Money(Micros(amount), currency.clone()),
        }
    }

    /// What is counted and how much of it.
    pub(crate) fn parts(&self) -> (Unit, u64) {
        match self {
            Self::Money(amount, currency) => (Unit::Money(currency.clone()), amount.0),
            Self::Tokens(tokens) => (Unit::Tokens, *tokens),
        }
    }
}

impl FromStr for BudgetLimit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let odd = || {
            let shown: String = text.chars().take(40).collect();
            let shown = shown.escape_debug();
            let message = format!("'{shown}' is no limit; write for example '10 USD' or '100000 tokens'");
            Error::invalid("limit", message)
        };
        let (number, unit) = text.split_once(' ').ok_or_else(odd)?;
        if unit == "tokens" {
            let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            let tokens = number.parse::<u64>().ok().filter(|tokens| digits && *tokens <= MOST);
            return tokens.map(Self::Tokens).ok_or_else(odd);
        }
        check_currency(unit).map_err(|_| odd())?;
        Ok(Self::Money(number.parse().map_err(|_| odd())?, unit.to_owned()))
    }
}

impl fmt::Display for BudgetLimit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Money(amount, currency) => write!(out, "{amount} {currency}"),
            Self::Tokens(tokens) => write!(out, "{tokens} tokens"),
        }
    }
}

impl Serialize for BudgetLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BudgetLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

impl JsonSchema for BudgetLimit {
    fn schema_name() -> Cow<'static, str> {
        "BudgetLimit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An amount and its currency, or a number of tokens: `10 USD`, `100000 tokens`.",
            "pattern": r"^([0-9]{1,19} tokens|[0-9]{1,13}(\.[0-9]{1,6})? [A-Z]{3})$"
        })
    }
}

/// A budget to set. It takes the place of one for the same subject, currency (or tokens) and period, and what was spent
/// stays spent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBudget {
    /// Whose spending.
    pub subject: Subject,
    /// The key's or deployment's name; it need not exist yet.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// When it begins anew.
    pub period: Period,
    /// How much may be spent in a period.
    pub limit: BudgetLimit,
    /// Let models through whose price in this currency is not known; the budget does not hold for them.
    #[serde(default)]
    pub allow_unknown_price: bool,
}

/// A budget and where it stands. Amounts are decimal numbers of units of the currency, or of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Budget {
    /// Its number.
    pub id: u64,
    /// What it is.
    #[serde(flatten)]
    pub budget: NewBudget,
    /// What is gone, with what a process that died had leased.
    pub spent: String,
    /// What running requests may cost at most.
    pub reserved: String,
    /// What is left.
    pub left: String,
    /// When its period began, in seconds since 1970.
    pub begun: u64,
    /// When it begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<u64>,
}

/// What a budget counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Unit {
    Tokens,
    Money(String),
}

impl Unit {
    /// The word in the database: a currency, or `tokens`.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Tokens => "tokens",
            Self::Money(currency) => currency,
        }
    }

    pub(crate) fn read(word: String) -> Self {
        if word == "tokens" { Self::Tokens } else { Self::Money(word) }
    }

    pub(crate) fn show(&self, amount: u64) -> String {
        match self {
            Self::Tokens => amount.to_string(),
            Self::Money(_) => Micros(amount).to_string(),
        }
    }
}

impl NewBudget {
    /// What it counts and how much of it, or what is wrong.
    pub(crate) fn checked(&self) -> Result<(Unit, u64)> {
        if self.name.is_empty() || self.name.len() > MAX_NAME || self.name.chars().any(char::is_control) {
            let message = format!("name is that of a key or deployment, 1 to {MAX_NAME} bytes");
            return Err(Error::invalid("name", message));
        }
        Ok(self.limit.parts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_exactly_or_not_at_all() {
        for (text, limit) in [
            ("10 USD", BudgetLimit::Money(Micros(10_000_000), "USD".to_owned())),
            ("0.5 CNY", BudgetLimit::Money(Micros(500_000), "CNY".to_owned())),
            ("0 tokens", BudgetLimit::Tokens(0)),
            ("9223372036854775807 tokens", BudgetLimit::Tokens(MOST)),
        ] {
            assert_eq!(text.parse::<BudgetLimit>().unwrap(), limit);
            assert_eq!(limit.to_string(), text);
        }
        for text in [
            "",
            "10",
            "10USD",
            "10  USD",
            "10 usd",
            "-1 USD",
            "+1 tokens",
            "1.5 tokens",
            "9223372036854775808 tokens",
        ] {
            assert_eq!(text.parse::<BudgetLimit>().unwrap_err().param(), Some("limit"), "{text}");
        }
    }
}
