//! What an encoder may use, and what its checkpoint says beside the network.

use byzerllm_model::encoder::EncoderTokenizer;

/// Limits of one encoder.
#[derive(Debug, Clone)]
pub struct EncoderOptions {
    /// Tokens that one step computes at most; a longer text is a step of its own. The products of a step are as fast
    /// as they get from some hundred tokens on, and a step bounds how long a new request waits.
    pub max_batch_tokens: usize,
    /// Requests in the queue at most; more are refused.
    pub queue_limit: usize,
    /// Tokens in the queue at most, unless it is empty; more are refused.
    pub queue_tokens: usize,
    /// Inputs of one request at most.
    pub max_inputs: usize,
    /// Caps the model's own longest input.
    pub max_length: Option<u32>,
}

impl Default for EncoderOptions {
    fn default() -> Self {
        Self {
            max_batch_tokens: 1024,
            queue_limit: 1024,
            queue_tokens: 16 << 20,
            max_inputs: 1 << 16,
            max_length: None,
        }
    }
}

/// To which lengths a model's vectors may be cut: Matryoshka representations (arXiv:2205.13147).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Matryoshka {
    /// To none: the model was not trained for it.
    #[default]
    None,
    /// To any.
    Any,
    /// To one of these.
    Lengths(Vec<u32>),
}

/// What an encoder needs besides its network.
#[derive(Debug, Clone)]
pub struct EncoderText {
    /// Text to ids.
    pub tokenizer: EncoderTokenizer,
    /// The deployment's name, for messages.
    pub name: String,
    /// Whether the network's vectors have unit length.
    pub normalized: bool,
    /// To which lengths vectors may be cut.
    pub matryoshka: Matryoshka,
}
