//! Baichuan 1 and 2: Llama with one matrix for queries, keys and values. The 7B models have rope, the 13B models
//! ALiBi; Baichuan 2 scales the rows of its head to unit length.
//!
//! No field names these variants. The published code of the 7B models reads `max_position_embeddings`, that of the
//! 13B models only `model_max_length`; a published GGUF file of a 13B model has 40 layers.

use byzerllm_kernels::RopeKind;

use super::families::About;
use super::llama::{self, Bias, Defaults};
use super::source::Source;
use super::{Architecture, alibi};
use crate::config::{DecoderConfig, PositionEncoding};
use crate::decoder_weights::{DecoderWeights, LayerWeights, MlpWeights};
use crate::load_error::LoadResult;

pub(super) static BAICHUAN: Architecture = Architecture {
    about: About {
        title: "Baichuan 1 and 2, 7B and 13B",
        types: &["custom/baichuan", "custom/baichuan2"],
        proof: &[
            "baichuan-7b-bf16",
            "baichuan-13b-bf16",
            "baichuan2-7b-f16",
            "gguf/baichuan-7b",
            "gguf/baichuan-13b",
        ],
    },
    names: &["BaichuanForCausalLM", "BaiChuanForCausalLM"],
    gguf: &["baichuan"],
    config,
    weights,
};

const CONTEXT: usize = 4096;
/// Layers and width of the 13B models.
const LARGE: (usize, usize) = (40, 5120);
/// Rows of Baichuan 2's vocabulary; Baichuan 1 has 64,000.
const SECOND_VOCABULARY: usize = 125_696;

fn config(source: &Source) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    let (mut config, alibi) = if source.is_gguf() {
        let config = llama::gguf_config(source, RopeKind::Interleaved)?;
        let bias = fields.float("attention.max_alibi_bias")?.is_some_and(|bias| bias > 0.0);
        let alibi = bias || config.layers.len() == LARGE.0;
        (config, alibi)
    } else {
        let defaults = Defaults { context: CONTEXT, kv_heads: None, window: None };
        let mut config = llama::hugging_face_config(source, &defaults)?;
        let longest = fields.positive_or_absent("model_max_length")?;
        let alibi = !fields.has("max_position_embeddings")
            && (longest.is_some() || (config.layers.len(), config.hidden_size) == LARGE);
        if alibi {
            config.context_length = longest.unwrap_or(CONTEXT);
        }
        (config, alibi)
    };
    let mut layers = config.layers.iter_mut();
    if let Some(problem) = layers.find(|layer| layer.attention.kv_heads != layer.attention.heads) {
        let problem = format!("is {}, but every query head has its own", problem.attention.kv_heads);
        return Err(fields.malformed("num_key_value_heads", problem));
    }
    if alibi {
        for layer in &mut config.layers {
            layer.attention.position = PositionEncoding::Alibi(alibi::slopes(layer.attention.heads));
        }
    }
    config.head.normalized = config.vocab_size == SECOND_VOCABULARY || fields.has("z_loss_weight");
    Ok(config)
}

fn weights<'a>(config: &DecoderConfig, source: &'a Source) -> LoadResult<DecoderWeights<'a>> {
    if source.is_gguf() {
        // Converters split the fused matrix.
        return llama::weights(config, source, Bias::default());
    }
    let hidden = config.hidden_size;
    let mut layers = Vec::with_capacity(config.layers.len());
    for (index, layer) in config.layers.iter().enumerate() {
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let width = layer.attention.heads * layer.attention.head_dim;
        let inner = layer.mlp.intermediate_size;
        let (gate, up) = (name("mlp.gate_proj"), name("mlp.up_proj"));
        layers.push(LayerWeights {
            attention_norm: Some(source.norm(&name("input_layernorm"), hidden, false)?),
            attention_post_norm: None,
            mlp_norm: Some(source.norm(&name("post_attention_layernorm"), hidden, false)?),
            mlp_post_norm: None,
            qkv: source.linear(&[(&name("self_attn.W_pack"), 3 * width)], hidden, false)?,
            query_norm: None,
            key_norm: None,
            out: source.linear(&[(&name("self_attn.o_proj"), hidden)], width, false)?,
            mlp: vec![MlpWeights {
                up: source.linear(&[(&gate, inner), (&up, inner)], hidden, false)?,
                down: source.linear(&[(&name("mlp.down_proj"), hidden)], inner, false)?,
            }],
            router: None,
        });
    }
    let head = match config.head.tied {
        true => None,
        false => Some(source.linear(&[("lm_head", config.vocab_size)], hidden, false)?),
    };
    Ok(DecoderWeights {
        embedding: source.table("model.embed_tokens.weight", config.vocab_size, hidden)?,
        positions: None,
        embedding_norm: None,
        layers,
        final_norm: source.norm("model.norm", hidden, false)?,
        head,
    })
}
