//! What a caller must not ask for.

use byzerllm_core::{Error, ErrorKind, Result};
use byzerllm_kernels::KernelError;

use crate::encoder::{EncoderConfig, EncoderInput};

/// Refuses texts that the network cannot read.
pub(super) fn texts(texts: &[EncoderInput<'_>], config: &EncoderConfig) -> Result<()> {
    for (index, text) in texts.iter().enumerate() {
        let refuse =
            |what: String| Err(Error::new(ErrorKind::InvalidRequest, format!("text {index}: {what}")));
        let length = text.ids.len();
        if length == 0 {
            return refuse("it has no tokens, at least one is needed".to_owned());
        }
        if length > config.max_length {
            return refuse(format!(
                "it has {length} tokens, the model reads {} at most: shorten it or ask for truncation",
                config.max_length
            ));
        }
        if text.types.len() != length {
            return refuse(format!("it has {length} tokens but {} token types", text.types.len()));
        }
        if let Some(id) = text.ids.iter().find(|&&id| id as usize >= config.vocab_size) {
            return refuse(format!("token {id} does not exist, the vocabulary has {}", config.vocab_size));
        }
        // A family without token types takes zeros.
        let types = config.token_types.max(1);
        if let Some(kind) = text.types.iter().find(|&&kind| usize::from(kind) >= types) {
            return refuse(format!("token type {kind} does not exist, the model has {types}"));
        }
    }
    Ok(())
}

/// An error of the kernels at a step: they were given what does not fit together.
pub(super) fn internal(error: KernelError) -> Error {
    Error::new(ErrorKind::Internal, "the texts could not be encoded").with_source(error)
}
