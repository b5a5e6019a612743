//! A layer whose rows are rounded by the kernels that make them, instead of by the products that read them.
//!
//! The values and their order are those of the general way, so both have the same outcome to the bit, and a step may
//! take either: adapters, for example, want to read floats.

use byzerllm_kernels::{Compute, ProductInput, Turn, add_then_norm};

use super::layer::{Layer, Linear, Norm};
use crate::config::Residual;
use crate::stages::{Stage, stage};

/// Buffers of rounded rows, kept between steps.
pub(super) struct Rounded {
    pub(super) input: ProductInput,
    pub(super) attended: ProductInput,
    inner: ProductInput,
}

impl Rounded {
    pub(super) fn new(compute: Compute) -> Self {
        Self {
            input: ProductInput::new(compute),
            attended: ProductInput::new(compute),
            inner: ProductInput::new(compute),
        }
    }

    /// The stream plus what the last block said, if anything, normalized for the next one.
    pub(super) fn normalize(
        &mut self,
        turn: &Turn<'_>,
        stream: &mut [f32],
        block: (&[f32], f32),
        norm: &Norm,
    ) {
        stage(Stage::Norms);
        add_then_norm(turn, stream, block, norm.row_norm(), &mut self.input);
    }

    /// The feed-forward network of a layer: from the normalized input to `output` `(T, H)`.
    pub(super) fn feed_forward(&mut self, turn: &Turn<'_>, layer: &Layer, output: &mut Vec<f32>) {
        let (config, mlp) = (&layer.config.mlp, &layer.mlp[0]);
        stage(Stage::GateUp);
        if config.gated {
            mlp.up.apply_gated(turn, &self.input, config.activation, &mut self.inner);
        } else {
            mlp.up.apply_activated(turn, &self.input, config.activation, &mut self.inner);
        }
        stage(Stage::Down);
        mlp.down.apply_input(turn, &self.inner, output);
    }
}

/// Whether a layer can go this way: norms before its two parts, one after the other, one feed-forward network.
pub(super) fn suits(layer: &Layer) -> bool {
    let [mlp] = &layer.mlp[..] else { return false };
    let paired = mlp.up.matrix.is_paired() || !layer.config.mlp.gated;
    let linears = [&layer.qkv, &layer.out, &mlp.up, &mlp.down];
    paired
        && layer.router.is_none()
        && layer.config.residual == Residual::Serial
        && layer.attention_norm.is_some()
        && layer.mlp_norm.is_some()
        && linears.into_iter().all(Linear::takes_rounded)
}
