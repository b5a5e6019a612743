//! The parts that encoders of `transformers` and of GGUF share: tensors by name, limits on sizes, a classifier's head.

use byzerllm_kernels::Activation;

use crate::arch::fields::Fields;
use crate::arch::source::Source;
use crate::decoder_weights::{LinearWeights, NormWeights};
use crate::encoder::{
    DenseConfig, EncoderConfig, EncoderHead, EncoderLayerWeights, EncoderPositions, EncoderWeights,
    HeadActivation, Pooling,
};
use crate::load_error::LoadResult;

const MAX_LAYERS: usize = 1024;
const MAX_HEADS: usize = 1024;
const MAX_HEAD_DIM: usize = 1024;
/// Labels of a classifier.
const MAX_LABELS: usize = 1 << 16;
/// Tokens of the longest input.
const MAX_LENGTH: usize = 1 << 20;
/// Token types are bytes.
const MAX_TYPES: usize = 256;

/// The names of an encoder's tensors. Layers' parts are relative to `layer` and the layer's number.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) words: &'static str,
    pub(super) positions: &'static str,
    pub(super) token_types: &'static str,
    pub(super) embedding_norm: &'static str,
    pub(super) layer: &'static str,
    pub(super) qkv: [&'static str; 3],
    pub(super) out: &'static str,
    pub(super) attention_norm: &'static str,
    pub(super) gate: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
    pub(super) output_norm: &'static str,
}

/// The names of the fields of a configuration.
#[derive(Debug)]
pub(super) struct FieldNames {
    pub(super) hidden: &'static str,
    pub(super) layers: &'static str,
    pub(super) heads: &'static str,
    pub(super) intermediate: &'static str,
}

/// The sizes that every encoder has, checked against each other and against the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) vocab: usize,
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    pub(super) intermediate: usize,
}

impl Shape {
    /// Reads the sizes of a network whose table of tokens is `words`.
    pub(super) fn read(source: &Source, names: &FieldNames, words: &str) -> LoadResult<Self> {
        let fields = source.fields();
        let hidden = fields.positive(names.hidden)?;
        let vocab = match fields.positive_or_absent("vocab_size")? {
            Some(vocab) if !source.is_gguf() => vocab,
            _ => rows(source, words)?,
        };
        // The table ties the width to the size of the file before anything is allocated by it.
        source.tensors.require(words, &[vocab, hidden])?;
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
        if !hidden.is_multiple_of(heads) {
            let problem = format!("is {hidden}, which the {heads} heads do not divide");
            return Err(fields.malformed(names.hidden, problem));
        }
        let head_dim = hidden / heads;
        if head_dim > MAX_HEAD_DIM {
            let problem = format!("is {heads}: heads of {head_dim} values are more than {MAX_HEAD_DIM}");
            return Err(fields.malformed(names.heads, problem));
        }
        let intermediate = fields.positive(names.intermediate)?;
        Ok(Self { vocab, hidden, layers, heads, head_dim, intermediate })
    }
}

/// The first dimension of a table.
pub(super) fn rows(source: &Source, name: &str) -> LoadResult<usize> {
    Ok(source.tensors.get(name)?.and_then(|table| table.shape.first().copied()).unwrap_or(1))
}

/// Rows of a learned table of positions, and how many of them texts can use from `offset` on.
pub(super) fn learned_positions(
    fields: &Fields<'_>,
    name: &str,
    rows: usize,
    offset: usize,
) -> LoadResult<(EncoderPositions, usize)> {
    match rows.checked_sub(offset) {
        Some(length) if (3..=MAX_LENGTH).contains(&length) => {
            Ok((EncoderPositions::Learned { rows, offset }, length))
        }
        _ => {
            let problem = format!("is {rows}, which leaves no usable length from position {offset} on");
            Err(fields.malformed(name, problem))
        }
    }
}

/// Rows of the table of token types.
pub(super) fn token_types(fields: &Fields<'_>, name: &str, default: usize) -> LoadResult<usize> {
    let types = fields.number(name)?.unwrap_or(default);
    if types > MAX_TYPES {
        return Err(fields.malformed(name, format!("is {types}, more than {MAX_TYPES}")));
    }
    Ok(types)
}

/// The head of an embedding model before other files were read.
pub(super) fn embedding_head() -> EncoderHead {
    EncoderHead { pooling: vec![Pooling::Mean], dense: Vec::new(), normalize: false }
}

/// The head of a classifier: the first token's state, a dense layer of the same width, the labels.
pub(super) fn classifier_head(
    source: &Source,
    hidden: usize,
    activation: HeadActivation,
    output: &str,
) -> LoadResult<EncoderHead> {
    let labels = rows(source, &format!("{output}.weight"))?;
    if labels > MAX_LABELS {
        let problem = format!("has {labels} labels, more than {MAX_LABELS}");
        return Err(source.fields().malformed(output, problem));
    }
    let dense = vec![
        DenseConfig { inputs: hidden, outputs: hidden, activation },
        DenseConfig { inputs: hidden, outputs: labels, activation: HeadActivation::Identity },
    ];
    Ok(EncoderHead { pooling: vec![Pooling::Cls], dense, normalize: false })
}

/// The dense layers of a classifier's head.
pub(super) fn classifier_weights<'a>(
    config: &EncoderConfig,
    source: &'a Source,
    names: [&str; 2],
) -> LoadResult<Vec<LinearWeights<'a>>> {
    config
        .head
        .dense
        .iter()
        .zip(names)
        .map(|(layer, name)| source.linear(&[(name, layer.outputs)], layer.inputs, true))
        .collect()
}

/// The nonlinearity of the feed-forward part.
pub(super) fn activation(fields: &Fields<'_>, name: &str) -> LoadResult<Activation> {
    crate::arch::shape::activation(fields, name, "gelu")
}

/// A normalization layer; files from before 2019 call its values `gamma` and `beta`.
fn norm(source: &Source, name: &str, width: usize) -> LoadResult<NormWeights> {
    if source.tensors.contains(&format!("{name}.gamma")) {
        let weight = source.vector(&format!("{name}.gamma"), width)?;
        let bias = Some(source.vector(&format!("{name}.beta"), width)?);
        return Ok(NormWeights { weight, bias });
    }
    source.norm(name, width, true)
}

/// The tensors of an encoder whose names begin with `prefix`, without those of its head.
pub(super) fn weights<'a>(
    config: &EncoderConfig,
    source: &'a Source,
    names: &Names,
    prefix: &str,
    bias: bool,
) -> LoadResult<EncoderWeights<'a>> {
    let hidden = config.hidden_size;
    let whole = |part: &str| format!("{prefix}{part}");
    let mut layers = Vec::with_capacity(config.layers);
    for index in 0..config.layers {
        let name = |part: &str| format!("{prefix}{}.{index}.{part}", names.layer);
        let width = config.heads * config.head_dim;
        let inner = config.intermediate_size;
        let [q, k, v] = names.qkv.map(name);
        let up = match config.gated {
            true => source.linear(&[(&name(names.gate), inner), (&name(names.up), inner)], hidden, bias)?,
            false => source.linear(&[(&name(names.up), inner)], hidden, bias)?,
        };
        // Some files stack queries, keys and values themselves, under the name of the queries.
        let qkv = match q == k {
            true => source.linear(&[(&q, 3 * width)], hidden, bias)?,
            false => source.linear(&[(&q, width), (&k, width), (&v, width)], hidden, bias)?,
        };
        layers.push(EncoderLayerWeights {
            qkv,
            out: source.linear(&[(&name(names.out), hidden)], width, bias)?,
            attention_norm: norm(source, &name(names.attention_norm), hidden)?,
            up,
            down: source.linear(&[(&name(names.down), hidden)], inner, bias)?,
            output_norm: norm(source, &name(names.output_norm), hidden)?,
        });
    }
    let positions = match config.positions {
        EncoderPositions::Learned { rows, .. } => {
            Some(source.table(&whole(names.positions), rows, hidden)?)
        }
        EncoderPositions::Rope(_) => None,
    };
    let token_types = match config.token_types {
        0 => None,
        rows => Some(source.table(&whole(names.token_types), rows, hidden)?),
    };
    Ok(EncoderWeights {
        words: source.table(&whole(names.words), config.vocab_size, hidden)?,
        positions,
        token_types,
        embedding_norm: norm(source, &whole(names.embedding_norm), hidden)?,
        layers,
        dense: Vec::new(),
    })
}

/// The first of the prefixes under which the file has the table of tokens.
pub(super) fn prefix(source: &Source, prefixes: &[&'static str], words: &str) -> &'static str {
    let there = |prefix: &&&str| source.tensors.contains(&format!("{prefix}{words}"));
    prefixes.iter().find(there).copied().unwrap_or_default()
}
