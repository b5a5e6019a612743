//! Money without floats: millionths of a currency's unit, and prices per million tokens.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use byzerllm_core::{Error, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Millionths in a unit, and tokens that a price is for.
const MILLION: u64 = 1_000_000;
/// The most that fits into a column of the database.
pub(crate) const MOST: u64 = i64::MAX as u64;

/// An amount of money in millionths of a currency's unit. In text and JSON it is a decimal number of units, `"2.5"`;
/// more than six decimals are refused, never rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Micros(pub u64);

impl FromStr for Micros {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Error::invalid(
                "amount",
                format!(
                    "'{}' is no amount of money; write units with at most six decimals, for example 2.5",
                    shown.escape_debug()
                ),
            )
        })
    }
}

fn parse(text: &str) -> Option<Micros> {
    let (units, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(units) || !digits(decimals) || decimals.len() > 6 {
        return None;
    }
    let decimals: u64 = format!("{decimals:0<6}").parse().ok()?;
    let micros = units.parse::<u64>().ok()?.checked_mul(MILLION)?.checked_add(decimals)?;
    (micros <= MOST).then_some(Micros(micros))
}

impl fmt::Display for Micros {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, decimals) = (self.0 / MILLION, self.0 % MILLION);
        if decimals == 0 {
            return write!(out, "{units}");
        }
        write!(out, "{units}.{}", format!("{decimals:06}").trim_end_matches('0'))
    }
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

impl JsonSchema for Micros {
    fn schema_name() -> Cow<'static, str> {
        "Money".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A decimal number of units with at most six decimals; text, so that nothing rounds it.",
            "pattern": r"^[0-9]{1,13}(\.[0-9]{1,6})?$"
        })
    }
}

/// A currency: three capital letters.
pub(crate) fn check_currency(currency: &str) -> Result<()> {
    if currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Ok(());
    }
    Err(Error::invalid(
        "currency",
        "a currency is written with three capital letters, for example USD or CNY",
    ))
}

/// What tokens cost at prices in millionths per million tokens: the exact sum, rounded up once.
pub(crate) fn charge(parts: &[(u64, u64)]) -> u64 {
    let sum: u128 = parts.iter().map(|(tokens, price)| u128::from(*tokens) * u128::from(*price)).sum();
    u64::try_from(sum.div_ceil(u128::from(MILLION))).unwrap_or(MOST).min(MOST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_read_exactly_or_not_at_all() {
        for (text, micros) in [
            ("0", 0),
            ("2.5", 2_500_000),
            ("0.000001", 1),
            ("15", 15_000_000),
            ("007.10", 7_100_000),
            ("9223372036854.775807", MOST),
        ] {
            assert_eq!(text.parse::<Micros>().unwrap(), Micros(micros), "{text}");
        }
        for text in
            ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "0.0000001", "9223372036854.775808", "1 ", "½"]
        {
            assert!(text.parse::<Micros>().is_err(), "{text}");
        }
        assert_eq!(serde_json::from_str::<Micros>("\"0.15\"").unwrap(), Micros(150_000));
        assert!(serde_json::from_str::<Micros>("0.15").is_err(), "a float is no amount");
    }

    #[test]
    fn a_charge_is_rounded_up_once() {
        // One token at 0.15 per million is 0.15 millionths.
        assert_eq!(charge(&[(1, 150_000)]), 1);
        assert_eq!(charge(&[(1, 150_000), (1, 600_000)]), 1);
        assert_eq!(charge(&[(1_000_000, 150_000)]), 150_000);
        assert_eq!(charge(&[(0, 9)]), 0);
        assert_eq!(charge(&[(u64::MAX, u64::MAX)]), MOST);
    }

    proptest! {
        #[test]
        fn text_and_back(micros in 0..=MOST) {
            prop_assert_eq!(Micros(micros).to_string().parse::<Micros>().unwrap(), Micros(micros));
        }

        #[test]
        fn a_charge_is_never_below_its_exact_value(tokens in 0..1_u64 << 40, price in 0..1_u64 << 40) {
            let exact = u128::from(tokens) * u128::from(price);
            let charged = u128::from(charge(&[(tokens, price)])) * 1_000_000;
            prop_assert!(charged >= exact && charged < exact + 1_000_000);
        }
    }
}
