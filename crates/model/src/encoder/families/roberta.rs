//! RoBERTa (arXiv:1907.11692) and XLM-RoBERTa: BERT whose positions begin behind the padding token's, with a head of
//! its own (bge-m3, bge-reranker, multilingual E5).

use super::EncoderFamily;
use super::bert::{self, Offset};
use crate::encoder::HeadActivation;

pub(super) static ROBERTA: EncoderFamily = EncoderFamily {
    title: "RoBERTa, XLM-RoBERTa",
    models: "bge-m3 (dense vectors), bge-reranker, multilingual E5, Camembert",
    embed: &[
        "XLMRobertaModel",
        "RobertaModel",
        "CamembertModel",
        "XLMRobertaForMaskedLM",
        "RobertaForMaskedLM",
        "CamembertForMaskedLM",
    ],
    rerank: &[
        "XLMRobertaForSequenceClassification",
        "RobertaForSequenceClassification",
        "CamembertForSequenceClassification",
    ],
    // Converters write these models as `bert`.
    gguf: &[],
    old_types: &["custom/bge_rerank"],
    proof: "tiny random checkpoints against transformers",
    config: |source, task| {
        bert::config(source, task, Offset::AfterPadding, HeadActivation::Tanh, "classifier.out_proj")
    },
    weights: |config, source| {
        bert::weights(config, source, &["", "roberta."], ["classifier.dense", "classifier.out_proj"])
    },
};
