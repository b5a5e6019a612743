//! Prices: who asks how much for which model. A row is never changed: a new price retires the old one, so that each
//! record names the row that it was computed from.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use byzerllm_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::money::{Micros, charge, check_currency};

/// The vendor's name of our own engine.
pub(crate) const LOCAL: &str = "local";
/// The longest vendor or model.
const MAX_NAME: usize = 200;
/// Models whose price is remembered.
const REMEMBERED: usize = 4096;

/// A price to set: units of a currency per million tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPrice {
    /// The vendor's name, with or without `saas/`; `*` for all.
    #[schemars(length(min = 1, max = 200))]
    pub vendor: String,
    /// The model's name at the vendor; `*` stands for any characters.
    #[schemars(length(min = 1, max = 200))]
    pub model: String,
    /// Three capital letters, as `USD`.
    #[schemars(regex(pattern = r"^[A-Z]{3}$"))]
    pub currency: String,
    /// A million prompt tokens.
    pub input: Micros,
    /// A million prompt tokens from the vendor's cache; as `input` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<Micros>,
    /// A million prompt tokens written into the vendor's cache; as `input` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<Micros>,
    /// A million generated tokens.
    pub output: Micros,
    /// A million reasoning tokens; as `output` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Micros>,
}

/// A price that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Price {
    /// Its number, which records name.
    pub id: u64,
    /// What it is.
    #[serde(flatten)]
    pub price: NewPrice,
    /// Since when, in seconds since 1970.
    pub since: u64,
}

/// Tokens by kind. Cached and cache-written ones are part of the prompt, reasoning is part of the completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Tokens {
    /// Prompt tokens, all of them.
    pub prompt: u64,
    /// Of these, from the vendor's cache.
    pub cached: u64,
    /// Of these, written into the vendor's cache.
    pub cache_written: u64,
    /// Generated tokens, all of them.
    pub completion: u64,
    /// Of these, reasoning.
    pub reasoning: u64,
}

impl Tokens {
    pub(crate) fn total(&self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }
}

impl NewPrice {
    /// As many can be set at once.
    pub const MAX_AT_ONCE: usize = 1000;

    /// In one form, or refused.
    pub(crate) fn checked(mut self) -> Result<Self> {
        if let Some(vendor) = self.vendor.strip_prefix("saas/") {
            self.vendor = vendor.to_owned();
        }
        let bad = |text: &str| text.is_empty() || text.len() > MAX_NAME || text.chars().any(char::is_control);
        if bad(&self.vendor) || (self.vendor.contains('*') && self.vendor != "*") {
            return Err(Error::invalid(
                "vendor",
                "vendor is a vendor's name, for example openai, or * for all",
            ));
        }
        if bad(&self.model) {
            let message = format!("model is a name or pattern of 1 to {MAX_NAME} bytes, for example gpt-4o*");
            return Err(Error::invalid("model", message));
        }
        check_currency(&self.currency)?;
        Ok(self)
    }

    /// What tokens cost, in millionths.
    pub(crate) fn cost(&self, tokens: &Tokens) -> u64 {
        let fresh = tokens.prompt.saturating_sub(tokens.cached).saturating_sub(tokens.cache_written);
        let answer = tokens.completion.saturating_sub(tokens.reasoning);
        charge(&[
            (fresh, self.input.0),
            (tokens.cached, self.cached_input.unwrap_or(self.input).0),
            (tokens.cache_written, self.cache_write.unwrap_or(self.input).0),
            (answer, self.output.0),
            (tokens.reasoning, self.reasoning.unwrap_or(self.output).0),
        ])
    }

    /// What so many tokens cost at most, whatever kinds they are of; `None` when nothing bounds it.
    pub(crate) fn most(&self, prompt: u64, completion: Option<u64>) -> Option<u64> {
        let dearest = |all: &[Option<Micros>]| all.iter().flatten().max().map_or(0, |price| price.0);
        let input = dearest(&[Some(self.input), self.cached_input, self.cache_write]);
        let output = dearest(&[Some(self.output), self.reasoning]);
        let completion = match completion {
            Some(completion) => completion,
            None if output == 0 => 0,
            None => return None,
        };
        Some(charge(&[(prompt, input), (completion, output)]))
    }

    /// Orders rows that match the same model: the vendor's own, exact ones, then those with more letters.
    fn rank(&self) -> (bool, bool, usize) {
        let letters = self.model.bytes().filter(|byte| *byte != b'*').count();
        (self.vendor != "*", !self.model.contains('*'), letters)
    }

    fn matches(&self, vendor: &str, model: &str) -> bool {
        (self.vendor == "*" || self.vendor == vendor) && glob(self.model.as_bytes(), model.as_bytes())
    }
}

/// Whether a pattern, in which `*` stands for any bytes, describes the whole of a text.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when the last star has to take one byte more.
    let mut retry = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            p += 1;
            retry = Some((p, t));
        } else if p < pattern.len() && pattern[p] == text[t] {
            (p, t) = (p + 1, t + 1);
        } else if let Some((after, taken)) = retry {
            (p, t) = (after, taken + 1);
            retry = Some((after, taken + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// What is known of a model's price.
#[derive(Debug, Clone)]
pub(crate) enum Pricing {
    Known(Arc<Price>),
    /// Our own engine sends no bill.
    Free,
    Unknown,
}

type Remembered = HashMap<&'static str, HashMap<Arc<str>, Pricing>>;

/// The prices in force.
#[derive(Debug, Default)]
pub(crate) struct Prices {
    /// The best match is the first.
    list: Vec<Arc<Price>>,
    remembered: RwLock<Remembered>,
}

impl Prices {
    pub(crate) fn new(list: Vec<Price>) -> Self {
        let mut list: Vec<_> = list.into_iter().map(Arc::new).collect();
        list.sort_by_key(|price| std::cmp::Reverse((price.price.rank(), price.id)));
        Self { list, remembered: RwLock::default() }
    }

    /// All, by vendor and model.
    pub(crate) fn list(&self) -> Vec<Price> {
        let mut list: Vec<Price> = self.list.iter().map(|price| Price::clone(price)).collect();
        list.sort_by(|a, b| (&a.price.vendor, &a.price.model).cmp(&(&b.price.vendor, &b.price.model)));
        list
    }

    /// The price of a model.
    pub(crate) fn find(&self, vendor: &'static str, model: &Arc<str>) -> Pricing {
        let remembered = self.remembered.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = remembered.get(vendor).and_then(|models| models.get(model)) {
            return known.clone();
        }
        drop(remembered);
        let found = self.list.iter().find(|price| price.price.matches(vendor, model));
        let pricing = match found {
            Some(price) => Pricing::Known(Arc::clone(price)),
            None if vendor == LOCAL => Pricing::Free,
            None => Pricing::Unknown,
        };
        let mut remembered = self.remembered.write().unwrap_or_else(PoisonError::into_inner);
        let models = remembered.entry(vendor).or_default();
        if models.len() >= REMEMBERED {
            models.clear();
        }
        models.insert(Arc::clone(model), pricing.clone());
        pricing
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn price(vendor: &str, model: &str, input: u64) -> NewPrice {
        NewPrice {
            vendor: vendor.to_owned(),
            model: model.to_owned(),
            currency: "USD".to_owned(),
            input: Micros(input),
            cached_input: None,
            cache_write: None,
            output: Micros(0),
            reasoning: None,
        }
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, fits) in [
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-4o*", "gpt-4o-mini", true),
            ("*", "", true),
            ("*mini*", "gpt-4o-mini-2024", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("", "x", false),
            ("*a", "baab", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn the_most_specific_row_wins() {
        let rows = [
            price("*", "*", 1),
            price("openai", "*", 2),
            price("openai", "gpt-4o*", 3),
            price("openai", "gpt-4o", 4),
            price("*", "gpt-4o", 5),
        ];
        let rows = rows.into_iter().enumerate().map(|(id, price)| Price { id: id as u64, price, since: 0 });
        let prices = Prices::new(rows.collect());
        let found = |vendor, model: &str| match prices.find(vendor, &model.into()) {
            Pricing::Known(price) => price.price.input.0,
            _ => 0,
        };
        for _ in 0..2 {
            assert_eq!(found("openai", "gpt-4o"), 4);
            assert_eq!(found("openai", "gpt-4o-mini"), 3);
            assert_eq!(found("openai", "o1"), 2);
            assert_eq!(found("zhipu", "gpt-4o"), 5);
            assert_eq!(found("zhipu", "glm"), 1);
        }
        assert!(matches!(Prices::default().find("openai", &"x".into()), Pricing::Unknown));
        assert!(matches!(Prices::default().find(LOCAL, &"x".into()), Pricing::Free));
    }

    #[test]
    fn odd_rows_are_refused_by_name() {
        for (row, param) in [
            (price("", "x", 1), "vendor"),
            (price("open*", "x", 1), "vendor"),
            (price("openai", "", 1), "model"),
            (price("openai", "a\nb", 1), "model"),
            (NewPrice { currency: "usd".to_owned(), ..price("openai", "x", 1) }, "currency"),
        ] {
            assert_eq!(row.checked().unwrap_err().param(), Some(param));
        }
        assert_eq!(price("saas/openai", "x", 1).checked().unwrap().vendor, "openai");
    }

    fn any_price() -> impl Strategy<Value = NewPrice> {
        let some = || prop::option::of(0_u64..50_000_000).prop_map(|price| price.map(Micros));
        (0_u64..50_000_000, some(), some(), 0_u64..50_000_000, some()).prop_map(
            |(input, cached_input, cache_write, output, reasoning)| NewPrice {
                input: Micros(input),
                cached_input,
                cache_write,
                output: Micros(output),
                reasoning,
                ..price("v", "m", 0)
            },
        )
    }

    proptest! {
        #[test]
        fn no_split_of_the_tokens_costs_more_than_the_bound(
            price in any_price(), prompt in 0_u64..1 << 32, completion in 0_u64..1 << 32,
            cuts in (0.0..=1.0_f64, 0.0..=1.0_f64, 0.0..=1.0_f64),
        ) {
            let part = |whole: u64, cut: f64| ((whole as f64 * cut) as u64).min(whole);
            let cached = part(prompt, cuts.0);
            let tokens = Tokens {
                prompt,
                cached,
                cache_written: part(prompt - cached, cuts.1),
                completion,
                reasoning: part(completion, cuts.2),
            };
            prop_assert!(price.cost(&tokens) <= price.most(prompt, Some(completion)).unwrap());
        }
    }
}
