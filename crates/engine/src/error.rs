//! What can go wrong in the engine, before it becomes the one error type at the border.

use byzerllm_core::{Error, ErrorKind};

/// An engine's own errors.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error(
        "the key/value cache of {given} bytes is too small: one context of {context_length} tokens needs {needed} \
         bytes; give the cache more memory or set a shorter context length"
    )]
    CacheTooSmall { given: u64, needed: u64, context_length: usize },
    #[error("a context length of {context_length} holds no prompt and answer; it must be at least 2")]
    ContextTooShort { context_length: usize },
    #[error("the network's cache layout is inconsistent: {0}")]
    Layout(&'static str),
    #[error("the engine's thread could not be started")]
    Thread(#[source] std::io::Error),
    #[error("{}", too_long(*prompt, *max_tokens, *context_length))]
    TooLong { prompt: usize, max_tokens: Option<u32>, context_length: usize },
    #[error("token {id} is outside the vocabulary of {vocab_size} tokens")]
    UnknownToken { id: u32, vocab_size: usize },
    #[error("the prompt is empty; give it at least one token")]
    EmptyPrompt,
    #[error("n must be 1 to {limit}, got {n}")]
    Choices { n: u32, limit: usize },
    #[error("best_of must be at least n = {n} and at most {limit}, got {best_of}")]
    BestOf { best_of: u32, n: u32, limit: usize },
    #[error("logit_bias names token {id}, which is outside the vocabulary of {vocab_size} tokens")]
    BiasedToken { id: u32, vocab_size: usize },
    #[error("min_tokens is {min_tokens}, above the {max_tokens} tokens that may be generated; lower it")]
    MinTokens { min_tokens: u32, max_tokens: u32 },
    #[error("the queue is full ({waiting} requests wait); try again later")]
    QueueFull { waiting: usize },
    #[error("model {name} has stopped; deploy it again")]
    Stopped { name: String },
    #[error(
        "the model {name} has no chat template; send the prompt as text or tokens, or deploy a checkpoint with a \
         chat template"
    )]
    NoTemplate { name: String },
    #[error("the deadline passed; allow more time or ask for fewer tokens")]
    Late,
    #[error("the adapter is being unloaded and takes no new requests")]
    AdapterGone,
}

fn too_long(prompt: usize, max_tokens: Option<u32>, context_length: usize) -> String {
    match max_tokens {
        Some(max_tokens) => {
            let sum = prompt + max_tokens as usize;
            format!(
                "the model's context holds {context_length} tokens, but the prompt has {prompt} and max_tokens asks \
                 for {max_tokens} more, together {sum}; shorten the prompt or lower max_tokens"
            )
        }
        None => format!(
            "the model's context holds {context_length} tokens, but the prompt has {prompt} and leaves no room for an \
             answer; shorten the prompt"
        ),
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::CacheTooSmall { .. } | EngineError::ContextTooShort { .. } => {
                Error::new(ErrorKind::InvalidRequest, message)
            }
            EngineError::Layout(_) => Error::internal(message),
            EngineError::Thread(source) => Error::internal(message).with_source(source),
            EngineError::TooLong { .. } => Error::new(ErrorKind::TooLarge, message),
            EngineError::UnknownToken { .. } | EngineError::EmptyPrompt => Error::invalid("prompt", message),
            EngineError::Choices { .. } => Error::invalid("n", message),
            EngineError::BestOf { .. } => Error::invalid("best_of", message),
            EngineError::BiasedToken { .. } => Error::invalid("logit_bias", message),
            EngineError::MinTokens { .. } => Error::invalid("min_tokens", message),
            EngineError::QueueFull { .. } => {
                Error::new(ErrorKind::Overloaded, message).with_retry_after(std::time::Duration::from_secs(1))
            }
            EngineError::Stopped { .. } => Error::new(ErrorKind::Unavailable, message),
            EngineError::NoTemplate { .. } => Error::new(ErrorKind::Unsupported, message),
            EngineError::Late => Error::new(ErrorKind::DeadlineExceeded, message),
            EngineError::AdapterGone => Error::new(ErrorKind::NotFound, message).with_param("model"),
        }
    }
}
