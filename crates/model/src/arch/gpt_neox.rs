//! GPT-NeoX and Pythia: layer norms, rope on a part of each head, attention and feed-forward side by side, and one
//! matrix for queries, keys and values, interleaved per head.

use byzerllm_kernels::{Activation, RopeKind};

use super::Architecture;
use super::assemble::Bias;
use super::families::About;
use super::gguf;
use super::rope::{self, RopeShape};
use super::shape::{self, Shape, activation, epsilon};
use super::source::{FusedQkv, Source};
use crate::config::{
    AttentionConfig, DecoderConfig, HeadConfig, LayerConfig, MlpConfig, NormConfig, NormKind, NormPlace,
    PositionEncoding, Residual,
};
use crate::decoder_weights::{DecoderWeights, LayerWeights, MlpWeights};
use crate::load_error::LoadResult;

const EMBEDDING: &str = "gpt_neox.embed_in.weight";

pub(super) static GPT_NEOX: Architecture = Architecture {
    about: About {
        title: "GPT-NeoX, Pythia, Dolly",
        types: &["dolly"],
        proof: &["gpt-neox-f16", "gpt-neox-serial-bf16", "gguf/gptneox-q8_0", "gguf/gptneox-serial-f16"],
    },
    names: &["GPTNeoXForCausalLM"],
    gguf: &["gptneox"],
    config: |source| if source.is_gguf() { gguf_config(source) } else { config(source) },
    weights: |config, source| match source.is_gguf() {
        true => gguf::weights_with(config, source, Bias { qkv: true, out: true, mlp: true }),
        false => weights(config, source),
    },
};

fn gguf_config(source: &Source) -> LoadResult<DecoderConfig> {
    let style = gguf::Style {
        norm: NormKind::Layer,
        activation: Activation::Gelu,
        gated: false,
        rope: Some(RopeKind::Half),
    };
    let mut config = gguf::config(source, &style)?;
    if source.fields().flag("use_parallel_residual", true)? {
        config.layers.iter_mut().for_each(|layer| layer.residual = Residual::Parallel);
    }
    Ok(config)
}

fn config(source: &Source) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    let shape = Shape::read(source, &shape::HUGGING_FACE, EMBEDDING, None)?;
    if shape.kv_heads != shape.heads || shape.heads * shape.head_dim != shape.hidden {
        let problem = format!("is {}, but the {} heads must make up all of it", shape.hidden, shape.heads);
        return Err(fields.malformed("hidden_size", problem));
    }
    let stated = fields.positive_or("max_position_embeddings", 2048)?;
    let (rope, context) = rope::hugging_face(
        &fields,
        &RopeShape {
            head_dim: shape.head_dim,
            context: stated,
            base: "rotary_emb_base",
            partial: ("rotary_pct", 0.25),
        },
    )?;
    let norm = NormConfig { kind: NormKind::Layer, epsilon: epsilon(&fields, "layer_norm_eps", 1e-5)? };
    let parallel = fields.flag("use_parallel_residual", true)?;
    let layer = LayerConfig {
        attention: AttentionConfig { kv_heads: shape.heads, ..shape.attention(PositionEncoding::Rope(rope)) },
        mlp: MlpConfig {
            intermediate_size: fields.positive("intermediate_size")?,
            activation: activation(&fields, "hidden_act", "gelu")?,
            gated: false,
            experts: None,
        },
        norm,
        norm_place: NormPlace::Before,
        residual: if parallel { Residual::Parallel } else { Residual::Serial },
        residual_scale: 1.0,
    };
    let tied = fields.flag("tie_word_embeddings", false)?;
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

fn weights<'a>(config: &DecoderConfig, source: &'a Source) -> LoadResult<DecoderWeights<'a>> {
    let hidden = config.hidden_size;
    let attention_bias = source.fields().flag("attention_bias", true)?;
    let mut layers = Vec::with_capacity(config.layers.len());
    for (index, layer) in config.layers.iter().enumerate() {
        let name = |part: &str| format!("gpt_neox.layers.{index}.{part}");
        let attention = &layer.attention;
        let layout =
            FusedQkv { groups: attention.heads, queries: 1, head_dim: attention.head_dim, columns: hidden };
        let inner = layer.mlp.intermediate_size;
        layers.push(LayerWeights {
            attention_norm: Some(source.norm(&name("input_layernorm"), hidden, true)?),
            attention_post_norm: None,
            mlp_norm: Some(source.norm(&name("post_attention_layernorm"), hidden, true)?),
            mlp_post_norm: None,
            qkv: source.fused_qkv(&name("attention.query_key_value"), &layout, attention_bias)?,
            query_norm: None,
            key_norm: None,
            out: source.linear(&[(&name("attention.dense"), hidden)], hidden, attention_bias)?,
            mlp: vec![MlpWeights {
                up: source.linear(&[(&name("mlp.dense_h_to_4h"), inner)], hidden, true)?,
                down: source.linear(&[(&name("mlp.dense_4h_to_h"), hidden)], inner, true)?,
            }],
            router: None,
        });
    }
    // Published files say `embed_out`; newer ones may say `lm_head`.
    let head = if source.tensors.contains("lm_head.weight") { "lm_head" } else { "embed_out" };
    let head = match config.head.tied {
        true => None,
        false => Some(source.linear(&[(head, config.vocab_size)], hidden, false)?),
    };
    Ok(DecoderWeights {
        embedding: source.table(EMBEDDING, config.vocab_size, hidden)?,
        positions: None,
        embedding_norm: None,
        layers,
        final_norm: source.norm("gpt_neox.final_layer_norm", hidden, true)?,
        head,
    })
}
