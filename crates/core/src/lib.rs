//! The vocabulary of byzerllm: what a request, an event, a usage record and an error are.
//!
//! Every front end (HTTP, command line, Python) turns its input into these types, and every model, local or
//! remote, turns these types into an event stream. Nothing here knows HTTP, tensors, Python or a runtime.

mod accounting;
mod chat;
mod context;
mod embed;
mod error;
mod event;
mod generation;
mod model;
mod request;
mod rerank;
mod signature;
mod usage;
mod words;

pub mod testing;

pub use accounting::{Accounting, Attempt, Ending, Reservation, Settlement, Task};
pub use chat::{Message, Part, Role};
pub use context::{Domain, Principal, RequestContext, RequestId, Takeover};
pub use embed::{EmbeddingInput, EmbeddingModel, EmbeddingRequest, Embeddings};
pub use error::{Error, ErrorKind, Result};
pub use event::{
    ChatResponse, Choice, ErrorDetail, Event, EventStream, FinishReason, Notice, TokenLogprob, ToolCallDelta,
    collect,
};
pub use generation::{
    GenerationDefaults, LEGACY_DEFAULTS, OPENAI_DEFAULTS, Origin, Resolved, Sampling, resolve,
};
pub use model::{ChatModel, ModelHandle, ModelInfo, ModelSummary};
pub use request::{ChatRequest, FrontEnd, Input, ResponseFormat, Tool, ToolChoice};
pub use rerank::{RerankModel, RerankRequest, RerankScores, ScoreScale, TextPair};
pub use signature::{
    EXTRA_CONTENT, Signature, Signatures, THINKING_BLOCKS, ThinkingBlock, call_signature, extra_content,
};
pub use usage::{Usage, UsageHook, UsageSource};
pub use words::nearest;
