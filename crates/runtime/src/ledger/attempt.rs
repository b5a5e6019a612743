//! One attempt: what it may cost, and what it came to.

use std::sync::Arc;

use byzerllm_core::{Attempt, Ending, Settlement, Usage, UsageSource};

use super::price::{Pricing, Tokens};

/// An attempt that was begun.
#[derive(Debug)]
pub(crate) struct Info {
    pub(crate) id: i64,
    /// Milliseconds since 1970.
    pub(crate) begun: i64,
    pub(crate) attempt: Attempt,
    pub(crate) pricing: Pricing,
}

impl Info {
    /// What it costs at most, in millionths; `None` when the price is unknown or nothing bounds it.
    pub(crate) fn most(&self) -> Option<u64> {
        let (prompt, completion) = (self.attempt.prompt_tokens, self.attempt.completion_tokens);
        match &self.pricing {
            Pricing::Known(price) => price.price.most(prompt, completion),
            Pricing::Free => Some(0),
            Pricing::Unknown if prompt == 0 && completion == Some(0) => Some(0),
            Pricing::Unknown => None,
        }
    }

    pub(crate) fn unknown_price(&self) -> bool {
        matches!(self.pricing, Pricing::Unknown)
    }

    /// The price's number and its currency.
    pub(crate) fn price(&self) -> (Option<i64>, Option<&str>) {
        match &self.pricing {
            Pricing::Known(price) => (i64::try_from(price.id).ok(), Some(&price.price.currency)),
            _ => (None, None),
        }
    }
}

/// Where the tokens of a record come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Reported,
    Counted,
    Estimated,
}

impl Source {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Counted => "counted",
            Self::Estimated => "estimated",
        }
    }
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) source: Source,
    pub(crate) tokens: Tokens,
    /// Nothing bounds the generated tokens and nobody told them: the number in `tokens` is none.
    pub(crate) unbounded: bool,
    /// More than the reservation: the vendor billed beyond its own bound.
    pub(crate) over_reserved: bool,
    /// In millionths; `None` when the price is unknown or nothing bounds it.
    pub(crate) cost: Option<u64>,
    pub(crate) unknown_price: bool,
}

/// The one rule of settling. What a vendor reported of an answer that it completed is the bill; what our engine or we
/// ourselves counted is true; everything else settles at the reservation, or at what was told if that is more.
pub(crate) fn outcome(info: &Info, settlement: &Settlement) -> Outcome {
    // No request has no tokens: a vendor that says so has said nothing.
    let usage = settlement.usage.as_ref().filter(|usage| {
        usage.source != UsageSource::Reported || usage.prompt_tokens > 0 || usage.completion_tokens > 0
    });
    let told = usage.map(|usage| (usage.source, tokens(usage)));
    let known = match (&settlement.ending, told) {
        (Ending::Cached, _) => Some((Source::Counted, Tokens::default())),
        (Ending::Answered | Ending::Refused(_), Some((UsageSource::Reported, tokens))) => {
            Some((Source::Reported, tokens))
        }
        (_, Some((UsageSource::Counted, tokens))) => Some((Source::Counted, tokens)),
        (Ending::Refused(_), _) => Some((Source::Counted, Tokens::default())),
        _ => None,
    };
    let bound = info.attempt.completion_tokens;
    let (source, tokens, unbounded) = match known {
        Some((source, tokens)) => (source, tokens, false),
        None => {
            let told = told.map_or(Tokens::default(), |(_, tokens)| tokens);
            // The estimate of a whole answer is an upper bound of its own; of a part of one it is none.
            let whole = settlement.ending == Ending::Answered
                && usage.is_some_and(|usage| usage.source == UsageSource::Estimated);
            let tokens = Tokens {
                prompt: told.prompt.max(info.attempt.prompt_tokens),
                completion: told.completion.max(bound.unwrap_or(0)),
                ..Tokens::default()
            };
            (Source::Estimated, tokens, bound.is_none() && !whole)
        }
    };
    let completion = (!unbounded).then_some(tokens.completion);
    let cost = match &info.pricing {
        Pricing::Known(price) if source == Source::Estimated => price.price.most(tokens.prompt, completion),
        Pricing::Known(price) => Some(price.price.cost(&tokens)),
        Pricing::Free => Some(0),
        Pricing::Unknown => (tokens.total() == 0 && !unbounded).then_some(0),
    };
    Outcome {
        source,
        tokens,
        unbounded,
        over_reserved: tokens.prompt > info.attempt.prompt_tokens
            || bound.is_some_and(|bound| tokens.completion > bound),
        cost,
        unknown_price: info.unknown_price() && cost.is_none(),
    }
}

fn tokens(usage: &Usage) -> Tokens {
    Tokens {
        prompt: usage.prompt_tokens.into(),
        cached: usage.cached_tokens.into(),
        cache_written: usage.cache_written_tokens.into(),
        completion: usage.completion_tokens.into(),
        reasoning: usage.reasoning_tokens.into(),
    }
}

/// A record to be written.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) info: Arc<Info>,
    /// Milliseconds since 1970.
    pub(crate) ended: i64,
    pub(crate) ending: &'static str,
    pub(crate) error: Option<&'static str>,
    pub(crate) outcome: Outcome,
    pub(crate) vendor_request: Option<String>,
    /// Milliseconds from the beginning.
    pub(crate) first_event: Option<i64>,
}

impl Record {
    pub(crate) fn new(info: Arc<Info>, ended: i64, settlement: Settlement, outcome: Outcome) -> Self {
        let (ending, error) = match &settlement.ending {
            Ending::Answered => ("answered", None),
            Ending::Refused(kind) => ("refused", Some(kind.code())),
            Ending::Failed(kind) => ("failed", Some(kind.code())),
            Ending::Dropped => ("dropped", None),
            Ending::Cached => ("cached", None),
        };
        Self {
            info,
            ended,
            ending,
            error,
            outcome,
            vendor_request: settlement.vendor_request_id,
            first_event: settlement
                .first_event
                .map(|time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use byzerllm_core::{ErrorKind, Principal, RequestId, Task};

    use super::super::money::Micros;
    use super::super::price::{NewPrice, Price};
    use super::*;

    pub(crate) fn info(completion: Option<u64>, priced: bool) -> Info {
        let price = NewPrice {
            vendor: "v".to_owned(),
            model: "m".to_owned(),
            currency: "USD".to_owned(),
            input: Micros(1_000_000),
            cached_input: Some(Micros(100_000)),
            cache_write: Some(Micros(1_250_000)),
            output: Micros(4_000_000),
            reasoning: None,
        };
        let attempt = Attempt {
            request: RequestId("r".to_owned()),
            principal: Principal::default(),
            deployment: "d".into(),
            vendor: "v",
            model: "m".into(),
            task: Task::Chat,
            number: 1,
            prompt_tokens: 100,
            completion_tokens: completion,
        };
        let pricing = match priced {
            true => Pricing::Known(Arc::new(Price { id: 7, price, since: 0 })),
            false => Pricing::Unknown,
        };
        Info { id: 1, begun: 0, attempt, pricing }
    }

    pub(crate) fn settlement(ending: Ending, source: Option<UsageSource>) -> Settlement {
        let usage = source.map(|source| Usage {
            prompt_tokens: 90,
            cached_tokens: 50,
            cache_written_tokens: 10,
            completion_tokens: 20,
            reasoning_tokens: 5,
            source,
        });
        Settlement { ending, usage, vendor_request_id: None, first_event: None }
    }

    #[test]
    fn every_ending_settles_by_the_rule() {
        use UsageSource::{Counted, Estimated, Reported, Unknown};
        let (failed, refused) =
            (Ending::Failed(ErrorKind::Upstream), Ending::Refused(ErrorKind::RateLimited));
        // 30 fresh, 50 cached, 10 written, 20 generated; the reservation is 100 at 1.25 and 50 at 4.
        let (bill, all) = (Some(30 + 5 + 13 + 80), Some(125 + 200));
        for (ending, told, source, cost) in [
            (Ending::Answered, Some(Reported), Source::Reported, bill),
            (Ending::Answered, Some(Counted), Source::Counted, bill),
            (Ending::Answered, Some(Estimated), Source::Estimated, all),
            (Ending::Answered, Some(Unknown), Source::Estimated, all),
            (Ending::Answered, None, Source::Estimated, all),
            (failed.clone(), Some(Reported), Source::Estimated, all),
            (failed.clone(), Some(Counted), Source::Counted, bill),
            (failed, None, Source::Estimated, all),
            (Ending::Dropped, Some(Reported), Source::Estimated, all),
            (Ending::Dropped, None, Source::Estimated, all),
            (refused.clone(), None, Source::Counted, Some(0)),
            (refused, Some(Reported), Source::Reported, bill),
            (Ending::Cached, Some(Reported), Source::Counted, Some(0)),
        ] {
            let outcome = outcome(&info(Some(50), true), &settlement(ending.clone(), told));
            assert_eq!((outcome.source, outcome.cost), (source, cost), "{ending:?} {told:?}");
            assert!(!outcome.unknown_price && !outcome.unbounded && !outcome.over_reserved);
        }
    }

    #[test]
    fn what_nobody_knows_is_flagged_and_not_zero() {
        let unpriced =
            outcome(&info(Some(50), false), &settlement(Ending::Answered, Some(UsageSource::Reported)));
        assert_eq!((unpriced.unknown_price, unpriced.cost, unpriced.tokens.prompt), (true, None, 90));
        let refused =
            outcome(&info(Some(50), false), &settlement(Ending::Refused(ErrorKind::Upstream), None));
        assert_eq!((refused.unknown_price, refused.cost), (false, Some(0)));
        let zero = Usage { source: UsageSource::Reported, ..Usage::default() };
        let zero = Settlement { usage: Some(zero), ..settlement(Ending::Answered, None) };
        let zero = outcome(&info(Some(50), true), &zero);
        assert_eq!((zero.source, zero.cost), (Source::Estimated, Some(125 + 200)));
        let unbounded = outcome(&info(None, true), &settlement(Ending::Dropped, None));
        assert_eq!((unbounded.unbounded, unbounded.cost, unbounded.tokens.prompt), (true, None, 100));
        let whole = outcome(&info(None, true), &settlement(Ending::Answered, Some(UsageSource::Estimated)));
        assert_eq!((whole.unbounded, whole.cost), (false, Some(125 + 80)));
        let over = outcome(&info(Some(10), true), &settlement(Ending::Answered, Some(UsageSource::Reported)));
        assert_eq!((over.over_reserved, over.cost), (true, Some(128)));
    }
}
