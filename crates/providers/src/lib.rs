//! Models behind an HTTP API of somebody else: SaaS vendors, and every server that speaks OpenAI's dialect.
//!
//! A [`Vendor`] names its parameters and opens a [`Dialect`], which is pure translation: a request becomes an
//! [`Outbound`] message, what comes back becomes [`Delta`]s. [`ProviderModel`] owns everything else, once for all vendors:
//! connections, time limits, retries, redaction, accounting, and the contract of the event stream.
//!
//! ```text
//! ChatRequest ─► Dialect::chat ─► Outbound ─► transport ─► Frame ─► Decode::frame ─► Delta ─► ProviderModel ─► Event
//! ```
//!
//! To add a vendor: a file in `vendors` and a line in [`VENDORS`]. Most are OpenAI's dialect with other
//! [`dialects::openai::Quirks`].

mod answer;
mod assembly;
mod deployment;
mod dialect;
pub mod dialects;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod metrics;
mod model;
mod parameters;
mod redact;
pub mod refusal;
mod secret;
mod transport;
mod vectors;
mod vendor;
pub mod vendors;

pub use dialect::{Decode, Delta, Dialect, Features, Frame, Framing, Outbound, Signing, TokenRequest};
pub use metrics::{BreakerState, ProviderMetrics};
pub use model::ProviderModel;
pub use parameters::{Kind, Parameter, Parameters, all as all_parameters, lookup as find_parameter};
pub use secret::Secret;
pub use vendor::{VENDORS, Vendor, find};
