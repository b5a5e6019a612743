//! What a decoder network looks like, as data.
//!
//! One decoder serves many families: an architecture file translates its checkpoint's own words into
//! [`DecoderConfig`] and [`crate::DecoderWeights`]. A family that needs a branch in the forward pass adds a field
//! here; a family with another graph (encoder–decoder, state space) gets its own network.

use byzerllm_kernels::Activation;

use crate::prefix::PrefixContext;
use crate::rope::RopeConfig;

/// A whole decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Positions that the model was made for.
    pub context_length: usize,
    /// Factor on the embeddings (Gemma: the root of the width).
    pub embedding_scale: f32,
    /// Normalization of the embeddings, before the first layer (BLOOM-like families).
    pub embedding_norm: Option<NormConfig>,
    /// Rows of a learned position table that is added to the embeddings (GPT-2).
    pub learned_positions: Option<usize>,
    /// For models that read the beginning of a prompt in both directions (ChatGLM-6B): where it ends.
    pub prefix_context: Option<PrefixContext>,
    /// The layers in order.
    pub layers: Vec<LayerConfig>,
    /// Normalization before the head.
    pub final_norm: NormConfig,
    /// The output head.
    pub head: HeadConfig,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerConfig {
    /// Self-attention.
    pub attention: AttentionConfig,
    /// The feed-forward part.
    pub mlp: MlpConfig,
    /// Its normalization layers.
    pub norm: NormConfig,
    /// Where they stand.
    pub norm_place: NormPlace,
    /// How attention and feed-forward are added to the residual stream.
    pub residual: Residual,
    /// Factor on what each block adds to the residual stream.
    pub residual_scale: f32,
}

/// Self-attention of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionConfig {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor on the scores, usually the inverse root of `head_dim`.
    pub scale: f32,
    /// A query sees only the last so many positions, itself included.
    pub window: Option<usize>,
    /// How positions enter.
    pub position: PositionEncoding,
    /// Normalization of queries and keys per head (Qwen3).
    pub head_norm: Option<NormConfig>,
    /// `cap * tanh(score / cap)` (Gemma 2).
    pub soft_cap: Option<f32>,
}

/// How positions enter attention.
#[derive(Debug, Clone, PartialEq)]
pub enum PositionEncoding {
    /// Rotary embedding.
    Rope(RopeConfig),
    /// A linear penalty on distance, one slope per head (ALiBi, arXiv:2108.12409).
    Alibi(Vec<f32>),
    /// None here: learned positions were added to the embeddings, or there are none.
    None,
}

/// The feed-forward part of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct MlpConfig {
    /// Inner width (of one expert).
    pub intermediate_size: usize,
    /// The nonlinearity.
    pub activation: Activation,
    /// Whether a gate multiplies the activated half (SwiGLU).
    pub gated: bool,
    /// Mixture of experts.
    pub experts: Option<ExpertsConfig>,
}

/// Mixture of experts (Mixtral).
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertsConfig {
    /// Experts in the layer.
    pub count: usize,
    /// Experts per token.
    pub per_token: usize,
    /// Whether the chosen experts' weights are scaled to add up to 1.
    pub normalize: bool,
}

/// A normalization layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormConfig {
    /// Root mean square, or mean and variance.
    pub kind: NormKind,
    /// Added under the root.
    pub epsilon: f32,
}

/// The kind of a normalization layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square (arXiv:1910.07467).
    Rms,
    /// Mean and variance.
    Layer,
}

/// Where the normalization layers of a block stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlace {
    /// Before the block.
    Before,
    /// After the block, before it is added (OLMo 2).
    After,
    /// Both (Gemma 2).
    Both,
}

/// How attention and feed-forward join the residual stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Residual {
    /// Attention first, then feed-forward on the sum.
    Serial,
    /// Both read the same input and are added together (GPT-NeoX, Falcon). When the layer has only one
    /// normalization, both blocks share it.
    Parallel,
    /// Attention first, each block's output added to so many times the block's normalized input, which becomes the
    /// residual stream (ChatGLM-6B: the root of twice the number of layers).
    Normed(f32),
}

/// The output head.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadConfig {
    /// Whether the head is the embedding table itself.
    pub tied: bool,
    /// `cap * tanh(logit / cap)`.
    pub soft_cap: Option<f32>,
    /// Factor on the logits.
    pub scale: f32,
    /// Whether the head's rows are scaled to unit length (Baichuan 2).
    pub normalized: bool,
}

/// A group of layers whose caches have the same shape and lifetime. Each group has its own block table, so that
/// layers with a window free their old blocks while the others keep theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheGroup {
    /// Indices of its layers.
    pub layers: Vec<usize>,
    /// The window of all its layers.
    pub window: Option<usize>,
    /// Floats of keys plus values per token over all layers of the group.
    pub floats_per_token: usize,
}

impl DecoderConfig {
    /// The cache groups: one for layers without window, one per distinct window. The order is that of first use.
    #[must_use]
    pub fn cache_groups(&self) -> Vec<CacheGroup> {
        let mut groups: Vec<CacheGroup> = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let attention = &layer.attention;
            let floats = 2 * attention.kv_heads * attention.head_dim;
            match groups.iter_mut().find(|group| group.window == attention.window) {
                Some(group) => {
                    group.layers.push(index);
                    group.floats_per_token += floats;
                }
                None => groups.push(CacheGroup {
                    layers: vec![index],
                    window: attention.window,
                    floats_per_token: floats,
                }),
            }
        }
        groups
    }

    /// Numbers per token in `positions`: 2 for two-dimensional rope, else 1.
    #[must_use]
    pub fn position_width(&self) -> usize {
        let two = self.layers.iter().any(
            |layer| matches!(&layer.attention.position, PositionEncoding::Rope(rope) if rope.two_dimensional),
        );
        if two { 2 } else { 1 }
    }
}
