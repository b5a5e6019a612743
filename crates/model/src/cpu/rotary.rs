//! Cosine and sine tables of one step, one pair per distinct rope of the network.

use crate::rope::RopeConfig;

/// One distinct rope of a network with its frequencies.
pub(crate) struct Rotary {
    pub(crate) config: RopeConfig,
    frequencies: Vec<f32>,
    attention_factor: f32,
    /// `(T, rotary_dim / 2)`, once per position axis.
    axes: [Table; 2],
}

#[derive(Default)]
struct Table {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotary {
    pub(crate) fn new(config: RopeConfig) -> Self {
        let (frequencies, attention_factor) = config.frequencies();
        Self { config, frequencies, attention_factor, axes: Default::default() }
    }

    /// Fills the tables for the positions `(T, width)` of a step.
    pub(crate) fn prepare(&mut self, positions: &[u32], width: usize) {
        let axes = if self.config.two_dimensional { 2 } else { 1 };
        for (axis, table) in self.axes.iter_mut().enumerate().take(axes) {
            table.cos.clear();
            table.sin.clear();
            for token in positions.chunks_exact(width) {
                let position = token[axis.min(width - 1)] as f32;
                for frequency in &self.frequencies {
                    let (sin, cos) = (position * frequency).sin_cos();
                    table.cos.push(cos * self.attention_factor);
                    table.sin.push(sin * self.attention_factor);
                }
            }
        }
    }

    /// Cosines and sines of one axis, `(T, rotary_dim / 2)` each.
    pub(crate) fn axis(&self, axis: usize) -> (&[f32], &[f32]) {
        (&self.axes[axis].cos, &self.axes[axis].sin)
    }

    pub(crate) fn axes(&self) -> usize {
        if self.config.two_dimensional { 2 } else { 1 }
    }
}
