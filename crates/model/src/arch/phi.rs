//! Phi 1 to 2: layer norms, rope on a part of each head, attention and feed-forward side by side behind one norm, and
//! biases everywhere, on the head too.

use byzerllm_kernels::{Activation, RopeKind};

use super::Architecture;
use super::assemble::{self, Bias, LLAMA_NAMES, Reading, TensorNames};
use super::families::About;
use super::gguf;
use super::rope::{self, RopeShape};
use super::shape::{self, Shape, activation, epsilon};
use super::source::Source;
use crate::config::{DecoderConfig, MlpConfig, NormConfig, NormKind, PositionEncoding, Residual};
use crate::decoder_weights::DecoderWeights;
use crate::load_error::LoadResult;

pub(super) static PHI: Architecture = Architecture {
    about: About {
        title: "Phi-1, Phi-1.5, Phi-2",
        types: &[],
        proof: &["phi-bf16", "phi-norms-f16", "gguf/phi2-q8_0"],
    },
    names: &["PhiForCausalLM"],
    gguf: &["phi2"],
    config,
    weights,
};

const NAMES: TensorNames = TensorNames {
    final_norm: "model.final_layernorm",
    mlp_norm: None,
    head_norms: ["self_attn.q_layernorm", "self_attn.k_layernorm"],
    out: "self_attn.dense",
    up: &["mlp.fc1"],
    down: "mlp.fc2",
    ..LLAMA_NAMES
};

fn config(source: &Source) -> LoadResult<DecoderConfig> {
    let mut config = match source.is_gguf() {
        true => {
            let style = gguf::Style {
                norm: NormKind::Layer,
                activation: Activation::GeluTanh,
                gated: false,
                rope: Some(RopeKind::Half),
            };
            gguf::config(source, &style)?
        }
        false => hugging_face_config(source)?,
    };
    config.layers.iter_mut().for_each(|layer| layer.residual = Residual::Parallel);
    Ok(config)
}

fn hugging_face_config(source: &Source) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    let shape = Shape::read(source, &shape::HUGGING_FACE, NAMES.embedding, None)?;
    let rope_shape = RopeShape {
        head_dim: shape.head_dim,
        context: fields.positive_or("max_position_embeddings", 2048)?,
        base: "rope_theta",
        partial: ("partial_rotary_factor", 0.5),
    };
    let (rope, context) = rope::hugging_face(&fields, &rope_shape)?;
    let mlp = MlpConfig {
        intermediate_size: fields.positive_or("intermediate_size", 4 * shape.hidden)?,
        activation: activation(&fields, "hidden_act", "gelu_new")?,
        gated: false,
        experts: None,
    };
    let norm = NormConfig { kind: NormKind::Layer, epsilon: epsilon(&fields, "layer_norm_eps", 1e-5)? };
    let tied = fields.flag("tie_word_embeddings", false)?;
    let mut config = assemble::decoder(&shape, context, PositionEncoding::Rope(rope), norm, mlp, tied);
    if fields.flag("qk_layernorm", false)? {
        config.layers.iter_mut().for_each(|layer| layer.attention.head_norm = Some(norm));
    }
    Ok(config)
}

fn weights<'a>(config: &DecoderConfig, source: &'a Source) -> LoadResult<DecoderWeights<'a>> {
    let bias = Bias { qkv: true, out: true, mlp: true };
    if source.is_gguf() {
        return gguf::weights_named(config, source, bias, |names| TensorNames { mlp_norm: None, ..names });
    }
    let reading = Reading { bias, norm_bias: true, head_bias: true, ..Reading::default() };
    assemble::weights(config, source, &NAMES, &reading)
}
