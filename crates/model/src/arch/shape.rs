//! Checks that all families share: how many layers, heads and rows a configuration may ask for.

use byzerllm_kernels::Activation;

use super::fields::Fields;
use super::source::Source;
use crate::config::{AttentionConfig, PositionEncoding};
use crate::load_error::LoadResult;

const MAX_LAYERS: usize = 1024;
const MAX_HEADS: usize = 1024;
const MAX_HEAD_DIM: usize = 1024;

/// The numbers that every decoder has, under the names that its format uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    pub(crate) vocab: &'static str,
    pub(crate) hidden: &'static str,
    pub(crate) layers: &'static str,
    pub(crate) heads: &'static str,
    pub(crate) kv_heads: &'static str,
    pub(crate) head_dim: &'static str,
}

/// Names in `config.json`.
pub(crate) const HUGGING_FACE: Names = Names {
    vocab: "vocab_size",
    hidden: "hidden_size",
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    kv_heads: "num_key_value_heads",
    head_dim: "head_dim",
};

/// Names in GGUF metadata.
pub(crate) const GGUF: Names = Names {
    vocab: "vocab_size",
    hidden: "embedding_length",
    layers: "block_count",
    heads: "attention.head_count",
    kv_heads: "attention.head_count_kv",
    head_dim: "attention.key_length",
};

/// The numbers, checked against each other and against the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) vocab: usize,
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
}

impl Shape {
    /// Reads the shape of a decoder with `embedding` as its table of tokens.
    pub(crate) fn read(
        source: &Source,
        names: &Names,
        embedding: &str,
        kv_default: Option<usize>,
    ) -> LoadResult<Self> {
        let fields = source.fields();
        let hidden = fields.positive(names.hidden)?;
        // The table comes first: it ties the width to the size of the file before anything is allocated by it.
        let vocab = vocabulary(source, &fields, names.vocab, embedding, hidden)?;
        let layers = fields.positive(names.layers)?;
        let most = source.tensors.entries().len().min(MAX_LAYERS);
        if layers > most {
            let problem = format!("is {layers}, but the file has tensors for {most} layers at most");
            return Err(fields.malformed(names.layers, problem));
        }
        let heads = fields.positive(names.heads)?;
        if heads > MAX_HEADS {
            return Err(fields.malformed(names.heads, format!("is {heads}, more than {MAX_HEADS}")));
        }
        let kv_heads = fields.positive_or(names.kv_heads, kv_default.unwrap_or(heads))?;
        if !heads.is_multiple_of(kv_heads) {
            let problem = format!("is {kv_heads}, which does not divide the {heads} query heads");
            return Err(fields.malformed(names.kv_heads, problem));
        }
        let head_dim = match fields.positive_or_absent(names.head_dim)? {
            Some(head_dim) => head_dim,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                let problem = format!("is {hidden}, which the {heads} heads do not divide");
                return Err(fields.malformed(names.hidden, problem));
            }
        };
        if head_dim > MAX_HEAD_DIM {
            return Err(fields.malformed(names.head_dim, format!("is {head_dim}, more than {MAX_HEAD_DIM}")));
        }
        Ok(Self { vocab, hidden, layers, heads, kv_heads, head_dim })
    }

    /// The usual factor on the scores.
    pub(crate) fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Attention without peculiarities.
    pub(crate) fn attention(&self, position: PositionEncoding) -> AttentionConfig {
        AttentionConfig {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: self.scale(),
            window: None,
            position,
            head_norm: None,
            soft_cap: None,
        }
    }
}

/// Rows of the table of tokens: the configuration's, or in a GGUF file the table's own.
fn vocabulary(
    source: &Source,
    fields: &Fields<'_>,
    name: &str,
    embedding: &str,
    hidden: usize,
) -> LoadResult<usize> {
    let vocab = match fields.positive_or_absent(name)? {
        Some(vocab) => vocab,
        None if source.is_gguf() => {
            let table = source.tensors.get(embedding)?;
            table.and_then(|table| table.shape.first().copied()).unwrap_or(1)
        }
        None => return Err(fields.malformed(name, "is missing")),
    };
    source.tensors.require(embedding, &[vocab, hidden])?;
    Ok(vocab)
}

/// A small number under a root.
pub(crate) fn epsilon(fields: &Fields<'_>, name: &str, default: f32) -> LoadResult<f32> {
    let epsilon = fields.positive_float(name)?.unwrap_or(default);
    if epsilon >= 1.0 {
        return Err(fields.malformed(name, format!("must be below 1, is {epsilon}")));
    }
    Ok(epsilon)
}

/// The nonlinearity by the name that `transformers` gives it.
pub(crate) fn activation(fields: &Fields<'_>, name: &str, default: &str) -> LoadResult<Activation> {
    let value = fields.text(name)?.unwrap_or(default);
    Ok(match value {
        "silu" | "swish" => Activation::Silu,
        "gelu" | "gelu_python" => Activation::Gelu,
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_accurate" => Activation::GeluTanh,
        "relu" => Activation::Relu,
        other => return Err(fields.unsupported(name, format!("activation {other:?} is not supported"))),
    })
}
