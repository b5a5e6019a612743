//! Packed weights of one layer.

use std::sync::{Arc, Mutex, PoisonError};

use byzerllm_kernels::{
    Activation, AttentionShape, CacheType, Compute, KernelError, Matrix, ProductInput, RowNorm, Scratch,
    TensorView, Turn, layer_norm, rms_norm, rms_norm_heads,
};

use super::balance::key_balance;
use crate::config::{LayerConfig, NormConfig, NormKind, PositionEncoding};
use crate::decoder_weights::{LayerWeights, LinearWeights, MlpWeights, NormWeights};
use crate::quantize;

/// `y = x Wᵀ + b`.
pub(super) struct Linear {
    pub(super) matrix: Matrix,
    bias: Option<Vec<f32>>,
    /// Sums of the squares of each input, where somebody wants to know them.
    squares: Option<Mutex<Vec<f64>>>,
}

impl Linear {
    pub(super) fn pack(
        turn: &Turn<'_>,
        weights: &LinearWeights<'_>,
        compute: Compute,
    ) -> Result<Self, KernelError> {
        Self::pack_with(turn, weights, compute, Matrix::pack)
    }

    /// Gate and up, so that [`Linear::apply_gated`] can be used where they have a matrix each.
    fn pack_gated(
        turn: &Turn<'_>,
        weights: &LinearWeights<'_>,
        compute: Compute,
    ) -> Result<Self, KernelError> {
        Self::pack_with(turn, weights, compute, Matrix::pack_gated)
    }

    fn pack_with(
        turn: &Turn<'_>,
        weights: &LinearWeights<'_>,
        compute: Compute,
        pack: fn(&Turn<'_>, &[TensorView<'_>], Compute) -> Result<Matrix, KernelError>,
    ) -> Result<Self, KernelError> {
        // Only the matrices of one product are merged with their adapters, or brought into an encoding, at a time.
        let stored = weights.packed_bytes()?;
        let stored = weights.parts.iter().zip(weights.stored_kinds()).zip(stored);
        let merged = stored
            .map(|((part, kind), bytes)| quantize::encoded(turn, part, kind, bytes))
            .collect::<Result<Vec<_>, _>>()?;
        let views = weights
            .parts
            .iter()
            .zip(weights.packed_kinds().zip(&merged))
            .map(|(part, (kind, data))| TensorView::new(kind, part.rows, part.columns, data))
            .collect::<Result<Vec<_>, _>>()?;
        let matrix = pack(turn, &views, compute)?;
        let matrix = match weights.column_order() {
            Some(order) => matrix.with_column_order(Arc::clone(order))?,
            None => matrix,
        };
        Ok(Self { matrix, bias: weights.bias.clone(), squares: None })
    }

    /// `input` `(T, K)` to `output` `(T, N)`, which is resized.
    pub(super) fn apply(&self, turn: &Turn<'_>, input: &[f32], output: &mut Vec<f32>, scratch: &mut Scratch) {
        let tokens = input.len() / self.matrix.cols();
        resize(output, tokens * self.matrix.rows());
        if let Some(squares) = &self.squares {
            let mut squares = squares.lock().unwrap_or_else(PoisonError::into_inner);
            for row in input.chunks_exact(self.matrix.cols()) {
                squares.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value).powi(2));
            }
        }
        self.matrix.apply(turn, input, self.bias.as_deref(), output, scratch);
    }

    /// Whether rows may come rounded: in the order of the columns, and nobody wants to see them as floats.
    pub(super) fn takes_rounded(&self) -> bool {
        self.matrix.keeps_order() && self.squares.is_none()
    }

    /// Like [`Linear::apply`], with rows that are rounded already.
    pub(super) fn apply_input(&self, turn: &Turn<'_>, input: &ProductInput, output: &mut Vec<f32>) {
        resize(output, input.rows() * self.matrix.rows());
        self.matrix.apply_input(turn, input, self.bias.as_deref(), output);
    }

    /// `input` `(T, K)` to the activated input of the next product `(T, N)`.
    pub(super) fn apply_activated(
        &self,
        turn: &Turn<'_>,
        input: &ProductInput,
        activation: Activation,
        output: &mut ProductInput,
    ) {
        self.matrix.apply_activated(turn, input, self.bias.as_deref(), Some(activation), output);
    }

    /// Gate and up of `input` `(T, K)` to the input of the next product `(T, N / 2)`.
    pub(super) fn apply_gated(
        &self,
        turn: &Turn<'_>,
        input: &ProductInput,
        activation: Activation,
        output: &mut ProductInput,
    ) {
        self.matrix.apply_gated(turn, input, self.bias.as_deref(), activation, output);
    }

    /// Sums up the squares of each input from now on.
    pub(super) fn watch(&mut self) {
        self.squares = Some(Mutex::new(vec![0.0; self.matrix.cols()]));
    }

    /// The sums so far.
    pub(super) fn squares(&self) -> Option<Vec<f64>> {
        Some(self.squares.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Sets the length without touching what is there: every user overwrites it.
pub(super) fn resize(buffer: &mut Vec<f32>, length: usize) {
    if buffer.len() > length {
        buffer.truncate(length);
    } else {
        buffer.resize(length, 0.0);
    }
}

/// A normalization layer with its weights.
pub(super) struct Norm {
    config: NormConfig,
    weights: NormWeights,
}

impl Norm {
    pub(super) fn new(config: NormConfig, weights: &NormWeights) -> Self {
        Self { config, weights: weights.clone() }
    }

    /// `input` `(T, D)` to `output` `(T, D)`, which is resized.
    pub(super) fn apply(&self, turn: &Turn<'_>, input: &[f32], output: &mut Vec<f32>) {
        resize(output, input.len());
        let NormWeights { weight, bias } = &self.weights;
        match self.config.kind {
            NormKind::Rms => rms_norm(turn, input, weight, self.config.epsilon, output),
            NormKind::Layer => layer_norm(turn, input, weight, bias.as_deref(), self.config.epsilon, output),
        }
    }

    /// What a kernel needs of it.
    pub(super) fn row_norm(&self) -> RowNorm<'_> {
        let NormWeights { weight, bias } = &self.weights;
        let center = self.config.kind == NormKind::Layer;
        let bias = bias.as_deref().filter(|_| center);
        RowNorm { weight, bias, eps: self.config.epsilon, center }
    }

    /// Normalizes heads of `weight.len()` values in place: `heads` of them from `offset` in every row of `stride`.
    pub(super) fn apply_heads(
        &self,
        turn: &Turn<'_>,
        rows: &mut [f32],
        (stride, offset, heads): (usize, usize, usize),
        buffers: &mut (Vec<f32>, Vec<f32>),
    ) {
        let NormWeights { weight, .. } = &self.weights;
        if self.config.kind == NormKind::Rms {
            return rms_norm_heads(turn, rows, stride, offset, heads, weight, self.config.epsilon);
        }
        let width = heads * weight.len();
        let (gathered, normalized) = buffers;
        gathered.clear();
        for row in rows.chunks_exact(stride) {
            gathered.extend_from_slice(&row[offset..offset + width]);
        }
        self.apply(turn, gathered, normalized);
        for (row, values) in rows.chunks_exact_mut(stride).zip(normalized.chunks_exact(width)) {
            row[offset..offset + width].copy_from_slice(values);
        }
    }
}

/// The feed-forward part of a layer or of one expert.
pub(super) struct Mlp {
    pub(super) up: Linear,
    pub(super) down: Linear,
}

impl Mlp {
    fn pack(
        turn: &Turn<'_>,
        weights: &MlpWeights<'_>,
        gated: bool,
        compute: Compute,
    ) -> Result<Self, KernelError> {
        let pack_up = if gated { Linear::pack_gated } else { Linear::pack };
        Ok(Self {
            up: pack_up(turn, &weights.up, compute)?,
            down: Linear::pack(turn, &weights.down, compute)?,
        })
    }
}

/// One layer, packed.
pub(super) struct Layer {
    pub(super) config: LayerConfig,
    pub(super) attention: AttentionShape,
    /// What evens out the channels of its keys where these are kept as bytes.
    pub(super) key_balance: Option<Vec<f32>>,
    /// Index of its rope among the network's.
    pub(super) rotary: Option<usize>,
    /// Index of its cache group.
    pub(super) cache_group: usize,
    pub(super) attention_norm: Option<Norm>,
    pub(super) attention_post_norm: Option<Norm>,
    pub(super) mlp_norm: Option<Norm>,
    pub(super) mlp_post_norm: Option<Norm>,
    pub(super) qkv: Linear,
    pub(super) query_norm: Option<Norm>,
    pub(super) key_norm: Option<Norm>,
    pub(super) out: Linear,
    pub(super) mlp: Vec<Mlp>,
    pub(super) router: Option<Linear>,
}

impl Layer {
    pub(super) fn pack(
        turn: &Turn<'_>,
        config: &LayerConfig,
        weights: &LayerWeights<'_>,
        (compute, cache): (Compute, CacheType),
        (rotary, cache_group): (Option<usize>, usize),
    ) -> Result<Self, KernelError> {
        let norm =
            |weights: &Option<NormWeights>| weights.as_ref().map(|weights| Norm::new(config.norm, weights));
        let head_norm = |weights: &Option<NormWeights>| {
            weights.as_ref().zip(config.attention.head_norm).map(|(weights, norm)| Norm::new(norm, weights))
        };
        let attention = &config.attention;
        let key_balance = (cache == CacheType::I8).then(|| key_balance(config, weights)).transpose()?;
        Ok(Self {
            key_balance,
            attention: AttentionShape {
                heads: attention.heads,
                kv_heads: attention.kv_heads,
                head_dim: attention.head_dim,
                scale: attention.scale,
                soft_cap: attention.soft_cap,
                window: attention.window,
                alibi_slopes: match &attention.position {
                    PositionEncoding::Alibi(slopes) => Some(slopes.clone()),
                    _ => None,
                },
            },
            config: config.clone(),
            rotary,
            cache_group,
            attention_norm: norm(&weights.attention_norm),
            attention_post_norm: norm(&weights.attention_post_norm),
            mlp_norm: norm(&weights.mlp_norm),
            mlp_post_norm: norm(&weights.mlp_post_norm),
            qkv: Linear::pack(turn, &weights.qkv, compute)?,
            query_norm: head_norm(&weights.query_norm),
            key_norm: head_norm(&weights.key_norm),
            out: Linear::pack(turn, &weights.out, compute)?,
            mlp: weights
                .mlp
                .iter()
                .map(|mlp| Mlp::pack(turn, mlp, config.mlp.gated, compute))
                .collect::<Result<_, _>>()?,
            // Which experts a token goes to must not depend on activation rounding.
            router: weights
                .router
                .as_ref()
                .map(|router| Linear::pack(turn, router, Compute::Exact))
                .transpose()?,
        })
    }

    /// Bytes of its matrices.
    pub(super) fn bytes(&self) -> usize {
        let mlp: usize = self.mlp.iter().map(|mlp| mlp.up.matrix.bytes() + mlp.down.matrix.bytes()).sum();
        let router = self.router.as_ref().map_or(0, |router| router.matrix.bytes());
        self.qkv.matrix.bytes() + self.out.matrix.bytes() + mlp + router
    }
}
