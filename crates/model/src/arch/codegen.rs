//! CodeGen, MOSS and GPT-J: one layer norm before attention and feed-forward, which stand side by side, rope of
//! neighbours on a part of each head, and a head with a bias. MOSS is CodeGen with another vocabulary.

use byzerllm_kernels::RopeKind;

use super::Architecture;
use super::families::About;
use super::shape::{self, Names, Shape, activation, epsilon};
use super::source::Source;
use crate::config::{
    AttentionConfig, DecoderConfig, HeadConfig, LayerConfig, MlpConfig, NormConfig, NormKind, NormPlace,
    PositionEncoding, Residual,
};
use crate::decoder_weights::{DecoderWeights, LayerWeights, LinearWeights, MlpWeights};
use crate::load_error::LoadResult;
use crate::rope::{RopeConfig, RopeScaling};

pub(super) static CODEGEN: Architecture = Architecture {
    about: About { title: "CodeGen", types: &[], proof: &["codegen-f16"] },
    names: &["CodeGenForCausalLM"],
    gguf: &[],
    config: codegen_config,
    weights,
};

pub(super) static MOSS: Architecture = Architecture {
    about: About { title: "MOSS", types: &["moss", "custom/alpha_moss"], proof: &["moss-bf16"] },
    names: &["MossForCausalLM"],
    gguf: &[],
    config: codegen_config,
    weights,
};

pub(super) static GPT_J: Architecture = Architecture {
    about: About { title: "GPT-J", types: &[], proof: &["gptj-bf16"] },
    names: &["GPTJForCausalLM"],
    gguf: &[],
    config,
    weights,
};

const EMBEDDING: &str = "transformer.wte.weight";
const NAMES: Names = Names { hidden: "n_embd", layers: "n_layer", heads: "n_head", ..shape::HUGGING_FACE };
/// Parts into which CodeGen was cut for training. Each holds its queries, then its values, then its keys.
const PARTITIONS: usize = 4;

fn codegen_config(source: &Source) -> LoadResult<DecoderConfig> {
    let config = config(source)?;
    let heads = config.layers.first().map_or(0, |layer| layer.attention.heads);
    if !heads.is_multiple_of(PARTITIONS) {
        let problem = format!("is {heads}, which the {PARTITIONS} parts of the fused matrix do not divide");
        return Err(source.fields().malformed(NAMES.heads, problem));
    }
    Ok(config)
}

fn config(source: &Source) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    let shape = Shape::read(source, &NAMES, EMBEDDING, None)?;
    if shape.kv_heads != shape.heads || shape.heads * shape.head_dim != shape.hidden {
        let problem = format!("is {}, but the {} heads must make up all of it", shape.hidden, shape.heads);
        return Err(fields.malformed(NAMES.hidden, problem));
    }
    let rotary_dim = fields.positive_or("rotary_dim", 64)?;
    if rotary_dim > shape.head_dim || !rotary_dim.is_multiple_of(2) {
        let problem = format!(
            "is {rotary_dim}, which is not a part of pairs of the {} components of a head",
            shape.head_dim
        );
        return Err(fields.malformed("rotary_dim", problem));
    }
    let rope = RopeConfig {
        kind: RopeKind::Interleaved,
        rotary_dim,
        base: 10_000.0,
        scaling: RopeScaling::None,
        two_dimensional: false,
    };
    let norm = NormConfig { kind: NormKind::Layer, epsilon: epsilon(&fields, "layer_norm_epsilon", 1e-5)? };
    let layer = LayerConfig {
        attention: AttentionConfig { kv_heads: shape.heads, ..shape.attention(PositionEncoding::Rope(rope)) },
        mlp: MlpConfig {
            intermediate_size: fields.positive_or("n_inner", 4 * shape.hidden)?,
            activation: activation(&fields, "activation_function", "gelu_new")?,
            gated: false,
            experts: None,
        },
        norm,
        norm_place: NormPlace::Before,
        residual: Residual::Parallel,
        residual_scale: 1.0,
    };
    let tied = fields.flag("tie_word_embeddings", false)?;
    if tied && source.tensors.contains("lm_head.bias") {
        return Err(fields.unsupported("tie_word_embeddings", "must be false: the head has a bias"));
    }
    Ok(DecoderConfig {
        vocab_size: shape.vocab,
        hidden_size: shape.hidden,
        context_length: fields.positive_or("n_positions", 2048)?,
        embedding_scale: 1.0,
        embedding_norm: None,
        learned_positions: None,
        prefix_context: None,
        layers: vec![layer; shape.layers],
        final_norm: norm,
        head: HeadConfig { tied, soft_cap: None, scale: 1.0, normalized: false },
    })
}

/// Queries, keys and values of one layer: three matrices (GPT-J), or one whose partitions are taken apart.
fn qkv<'a>(source: &'a Source, layer: &str, hidden: usize) -> LoadResult<LinearWeights<'a>> {
    let fused = format!("{layer}.attn.qkv_proj");
    if !source.tensors.contains(&format!("{fused}.weight")) {
        let [q, k, v] = ["q", "k", "v"].map(|part| format!("{layer}.attn.{part}_proj"));
        return source.linear(&[(&q, hidden), (&k, hidden), (&v, hidden)], hidden, false);
    }
    let part = hidden / PARTITIONS;
    // Each partition is queries, values, keys.
    let ranges: Vec<_> = [0, 2, 1]
        .into_iter()
        .flat_map(|place| (0..PARTITIONS).map(move |partition| (3 * partition + place) * part))
        .map(|start| start..start + part)
        .collect();
    source.row_ranges(&fused, (3 * hidden, hidden), &ranges, false)
}

fn weights<'a>(config: &DecoderConfig, source: &'a Source) -> LoadResult<DecoderWeights<'a>> {
    let hidden = config.hidden_size;
    let mut layers = Vec::with_capacity(config.layers.len());
    for (index, layer) in config.layers.iter().enumerate() {
        let name = |part: &str| format!("transformer.h.{index}.{part}");
        let inner = layer.mlp.intermediate_size;
        layers.push(LayerWeights {
            attention_norm: Some(source.norm(&name("ln_1"), hidden, true)?),
            attention_post_norm: None,
            mlp_norm: None,
            mlp_post_norm: None,
            qkv: qkv(source, &format!("transformer.h.{index}"), hidden)?,
            query_norm: None,
            key_norm: None,
            out: source.linear(&[(&name("attn.out_proj"), hidden)], hidden, false)?,
            mlp: vec![MlpWeights {
                up: source.linear(&[(&name("mlp.fc_in"), inner)], hidden, true)?,
                down: source.linear(&[(&name("mlp.fc_out"), hidden)], inner, true)?,
            }],
            router: None,
        });
    }
    let head = match config.head.tied {
        true => None,
        false => Some(source.linear(&[("lm_head", config.vocab_size)], hidden, true)?),
    };
    Ok(DecoderWeights {
        embedding: source.table(EMBEDDING, config.vocab_size, hidden)?,
        positions: None,
        embedding_norm: None,
        layers,
        final_norm: source.norm("transformer.ln_f", hidden, true)?,
        head,
    })
}
