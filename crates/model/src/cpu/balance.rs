//! Factors that even out the channels of keys before these are rounded to bytes.
//!
//! The biases of some key projections (Qwen2's) make a few channels hundreds of times larger than the others. A
//! product of query and key stays the same when a channel of one is divided and of the other multiplied, so half of
//! that difference (its square root) moves to the queries. Only weights are needed for it, no sample of text (the idea:
//! Xiao et al., SmoothQuant, 2022; on the pairs of rotary channels, which must keep one factor, as in KVQuant, 2024).

use byzerllm_kernels::{KernelError, RopeKind, dequantize};

use crate::config::{LayerConfig, PositionEncoding};
use crate::decoder_weights::{LayerWeights, LinearWeights};

/// One factor per key head and channel: keys are divided by it, queries multiplied. Powers of two, so that neither
/// rounds.
pub(super) fn key_balance(config: &LayerConfig, weights: &LayerWeights<'_>) -> Result<Vec<f32>, KernelError> {
    let attention = &config.attention;
    let (dim, width) = (attention.head_dim, attention.kv_heads * attention.head_dim);
    let sizes = match &weights.key_norm {
        Some(norm) if norm.weight.len() == dim => norm.weight.iter().copied().cycle().take(width).collect(),
        _ => {
            let inputs = weights.attention_norm.as_ref().map(|norm| norm.weight.as_slice());
            row_sizes(&weights.qkv, attention.heads * dim, width, inputs)?
        }
    };
    let mut factors = vec![1.0; width];
    for (sizes, factors) in sizes.chunks_exact(dim).zip(factors.chunks_exact_mut(dim)) {
        for (channel, factor) in factors.iter_mut().enumerate() {
            let partner = partner(config, channel);
            let own = sizes[channel];
            let size = if partner == channel { own.abs() } else { own.hypot(sizes[partner]) };
            if size.is_finite() && size > 0.0 {
                *factor = size.sqrt().log2().round().clamp(-30.0, 30.0).exp2();
            }
        }
    }
    Ok(factors)
}

/// The channel of a head that the rotary embedding mixes with this one; itself when none.
fn partner(config: &LayerConfig, channel: usize) -> usize {
    let PositionEncoding::Rope(rope) = &config.attention.position else { return channel };
    // With two axes each half of the head is rotated like a head.
    let part = if rope.two_dimensional { config.attention.head_dim / 2 } else { config.attention.head_dim };
    let (start, inside) = (channel / part * part, channel % part);
    if inside >= rope.rotary_dim {
        return channel;
    }
    start
        + match rope.kind {
            RopeKind::Half => (inside + rope.rotary_dim / 2) % rope.rotary_dim,
            RopeKind::Interleaved => inside ^ 1,
        }
}

/// About how large each of `count` outputs from `first` on becomes: its bias and the length of its row.
fn row_sizes(
    linear: &LinearWeights<'_>,
    first: usize,
    count: usize,
    inputs: Option<&[f32]>,
) -> Result<Vec<f32>, KernelError> {
    let mut sizes = Vec::with_capacity(count);
    let mut start = 0;
    for part in &linear.parts {
        let wanted = first.max(start)..(first + count).min(start + part.rows);
        if !wanted.is_empty() {
            let data = part.merged()?;
            let bytes = data.len() / part.rows.max(1);
            let mut row = vec![0.0; part.columns];
            for index in wanted {
                let at = (index - start) * bytes;
                dequantize(part.packed_kind(), data.get(at..at + bytes).unwrap_or(&[]), &mut row)?;
                let squares = row.iter().enumerate().map(|(column, weight)| {
                    let input = inputs.and_then(|inputs| inputs.get(column)).copied().unwrap_or(1.0);
                    (weight * input).powi(2)
                });
                let bias = linear.bias.as_ref().and_then(|bias| bias.get(index)).copied().unwrap_or(0.0);
                sizes.push(bias.abs() + squares.sum::<f32>().sqrt());
            }
        }
        start += part.rows;
    }
    sizes.resize(count, 0.0);
    Ok(sizes)
}
