//! What an engine may use, and how its cache is divided into blocks.

use byzerllm_model::NetworkTraits;

use crate::error::EngineError;

/// Limits of one engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Tokens that one step computes at most.
    pub max_batch_tokens: usize,
    /// Sequences that run at once; every choice of a request is one.
    pub max_sequences: usize,
    /// Requests that wait beyond those that run; more are refused.
    pub queue_limit: usize,
    /// Memory for keys and values.
    pub cache_bytes: u64,
    /// Caps the model's own context length.
    pub context_length: Option<u32>,
    /// Whether requests with the same beginning share its blocks.
    pub prefix_cache: bool,
    /// Keys the hashes of shared prefixes; random per deployment.
    pub hash_key: [u8; 32],
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            max_batch_tokens: 512,
            max_sequences: 256,
            queue_limit: 1024,
            cache_bytes: 1 << 30,
            context_length: None,
            prefix_cache: true,
            hash_key: random(),
        }
    }
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(clippy::expect_used, reason = "an operating system without randomness cannot run a server")]
    getrandom::fill(&mut bytes).expect("invariant: the operating system has randomness");
    bytes
}

/// Limits after they were checked against a network.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) context_length: usize,
    pub(crate) max_sequences: usize,
    pub(crate) max_batch_tokens: usize,
    /// Rows of logits that one step returns at most, beside those of running sequences.
    pub(crate) max_rows: usize,
    /// Blocks per cache group.
    pub(crate) blocks: Vec<usize>,
}

/// Logits that a step may ask for at most: the rows of a prompt's log probabilities are as wide as the vocabulary.
const LOGITS_PER_STEP: usize = 16 << 20;

impl EngineOptions {
    pub(crate) fn limits(self, network: &NetworkTraits) -> Result<Limits, EngineError> {
        let cap = self.context_length.map_or(usize::MAX, |length| length as usize);
        let context_length = network.context_length.min(cap);
        if context_length < 2 {
            return Err(EngineError::ContextTooShort { context_length });
        }
        let max_sequences = self.max_sequences.max(1);
        // Every running sequence gets its token in every step.
        let max_batch_tokens = self.max_batch_tokens.max(max_sequences).max(1);
        let chunk = if network.chunkable_prefill { max_batch_tokens } else { context_length };
        let needed: Vec<usize> = network
            .cache_groups
            .iter()
            .map(|group| blocks_for_context(context_length, chunk, network.block_tokens, group.window))
            .collect();
        let blocks =
            divide(self.cache_bytes, &needed, &network.block_bytes, max_sequences).ok_or_else(|| {
                EngineError::CacheTooSmall {
                    given: self.cache_bytes,
                    needed: bytes(&needed, &network.block_bytes),
                    context_length,
                }
            })?;
        let max_rows = (LOGITS_PER_STEP / network.vocab_size.max(1)).clamp(1, max_batch_tokens);
        Ok(Limits { context_length, max_sequences, max_batch_tokens, max_rows, blocks })
    }
}

/// Blocks that a sequence of `tokens` tokens holds at most in a group. A window group holds the window before the
/// chunk in work, the chunk, and the rest of the blocks at both ends.
pub(crate) fn blocks_for_context(
    tokens: usize,
    chunk: usize,
    block_tokens: usize,
    window: Option<usize>,
) -> usize {
    let all = tokens.div_ceil(block_tokens);
    window.map_or(all, |window| all.min((window + chunk).div_ceil(block_tokens) + 1))
}

fn bytes(blocks: &[usize], block_bytes: &[u64]) -> u64 {
    blocks.iter().zip(block_bytes).map(|(&count, &size)| (count as u64).saturating_mul(size)).sum()
}

/// Every group gets the blocks of one whole context; what is left is divided into equal numbers of blocks, because
/// short sequences need as many blocks in a window group as in any other.
fn divide(budget: u64, needed: &[usize], block_bytes: &[u64], max_sequences: usize) -> Option<Vec<usize>> {
    let mut left = budget.checked_sub(bytes(needed, block_bytes))?;
    let mut blocks = needed.to_vec();
    let mut open: Vec<usize> = (0..needed.len()).filter(|&group| block_bytes[group] > 0).collect();
    while !open.is_empty() {
        let size: u64 = open.iter().map(|&group| block_bytes[group]).sum();
        // A group never needs more than a whole context for every sequence.
        let room = |group: usize| needed[group].saturating_mul(max_sequences) - blocks[group];
        let smallest = open.iter().map(|&group| room(group)).min().unwrap_or(0);
        let more = usize::try_from(left / size).unwrap_or(usize::MAX).min(smallest);
        let full: Vec<usize> = open.iter().copied().filter(|&group| room(group) > more).collect();
        for &group in &open {
            blocks[group] += more;
        }
        left -= more as u64 * size;
        if more < smallest {
            break;
        }
        open = full;
    }
    Some(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_divided_within_the_budget() {
        assert_eq!(divide(99, &[10], &[10], 4), None);
        assert_eq!(divide(100, &[10], &[10], 4), Some(vec![10]));
        assert_eq!(divide(155, &[10], &[10], 4), Some(vec![15]));
        assert_eq!(divide(100_000, &[10], &[10], 4), Some(vec![40]));
        // The window group is full at 8; the other takes what is left, up to its own cap.
        assert_eq!(divide(1000, &[10, 2], &[10, 10], 4), Some(vec![40, 8]));
        assert_eq!(divide(200, &[10, 2], &[10, 10], 4), Some(vec![14, 6]));
    }

    #[test]
    fn a_window_group_needs_its_window_and_a_chunk() {
        assert_eq!(blocks_for_context(1000, 8, 4, None), 250);
        assert_eq!(blocks_for_context(1000, 8, 4, Some(16)), 7);
        assert_eq!(blocks_for_context(10, 8, 4, Some(16)), 3);
    }
}
