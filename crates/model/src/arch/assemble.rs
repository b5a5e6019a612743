//! What nearly all decoders share: a configuration without peculiarities to start from, and weights found by a table
//! of names.

use super::shape::Shape;
use super::source::Source;
use crate::config::{
    DecoderConfig, HeadConfig, LayerConfig, MlpConfig, NormConfig, NormPlace, PositionEncoding, Residual,
};
use crate::decoder_weights::{DecoderWeights, LayerWeights, MlpWeights, NormWeights};
use crate::load_error::LoadResult;

/// A decoder of equal layers: full attention, norms before the blocks, blocks one after the other, no factors and no
/// caps. A family changes the fields that it knows better.
pub(super) fn decoder(
    shape: &Shape,
    context_length: usize,
    position: PositionEncoding,
    norm: NormConfig,
    mlp: MlpConfig,
    tied: bool,
) -> DecoderConfig {
    let layer = LayerConfig {
        attention: shape.attention(position),
        mlp,
        norm,
        norm_place: NormPlace::Before,
        residual: Residual::Serial,
        residual_scale: 1.0,
    };
    DecoderConfig {
        vocab_size: shape.vocab,
        hidden_size: shape.hidden,
        context_length,
        embedding_scale: 1.0,
        embedding_norm: None,
        learned_positions: None,
        prefix_context: None,
        layers: vec![layer; shape.layers],
        final_norm: norm,
        head: HeadConfig { tied, soft_cap: None, scale: 1.0, normalized: false },
    }
}

/// Which matrices have a bias.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bias {
    pub(super) qkv: bool,
    pub(super) out: bool,
    pub(super) mlp: bool,
}

/// Where a family keeps its tensors; names of matrices and norms are without their `.weight`.
#[derive(Debug, Clone, Copy)]
pub(super) struct TensorNames {
    /// With its whole name.
    pub(super) embedding: &'static str,
    /// A table of learned positions, with its whole name.
    pub(super) positions: Option<&'static str>,
    pub(super) final_norm: &'static str,
    pub(super) head: &'static str,
    /// Before the number of a layer.
    pub(super) layer: &'static str,
    pub(super) attention_norm: &'static str,
    pub(super) attention_post_norm: Option<&'static str>,
    /// Absent when the blocks share the first norm.
    pub(super) mlp_norm: Option<&'static str>,
    pub(super) mlp_post_norm: Option<&'static str>,
    /// Queries, keys and values, or one matrix with all of them in this order.
    pub(super) qkv: &'static [&'static str],
    /// Norms of queries and keys per head, used when the configuration has them.
    pub(super) head_norms: [&'static str; 2],
    pub(super) out: &'static str,
    /// Gate and up, one matrix with both in this order, or up alone.
    pub(super) up: &'static [&'static str],
    pub(super) down: &'static str,
}

/// Llama's names, which most families took over.
pub(super) const LLAMA_NAMES: TensorNames = TensorNames {
    embedding: "model.embed_tokens.weight",
    positions: None,
    final_norm: "model.norm",
    head: "lm_head",
    layer: "model.layers",
    attention_norm: "input_layernorm",
    attention_post_norm: None,
    mlp_norm: Some("post_attention_layernorm"),
    mlp_post_norm: None,
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    head_norms: ["self_attn.q_norm", "self_attn.k_norm"],
    out: "self_attn.o_proj",
    up: &["mlp.gate_proj", "mlp.up_proj"],
    down: "mlp.down_proj",
};

/// How the tensors behind the names are to be read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reading {
    pub(super) bias: Bias,
    /// Whether norms, those of heads too, have a bias.
    pub(super) norm_bias: bool,
    pub(super) head_bias: bool,
    /// The file holds `w` where the factor of a norm is `1 + w` (Gemma).
    pub(super) norms_less_one: bool,
    /// The layers' matrices are stored `(columns, rows)` (GPT-2).
    pub(super) transposed: bool,
}

impl Reading {
    /// A normalization layer.
    pub(super) fn norm(&self, source: &Source, name: &str, width: usize) -> LoadResult<NormWeights> {
        let mut norm = source.norm(name, width, self.norm_bias)?;
        if self.norms_less_one {
            norm.weight.iter_mut().for_each(|weight| *weight += 1.0);
        }
        Ok(norm)
    }
}

/// The tensors under these names.
pub(super) fn weights<'a>(
    config: &DecoderConfig,
    source: &'a Source,
    names: &TensorNames,
    reading: &Reading,
) -> LoadResult<DecoderWeights<'a>> {
    let mut layers = Vec::with_capacity(config.layers.len());
    for index in 0..config.layers.len() {
        layers.push(layer(config, index, source, names, reading)?);
    }
    let hidden = config.hidden_size;
    let head = match config.head.tied {
        true => None,
        false => Some(source.linear(&[(names.head, config.vocab_size)], hidden, reading.head_bias)?),
    };
    let positions = match names.positions.zip(config.learned_positions) {
        Some((name, rows)) => Some(source.table(name, rows, hidden)?),
        None => None,
    };
    Ok(DecoderWeights {
        embedding: source.table(names.embedding, config.vocab_size, hidden)?,
        positions,
        embedding_norm: None,
        layers,
        final_norm: reading.norm(source, names.final_norm, hidden)?,
        head,
    })
}

fn layer<'a>(
    config: &DecoderConfig,
    index: usize,
    source: &'a Source,
    names: &TensorNames,
    reading: &Reading,
) -> LoadResult<LayerWeights<'a>> {
    let layer = &config.layers[index];
    let hidden = config.hidden_size;
    let name = |part: &str| format!("{}.{index}.{part}", names.layer);
    let norm = |part: &str| reading.norm(source, &name(part), hidden);
    // First, so that a layer too many is named by its first tensor.
    let attention_norm = norm(names.attention_norm)?;
    let attention = &layer.attention;
    let (query, key) = (attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim);
    let head_norm = |part: &str| match attention.head_norm {
        Some(_) => reading.norm(source, &name(part), attention.head_dim).map(Some),
        None => Ok(None),
    };
    let inner = layer.mlp.intermediate_size;
    let stacked = |parts: &[&str], rows: &[usize], columns: usize, bias: bool| {
        let parts: Vec<String> = parts.iter().map(|part| name(part)).collect();
        let rows = match parts.len() {
            1 => vec![rows.iter().sum()],
            _ => rows.to_vec(),
        };
        let named: Vec<(&str, usize)> = parts.iter().map(String::as_str).zip(rows).collect();
        match reading.transposed {
            true => source.transposed(&named, columns, bias),
            false => source.linear(&named, columns, bias),
        }
    };
    let ups: &[usize] = if layer.mlp.gated { &[inner, inner] } else { &[inner] };
    let Reading { bias, .. } = reading;
    let (mlp, router) = match &layer.mlp.experts {
        Some(experts) => super::experts::weights(source, names.layer, index, experts, inner, hidden)?,
        None => {
            let up = stacked(names.up, ups, hidden, bias.mlp)?;
            let down = stacked(&[names.down], &[hidden], inner, bias.mlp)?;
            (vec![MlpWeights { up, down }], None)
        }
    };
    Ok(LayerWeights {
        attention_norm: Some(attention_norm),
        attention_post_norm: names.attention_post_norm.map(norm).transpose()?,
        mlp_norm: names.mlp_norm.map(norm).transpose()?,
        mlp_post_norm: names.mlp_post_norm.map(norm).transpose()?,
        qkv: stacked(names.qkv, &[query, key, key], hidden, bias.qkv)?,
        query_norm: head_norm(names.head_norms[0])?,
        key_norm: head_norm(names.head_norms[1])?,
        out: stacked(&[names.out], &[hidden], query, bias.out)?,
        mlp,
        router,
    })
}
