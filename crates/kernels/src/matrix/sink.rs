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
    /// Rows of floats, the first of them being batch row `row`, if all columns of the panel are there: their sums need not
    /// pass through memory.
    ///
    /// # Safety
    /// The row exists.
    pub(super) unsafe fn whole_rows(&self, row: usize) -> Option<WholeRows> {
        let Target::Floats { output, stride, from } = self.target else { return None };
        if self.columns < PANEL || self.bias.is_some_and(|bias| bias.len() < PANEL) {
            return None;
        }
        // SAFETY: promised by the caller.
        let first = unsafe { output.at((row - from) * stride + self.first) };
        Some(WholeRows { first, stride, bias: self.bias.map(<[f32]>::as_ptr) })
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

    /// Writes sixteen sums of a row of floats, the bias added: vector `vector` of the panel.
    ///
    /// # Safety
    /// No other task writes this row of this panel, and it exists.
    #[inline(always)]
    unsafe fn store<L: Lanes>(&self, row: usize, vector: usize, sums: L::F) {
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

/// Rows of floats that take all columns of a panel.
#[derive(Clone, Copy)]
pub(super) struct WholeRows {
    /// The panel's first column of the first row.
    first: *mut f32,
    /// Floats from one row to the next.
    stride: usize,
    /// As many floats as the panel has columns.
    bias: Option<*const f32>,
}

impl WholeRows {
    /// Writes the sums of `ROWS` rows from `row` on, the bias added: vectors `vector..vector + VECTORS` of the panel.
    ///
    /// # Safety
    /// The rows exist, and no other task writes them.
    #[inline(always)]
    #[expect(
        clippy::needless_range_loop,
        reason = "loops of constant length that keep the sums in registers"
    )]
    pub(super) unsafe fn store<L: Lanes, const ROWS: usize, const VECTORS: usize>(
        self,
        row: usize,
        vector: usize,
        sums: &[[L::F; VECTORS]; ROWS],
    ) {
        // SAFETY: promised by the caller.
        unsafe {
            let to = self.first.add(row * self.stride + vector * LANES);
            let Some(bias) = self.bias else {
                for r in 0..ROWS {
                    for v in 0..VECTORS {
                        L::store(to.add(r * self.stride + v * LANES), sums[r][v]);
                    }
                }
                return;
            };
            for v in 0..VECTORS {
                let bias = L::load(bias.add((vector + v) * LANES));
                for r in 0..ROWS {
                    L::store(to.add(r * self.stride + v * LANES), L::add(sums[r][v], bias));
                }
            }
        }
    }
}
