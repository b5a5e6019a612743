//! Sampling parameters that both generating routes check alike.

use byzerllm_core::{Error, Result};

use crate::limits;

/// `n`, 1 when absent.
pub(crate) fn choices(n: Option<u32>) -> Result<u32> {
    let n = n.unwrap_or(1);
    if !(1..=limits::CHOICES).contains(&n) {
        let max = limits::CHOICES;
        return Err(Error::invalid("n", format!("`n` must be 1 to {max}, got {n}")));
    }
    Ok(n)
}

/// `best_of`, at least `n`.
pub(crate) fn best_of(best_of: Option<u32>, n: u32) -> Result<Option<u32>> {
    match best_of {
        Some(best_of) if !(n..=limits::CHOICES).contains(&best_of) => {
            let max = limits::CHOICES;
            Err(Error::invalid("best_of", format!("`best_of` must be `n` ({n}) to {max}, got {best_of}")))
        }
        best_of => Ok(best_of),
    }
}

/// `top_k`; -1 and 0 both mean "all", as elsewhere.
pub(crate) fn top_k(value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None => Ok(None),
        Some(-1) => Ok(Some(0)),
        Some(value) => u32::try_from(value).map(Some).map_err(|_| {
            Error::invalid("top_k", format!("`top_k` must be -1, 0 or a positive integer, got {value}"))
        }),
    }
}

/// Alternatives per token under the name that the route gives the field.
pub(crate) fn alternatives(field: &'static str, value: u32) -> Result<u32> {
    if value > limits::TOP_LOGPROBS {
        let max = limits::TOP_LOGPROBS;
        return Err(Error::invalid(field, format!("`{field}` must be at most {max}, got {value}")));
    }
    Ok(value)
}
