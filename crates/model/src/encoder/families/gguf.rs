//! Encoders in GGUF files as llama.cpp writes them: `bert` (BERT, XLM-RoBERTa, DistilBERT) and `nomic-bert`.

use byzerllm_kernels::{Activation, RopeKind};

use super::EncoderFamily;
use super::names::{self, FieldNames, Names, Shape};
use crate::arch::rope;
use crate::arch::shape::epsilon;
use crate::arch::source::Source;
use crate::encoder::{
    DenseConfig, EncoderConfig, EncoderHead, EncoderPositions, EncoderWeights, HeadActivation, Pooling, Task,
};
use crate::load_error::LoadResult;

pub(super) static NOMIC_BERT: EncoderFamily = EncoderFamily {
    title: "nomic-bert",
    models: "nomic-embed-text",
    embed: &[],
    rerank: &[],
    gguf: &["nomic-bert"],
    old_types: &[],
    proof: "a tiny random file against transformers",
    config: |source, task| {
        let fields = source.fields();
        let mut config = config(source, task)?;
        let context = fields.positive("context_length")?;
        let rope = rope::gguf(source, RopeKind::Half, config.head_dim, context)?;
        config.positions = EncoderPositions::Rope(rope);
        config.max_length = context;
        config.activation = Activation::Silu;
        config.gated = true;
        Ok(config)
    },
    weights,
};

const TENSORS: Names = Names {
    words: "token_embd.weight",
    positions: "position_embd.weight",
    token_types: "token_types.weight",
    embedding_norm: "token_embd_norm",
    layer: "blk",
    qkv: ["attn_q", "attn_k", "attn_v"],
    out: "attn_output",
    attention_norm: "attn_output_norm",
    gate: "ffn_gate",
    up: "ffn_up",
    down: "ffn_down",
    output_norm: "layer_output_norm",
};

const FIELDS: FieldNames = FieldNames {
    hidden: "embedding_length",
    layers: "block_count",
    heads: "attention.head_count",
    intermediate: "feed_forward_length",
};

/// A dense layer of a classifier before its labels.
const HEAD: &str = "cls";
/// A classifier's labels.
const LABELS: &str = "cls.output";

/// The configuration of a `bert` file. Its table of positions begins with the first token's row, whatever the family.
pub(super) fn config(source: &Source, task: Task) -> LoadResult<EncoderConfig> {
    let fields = source.fields();
    let shape = Shape::read(source, &FIELDS, TENSORS.words)?;
    let rows = match source.tensors.contains(TENSORS.positions) {
        true => names::rows(source, TENSORS.positions)?,
        false => fields.positive("context_length")?,
    };
    let (positions, max_length) = names::learned_positions(&fields, "context_length", rows, 0)?;
    let types = match source.tensors.contains(TENSORS.token_types) {
        true => names::rows(source, TENSORS.token_types)?,
        false => 0,
    };
    if types > 256 {
        return Err(fields.malformed(TENSORS.token_types, format!("has {types} rows, more than 256")));
    }
    let head = match task {
        Task::Rerank => classifier(source, shape.hidden)?,
        _ => names::embedding_head(),
    };
    Ok(EncoderConfig {
        task,
        vocab_size: shape.vocab,
        hidden_size: shape.hidden,
        layers: shape.layers,
        heads: shape.heads,
        head_dim: shape.head_dim,
        intermediate_size: shape.intermediate,
        activation: Activation::Gelu,
        gated: false,
        norm_epsilon: epsilon(&fields, "attention.layer_norm_epsilon", 1e-12)?,
        positions,
        token_types: types,
        max_length,
        head,
    })
}

/// The head of a classifier; converters of BERT leave its first layer out.
fn classifier(source: &Source, hidden: usize) -> LoadResult<EncoderHead> {
    let mut head = names::classifier_head(source, hidden, HeadActivation::Tanh, LABELS)?;
    if !source.tensors.contains(&format!("{HEAD}.weight")) {
        head.dense.remove(0);
    }
    Ok(head)
}

/// The tensors of a file of either family.
pub(super) fn weights<'a>(config: &EncoderConfig, source: &'a Source) -> LoadResult<EncoderWeights<'a>> {
    let fused = source.tensors.contains("blk.0.attn_qkv.weight");
    let names = match fused {
        true => Names { qkv: ["attn_qkv"; 3], ..TENSORS },
        false => TENSORS,
    };
    let bias = source.tensors.contains("blk.0.attn_output.bias");
    let mut weights = names::weights(config, source, &names, "", bias)?;
    if config.task == Task::Rerank {
        let layers = [HEAD, LABELS];
        let first = layers.len() - config.head.dense.len().min(layers.len());
        for (DenseConfig { inputs, outputs, .. }, name) in config.head.dense.iter().zip(&layers[first..]) {
            let bias = source.tensors.contains(&format!("{name}.bias"));
            weights.dense.push(source.linear(&[(name, *outputs)], *inputs, bias)?);
        }
    }
    Ok(weights)
}

/// The pooling of `pooling_type`, when the file has one.
pub(in crate::encoder) fn pooling(source: &Source) -> LoadResult<Option<Pooling>> {
    let fields = source.fields();
    Ok(match fields.number("pooling_type")? {
        None | Some(0) => None,
        Some(1) => Some(Pooling::Mean),
        Some(2 | RANK) => Some(Pooling::Cls),
        Some(3) => Some(Pooling::LastToken),
        Some(other) => {
            let problem = format!("is {other}; supported are 1 (mean), 2 (cls), 3 (last) and 4 (rank)");
            return Err(fields.unsupported("pooling_type", problem));
        }
    })
}

/// The pooling of classifiers.
pub(in crate::encoder) const RANK: usize = 4;
