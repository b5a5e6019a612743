//! Mixtral: Mistral whose feed-forward part is a mixture of experts.

use super::Architecture;
use super::assemble::Bias;
use super::experts;
use super::families::About;
use super::llama::{self, Defaults};
use super::source::Source;
use crate::config::DecoderConfig;
use crate::load_error::LoadResult;

pub(super) static MIXTRAL: Architecture = Architecture {
    about: About {
        title: "Mixtral 8x7B, 8x22B",
        types: &[],
        proof: &["mixtral-bf16", "mixtral-fused-f16", "gguf/mixtral-q8_0", "gguf/mixtral-split-f16"],
    },
    names: &["MixtralForCausalLM"],
    // Converters write Mixtral models as `llama` with an `expert_count`.
    gguf: &[],
    config,
    weights: |config, source| llama::weights(config, source, Bias::default()),
};

fn config(source: &Source) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    let window = fields.positive_or_absent("sliding_window")?;
    let mut config =
        llama::hugging_face_config(source, &Defaults { context: 131_072, kv_heads: Some(8), window })?;
    let count = ("num_local_experts", Some(8));
    let mixture = experts::config(&fields, count, ("num_experts_per_tok", Some(2)), true)?;
    for layer in &mut config.layers {
        layer.mlp.experts = Some(mixture.clone());
    }
    Ok(config)
}
