//! How much each column of a matrix matters: the mean square of what a forward pass over a text puts into it.

use std::collections::HashMap;
use std::sync::Arc;

use byzerllm_kernels::{Compute, ComputePool, Mask};

use super::error::QuantizeError;
use crate::batch::{Output, PackedBatch, SequenceInput};
use crate::checkpoint::Checkpoint;
use crate::cpu::CpuOptions;
use crate::network::Network;

/// Rows of logits that a step computes at most: each is as wide as the vocabulary.
const STEP: usize = 128;

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

impl Checkpoint {
    /// Computes texts in exact mode and takes the mean square of what goes into each matrix. Each window is a sequence of
    /// its own. `progress` is told the share that is done, from 0 to 1.
    ///
    /// # Errors
    /// When the network cannot be made, a window is longer than its context, or a step fails.
    pub fn calibrate(
        &self,
        windows: &[Vec<u32>],
        pool: &Arc<ComputePool>,
        progress: &dyn Fn(f32),
    ) -> Result<Importance, QuantizeError> {
        let failed = |error: byzerllm_core::Error| QuantizeError::Calibration(error.to_string());
        let mut network = self.decoder(pool, &CpuOptions::new(Compute::Exact), &|_| {})?;
        network.watch();
        let longest = windows.iter().map(Vec::len).max().unwrap_or(0);
        let traits = network.traits();
        if longest == 0 || longest > traits.context_length {
            let context = traits.context_length;
            let problem = format!("windows have {longest} tokens; the model's context has {context}");
            return Err(QuantizeError::Calibration(problem));
        }
        let (groups, block, width) = (traits.cache_groups.len(), traits.block_tokens, traits.position_width);
        network.allocate_cache(&vec![longest.div_ceil(block); groups]).map_err(failed)?;
        for (number, window) in windows.iter().enumerate() {
            for past in (0..window.len()).step_by(STEP) {
                let ids = &window[past..window.len().min(past + STEP)];
                let table: Vec<u32> = (0_u32..).take((past + ids.len()).div_ceil(block)).collect();
                let tables = vec![&table[..]; groups];
                let positions: Vec<u32> = (past as u32..)
                    .take(ids.len())
                    .flat_map(|position| std::iter::repeat_n(position, width))
                    .collect();
                let rows: Vec<u32> = (0..ids.len() as u32).collect();
                let sequence = SequenceInput {
                    start: 0,
                    count: ids.len(),
                    past,
                    block_tables: &tables,
                    mask: Mask::Causal,
                    adapter: None,
                    cross_cache: None,
                };
                let batch = PackedBatch {
                    ids,
                    embeddings: None,
                    positions: &positions,
                    sequences: &[sequence],
                    rows: &rows,
                    output: Output::Logits,
                };
                network.forward(&batch).map_err(failed)?;
            }
            progress((number + 1) as f32 / windows.len() as f32);
        }
        let tokens: usize = windows.iter().map(Vec::len).sum();
        let mut importance = Importance { tokens, ..Importance::default() };
        for (name, squares) in network.watched() {
            importance.set(name, squares.iter().map(|sum| (sum / tokens as f64) as f32).collect());
        }
        Ok(importance)
    }
}
