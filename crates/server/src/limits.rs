//! Every limit of the gateway, in one place.
//!
//! What exceeds one is refused with a message that names the limit; nothing is cut silently. Limits on sampling
//! parameters (stop strings, alternatives per token) stand in [`byzerllm_core::Sampling`].

use std::time::Duration;

use byzerllm_core::Sampling;

/// The largest request body in bytes (413 beyond).
pub const BODY_BYTES: usize = 16 << 20;
/// Bytes of all request bodies held at once (503 with `Retry-After` beyond).
pub const BODY_MEMORY: usize = 512 << 20;
/// Bytes of a refused body that are read and thrown away so that the client sees the refusal.
pub const REFUSED_BODY_BYTES: usize = 256 << 20;
/// Choices per prompt (`n`).
pub const CHOICES: u32 = 128;
/// Prompts in one call of the completions route.
pub const PROMPTS: usize = 128;
/// Prompts times choices in one call.
pub const CHOICES_PER_CALL: usize = 256;
/// Prompts of one call that run at once.
pub const PROMPTS_AT_ONCE: usize = 32;
/// Messages of a conversation.
pub const MESSAGES: usize = 4096;
/// Text parts of one message.
pub const CONTENT_PARTS: usize = 1024;
/// Tool calls of one message.
pub const TOOL_CALLS: usize = 128;
/// Tools of a request.
pub const TOOLS: usize = 128;
/// The size of a tool's schema, about its bytes as JSON.
pub const TOOL_BYTES: usize = 64 << 10;
/// The size of a schema that an answer must obey, about its bytes as JSON.
pub const SCHEMA_BYTES: usize = 256 << 10;
/// Levels of a schema.
pub const SCHEMA_DEPTH: usize = 64;
/// Bytes of a regular expression or grammar.
pub const GRAMMAR_BYTES: usize = 64 << 10;
/// The size of the arguments of a call that a message tells, about its bytes as JSON.
pub const CALL_BYTES: usize = 4 << 20;
/// The size of one parameter of a vendor's own, about its bytes as JSON.
pub const EXTRA_BYTES: usize = 64 << 10;
/// Inputs in one call of the embeddings route.
pub const EMBEDDING_INPUTS: usize = 2048;
/// Documents of `/v1/rerank`, pairs of `/v1/score`.
pub const DOCUMENTS: usize = 2048;
/// Texts of `guided_choice`.
pub const GUIDED_CHOICES: usize = 1024;
/// Biased tokens.
pub const LOGIT_BIAS: usize = Sampling::MAX_LOGIT_BIAS;
/// Tokens in one call of `/detokenize`.
pub const TOKENS: usize = 1 << 20;
/// Stop strings.
pub const STOP: usize = Sampling::MAX_STOP;
/// Alternatives per token.
pub const TOP_LOGPROBS: u32 = Sampling::MAX_LOGPROBS;
/// Tokens that end a generation.
pub const STOP_TOKEN_IDS: usize = 256;
/// Entries of `metadata`.
pub const METADATA: usize = 64;
/// Bytes of an entry's name in the metadata that `/v1/responses` gives back.
pub const METADATA_NAME: usize = 64;
/// Bytes of an entry's text there.
pub const METADATA_TEXT: usize = 512;
/// The longest drain of an undeploy, in seconds.
pub const DRAIN_SECONDS: u64 = 3600;
/// Bytes of a request's head (431 beyond).
pub const HEAD_BYTES: usize = 64 << 10;
/// Header lines of a request (431 beyond).
pub const HEADERS: usize = 100;
/// Open connections, as far as the limit of open files allows. When there is no room, the connection that has been
/// without a request for longest makes place; while all have one, new ones wait in the operating system's queue.
pub const CONNECTIONS: usize = 8192;
/// Bytes that the operating system keeps for a client that does not read.
pub const SEND_BUFFER: u32 = 256 << 10;
/// How long an error message may become; values of the request that it quotes are cut.
pub const MESSAGE_BYTES: usize = 600;
/// Pause between comments that keep a silent stream alive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long `/readyz` waits for a sign of life of every model.
pub const READY: Duration = Duration::from_secs(5);
