//! Where the sums of a panel go: rows of floats, or the rounded rows that the next product reads.
#![expect(unsafe_code, reason = "output columns are handed to different workers")]

use super::input::InputWriter;
use super::layout::{GROUP, PANEL};
use crate::activation::{self, Activation};
use crate::lanes::{LANES, Lanes};
use crate::memory::Shared;
use crate::norm::{load_some, store_some};

/// What becomes of the sums of a batch.
#[derive(Clone, Copy)]
pub(super) enum Target {
    /// Rows of so many floats, the first of them being row `from` of the batch.
    Floats { output: Shared<f32>, stride: usize, from: usize },
    /// The input of the next product.
    Input { writer: InputWriter, activation: Option<Activation> },
    /// The same, from the sums of this panel times the activation of those of its gate: rows of a panel's width, the first
    /// of them being row `from` of the batch. They become group `group`.
    Gated { writer: InputWriter, activation: Activation, gate: Shared<f32>, from: usize, group: usize },
}

/// Where a panel's sums go.
pub(super) struct Sink<'a> {
    pub(super) target: Target,
    /// Its first output column.
    pub(super) first: usize,
    pub(super) columns: usize,
    pub(super) bias: Option<&'a [f32]>,
}

impl Sink<'_> {
    /// Whether single vectors can be stored. Otherwise a row's whole panel is rounded at once.
    pub(super) fn takes_vectors(&self) -> bool {
        matches!(self.target, Target::Floats { .. })
    }

    /// Writes `count` rows from `row` on, from sums of one panel width each, the bias added.
    ///
    /// # Safety
    /// No other task writes these rows of this panel, they exist, and `sums` has so many rows.
    #[inline(always)]
    pub(super) unsafe fn store_rows<L: Lanes>(&self, row: usize, count: usize, sums: *const f32) {
        for index in 0..count {
            // SAFETY: promised by the caller.
            unsafe {
                let sums = sums.add(index * PANEL);
                let sums = [L::load(sums), L::load(sums.add(LANES))];
                match self.target {
                    Target::Floats { .. } => {
                        self.store::<L>(row + index, 0, sums[0]);
                        self.store::<L>(row + index, 1, sums[1]);
                    }
                    Target::Input { writer, activation } => {
                        let mut values = [self.biased::<L>(0, sums[0]), self.biased::<L>(1, sums[1])];
                        if let Some(activation) = activation {
                            // No closure: it would be compiled without the instructions of `L`.
                            values[0] = activation::apply::<L>(activation, values[0]);
                            values[1] = activation::apply::<L>(activation, values[1]);
                        }
                        writer.store_group::<L>(row + index, self.first / GROUP, values);
                    }
                    Target::Gated { writer, activation, gate, from, group } => {
                        let gate = gate.at((row - from + index) * PANEL);
                        let mut values = [self.biased::<L>(0, sums[0]), self.biased::<L>(1, sums[1])];
                        for (half, value) in values.iter_mut().enumerate() {
                            let gate = activation::apply::<L>(activation, L::load(gate.add(half * LANES)));
                            *value = L::mul(gate, *value);
                        }
                        writer.store_group::<L>(row + index, group, values);
                    }
                }
            }
        }
    }

    /// Writes sixteen sums of a row, the bias added: vector `vector` of the panel. Only where it
    /// [`Sink::takes_vectors`].
    ///
    /// # Safety
    /// No other task writes this row of this panel, and it exists.
    #[inline(always)]
    pub(super) unsafe fn store<L: Lanes>(&self, row: usize, vector: usize, sums: L::F) {
        let first = vector * LANES;
        if let Target::Floats { output, stride, from } = self.target
            && first < self.columns
        {
            let columns = LANES.min(self.columns - first);
            // SAFETY: promised by the caller.
            unsafe {
                let sums = self.biased::<L>(vector, sums);
                let output = output.part((row - from) * stride + self.first + first, columns);
                store_some::<L>(output, 0, sums);
            }
        }
    }

    /// Sums of vector `vector` of the panel with their bias.
    #[inline(always)]
    unsafe fn biased<L: Lanes>(&self, vector: usize, sums: L::F) -> L::F {
        match self.bias {
            // SAFETY: vectors are loaded from slices.
            Some(bias) if vector * LANES < bias.len() => unsafe {
                L::add(sums, load_some::<L>(bias, vector * LANES))
            },
            _ => sums,
        }
    }
}
