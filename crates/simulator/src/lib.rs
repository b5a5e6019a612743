//! Vendors' APIs on this machine: each speaks its documented protocol, checks signatures, bills tokens and fails on demand.
//!
//! ```
//! use byzerllm_simulator::{Fault, Options, Simulator};
//!
//! let vendor = Simulator::start("openai", Options::default())?;
//! vendor.fault("429:2".parse::<Fault>()?);
//! // … requests to vendor.url() with vendor.credentials().api_key …
//! assert!(vendor.bill().is_empty());
//! # Ok::<(), byzerllm_core::Error>(())
//! ```
//!
//! It shares no code with the crate that calls vendors: both are read from the vendors' documents, so that a mistake in
//! one does not hide a mistake in the other. A request goes through these parts:
//!
//! ```text
//! socket ─► http ─► Protocol::read ─► Chat ─► model::answer ─► Protocol::answer ─► Frame ─► delivery (faults) ─► socket
//! ```

mod bill;
mod delivery;
mod desk;
mod fault;
mod http;
mod model;
mod protocol;
mod refusal;
mod schema;
mod server;
mod simulator;
mod tokens;
mod vendors;
mod websocket;

pub use bill::{Ending, Line, Task};
pub use fault::{Fault, RetryAfter};
pub use http::Request;
pub use model::{Finish, Script, ScriptUsage, TAIL};
pub use simulator::{Credentials, Options, Simulator};
pub use tokens::{Tokens, count};
pub use vendors::VENDORS;
