//! Bodies of the routes of usage, budgets and prices.

use byzerllm_runtime::NewPrice;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::Capped;

/// Prices to set, all or none.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "SetPricesRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct SetPricesBody {
    /// Each takes the place of the one for the same vendor and model.
    pub(crate) prices: Capped<NewPrice, { byzerllm_runtime::NewPrice::MAX_AT_ONCE }>,
}

/// The budget or price that is gone.
#[derive(Serialize, JsonSchema)]
pub(crate) struct RemoveAnswer {
    pub(crate) id: u64,
    pub(crate) removed: bool,
}
