//! Phi-3, Phi-3.5 and Phi-4 (text): Llama with one matrix for queries, keys and values, one for gate and up, a window in
//! some models, and LongRoPE in those with a long context.

use byzerllm_kernels::RopeKind;

use super::Architecture;
use super::assemble::{self, LLAMA_NAMES, Reading, TensorNames};
use super::families::About;
use super::gguf;
use super::llama::{self, Bias, Defaults};
use super::rope::LONGROPE;
use super::source::Source;
use crate::config::DecoderConfig;
use crate::decoder_weights::DecoderWeights;
use crate::load_error::LoadResult;

pub(super) static PHI3: Architecture = Architecture {
    about: About {
        title: "Phi-3, Phi-3.5, Phi-4",
        types: &[],
        proof: &["phi3-bf16", "phi3-longrope-f16", "gguf/phi3-q8_0", "gguf/phi3-longrope"],
    },
    names: &["Phi3ForCausalLM"],
    gguf: &["phi3"],
    config,
    weights,
};

const NAMES: TensorNames =
    TensorNames { qkv: &["self_attn.qkv_proj"], up: &["mlp.gate_up_proj"], ..LLAMA_NAMES };

fn config(source: &Source) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    if !source.is_gguf() {
        let window = fields.positive_or_absent("sliding_window")?;
        return llama::hugging_face_config(source, &Defaults { context: 4096, kv_heads: None, window });
    }
    let mut config = llama::gguf_config(source, RopeKind::Half)?;
    let window = fields.number("attention.sliding_window")?.filter(|&window| window > 0);
    config.layers.iter_mut().for_each(|layer| layer.attention.window = window);
    if source.tensors.contains(LONGROPE) {
        // Beyond it the other set of divisors would be needed.
        let original = fields.positive_or("rope.scaling.original_context_length", config.context_length)?;
        config.context_length = config.context_length.min(original);
    }
    Ok(config)
}

fn weights<'a>(config: &DecoderConfig, source: &'a Source) -> LoadResult<DecoderWeights<'a>> {
    if source.is_gguf() {
        return gguf::weights_with(config, source, Bias::default());
    }
    assemble::weights(config, source, &NAMES, &Reading::default())
}
