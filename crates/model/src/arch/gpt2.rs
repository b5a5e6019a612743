//! GPT-2 and GPTBigCode (StarCoder): learned positions, layer norms with biases, one matrix for queries, keys and
//! values. GPT-2 stores its matrices transposed; GPTBigCode has one key/value head for all query heads.

use byzerllm_kernels::Activation;

use super::Architecture;
use super::assemble::{self, Bias, Reading, TensorNames};
use super::families::About;
use super::gguf;
use super::shape::{Names, Shape, activation, epsilon};
use super::source::{FusedQkv, Source};
use crate::config::{DecoderConfig, MlpConfig, NormConfig, NormKind, PositionEncoding};
use crate::decoder_weights::DecoderWeights;
use crate::load_error::LoadResult;

pub(super) static GPT2: Architecture = Architecture {
    about: About { title: "GPT-2", types: &[], proof: &["gpt2-f16", "gpt2-inverse-bf16", "gguf/gpt2-q8_0"] },
    names: &["GPT2LMHeadModel"],
    gguf: &["gpt2"],
    config: |source| config(source, Family::Gpt2),
    weights: |config, source| weights(config, source, Family::Gpt2),
};

pub(super) static GPT_BIGCODE: Architecture = Architecture {
    about: About {
        title: "GPTBigCode: StarCoder, SantaCoder",
        types: &["custom/starcode"],
        proof: &["gpt-bigcode-bf16", "gpt-bigcode-heads-f16", "gguf/starcoder-q8_0"],
    },
    names: &["GPTBigCodeForCausalLM"],
    gguf: &["starcoder"],
    config: |source| config(source, Family::BigCode),
    weights: |config, source| weights(config, source, Family::BigCode),
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Gpt2,
    BigCode,
}

const FIELDS: Names = Names {
    vocab: "vocab_size",
    hidden: "n_embd",
    layers: "n_layer",
    heads: "n_head",
    // Neither is a field of these families.
    kv_heads: "num_key_value_heads",
    head_dim: "head_dim",
};

const NAMES: TensorNames = TensorNames {
    embedding: "transformer.wte.weight",
    positions: Some("transformer.wpe.weight"),
    final_norm: "transformer.ln_f",
    head: "lm_head",
    layer: "transformer.h",
    attention_norm: "ln_1",
    attention_post_norm: None,
    mlp_norm: Some("ln_2"),
    mlp_post_norm: None,
    qkv: &["attn.c_attn"],
    head_norms: ["", ""],
    out: "attn.c_proj",
    up: &["mlp.c_fc"],
    down: "mlp.c_proj",
};

/// The published GPT-2 files hold the network without its head.
const BARE_NAMES: TensorNames = TensorNames {
    embedding: "wte.weight",
    positions: Some("wpe.weight"),
    final_norm: "ln_f",
    layer: "h",
    ..NAMES
};

fn names(source: &Source) -> &'static TensorNames {
    if source.tensors.contains(BARE_NAMES.embedding) { &BARE_NAMES } else { &NAMES }
}

fn config(source: &Source, family: Family) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    if source.is_gguf() {
        let style =
            gguf::Style { norm: NormKind::Layer, activation: Activation::GeluTanh, gated: false, rope: None };
        return gguf::config(source, &style);
    }
    let mut shape = Shape::read(source, &FIELDS, names(source).embedding, None)?;
    if shape.heads * shape.head_dim != shape.hidden {
        let problem = format!("is {}, but the {} heads must make up all of it", shape.hidden, shape.heads);
        return Err(fields.malformed("n_embd", problem));
    }
    shape.kv_heads = match family {
        Family::BigCode if fields.flag("multi_query", true)? => 1,
        _ => shape.heads,
    };
    if fields.flag("add_cross_attention", false)? {
        let problem = "must be false: there is nothing to attend to in a decoder alone";
        return Err(fields.unsupported("add_cross_attention", problem));
    }
    let context = fields.positive_or("n_positions", 1024)?;
    let default = if family == Family::Gpt2 { "gelu_new" } else { "gelu_pytorch_tanh" };
    let mlp = MlpConfig {
        intermediate_size: fields.positive_or("n_inner", 4 * shape.hidden)?,
        activation: activation(&fields, "activation_function", default)?,
        gated: false,
        experts: None,
    };
    let norm = NormConfig { kind: NormKind::Layer, epsilon: epsilon(&fields, "layer_norm_epsilon", 1e-5)? };
    let tied = fields.flag("tie_word_embeddings", true)?;
    let mut config = assemble::decoder(&shape, context, PositionEncoding::None, norm, mlp, tied);
    config.learned_positions = Some(context);
    let scaled = fields.flag("scale_attn_weights", true)?;
    let by_layer = family == Family::Gpt2 && fields.flag("scale_attn_by_inverse_layer_idx", false)?;
    for (index, layer) in config.layers.iter_mut().enumerate() {
        let scale = if scaled { shape.scale() } else { 1.0 };
        layer.attention.scale = if by_layer { scale / (index + 1) as f32 } else { scale };
    }
    Ok(config)
}

fn weights<'a>(config: &DecoderConfig, source: &'a Source, family: Family) -> LoadResult<DecoderWeights<'a>> {
    if source.is_gguf() {
        return gguf::weights_with(config, source, Bias { qkv: true, out: true, mlp: true });
    }
    let reading = Reading {
        bias: Bias { qkv: true, out: true, mlp: true },
        norm_bias: true,
        transposed: family == Family::Gpt2,
        ..Reading::default()
    };
    let names = names(source);
    let mut weights = assemble::weights(config, source, names, &reading)?;
    if family == Family::BigCode {
        for (index, (layer, found)) in config.layers.iter().zip(&mut weights.layers).enumerate() {
            let attention = &layer.attention;
            // With one head of keys and values the rows are in order; with many they are interleaved per head.
            if attention.kv_heads > 1 {
                let name = format!("{}.{index}.{}", names.layer, names.qkv[0]);
                let (groups, head_dim) = (attention.heads, attention.head_dim);
                let layout = FusedQkv { groups, queries: 1, head_dim, columns: config.hidden_size };
                found.qkv = source.fused_qkv(&name, &layout, true)?;
            }
        }
    }
    Ok(weights)
}
