//! DistilBERT (arXiv:1910.01108): BERT without token types and without a pooler, under names of its own.

use super::EncoderFamily;
use super::names::{self, FieldNames, Names, Shape};
use crate::encoder::{EncoderConfig, HeadActivation, Task};

pub(super) static DISTILBERT: EncoderFamily = EncoderFamily {
    title: "DistilBERT",
    models: "multi-qa-distilbert, distiluse",
    embed: &["DistilBertModel", "DistilBertForMaskedLM"],
    rerank: &["DistilBertForSequenceClassification"],
    // Converters write these models as `bert`.
    gguf: &[],
    old_types: &[],
    proof: "tiny random checkpoints against transformers",
    config: |source, task| {
        let fields = source.fields();
        let shape = Shape::read(source, &FIELDS, &format!("{}{}", prefix(source), TENSORS.words))?;
        let rows = fields.positive("max_position_embeddings")?;
        let (positions, max_length) = names::learned_positions(&fields, "max_position_embeddings", rows, 0)?;
        let head = match task {
            Task::Rerank => names::classifier_head(source, shape.hidden, HeadActivation::Relu, "classifier")?,
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
            activation: names::activation(&fields, "activation")?,
            gated: false,
            norm_epsilon: 1e-12,
            positions,
            token_types: 0,
            max_length,
            head,
        })
    },
    weights: |config, source| {
        let mut weights = names::weights(config, source, &TENSORS, prefix(source), true)?;
        if config.task == Task::Rerank {
            weights.dense = names::classifier_weights(config, source, ["pre_classifier", "classifier"])?;
        }
        Ok(weights)
    },
};

fn prefix(source: &crate::arch::source::Source) -> &'static str {
    names::prefix(source, &["", "distilbert."], TENSORS.words)
}

const TENSORS: Names = Names {
    words: "embeddings.word_embeddings.weight",
    positions: "embeddings.position_embeddings.weight",
    token_types: "",
    embedding_norm: "embeddings.LayerNorm",
    layer: "transformer.layer",
    qkv: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    out: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    gate: "",
    up: "ffn.lin1",
    down: "ffn.lin2",
    output_norm: "output_layer_norm",
};

const FIELDS: FieldNames =
    FieldNames { hidden: "dim", layers: "n_layers", heads: "n_heads", intermediate: "hidden_dim" };
