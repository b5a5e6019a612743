//! Qwen 1: Llama with one biased matrix for queries, keys and values, under names of its own.
//!
//! Published models change their rope's base (dynamic NTK) and scale queries (logn) beyond `seq_length`, where the
//! base follows from the length of the prompt that is read first: what a token then means depends on the request it
//! came with. Both are exactly nothing up to `seq_length`, which is therefore the end of the context here.

use byzerllm_kernels::{Activation, RopeKind};

use super::Architecture;
use super::families::About;
use super::rope;
use super::shape::{self, Names, Shape, epsilon};
use super::source::Source;
use crate::config::{
    AttentionConfig, DecoderConfig, HeadConfig, LayerConfig, MlpConfig, NormConfig, NormKind, NormPlace,
    PositionEncoding, Residual,
};
use crate::decoder_weights::{DecoderWeights, LayerWeights, MlpWeights};
use crate::load_error::LoadResult;
use crate::rope::{RopeConfig, RopeScaling};

pub(super) static QWEN: Architecture = Architecture {
    about: About { title: "Qwen 1", types: &["custom/qwen"], proof: &["qwen-bf16", "gguf/qwen-q8_0"] },
    names: &["QWenLMHeadModel"],
    gguf: &["qwen"],
    config,
    weights,
};

const CONTEXT: usize = 8192;
const HUGGING_FACE: Names = Names { head_dim: "kv_channels", ..shape::HUGGING_FACE };

fn config(source: &Source) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    let (shape, width_field) = if source.is_gguf() {
        (Shape::read(source, &shape::GGUF, GGUF_TENSORS.embedding, None)?, "feed_forward_length")
    } else {
        (Shape::read(source, &HUGGING_FACE, HUGGING_FACE_TENSORS.embedding, None)?, "intermediate_size")
    };
    if shape.kv_heads != shape.heads {
        let problem = format!("is {}, but every query head has its own", shape.kv_heads);
        return Err(fields.malformed("num_key_value_heads", problem));
    }
    if fields.object("visual")?.is_some() {
        let problem = "pictures are not supported: the model is Qwen-VL, whose text part alone is not what it was \
                       published for";
        return Err(fields.unsupported("visual", problem));
    }
    // The published width counts gate and values together.
    let both = fields.positive(width_field)?;
    if !both.is_multiple_of(2) {
        return Err(fields.malformed(width_field, format!("must be even, is {both}")));
    }
    let (rope, context, epsilon, tied) = if source.is_gguf() {
        let context = fields.positive("context_length")?;
        let rope = rope::gguf(source, RopeKind::Half, shape.head_dim, context)?;
        let epsilon = epsilon(&fields, "attention.layer_norm_rms_epsilon", 1e-6)?;
        (rope, context, epsilon, !source.tensors.contains("output.weight"))
    } else {
        let share = fields.positive_float("rotary_pct")?.unwrap_or(1.0);
        let rotary_dim = (shape.head_dim as f64 * f64::from(share)) as usize;
        if share > 1.0 || rotary_dim == 0 || !rotary_dim.is_multiple_of(2) {
            let problem = format!(
                "rotates {rotary_dim} of {} components, which is not a part of pairs",
                shape.head_dim
            );
            return Err(fields.malformed("rotary_pct", problem));
        }
        let rope = RopeConfig {
            kind: RopeKind::Half,
            rotary_dim,
            base: fields.positive_float("rotary_emb_base")?.unwrap_or(10_000.0),
            scaling: RopeScaling::None,
            two_dimensional: false,
        };
        let context = fields.positive_or("seq_length", CONTEXT)?;
        (
            rope,
            context,
            epsilon(&fields, "layer_norm_epsilon", 1e-6)?,
            fields.flag("tie_word_embeddings", false)?,
        )
    };
    if !fields.flag("scale_attn_weights", true)? {
        return Err(fields.unsupported("scale_attn_weights", "must be true"));
    }
    let norm = NormConfig { kind: NormKind::Rms, epsilon };
    let layer = LayerConfig {
        attention: AttentionConfig { kv_heads: shape.heads, ..shape.attention(PositionEncoding::Rope(rope)) },
        mlp: MlpConfig {
            intermediate_size: both / 2,
            activation: Activation::Silu,
            gated: true,
            experts: None,
        },
        norm,
        norm_place: NormPlace::Before,
        residual: Residual::Serial,
        residual_scale: 1.0,
    };
    Ok(DecoderConfig {
        vocab_size: shape.vocab,
        hidden_size: shape.hidden,
        context_length: context,
        embedding_scale: 1.0,
        embedding_norm: None,
        learned_positions: None,
        prefix_context: None,
        layers: vec![layer; shape.layers],
        final_norm: norm,
        head: HeadConfig { tied, soft_cap: None, scale: 1.0, normalized: false },
    })
}

/// The names of the tensors.
struct TensorNames {
    embedding: &'static str,
    final_norm: &'static str,
    head: &'static str,
    layer: &'static str,
    attention_norm: &'static str,
    mlp_norm: &'static str,
    qkv: &'static str,
    out: &'static str,
    gate: &'static str,
    up: &'static str,
    down: &'static str,
}

const HUGGING_FACE_TENSORS: TensorNames = TensorNames {
    embedding: "transformer.wte.weight",
    final_norm: "transformer.ln_f",
    head: "lm_head",
    layer: "transformer.h",
    attention_norm: "ln_1",
    mlp_norm: "ln_2",
    qkv: "attn.c_attn",
    out: "attn.c_proj",
    // The second of the two is the one that is activated.
    gate: "mlp.w2",
    up: "mlp.w1",
    down: "mlp.c_proj",
};

const GGUF_TENSORS: TensorNames = TensorNames {
    embedding: "token_embd.weight",
    final_norm: "output_norm",
    head: "output",
    layer: "blk",
    attention_norm: "attn_norm",
    mlp_norm: "ffn_norm",
    qkv: "attn_qkv",
    out: "attn_output",
    gate: "ffn_gate",
    up: "ffn_up",
    down: "ffn_down",
};

fn weights<'a>(config: &DecoderConfig, source: &'a Source) -> LoadResult<DecoderWeights<'a>> {
    let names = if source.is_gguf() { &GGUF_TENSORS } else { &HUGGING_FACE_TENSORS };
    // The field of both formats' models; in a GGUF file, which has no such field, there is no bias either.
    let bias = !source.fields().flag("no_bias", true)?;
    let hidden = config.hidden_size;
    let mut layers = Vec::with_capacity(config.layers.len());
    for (index, layer) in config.layers.iter().enumerate() {
        let name = |part: &str| format!("{}.{index}.{part}", names.layer);
        let width = layer.attention.heads * layer.attention.head_dim;
        let inner = layer.mlp.intermediate_size;
        let (gate, up) = (name(names.gate), name(names.up));
        layers.push(LayerWeights {
            attention_norm: Some(source.norm(&name(names.attention_norm), hidden, false)?),
            attention_post_norm: None,
            mlp_norm: Some(source.norm(&name(names.mlp_norm), hidden, false)?),
            mlp_post_norm: None,
            qkv: source.linear(&[(&name(names.qkv), 3 * width)], hidden, true)?,
            query_norm: None,
            key_norm: None,
            out: source.linear(&[(&name(names.out), hidden)], width, bias)?,
            mlp: vec![MlpWeights {
                up: source.linear(&[(&gate, inner), (&up, inner)], hidden, bias)?,
                down: source.linear(&[(&name(names.down), hidden)], inner, bias)?,
            }],
            router: None,
        });
    }
    let head = match config.head.tied {
        true => None,
        false => Some(source.linear(&[(names.head, config.vocab_size)], hidden, false)?),
    };
    Ok(DecoderWeights {
        embedding: source.table(names.embedding, config.vocab_size, hidden)?,
        positions: None,
        embedding_norm: None,
        layers,
        final_norm: source.norm(names.final_norm, hidden, false)?,
        head,
    })
}
