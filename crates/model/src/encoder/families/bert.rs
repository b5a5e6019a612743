//! BERT (arXiv:1810.04805) and what is BERT with other weights: MiniLM, BGE, M3E, E5, GTE, ms-marco cross-encoders.

use super::names::{self, FieldNames, Names, Shape};
use super::{EncoderFamily, gguf};
use crate::arch::shape::epsilon;
use crate::arch::source::Source;
use crate::encoder::{EncoderConfig, EncoderWeights, HeadActivation, Task};
use crate::load_error::LoadResult;

pub(super) static BERT: EncoderFamily = EncoderFamily {
    title: "BERT",
    models: "MiniLM, BGE, M3E, E5, GTE, ms-marco cross-encoders",
    embed: &["BertModel", "BertForMaskedLM", "BertForPreTraining"],
    rerank: &["BertForSequenceClassification"],
    gguf: &["bert"],
    old_types: &["custom/bge", "custom/m3e"],
    proof: "tiny random checkpoints against transformers; all-MiniLM-L6-v2, bge-small-en and ms-marco-MiniLM-L-12 \
            against their published weights",
    config: |source, task| match source.is_gguf() {
        true => gguf::config(source, task),
        false => config(source, task, Offset::None, HeadActivation::Tanh, "classifier"),
    },
    weights: |config, source| match source.is_gguf() {
        true => gguf::weights(config, source),
        false => weights(config, source, &["", "bert."], ["bert.pooler.dense", "classifier"]),
    },
};

pub(super) const TENSORS: Names = Names {
    words: "embeddings.word_embeddings.weight",
    positions: "embeddings.position_embeddings.weight",
    token_types: "embeddings.token_type_embeddings.weight",
    embedding_norm: "embeddings.LayerNorm",
    layer: "encoder.layer",
    qkv: ["attention.self.query", "attention.self.key", "attention.self.value"],
    out: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    gate: "",
    up: "intermediate.dense",
    down: "output.dense",
    output_norm: "output.LayerNorm",
};

const FIELDS: FieldNames = FieldNames {
    hidden: "hidden_size",
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    intermediate: "intermediate_size",
};

/// The row of the first token in the table of positions.
#[derive(Debug, Clone, Copy)]
pub(super) enum Offset {
    /// The first one.
    None,
    /// The one after the padding token's.
    AfterPadding,
}

/// The configuration of a `config.json` in BERT's words; `output` is the last layer of a classifier.
pub(super) fn config(
    source: &Source,
    task: Task,
    offset: Offset,
    activation: HeadActivation,
    output: &str,
) -> LoadResult<EncoderConfig> {
    let fields = source.fields();
    let prefix = names::prefix(source, &["", "bert.", "roberta."], TENSORS.words);
    let shape = Shape::read(source, &FIELDS, &format!("{prefix}{}", TENSORS.words))?;
    if let Some(kind) = fields.text("position_embedding_type")?
        && kind != "absolute"
    {
        let problem = format!("{kind:?} is not supported; supported is \"absolute\"");
        return Err(fields.unsupported("position_embedding_type", problem));
    }
    if fields.flag("is_decoder", false)? {
        return Err(fields.unsupported("is_decoder", "a decoder of this family is not supported"));
    }
    let rows = fields.positive("max_position_embeddings")?;
    let offset = match offset {
        Offset::None => 0,
        Offset::AfterPadding => fields.number("pad_token_id")?.unwrap_or(1) + 1,
    };
    let (positions, max_length) = names::learned_positions(&fields, "max_position_embeddings", rows, offset)?;
    let head = match task {
        Task::Rerank => names::classifier_head(source, shape.hidden, activation, output)?,
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
        activation: names::activation(&fields, "hidden_act")?,
        gated: false,
        norm_epsilon: epsilon(&fields, "layer_norm_eps", 1e-12)?,
        positions,
        token_types: names::token_types(&fields, "type_vocab_size", 2)?,
        max_length,
        head,
    })
}

/// The tensors in BERT's names; `head` names the two layers of a classifier.
pub(super) fn weights<'a>(
    config: &EncoderConfig,
    source: &'a Source,
    prefixes: &[&'static str],
    head: [&str; 2],
) -> LoadResult<EncoderWeights<'a>> {
    let prefix = names::prefix(source, prefixes, TENSORS.words);
    let mut weights = names::weights(config, source, &TENSORS, prefix, true)?;
    if config.task == Task::Rerank {
        weights.dense = names::classifier_weights(config, source, head)?;
    }
    Ok(weights)
}
