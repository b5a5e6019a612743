//! Llama, the families that are Llama with another vocabulary (Vicuna, TinyLlama, Yi, SmolLM2), and Mistral.
//!
//! Also the parts that Qwen2 shares: GGUF stores query and key rows of `llama` files reordered, so that rope rotates
//! neighbours there and halves everywhere else.

use byzerllm_kernels::{Activation, RopeKind};

use super::Architecture;
use super::families::About;
use super::rope::{self, RopeShape};
use super::shape::{self, Shape, activation, epsilon};
use super::source::Source;
use crate::config::{
    AttentionConfig, DecoderConfig, HeadConfig, LayerConfig, MlpConfig, NormConfig, NormKind, NormPlace,
    PositionEncoding, Residual,
};
use crate::decoder_weights::{DecoderWeights, LayerWeights, MlpWeights};
use crate::load_error::LoadResult;
use crate::rope::RopeConfig;

pub(super) static LLAMA: Architecture = Architecture {
    about: About {
        title: "Llama 1 to 3, Vicuna, Yi, TinyLlama, SmolLM2",
        types: &["llama", "custom/llama", "custom/llama2"],
        proof: &[
            "llama-tied-f32",
            "llama-sharded-bf16",
            "llama-llama3-f16",
            "llama-yarn-bf16",
            "gguf/llama-q4_0",
            "gguf/llama-q4_1",
            "gguf/llama-q8_0",
            "gguf/llama-f16",
            "gguf/llama-k-quants",
            "gguf/llama-q5-v2",
        ],
    },
    names: &["LlamaForCausalLM", "LLaMAForCausalLM", "YiForCausalLM"],
    gguf: &["llama"],
    config: |source| {
        if source.is_gguf() {
            gguf_config(source, RopeKind::Interleaved)
        } else {
            hugging_face_config(source, &Defaults { context: 2048, kv_heads: None, window: None })
        }
    },
    weights: |config, source| {
        let bias = if source.is_gguf() { Bias::in_gguf(source) } else { Bias::in_config(source)? };
        weights(config, source, bias)
    },
};

pub(super) static MISTRAL: Architecture = Architecture {
    about: About {
        title: "Mistral 7B, Zephyr",
        types: &["custom/zephyr"],
        proof: &["mistral-window-bf16", "bin-mistral"],
    },
    names: &["MistralForCausalLM"],
    // Converters write Mistral models as `llama`.
    gguf: &[],
    config: |source| {
        hugging_face_config(source, &Defaults { context: 131_072, kv_heads: Some(8), window: Some(4096) })
    },
    weights: |config, source| weights(config, source, Bias::default()),
};

/// What `transformers` takes for fields that `config.json` leaves out.
pub(super) struct Defaults {
    pub(super) context: usize,
    pub(super) kv_heads: Option<usize>,
    /// The window when the field is absent; null means none.
    pub(super) window: Option<usize>,
}

/// Which matrices have a bias.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bias {
    pub(super) qkv: bool,
    pub(super) out: bool,
    pub(super) mlp: bool,
}

impl Bias {
    fn in_config(source: &Source) -> LoadResult<Self> {
        let fields = source.fields();
        let attention = fields.flag("attention_bias", false)?;
        Ok(Self { qkv: attention, out: attention, mlp: fields.flag("mlp_bias", false)? })
    }

    /// GGUF has no field for it: the tensors are there or not.
    fn in_gguf(source: &Source) -> Self {
        let has = |name: &str| source.tensors.contains(&format!("blk.0.{name}.bias"));
        Self { qkv: has("attn_q"), out: has("attn_output"), mlp: has("ffn_up") }
    }
}

/// The configuration of a Llama-like `config.json`; every layer is the same.
pub(super) fn hugging_face_config(source: &Source, defaults: &Defaults) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    let shape = Shape::read(source, &shape::HUGGING_FACE, "model.embed_tokens.weight", defaults.kv_heads)?;
    let stated = fields.positive_or("max_position_embeddings", defaults.context)?;
    let (rope, context) = rope::hugging_face(
        &fields,
        &RopeShape {
            head_dim: shape.head_dim,
            context: stated,
            base: "rope_theta",
            partial: ("partial_rotary_factor", 1.0),
        },
    )?;
    let window = match (defaults.window, fields.is_null("sliding_window")) {
        (None, _) | (_, true) => None,
        (Some(default), false) => Some(fields.positive_or("sliding_window", default)?),
    };
    let parts = Parts {
        intermediate: fields.positive("intermediate_size")?,
        activation: activation(&fields, "hidden_act", "silu")?,
        epsilon: epsilon(&fields, "rms_norm_eps", 1e-6)?,
        context,
        tied: fields.flag("tie_word_embeddings", false)?,
        window,
        rope,
    };
    Ok(decoder(&shape, parts))
}

/// The configuration of a Llama-like GGUF file.
pub(super) fn gguf_config(source: &Source, kind: RopeKind) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    let shape = Shape::read(source, &shape::GGUF, "token_embd.weight", None)?;
    if fields.number("expert_count")?.unwrap_or(0) > 0 {
        return Err(fields.unsupported("expert_count", "mixtures of experts are not supported"));
    }
    let value_width = fields.positive_or("attention.value_length", shape.head_dim)?;
    if value_width != shape.head_dim {
        let problem = format!("is {value_width}, but keys have {}: this is not supported", shape.head_dim);
        return Err(fields.unsupported("attention.value_length", problem));
    }
    let context = fields.positive("context_length")?;
    // Only `llama` files mean a window by this field; other families' converters write it although it is off.
    let window = match kind {
        RopeKind::Interleaved => fields.number("attention.sliding_window")?.filter(|&window| window > 0),
        _ => None,
    };
    let parts = Parts {
        intermediate: fields.positive("feed_forward_length")?,
        activation: Activation::Silu,
        epsilon: epsilon(&fields, "attention.layer_norm_rms_epsilon", 1e-5)?,
        context,
        tied: !source.tensors.contains("output.weight"),
        window,
        rope: rope::gguf(source, kind, shape.head_dim, context)?,
    };
    Ok(decoder(&shape, parts))
}

/// What a Llama-like decoder is made of, beside its shape.
struct Parts {
    intermediate: usize,
    activation: Activation,
    epsilon: f32,
    context: usize,
    tied: bool,
    window: Option<usize>,
    rope: RopeConfig,
}

fn decoder(shape: &Shape, parts: Parts) -> DecoderConfig {
    let norm = NormConfig { kind: NormKind::Rms, epsilon: parts.epsilon };
    let layer = LayerConfig {
        attention: AttentionConfig {
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            scale: shape.scale(),
            window: parts.window,
            position: PositionEncoding::Rope(parts.rope),
            head_norm: None,
            soft_cap: None,
        },
        mlp: MlpConfig {
            intermediate_size: parts.intermediate,
            activation: parts.activation,
            gated: true,
            experts: None,
        },
        norm,
        norm_place: NormPlace::Before,
        residual: Residual::Serial,
        residual_scale: 1.0,
    };
    DecoderConfig {
        vocab_size: shape.vocab,
        hidden_size: shape.hidden,
        context_length: parts.context,
        embedding_scale: 1.0,
        embedding_norm: None,
        learned_positions: None,
        prefix_context: None,
        layers: vec![layer; shape.layers],
        final_norm: norm,
        head: HeadConfig { tied: parts.tied, soft_cap: None, scale: 1.0, normalized: false },
    }
}

/// The names of a layer's tensors.
struct TensorNames {
    embedding: &'static str,
    final_norm: &'static str,
    head: &'static str,
    layer: &'static str,
    attention_norm: &'static str,
    mlp_norm: &'static str,
    qkv: [&'static str; 3],
    out: &'static str,
    gate: &'static str,
    up: &'static str,
    down: &'static str,
}

const HUGGING_FACE_TENSORS: TensorNames = TensorNames {
    embedding: "model.embed_tokens.weight",
    final_norm: "model.norm",
    head: "lm_head",
    layer: "model.layers",
    attention_norm: "input_layernorm",
    mlp_norm: "post_attention_layernorm",
    qkv: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    out: "self_attn.o_proj",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
};

const GGUF_TENSORS: TensorNames = TensorNames {
    embedding: "token_embd.weight",
    final_norm: "output_norm",
    head: "output",
    layer: "blk",
    attention_norm: "attn_norm",
    mlp_norm: "ffn_norm",
    qkv: ["attn_q", "attn_k", "attn_v"],
    out: "attn_output",
    gate: "ffn_gate",
    up: "ffn_up",
    down: "ffn_down",
};

/// The tensors of a Llama-like checkpoint of either format.
pub(super) fn weights<'a>(
    config: &DecoderConfig,
    source: &'a Source,
    bias: Bias,
) -> LoadResult<DecoderWeights<'a>> {
    let names = if source.is_gguf() { &GGUF_TENSORS } else { &HUGGING_FACE_TENSORS };
    let hidden = config.hidden_size;
    let mut layers = Vec::with_capacity(config.layers.len());
    for (index, layer) in config.layers.iter().enumerate() {
        let name = |part: &str| format!("{}.{index}.{part}", names.layer);
        let attention = &layer.attention;
        let query = attention.heads * attention.head_dim;
        let key = attention.kv_heads * attention.head_dim;
        let inner = layer.mlp.intermediate_size;
        let [q, k, v] = names.qkv.map(name);
        let (gate, up) = (name(names.gate), name(names.up));
        layers.push(LayerWeights {
            attention_norm: Some(source.norm(&name(names.attention_norm), hidden, false)?),
            attention_post_norm: None,
            mlp_norm: Some(source.norm(&name(names.mlp_norm), hidden, false)?),
            mlp_post_norm: None,
            qkv: source.linear(&[(&q, query), (&k, key), (&v, key)], hidden, bias.qkv)?,
            query_norm: None,
            key_norm: None,
            out: source.linear(&[(&name(names.out), hidden)], query, bias.out)?,
            mlp: vec![MlpWeights {
                up: source.linear(&[(&gate, inner), (&up, inner)], hidden, bias.mlp)?,
                down: source.linear(&[(&name(names.down), hidden)], inner, bias.mlp)?,
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
