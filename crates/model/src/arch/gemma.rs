//! Gemma 1 to 3 (text): embeddings scaled by the root of the width, norms that multiply with `1 + w`, from Gemma 2 on a
//! second norm after each block and windows in most layers, caps in Gemma 2, norms of heads and two ropes in Gemma 3.

use byzerllm_kernels::Activation;

use super::Architecture;
use super::assemble::{self, Bias, LLAMA_NAMES, Reading, TensorNames};
use super::families::About;
use super::fields::Fields;
use super::gguf;
use super::rope::{self, RopeShape};
use super::shape::{self, Shape, activation, epsilon};
use super::source::Source;
use crate::config::{DecoderConfig, MlpConfig, NormConfig, NormKind, NormPlace, PositionEncoding};
use crate::decoder_weights::DecoderWeights;
use crate::load_error::LoadResult;
use crate::rope::RopeScaling;

pub(super) static GEMMA: Architecture = Architecture {
    about: About { title: "Gemma", types: &[], proof: &["gemma-bf16", "gguf/gemma-q8_0"] },
    names: &["GemmaForCausalLM"],
    gguf: &["gemma"],
    config: |source| config(source, Version::One),
    weights: |config, source| weights(config, source, Version::One),
};

pub(super) static GEMMA2: Architecture = Architecture {
    about: About { title: "Gemma 2", types: &[], proof: &["gemma2-bf16", "gguf/gemma2-q8_0"] },
    names: &["Gemma2ForCausalLM"],
    gguf: &["gemma2"],
    config: |source| config(source, Version::Two),
    weights: |config, source| weights(config, source, Version::Two),
};

pub(super) static GEMMA3: Architecture = Architecture {
    about: About {
        title: "Gemma 3 (text)",
        types: &[],
        proof: &["gemma3-bf16", "gemma3-old-f16", "gemma3-pattern-bf16", "gguf/gemma3-mixed"],
    },
    names: &["Gemma3ForCausalLM"],
    gguf: &["gemma3"],
    config: |source| config(source, Version::Three),
    weights: |config, source| weights(config, source, Version::Three),
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
    Three,
}

/// Base of the frequencies in Gemma 3's layers without a window, when none is given.
const GLOBAL_BASE: f32 = 1_000_000.0;
/// The same for layers with one.
const LOCAL_BASE: f32 = 10_000.0;

fn config(source: &Source, version: Version) -> LoadResult<DecoderConfig> {
    let mut config = match source.is_gguf() {
        true => gguf_config(source, version)?,
        false => hugging_face_config(source, version)?,
    };
    config.embedding_scale = (config.hidden_size as f64).sqrt() as f32;
    for layer in &mut config.layers {
        if version != Version::One {
            layer.norm_place = NormPlace::Both;
        }
        if version == Version::Three {
            layer.attention.head_norm = Some(layer.norm);
        }
    }
    Ok(config)
}

fn hugging_face_config(source: &Source, version: Version) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    if fields.flag("use_bidirectional_attention", false)? {
        let problem = "must be false: this is a decoder";
        return Err(fields.unsupported("use_bidirectional_attention", problem));
    }
    let kv_heads = if version == Version::One { 16 } else { 4 };
    let mut shape = Shape::read(source, &shape::HUGGING_FACE, LLAMA_NAMES.embedding, Some(kv_heads))?;
    if !fields.has("head_dim") {
        shape.head_dim = 256;
    }
    let stated = fields
        .positive_or("max_position_embeddings", if version == Version::Three { 131_072 } else { 8192 })?;
    let rope_shape = RopeShape {
        head_dim: shape.head_dim,
        context: stated,
        base: "rope_theta",
        partial: ("partial_rotary_factor", 1.0),
    };
    let (rope, context) = match version {
        Version::Three => rope::hugging_face_of_kind(&fields, &rope_shape, ("full_attention", GLOBAL_BASE))?,
        _ => rope::hugging_face(&fields, &rope_shape)?,
    };
    // Old files of the first Gemma say `hidden_act: gelu` and mean the approximation.
    let activation = match version {
        Version::One => first_activation(&fields)?,
        _ => activation(&fields, "hidden_activation", "gelu_pytorch_tanh")?,
    };
    let mlp = MlpConfig {
        intermediate_size: fields.positive("intermediate_size")?,
        activation,
        gated: true,
        experts: None,
    };
    let norm = NormConfig { kind: NormKind::Rms, epsilon: epsilon(&fields, "rms_norm_eps", 1e-6)? };
    let tied = fields.flag("tie_word_embeddings", true)?;
    let mut config = assemble::decoder(&shape, context, PositionEncoding::Rope(rope), norm, mlp, tied);
    if version == Version::One {
        return Ok(config);
    }
    let soft_cap = |name: &str, default: f32| match (fields.is_null(name), version) {
        (true, _) => Ok(None),
        (_, Version::Two) => fields.positive_float(name).map(|cap| cap.or(Some(default))),
        _ => fields.positive_float(name),
    };
    config.head.soft_cap = soft_cap("final_logit_softcapping", 30.0)?;
    let cap = soft_cap("attn_logit_softcapping", 50.0)?;
    let scalar = fields.positive_float("query_pre_attn_scalar")?.unwrap_or(256.0);
    let window = match fields.is_null("sliding_window") {
        true => None,
        false => Some(fields.positive_or("sliding_window", 4096)?),
    };
    let windowed = windowed_layers(&fields, version, config.layers.len())?;
    let local = match version {
        Version::Three => {
            // The old name of the base; the other kind's parameters do not apply.
            let local = RopeShape { base: "rope_local_base_freq", ..rope_shape };
            Some(rope::hugging_face_of_kind(&fields, &local, ("sliding_attention", LOCAL_BASE))?.0)
        }
        _ => None,
    };
    for (layer, windowed) in config.layers.iter_mut().zip(windowed) {
        layer.attention.scale = 1.0 / scalar.sqrt();
        layer.attention.soft_cap = cap;
        if windowed {
            layer.attention.window = window;
            if let Some(local) = &local {
                layer.attention.position = PositionEncoding::Rope(local.clone());
            }
        }
    }
    Ok(config)
}

/// The first Gemma's nonlinearity: `hidden_activation` where it is given, else the approximation whatever `hidden_act`
/// says, as the published files mean it.
fn first_activation(fields: &Fields<'_>) -> LoadResult<Activation> {
    let name = if fields.has("hidden_activation") { "hidden_activation" } else { "hidden_act" };
    Ok(match activation(fields, name, "gelu_pytorch_tanh")? {
        Activation::Gelu => Activation::GeluTanh,
        other => other,
    })
}

/// Which layers have a window: `layer_types`, or all but every second (Gemma 2) or every `sliding_window_pattern`-th.
fn windowed_layers(fields: &Fields<'_>, version: Version, layers: usize) -> LoadResult<Vec<bool>> {
    let name = "layer_types";
    let Some(types) = fields.texts(name)? else {
        let period = match version {
            Version::Three => fields.positive_or("sliding_window_pattern", 6)?,
            _ => 2,
        };
        return Ok((1..=layers).map(|layer| !layer.is_multiple_of(period)).collect());
    };
    if types.len() != layers {
        let problem = format!("has {} entries for {layers} layers", types.len());
        return Err(fields.malformed(name, problem));
    }
    let windowed = |kind: &str| match kind {
        "sliding_attention" => Ok(true),
        "full_attention" => Ok(false),
        other => Err(fields.unsupported(name, format!("{other:?} is not supported"))),
    };
    types.into_iter().map(windowed).collect()
}

fn gguf_config(source: &Source, version: Version) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    let style = gguf::Style { activation: Activation::GeluTanh, ..gguf::Style::LLAMA };
    let mut config = gguf::config(source, &style)?;
    if version == Version::One {
        return Ok(config);
    }
    if version == Version::Two {
        config.head.soft_cap = Some(fields.positive_float("final_logit_softcapping")?.unwrap_or(30.0));
    }
    let cap = match version {
        Version::Two => Some(fields.positive_float("attn_logit_softcapping")?.unwrap_or(50.0)),
        _ => None,
    };
    let window = match fields.number("attention.sliding_window")? {
        None if version == Version::Two => Some(4096),
        window => window.filter(|&window| window > 0),
    };
    let period = match version {
        // May be one period or a flag per layer; no file of this family has another period.
        Version::Three => 6,
        _ => 2,
    };
    // The largest models scale by the width of the residual stream; the format has no field for it.
    let largest = match version {
        Version::Three => 62,
        _ => 46,
    };
    let by_width = config.layers.len() == largest;
    for (index, layer) in config.layers.iter_mut().enumerate() {
        let attention = &mut layer.attention;
        attention.soft_cap = cap;
        if by_width {
            attention.scale = 1.0 / (config.hidden_size as f32 / attention.heads as f32).sqrt();
        }
        if (index + 1).is_multiple_of(period) {
            continue;
        }
        attention.window = window;
        if version == Version::Three
            && let PositionEncoding::Rope(rope) = &mut attention.position
        {
            rope.base = fields.positive_float("rope.freq_base_swa")?.unwrap_or(LOCAL_BASE);
            rope.scaling = RopeScaling::None;
        }
    }
    Ok(config)
}

fn weights<'a>(
    config: &DecoderConfig,
    source: &'a Source,
    version: Version,
) -> LoadResult<DecoderWeights<'a>> {
    if source.is_gguf() {
        // Norms are stored as `1 + w`.
        return gguf::weights_with(config, source, Bias::default());
    }
    let names = match version {
        Version::One => LLAMA_NAMES,
        _ => TensorNames {
            attention_post_norm: Some("post_attention_layernorm"),
            mlp_norm: Some("pre_feedforward_layernorm"),
            mlp_post_norm: Some("post_feedforward_layernorm"),
            ..LLAMA_NAMES
        },
    };
    let attention = source.fields().flag("attention_bias", false)?;
    let bias = Bias { qkv: attention, out: attention, mlp: false };
    assemble::weights(config, source, &names, &Reading { bias, norms_less_one: true, ..Reading::default() })
}
