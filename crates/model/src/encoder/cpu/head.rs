//! From the states of all tokens to the output row: poolings, dense layers, scaling to unit length.

use byzerllm_kernels::{Activation, Compute, KernelError, Scratch, Turn, activate};

use super::layer::{Linear, resize};
use crate::decoder_weights::LinearWeights;
use crate::encoder::EncoderConfig;
use crate::encoder::config::{HeadActivation, Pooling};

/// The steps after the last layer. Its dense layers see one row per text, so they are computed with floats in every mode.
pub(super) struct Head {
    pooling: Vec<Pooling>,
    dense: Vec<(Linear, HeadActivation)>,
    normalize: bool,
    width: usize,
    pooled: Vec<f32>,
    next: Vec<f32>,
}

impl Head {
    pub(super) fn pack(
        turn: &Turn<'_>,
        config: &EncoderConfig,
        weights: &[LinearWeights<'_>],
    ) -> Result<Self, KernelError> {
        let head = &config.head;
        let mut dense = Vec::with_capacity(weights.len());
        let mut inputs = config.hidden_size * head.pooling.len();
        if weights.len() != head.dense.len() || head.pooling.is_empty() {
            return Err(KernelError::Empty);
        }
        for (layer, weights) in head.dense.iter().zip(weights) {
            let linear = Linear::pack(turn, weights, (layer.outputs, inputs), Compute::Exact)?;
            dense.push((linear, layer.activation));
            inputs = layer.outputs;
        }
        Ok(Self {
            pooling: head.pooling.clone(),
            dense,
            normalize: head.normalize,
            width: config.hidden_size,
            pooled: Vec::new(),
            next: Vec::new(),
        })
    }

    /// Whether only first tokens matter.
    pub(super) fn reads_first_only(&self) -> bool {
        self.pooling.iter().all(|pooling| *pooling == Pooling::Cls)
    }

    /// Bytes held by the matrices.
    pub(super) fn bytes(&self) -> usize {
        self.dense.iter().map(|(linear, _)| linear.bytes()).sum()
    }

    /// Adds a row per text to `output`, from the states `(T, H)` of texts of these lengths.
    pub(super) fn apply(
        &mut self,
        turn: &Turn<'_>,
        states: &[f32],
        lengths: &[usize],
        output: &mut Vec<f32>,
        scratch: &mut Scratch,
    ) {
        self.pooled.clear();
        let mut rest = states;
        for &length in lengths {
            let (text, later) = rest.split_at(length * self.width);
            for pooling in &self.pooling {
                pool(*pooling, text, self.width, &mut self.pooled);
            }
            rest = later;
        }
        for (linear, activation) in &self.dense {
            let rows = self.pooled.len() / linear.matrix.cols();
            resize(&mut self.next, rows * linear.matrix.rows());
            linear.matrix.apply(turn, &self.pooled, linear.bias.as_deref(), &mut self.next, scratch);
            bend(turn, *activation, &mut self.next);
            std::mem::swap(&mut self.pooled, &mut self.next);
        }
        if self.normalize && !lengths.is_empty() {
            let width = self.pooled.len() / lengths.len();
            for row in self.pooled.chunks_exact_mut(width) {
                let length = row.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
                row.iter_mut().for_each(|value| *value /= length);
            }
        }
        output.extend_from_slice(&self.pooled);
    }
}

/// Adds the pooled row of one text, `(length, width)`, to `into`.
fn pool(pooling: Pooling, states: &[f32], width: usize, into: &mut Vec<f32>) {
    let start = into.len();
    into.extend_from_slice(&states[..width]);
    let row = &mut into[start..];
    let length = states.len() / width;
    let mut fold = |with: fn(f32, f32) -> f32| {
        for state in states.chunks_exact(width).skip(1) {
            row.iter_mut().zip(state).for_each(|(row, state)| *row = with(*row, *state));
        }
    };
    match pooling {
        Pooling::Cls => {}
        Pooling::LastToken => row.copy_from_slice(&states[(length - 1) * width..]),
        // What is not a number must not vanish.
        Pooling::Max => fold(|a, b| if a > b || a.is_nan() { a } else { b }),
        Pooling::Mean => {
            fold(|a, b| a + b);
            row.iter_mut().for_each(|value| *value /= length as f32);
        }
        Pooling::MeanSqrtLength => {
            fold(|a, b| a + b);
            row.iter_mut().for_each(|value| *value /= (length as f32).sqrt());
        }
    }
}

fn bend(turn: &Turn<'_>, activation: HeadActivation, values: &mut [f32]) {
    match activation {
        HeadActivation::Identity => {}
        HeadActivation::Tanh => values.iter_mut().for_each(|value| *value = value.tanh()),
        HeadActivation::Relu => activate(turn, values, Activation::Relu),
        HeadActivation::Gelu => activate(turn, values, Activation::Gelu),
        HeadActivation::Sigmoid => values.iter_mut().for_each(|value| *value = 1.0 / (1.0 + (-*value).exp())),
    }
}
