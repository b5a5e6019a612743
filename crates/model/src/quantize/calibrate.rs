//! How much each column of a matrix matters: the mean square of what a forward pass over a text puts into it.

use std::collections::HashMap;

use super::error::QuantizeError;
use super::families::{Family, to_gguf};
use crate::checkpoint::Checkpoint;

/// Per matrix, one number per column. Matrices go by their names in GGUF files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Importance {
    columns: HashMap<String, Vec<f32>>,
    /// Tokens that were seen.
    pub tokens: usize,
}

impl Importance {
    /// The importance of a matrix' columns; `None` when it was not seen.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&[f32]> {
        self.columns.get(name).map(Vec::as_slice)
    }

    /// Sets the importance of a matrix' columns.
    pub fn set(&mut self, name: impl Into<String>, columns: Vec<f32>) {
        self.columns.insert(name.into(), columns);
    }
}
