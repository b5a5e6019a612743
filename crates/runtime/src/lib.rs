//! Deployments, admission and state: the one object that every front end holds.
//!
//! [`Runtime`] maps names to running models. It loads what a [`DeploymentSpec`] describes, keeps specs across
//! restarts, fills in generation defaults and limits how many requests a deployment takes at once. It knows no HTTP.

mod adapters;
mod admission;
mod answers;
mod deployment;
mod encoders;
mod inspect;
mod keys;
mod ledger;
mod lifecycle;
mod limits;
mod loader;
mod local;
mod lock;
mod memory;
mod metrics;
mod provider;
mod routing;
mod runtime;
mod secrets;
mod settings;
mod size;
mod spec;
mod store;
pub mod testing;
mod traces;
mod whole;

pub use adapters::{AdapterInfo, split_model};
pub use byzerllm_engine::{AdapterStatus, EngineMetrics};
pub use byzerllm_kernels::{Compute, ComputePool};
pub use byzerllm_model::Quantization;
pub use byzerllm_providers::{BreakerState, ProviderMetrics};
pub use deployment::{DeploymentState, DeploymentStatus, EffectiveValue, effective_values};
pub use inspect::{Inspection, MemoryReport, TensorSummary, TypeSummary, inspect};
pub use keys::{KeyGrant, KeyInfo, KeyRefusal, Keys, NewKey, Scope, Scopes};
pub use ledger::{
    Budget, BudgetLimit, Flagged, Ledger, LedgerMetrics, Micros, NewBudget, NewPrice, Period, Price, Subject,
    Tokens, TokensBySource, UsageBy, UsageReport, UsageRow,
};
pub use loader::{LoadContext, LoadedModel, Loader, MemoryNeed, Worker};
pub use local::LocalLoader;
pub use memory::available_memory;
pub use metrics::{DeploymentMetrics, Histogram, RouteMetrics};
pub use provider::ProviderSpec;
pub use routing::{AfterFirst, Fallback, RouteSpec, Target};
pub use runtime::{Runtime, RuntimeOptions};
pub use secrets::SecretText;
pub use size::{format_bytes, parse_bytes};
pub use spec::{DeploymentSpec, Limits, Source};
pub use traces::TRACES;
