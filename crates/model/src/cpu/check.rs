//! Checks of a batch before a step: a scheduler bug must end as an error, not as another request's text.

use byzerllm_core::{Error, ErrorKind, Result};

use super::adapters::Adapters;
use crate::batch::{FREED, PackedBatch, SequenceInput};
use crate::network::NetworkTraits;

pub(super) fn batch(
    batch: &PackedBatch<'_>,
    traits: &NetworkTraits,
    blocks: &[usize],
    adapters: &Adapters,
) -> Result<()> {
    let tokens = batch.ids.len();
    if blocks.len() != traits.cache_groups.len() {
        return Err(bug("the cache was not allocated"));
    }
    if batch.positions.len() != tokens * traits.position_width {
        return Err(bug("positions do not match the tokens"));
    }
    if batch.ids.iter().any(|&id| id as usize >= traits.vocab_size) {
        return Err(Error::new(ErrorKind::InvalidRequest, "a token id lies outside the model's vocabulary"));
    }
    if batch.rows.iter().any(|&row| row as usize >= tokens) {
        return Err(bug("a selected row lies outside the batch"));
    }
    if let Some(embeddings) = &batch.embeddings {
        let ascending = embeddings.rows.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = embeddings.rows.last().is_none_or(|&row| (row as usize) < tokens);
        if !ascending || !inside || embeddings.values.len() != embeddings.rows.len() * traits.hidden_size {
            return Err(bug("input embeddings do not match the tokens"));
        }
    }
    let mut next = 0;
    for input in batch.sequences {
        if input.start != next || input.count == 0 {
            return Err(bug("the sequences do not cover the batch"));
        }
        next += input.count;
        if input.adapter.is_some_and(|slot| !adapters.contains(slot)) {
            return Err(bug("an adapter is not loaded"));
        }
        sequence(input, traits, blocks)?;
    }
    if next == tokens { Ok(()) } else { Err(bug("the sequences do not cover the batch")) }
}

fn sequence(input: &SequenceInput<'_>, traits: &NetworkTraits, blocks: &[usize]) -> Result<()> {
    if input.cross_cache.is_some() {
        let message = "this network has no cross-attention";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let length = input.past + input.count;
    if length > traits.context_length {
        return Err(bug("a sequence is longer than the context"));
    }
    if input.block_tables.len() != traits.cache_groups.len() {
        return Err(bug("a block table is missing"));
    }
    for ((table, group), &allocated) in input.block_tables.iter().zip(&traits.cache_groups).zip(blocks) {
        let needed = length.div_ceil(traits.block_tokens);
        // The oldest place that the first row of this step can see.
        let visible = group.window.map_or(0, |window| (input.past + 1).saturating_sub(window));
        let first = visible / traits.block_tokens;
        let valid = |block: u32| block != FREED && (block as usize) < allocated;
        if table.len() < needed || !table[first..needed].iter().all(|&block| valid(block)) {
            return Err(bug("a block table lacks a block that the step needs"));
        }
    }
    Ok(())
}

fn bug(message: &'static str) -> Error {
    Error::internal(format!("malformed batch: {message}; please report this"))
}
