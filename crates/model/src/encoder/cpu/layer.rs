//! Packed weights of one layer.

use byzerllm_kernels::{Activation, Compute, KernelError, LayerNorm, Matrix, ProductInput, TensorView, Turn};

use crate::decoder_weights::{LinearWeights, MatrixPart, NormWeights};
use crate::encoder::{EncoderConfig, EncoderLayerWeights};

/// `y = x Wᵀ + b`.
pub(super) struct Linear {
    pub(super) matrix: Matrix,
    pub(super) bias: Option<Vec<f32>>,
}

impl Linear {
    /// Packs a matrix that must have `rows` output features and `cols` input features.
    pub(super) fn pack(
        turn: &Turn<'_>,
        weights: &LinearWeights<'_>,
        (rows, cols): (usize, usize),
        compute: Compute,
    ) -> Result<Self, KernelError> {
        let found = (
            weights.parts.iter().map(|part| part.rows).sum(),
            weights.parts.first().map_or(0, |part| part.columns),
        );
        let bias = weights.bias.as_ref().map_or(rows, Vec::len);
        if found != (rows, cols) || bias != rows {
            return Err(KernelError::Shape { wanted: (rows, cols), found, bias });
        }
        let merged = weights.parts.iter().map(MatrixPart::merged).collect::<Result<Vec<_>, _>>()?;
        let views = weights
            .parts
            .iter()
            .zip(&merged)
            .map(|(part, data)| TensorView::new(part.packed_kind(), part.rows, part.columns, data))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { matrix: Matrix::pack(turn, &views, compute)?, bias: weights.bias.clone() })
    }

    /// `input` `(T, K)` to `output` `(T, N)`, which is resized.
    pub(super) fn apply(&self, turn: &Turn<'_>, input: &ProductInput, output: &mut Vec<f32>) {
        resize(output, input.rows() * self.matrix.rows());
        self.matrix.apply_input(turn, input, self.bias.as_deref(), output);
    }

    /// `input` `(T, K)` to the input of the next product `(T, N)`.
    pub(super) fn apply_activated(
        &self,
        turn: &Turn<'_>,
        input: &ProductInput,
        activation: Activation,
        output: &mut ProductInput,
    ) {
        self.matrix.apply_activated(turn, input, self.bias.as_deref(), Some(activation), output);
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.matrix.bytes() + self.bias.as_ref().map_or(0, Vec::len) * size_of::<f32>()
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

/// A layer normalization.
pub(super) struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl Norm {
    pub(super) fn new(config: &EncoderConfig, weights: &NormWeights) -> Result<Self, KernelError> {
        let width = config.hidden_size;
        let bias = weights.bias.clone().unwrap_or_else(|| vec![0.0; weights.weight.len()]);
        if weights.weight.len() != width || bias.len() != width || width == 0 {
            let found = (weights.weight.len(), 1);
            return Err(KernelError::Shape { wanted: (width, 1), found, bias: bias.len() });
        }
        Ok(Self { weight: weights.weight.clone(), bias, eps: config.norm_epsilon })
    }

    pub(super) fn view(&self) -> LayerNorm<'_> {
        LayerNorm { weight: &self.weight, bias: &self.bias, eps: self.eps }
    }
}

/// One layer, packed.
pub(super) struct Layer {
    pub(super) qkv: Linear,
    pub(super) out: Linear,
    pub(super) attention_norm: Norm,
    pub(super) up: Linear,
    pub(super) down: Linear,
    pub(super) output_norm: Norm,
}

impl Layer {
    pub(super) fn pack(
        turn: &Turn<'_>,
        config: &EncoderConfig,
        weights: &EncoderLayerWeights<'_>,
        compute: Compute,
    ) -> Result<Self, KernelError> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let width = config.heads * config.head_dim;
        let up = if config.gated { 2 * inner } else { inner };
        Ok(Self {
            qkv: Linear::pack(turn, &weights.qkv, (3 * width, hidden), compute)?,
            out: Linear::pack(turn, &weights.out, (hidden, width), compute)?,
            attention_norm: Norm::new(config, &weights.attention_norm)?,
            up: Linear::pack(turn, &weights.up, (up, hidden), compute)?,
            down: Linear::pack(turn, &weights.down, (hidden, inner), compute)?,
            output_norm: Norm::new(config, &weights.output_norm)?,
        })
    }

    /// The matrices that every token meets.
    pub(super) fn matrices(&self) -> [&Matrix; 4] {
        [&self.qkv.matrix, &self.out.matrix, &self.up.matrix, &self.down.matrix]
    }

    /// The compute path in words.
    pub(super) fn path(&self) -> String {
        self.qkv.matrix.path()
    }

    /// Bytes held by the matrices.
    pub(super) fn bytes(&self) -> usize {
        [&self.qkv, &self.out, &self.up, &self.down].map(Linear::bytes).iter().sum()
    }
}
