//! StarCoder2: rope and grouped heads, layer norms, biases, a plain feed-forward part, and a window.

use byzerllm_kernels::{Activation, RopeKind};

use super::Architecture;
use super::assemble::{self, Bias, LLAMA_NAMES, Reading, TensorNames};
use super::families::About;
use super::gguf;
use super::rope::{self, RopeShape};
use super::shape::{self, Shape, activation, epsilon};
use super::source::Source;
use crate::config::{DecoderConfig, MlpConfig, NormConfig, NormKind, PositionEncoding};
use crate::decoder_weights::DecoderWeights;
use crate::load_error::LoadResult;

pub(super) static STARCODER2: Architecture = Architecture {
    about: About {
        title: "StarCoder2",
        types: &["custom/starcode"],
        proof: &["starcoder2-bf16", "starcoder2-plain-f16", "gguf/starcoder2-q8_0"],
    },
    names: &["Starcoder2ForCausalLM"],
    gguf: &["starcoder2"],
    config,
    weights,
};

const NAMES: TensorNames = TensorNames { up: &["mlp.c_fc"], down: "mlp.c_proj", ..LLAMA_NAMES };

fn config(source: &Source) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    if source.is_gguf() {
        let style = gguf::Style {
            norm: NormKind::Layer,
            activation: Activation::GeluTanh,
            gated: false,
            rope: Some(RopeKind::Half),
        };
        let mut config = gguf::config(source, &style)?;
        let window = fields.number("attention.sliding_window")?.filter(|&window| window > 0);
        config.layers.iter_mut().for_each(|layer| layer.attention.window = window);
        return Ok(config);
    }
    let shape = Shape::read(source, &shape::HUGGING_FACE, NAMES.embedding, Some(2))?;
    let rope_shape = RopeShape {
        head_dim: shape.head_dim,
        context: fields.positive_or("max_position_embeddings", 4096)?,
        base: "rope_theta",
        partial: ("partial_rotary_factor", 1.0),
    };
    let (rope, context) = rope::hugging_face(&fields, &rope_shape)?;
    let mlp = MlpConfig {
        intermediate_size: fields.positive("intermediate_size")?,
        activation: activation(&fields, "hidden_act", "gelu_pytorch_tanh")?,
        gated: false,
        experts: None,
    };
    let norm = NormConfig { kind: NormKind::Layer, epsilon: epsilon(&fields, "norm_epsilon", 1e-5)? };
    let tied = fields.flag("tie_word_embeddings", true)?;
    let mut config = assemble::decoder(&shape, context, PositionEncoding::Rope(rope), norm, mlp, tied);
    let window = fields.positive_or_absent("sliding_window")?;
    config.layers.iter_mut().for_each(|layer| layer.attention.window = window);
    Ok(config)
}

fn weights<'a>(config: &DecoderConfig, source: &'a Source) -> LoadResult<DecoderWeights<'a>> {
    if source.is_gguf() {
        return gguf::weights(config, source);
    }
    let all = source.fields().flag("use_bias", true)?;
    let bias = Bias { qkv: all, out: all, mlp: all };
    assemble::weights(config, source, &NAMES, &Reading { bias, norm_bias: true, ..Reading::default() })
}
