//! The interface between the engine and a network, whatever computes it.

use byzerllm_core::{Error, ErrorKind, Result};

use crate::adapter::Adapter;
use crate::batch::{PackedBatch, Rows};
use crate::config::CacheGroup;
use crate::prefix::PromptContext;
use crate::work::WorkModel;

/// An adapter's slot in a network, for [`crate::SequenceInput::adapter`]. Slots are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdapterId(pub u32);

/// What the scheduler must know of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkTraits {
    /// Width of a logits row.
    pub vocab_size: usize,
    /// Width of a hidden row.
    pub hidden_size: usize,
    /// Tokens that fit into one sequence.
    pub context_length: usize,
    /// Numbers per token in [`PackedBatch::positions`].
    pub position_width: usize,
    /// The cache groups, each with its own block table.
    pub cache_groups: Vec<CacheGroup>,
    /// Whether a prompt may be computed in several steps.
    pub chunkable_prefill: bool,
    /// Whether two sequences with the same beginning may share its cache blocks.
    pub shareable_prefix: bool,
    /// Bytes of weights in memory.
    pub weight_bytes: u64,
    /// Bytes of one cache block, over all layers of each group, in the order of `cache_groups`.
    pub block_bytes: Vec<u64>,
    /// Tokens per cache block.
    pub block_tokens: usize,
    /// The compute path in words.
    pub compute: String,
}

/// A network with its key/value cache.
///
/// A returned row is bitwise independent of the other rows of its batch, of how a prompt was cut into steps and of
/// which blocks hold its cache.
pub trait Network: Send {
    /// What the scheduler must know.
    fn traits(&self) -> &NetworkTraits;

    /// For a network that reads the beginning of a prompt in both directions, where that beginning ends: it says
    /// which mask and which positions the sequence has. `None` when prompts are causal from the start.
    fn prompt_context(&self, _prompt: &[u32]) -> Option<PromptContext> {
        None
    }

    /// How much work its steps are, for measurements; `None` when nobody counted.
    fn work(&self) -> Option<WorkModel> {
        None
    }

    /// Allocates the cache: `blocks[g]` blocks for group `g`. Called once before the first step.
    ///
    /// # Errors
    /// When the memory cannot be had.
    fn allocate_cache(&mut self, blocks: &[usize]) -> Result<()>;

    /// Copies one block of a group onto another (a shared block that is about to be written).
    fn copy_block(&mut self, group: usize, from: u32, to: u32);

    /// Takes an adapter, between two steps.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when this network has none.
    fn load_adapter(&mut self, adapter: Adapter) -> Result<AdapterId> {
        let message = format!("this network takes no adapters: {}", adapter.path().display());
        Err(Error::new(ErrorKind::Unsupported, message))
    }

    /// Frees an adapter's memory. Whether it was there. No sequence may name it afterwards.
    fn unload_adapter(&mut self, _id: AdapterId) -> bool {
        false
    }

    /// Computes one step: writes the new keys and values and returns the selected rows.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::Internal`] when the batch is not well formed,
    /// [`byzerllm_core::ErrorKind::Unsupported`] for a feature that this network lacks.
    fn forward(&mut self, batch: &PackedBatch<'_>) -> Result<Rows<'_>>;
}
