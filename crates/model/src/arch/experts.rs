//! Mixtures of experts: the numbers in a configuration, and the layouts in which files keep the experts' matrices.

use super::fields::Fields;
use super::source::Source;
use crate::config::ExpertsConfig;
use crate::decoder_weights::{LinearWeights, MlpWeights};
use crate::load_error::LoadResult;

const MAX_EXPERTS: usize = 1024;

/// Reads how many experts there are and how many of them a token goes to.
pub(super) fn config(
    fields: &Fields<'_>,
    count: (&str, Option<usize>),
    per_token: (&str, Option<usize>),
    normalize: bool,
) -> LoadResult<ExpertsConfig> {
    let read = |(name, default): (&str, Option<usize>)| match default {
        Some(default) => fields.positive_or(name, default),
        None => fields.positive(name),
    };
    let config = ExpertsConfig { count: read(count)?, per_token: read(per_token)?, normalize };
    if config.count > MAX_EXPERTS {
        return Err(fields.malformed(count.0, format!("is {}, more than {MAX_EXPERTS}", config.count)));
    }
    if config.per_token > config.count {
        let problem = format!("is {}, but there are only {} experts", config.per_token, config.count);
        return Err(fields.malformed(per_token.0, problem));
    }
    Ok(config)
}

/// Where a layer keeps its experts.
enum Layout {
    /// Gate, up and down of each expert under its number: what stands before it and the three names after it.
    Numbered { before: [String; 3], after: [&'static str; 3] },
    /// One tensor with gates and ups of all experts, one with their downs.
    Fused { gate_up: String, down: String },
    /// One tensor each with all gates, ups and downs.
    Stacked { gate: String, up: String, down: String },
}

/// A layer's gated experts and the matrix that scores them.
pub(super) fn weights<'a>(
    source: &'a Source,
    layers: &str,
    index: usize,
    config: &ExpertsConfig,
    inner: usize,
    hidden: usize,
) -> LoadResult<(Vec<MlpWeights<'a>>, Option<LinearWeights<'a>>)> {
    let layer = format!("{layers}.{index}");
    let (router, layout) = if source.is_gguf() {
        (format!("{layer}.ffn_gate_inp"), gguf_layout(source, &layer))
    } else {
        // Mixtral's own files name the block after its first implementation.
        let old = format!("{layer}.block_sparse_moe");
        let block =
            if source.tensors.contains(&format!("{old}.gate.weight")) { old } else { format!("{layer}.mlp") };
        (format!("{block}.gate"), hugging_face_layout(source, &block))
    };
    let router = source.linear(&[(&router, config.count)], hidden, false)?;
    Ok((experts(source, &layout, config.count, inner, hidden)?, Some(router)))
}

fn hugging_face_layout(source: &Source, block: &str) -> Layout {
    let fused = format!("{block}.experts.gate_up_proj");
    if source.tensors.contains(&fused) {
        return Layout::Fused { gate_up: fused, down: format!("{block}.experts.down_proj") };
    }
    let before = format!("{block}.experts.");
    let mixtral = source.tensors.contains(&format!("{before}0.w1.weight"));
    let after = if mixtral { [".w1", ".w3", ".w2"] } else { [".gate_proj", ".up_proj", ".down_proj"] };
    Layout::Numbered { before: [before.clone(), before.clone(), before], after }
}

fn gguf_layout(source: &Source, layer: &str) -> Layout {
    let stack = |part: &str| format!("{layer}.ffn_{part}_exps.weight");
    if source.tensors.contains(&stack("gate_up")) {
        return Layout::Fused { gate_up: stack("gate_up"), down: stack("down") };
    }
    // Files of the first months have one tensor per expert.
    if source.tensors.contains(&format!("{layer}.ffn_gate.0.weight")) {
        let before = ["gate", "up", "down"].map(|part| format!("{layer}.ffn_{part}."));
        return Layout::Numbered { before, after: [""; 3] };
    }
    Layout::Stacked { gate: stack("gate"), up: stack("up"), down: stack("down") }
}

fn experts<'a>(
    source: &'a Source,
    layout: &Layout,
    count: usize,
    inner: usize,
    hidden: usize,
) -> LoadResult<Vec<MlpWeights<'a>>> {
    let plain = |parts| LinearWeights { parts, bias: None };
    Ok(match layout {
        Layout::Numbered { before, after } => {
            let mut experts = Vec::new();
            for expert in 0..count {
                let name = |part: usize| format!("{}{expert}{}", before[part], after[part]);
                let up = source.linear(&[(&name(0), inner), (&name(1), inner)], hidden, false)?;
                experts.push(MlpWeights { up, down: source.linear(&[(&name(2), hidden)], inner, false)? });
            }
            experts
        }
        Layout::Fused { gate_up, down } => {
            let ups = source.stack(gate_up, count, 2 * inner, hidden)?;
            let downs = source.stack(down, count, hidden, inner)?;
            let pairs = ups.into_iter().zip(downs);
            pairs.map(|(up, down)| MlpWeights { up: plain(vec![up]), down: plain(vec![down]) }).collect()
        }
        Layout::Stacked { gate, up, down } => {
            let gates = source.stack(gate, count, inner, hidden)?;
            let ups = source.stack(up, count, inner, hidden)?;
            let downs = source.stack(down, count, hidden, inner)?;
            let parts = gates.into_iter().zip(ups).zip(downs);
            parts
                .map(|((gate, up), down)| MlpWeights { up: plain(vec![gate, up]), down: plain(vec![down]) })
                .collect()
        }
    })
}
